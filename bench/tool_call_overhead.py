"""What the gate, the budget, masking and events cost per tool call: a call of a tool that does nothing, through the
runtime of the image, in a conversation that is tainted and holds a large trusted text. Bound: 2 ms in the median."""

from __future__ import annotations

import logging
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "runtime-image"))

from agent_runtime import InstrumentedAgentExecutor, Redactor, Tool  # noqa: E402
from agent_runtime.audit import GatewaySink  # noqa: E402
from agent_runtime.declaration import Declaration  # noqa: E402

from bench.report import machine, write_section  # noqa: E402
from ringfence.catalog import load  # noqa: E402
from ringfence.catalog.runtime import runtime_tools  # noqa: E402
from ringfence.names import Names  # noqa: E402

BOUND_MS = 2.0
CALLS = 500
NAMES = Names(prefix="ringfence", environment="bench", account_id="123456789012", region="us-east-1")
SCHEMA = {"type": "object", "properties": {"action": {}, "key": {}}, "additionalProperties": False}
ARGUMENTS = {"action": "read", "key": "published/2026-09.csv"}
# Characters: an ordinary answer, and a large one.
ANSWERS = {"4 KB": 4 << 10, "64 KB": 64 << 10}
TRUSTED_TEXT = 200 << 10


def _executor(answer: str, sink: GatewaySink) -> InstrumentedAgentExecutor:
    told = runtime_tools(load(ROOT / "catalog").tools, NAMES, {})
    # More calls than a minute allows.
    declared = [Declaration.parse({**item, "limits": {"callsPerMinute": 10_000}}) for item in told]
    # Five tools' credentials, of the sizes that STS gives.
    held = [
        value
        for _ in range(5)
        for value in (secrets.token_hex(10), secrets.token_urlsafe(30), secrets.token_urlsafe(600))
    ]
    made = InstrumentedAgentExecutor(
        prompt=f"Read {ARGUMENTS['key']} for me.",
        allowed_tools=["s3-report-reader"],
        declarations=declared,
        redactor=Redactor(held),
        sink=sink,
    )
    made.register(Tool("s3-report-reader", "Reads reports.", SCHEMA, lambda sent: answer))
    made.provenance.trusted("north,10 south,20 " * (TRUSTED_TEXT // 18))
    made.saw_untrusted("Some page that was read before.")
    return made


def _times(call: Callable[[], object]) -> list[float]:
    for _ in range(20):
        call()
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1000)
    return sorted(taken)


def _row(name: str, taken: list[float]) -> str:
    return f"| {name} | {statistics.median(taken):.3f} | {taken[int(len(taken) * 0.99)]:.3f} |"


def main() -> int:
    """Measure and write the section. Returns 1 when the bound is missed."""
    logging.disable(logging.CRITICAL)
    sink = GatewaySink(lambda events: None, str)
    rows, medians = [], []
    for name, size in ANSWERS.items():
        made = _executor(("region,sales\nnorth,10\n" * size)[:size], sink)

        def call(made: InstrumentedAgentExecutor = made) -> None:
            # A model's reservation and settlement go with each tool call.
            with made.model_call("scripted", 8 << 10, 1) as reserved:
                reserved.used(1, 1)
            if not made.call("s3-report-reader", ARGUMENTS).ok:
                raise AssertionError("the call was refused: nothing was measured")

        taken = _times(call)
        rows.append(_row(f"answer of {name}", taken))
        medians.append(statistics.median(taken))
    refused = _executor("", sink)

    def refuse() -> None:
        refused.tool_breaker.succeeded()
        if refused.call("s3-report-reader", {**ARGUMENTS, "key": "published/other.csv"}).code != "argument_tainted":
            raise AssertionError("the call was not refused: nothing was measured")

    rows.append(_row("refused", _times(refuse)))
    sink.close()
    met = medians[0] <= BOUND_MS
    lines = [
        f"{machine()}. {CALLS} calls each, one after the other; the tool itself does nothing. Gate, taint over "
        f"{TRUSTED_TEXT >> 10} KB of trusted text, reserve and settle, masking with the credentials of five tools, injection "
        f"score, thread of the time limit, audit event.",
        "",
        "| call | p50 ms | p99 ms |",
        "|---|---|---|",
        *rows,
        "",
        f"- {'met' if met else 'MISSED'}: median {medians[0]:.2f} ms for an answer of 4 KB (bound {BOUND_MS} ms)",
    ]
    write_section("Tool call: gate, budget, masking", lines)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
