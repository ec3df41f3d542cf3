"""What our own code adds to an invocation: everything but the sandbox and AWS's answers. Bound: 50 ms at the median.

    python -m bench.runner_overhead [--invocations 200] [--at-once 8]

Access decision, journal, gateway session and ledger, broker with its ledger, audit trail with a flush to the disk for each
record, redaction, undoing, and the threads and event loop around them, as in production. The sandbox is a task in this
process that posts its result to the served gateway as a real one does; what it takes is subtracted, as is the time that
the broker's calls wait for the embedded AWS, which stands in for a network.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from bench.report import machine, write_section
from ringfence import access
from ringfence.audit import Refusals, Trail
from ringfence.broker import Broker, SqliteLedger
from ringfence.catalog.loader import load
from ringfence.catalog.model import Catalog, Tool
from ringfence.gateway import Gateway
from ringfence.gateway.scripted import Scripted
from ringfence.gateway.scripted import load as load_script
from ringfence.gateway.serving import serving
from ringfence.iam.tool_documents import broker_role_name
from ringfence.invocation import Result, Status
from ringfence.local import operator_key
from ringfence.names import Names
from ringfence.runner import executor as variables
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.executor import Exit, Fit, Leftover, Report, Unit
from ringfence.runner.journal import SqliteJournal
from ringfence.runner.owners import ProcessOwners
from ringfence.runner.ports import Collaborators
from tests.aws_roles import make_roles

ROOT = Path(__file__).resolve().parents[1]
NAMES = Names("ringfence", "bench", "123456789012", "us-east-1")
BOUND_MS = 50.0
VARIANTS: dict[str, tuple[str, ...]] = {
    "no tool": (),
    "a tool without credentials": ("web-fetch",),
    "a tool with credentials": ("s3-report-reader",),
}


class Stopwatch:
    """Seconds spent elsewhere, by invocation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, invocation_id: str, seconds: float) -> None:
        """Counts seconds of one invocation."""
        with self._lock:
            self.seconds[invocation_id] = self.seconds.get(invocation_id, 0.0) + seconds


class NoSandbox:
    """An `Executor` whose sandbox is a task here: it posts its result to the gateway and is gone."""

    name = "none"

    def __init__(self, url: str, sandbox: Stopwatch):
        self._url = url
        self._sandbox = sandbox
        self._running: dict[str, asyncio.Task[None]] = {}
        self._client: httpx.AsyncClient | None = None

    def fit(self, tools: Sequence[Tool]) -> Fit:
        """The same for all."""
        return Fit(
            variables.CPU_MILLIS, variables.MEMORY_MIB, {tool.name: 15001 for tool in tools if tool.egress.domains}
        )

    async def start(self, unit: Unit, report: Report) -> None:
        """Begins the task."""
        self._client = self._client or httpx.AsyncClient(base_url=self._url, timeout=30)
        self._running[unit.invocation_id] = asyncio.create_task(self._post(unit))

    async def _post(self, unit: Unit) -> None:
        began = time.perf_counter()
        headers = {"Authorization": f"Bearer {unit.environment[variables.CREDENTIALS_TOKEN]}"}
        result = {"output": "done", "status": "succeeded", "error": ""}
        answer = await self._client.post("/v1/result", json=result, headers=headers)
        answer.raise_for_status()
        self._sandbox.add(unit.invocation_id, time.perf_counter() - began)

    async def wait(self, invocation_id: str) -> Exit:
        """When the task is over."""
        await asyncio.shield(self._running[invocation_id])
        return Exit(0, "Completed")

    async def remove(self, invocation_id: str) -> None:
        """Nothing is left."""
        if task := self._running.pop(invocation_id, None):
            await task

    async def leftovers(self) -> list[Leftover]:
        """None."""
        return []


class Timed:
    """A boto3 client whose calls are timed, by the thread that makes them."""

    def __init__(self, client: Any, spent: threading.local):
        self._client, self._spent = client, spent

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method):
            return method

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._spent.seconds = getattr(self._spent, "seconds", 0.0) + time.perf_counter() - began

        return call


class TimedBroker(Broker):
    """The broker; what its calls waited for AWS is counted for their invocation."""

    def __init__(self, *args: Any, spent: threading.local, aws: Stopwatch):
        super().__init__(*args)
        self._spent, self._aws = spent, aws

    def issue(self, invocation: Any, tool: Any, scope: Any = None) -> Any:
        """See `Broker.issue`."""
        with self._counted(invocation.id):
            return super().issue(invocation, tool, scope)

    def revoke(self, invocation_id: str = "", credential_id: str = "", reason: str = "completed") -> int:
        """See `Broker.revoke`."""
        with self._counted(invocation_id):
            return super().revoke(invocation_id, credential_id, reason)

    @contextlib.contextmanager
    def _counted(self, invocation_id: str) -> Iterator[None]:
        self._spent.seconds = 0.0
        try:
            yield
        finally:
            self._aws.add(invocation_id, self._spent.seconds)


@contextlib.contextmanager
def embedded_aws(folder: Path, catalog: Catalog) -> Iterator[Callable[[str], Any]]:
    """An embedded AWS in a process of its own with the tools' roles; makes clients with the broker's role."""
    key = {"accessKeyId": "bench", "secretAccessKey": "bench-secret"}
    (folder / operator_key.FILE).write_text(json.dumps(key))
    (folder / operator_key.FILE).chmod(0o600)
    command = [sys.executable, "-m", "ringfence.local.aws_server", "--port", "0", "--home", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        endpoint = json.loads(process.stdout.readline())["endpoint"]

        def make(service: str, access_key: str, secret: str, token: str | None = None) -> Any:
            return boto3.session.Session().client(
                service,
                region_name=NAMES.region,
                endpoint_url=endpoint,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret,
                aws_session_token=token,
                config=Config(max_pool_connections=64),
            )

        operator = functools.partial(make, access_key=key["accessKeyId"], secret=key["secretAccessKey"])
        make_roles(operator("iam"), NAMES, catalog)
        own = operator("sts").assume_role(
            RoleArn=NAMES.iam_arn(f"role/{broker_role_name(NAMES)}"), RoleSessionName="bench"
        )["Credentials"]
        yield lambda service: make(service, own["AccessKeyId"], own["SecretAccessKey"], own["SessionToken"])
    finally:
        process.terminate()
        process.wait(timeout=30)


async def measure(
    folder: Path, clients: Callable[[str], Any], catalog: Catalog, count: int, at_once: int
) -> dict[str, list[float]]:
    """Milliseconds of our own code for each invocation, by variant."""
    script = folder / "script.yaml"
    script.write_text("steps:\n  - say: done\n    repeat: forever\n")
    gateway = Gateway(folder / "gateway.sqlite", [Scripted(load_script(script))])
    sandbox, aws, spent = Stopwatch(), Stopwatch(), threading.local()
    timed = [Timed(clients(service), spent) for service in ("sts", "iam")]
    broker = TimedBroker(NAMES, catalog, *timed, SqliteLedger(folder / "broker.sqlite"), spent=spent, aws=aws)
    trail = Trail(folder / "audit.jsonl")
    taken: dict[str, list[float]] = {}
    async with serving(gateway, "127.0.0.1") as (host, port):
        parts = Collaborators(
            names=NAMES,
            access=functools.partial(access.decide, catalog),
            gateway=gateway,
            broker=broker,
            executor=NoSandbox(f"http://{host}:{port}", sandbox),
            audit=trail,
            refusals=Refusals(trail),
            journal=SqliteJournal(folder / "journal.sqlite"),
            owners=ProcessOwners(),
        )
        runner = SecureAgentRunner(parts)
        slots = asyncio.Semaphore(at_once)

        async def one(tools: Sequence[str]) -> float:
            async with slots:
                began = time.perf_counter()
                result: Result = await runner.run("bench", "hello", tools, groups=["analysts"], model="scripted")
                took = time.perf_counter() - began
            if result.status is not Status.SUCCEEDED:
                raise SystemExit(f"an invocation failed: {result.error}")
            elsewhere = sandbox.seconds[result.invocation_id] + aws.seconds.get(result.invocation_id, 0.0)
            return (took - elsewhere) * 1000

        for variant, tools in VARIANTS.items():
            await asyncio.gather(*(one(tools) for _ in range(at_once)))
            taken[variant] = await asyncio.gather(*(one(tools) for _ in range(count)))
        await asyncio.to_thread(runner.close)
    gateway.stop()
    return taken


def main() -> None:
    """Measures one invocation after the other and several at once, prints, and exits with 1 when the bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--invocations", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    options = parser.parse_args()
    catalog = load(ROOT / "catalog")
    lines = [machine(), "", f"{options.invocations} invocations of each kind; ms of our own code per invocation:", ""]
    lines += ["| | at once | p50 | p90 | p99 |", "|---|---|---|---|---|"]
    medians = []
    for at_once in (1, options.at_once):
        with tempfile.TemporaryDirectory() as name, embedded_aws(Path(name), catalog) as clients:
            taken = asyncio.run(measure(Path(name), clients, catalog, options.invocations, at_once))
        for variant, times in taken.items():
            cuts = statistics.quantiles(times, n=100)
            if at_once == 1:
                medians.append(cuts[49])
            lines.append(f"| {variant} | {at_once} | {cuts[49]:.1f} | {cuts[89]:.1f} | {cuts[98]:.1f} |")
    met = max(medians) <= BOUND_MS
    lines += [
        "",
        f"- {'met' if met else 'MISSED'}: the highest median of one at a time is {max(medians):.1f} ms (bound {BOUND_MS:.0f} ms)",
        "- not counted: the sandbox, and the broker's waiting for the embedded AWS",
    ]
    write_section("What the runner adds to an invocation", lines)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
