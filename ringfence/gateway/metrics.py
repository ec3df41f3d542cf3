"""What the gateway measures: live cost per conversation, tokens, durations, refusals.

Through OpenTelemetry where its API is installed (names in `ringfence.telemetry_names`), and as plain counters in
Prometheus' text form, which the service shows on its own listener; no sandbox reaches it. Labels have few values: codes,
tools of the catalog, the last changed conversations.
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ringfence import telemetry_names as names
from ringfence.gateway.ledger import Conversation
from ringfence.gateway.money import NANO, to_usd
from ringfence.gateway.prices import Tokens
from ringfence.invocation import ID_PATTERN

# The last changed conversations only: every name is a time series.
SHOWN = 100
# Upper bounds, in seconds and in US dollars.
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_USD = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10)


class _Histogram:
    """Counts values by upper bounds, in Prometheus' form."""

    def __init__(self, bounds: tuple[float, ...]):
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Counts one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        """labels: written already, ending in a comma."""
        total, lines = 0, []
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels}le="{bound}"}} {total}')
        shown = f"{{{labels.rstrip(',')}}}" if labels else ""
        return [*lines, f"{name}_sum{shown} {self._sum:.9g}", f"{name}_count{shown} {total}"]


class Metrics:
    """Counts in this process; methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._tools: Counter[tuple[str, str]] = Counter()
        self._spent = 0
        self._call_seconds, self._invocation_usd = _Histogram(_SECONDS), _Histogram(_USD)
        self._tool_seconds: defaultdict[str, _Histogram] = defaultdict(lambda: _Histogram(_SECONDS))
        self._instruments = _instruments()

    def call(self, provider: str, tokens: Tokens | None, cost: int, conversation_cost: int, seconds: float) -> None:
        """One call has ended. tokens: None when its whole reservation was spent; cost, conversation_cost: nano-dollars,
        of the call and of its conversation so far."""
        outcome = names.OK if tokens else names.ERROR
        with self._lock:
            self._calls[outcome] += 1
            self._call_seconds.add(seconds)
            self._spent += cost
            if tokens:
                self._tokens.update({"input": tokens.input, "output": tokens.output})
        if not self._instruments:
            return
        common = {"gen_ai.provider.name": provider, "gen_ai.operation.name": "chat"}
        self._instruments[names.CONVERSATION_COST.name].record(float(to_usd(conversation_cost)))
        failed = {} if tokens else {names.ERROR_TYPE: names.OTHER}
        self._instruments[names.MODEL_DURATION.name].record(seconds, common | failed)
        for kind, count in (("input", tokens.input), ("output", tokens.output)) if tokens else ():
            self._instruments[names.TOKEN_USAGE.name].record(count, common | {names.TOKEN_TYPE: kind})

    def tool_called(self, tool: str, outcome: str, seconds: float | None) -> None:
        """A sandbox says that it called a tool. tool: one of its invocation's, or `_OTHER`; seconds: None when it didn't
        say how long. Its word is all there is, so nothing is decided by it."""
        with self._lock:
            self._tools[tool, outcome] += 1
            if seconds is not None:
                self._tool_seconds[tool].add(seconds)
        if self._instruments and seconds is not None:
            failed = {} if outcome == names.OK else {names.ERROR_TYPE: names.OTHER}
            self._instruments[names.TOOL_DURATION.name].record(seconds, {names.TOOL: tool} | failed)

    def closed(self, cost: int) -> None:
        """An invocation has ended. cost: of it alone, in nano-dollars."""
        with self._lock:
            self._invocation_usd.add(cost / NANO)

    def refused(self, code: str) -> None:
        """A request was refused."""
        with self._lock:
            self._refusals[code] += 1
        if self._instruments:
            self._instruments[names.DECISIONS.name].add(1, {names.OUTCOME: names.REFUSED})

    def text(self, conversations: list[Conversation]) -> str:
        """Prometheus' text form, version 0.0.4."""
        with self._lock:
            lines = [
                *_family("ringfence_gateway_calls_total", "counter", "outcome", self._calls),
                *_family("ringfence_gateway_refusals_total", "counter", "code", self._refusals),
                *_family("ringfence_gateway_tokens_total", "counter", "type", self._tokens),
                "# TYPE ringfence_gateway_tool_calls_total counter",
                *(
                    f'ringfence_gateway_tool_calls_total{{tool="{_escaped(tool)}",outcome="{outcome}"}} {count}'
                    for (tool, outcome), count in sorted(self._tools.items())
                ),
                "# TYPE ringfence_gateway_cost_usd_total counter",
                f"ringfence_gateway_cost_usd_total {self._spent / NANO:.9f}",
                "# TYPE ringfence_gateway_call_seconds histogram",
                *self._call_seconds.lines("ringfence_gateway_call_seconds"),
                "# TYPE ringfence_invocation_cost_usd histogram",
                *self._invocation_usd.lines("ringfence_invocation_cost_usd"),
                "# TYPE ringfence_gateway_tool_seconds histogram",
            ]
            for tool, seconds in sorted(self._tool_seconds.items()):
                lines += seconds.lines("ringfence_gateway_tool_seconds", f'tool="{_escaped(tool)}",')
        for name, field in (("spent", "spent_usd"), ("reserved", "reserved_usd"), ("cap", "cap_usd")):
            lines.append(f"# TYPE ringfence_conversation_{name}_usd gauge")
            lines += [
                f'ringfence_conversation_{name}_usd{{conversation="{conversation_label(entry.id)}"}} {getattr(entry, field)}'
                for entry in conversations
            ]
        return "\n".join(lines) + "\n"


def _family(name: str, kind: str, label: str, counts: Counter[str]) -> list[str]:
    return [f"# TYPE {name} {kind}", *(f'{name}{{{label}="{value}"}} {n}' for value, n in sorted(counts.items()))]


def conversation_label(conversation: str) -> str:
    """A conversation as a label: whoever named it may have put a person's name into it."""
    if ID_PATTERN.fullmatch(conversation):
        return conversation
    return f"sha256:{hashlib.sha256(conversation.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _instruments() -> dict[str, Any]:
    """OpenTelemetry's instruments by name; none where its API isn't installed."""
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.metrics") is None:
        return {}
    meter = import_module("opentelemetry.metrics").get_meter("ringfence.gateway")
    histograms = (names.CONVERSATION_COST, names.MODEL_DURATION, names.TOKEN_USAGE, names.TOOL_DURATION)
    made = {metric.name: meter.create_histogram(metric.name, metric.unit) for metric in histograms}
    return made | {names.DECISIONS.name: meter.create_counter(names.DECISIONS.name, names.DECISIONS.unit)}
