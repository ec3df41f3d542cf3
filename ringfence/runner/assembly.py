"""Puts the control side together: broker, model gateway, access, audit, executor, into one runner.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.access import decide
from ringfence.audit import TRAIL_FILE, Refusals, Trail
from ringfence.broker import Broker, SqliteLedger
from ringfence.catalog.model import Catalog
from ringfence.gateway import Gateway, upstreams
from ringfence.gateway.scripted import MODEL as SCRIPTED
from ringfence.gateway.serving import serving
from ringfence.invocation import Invocation, Refusal
from ringfence.names import Names
from ringfence.redaction import Redactor
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.executor import Executor, Report
from ringfence.runner.journal import SqliteJournal
from ringfence.runner.owners import ProcessOwners
from ringfence.runner.pool import WarmPool
from ringfence.runner.ports import Collaborators
from ringfence.runner.reaper import reap
from ringfence.runner.request import RunnerLimits
from ringfence.runner.threads import in_thread

# Where things lie below a control side's folder.
GATEWAY_LEDGER, BROKER_LEDGER = Path("gateway", "ledger.sqlite"), Path("broker", "ledger.sqlite")
JOURNAL, SANDBOXES = Path("runner", "journal.sqlite"), Path("sandboxes")

Address = tuple[str, int]
# Makes the executor once it is known where the gateway listens.
MakeExecutor = Callable[[Address], Executor]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a control side is made from. folder: of its ledgers, journal and trail; sts, iam: boto3 clients with the
    broker's role; secrets: further exact values that no record may hold; script: steps of the scripted model; host, port:
    where the gateway listens, port 0 for a free one; warm: sandboxes that are kept waiting."""

    names: Names
    catalog: Catalog
    folder: Path
    sts: Any
    iam: Any
    make_executor: MakeExecutor
    secrets: Callable[[], Iterable[str]] = tuple
    environ: Mapping[str, str] | None = None
    script: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    warm: int = 0
    max_concurrent: int = 100


@dataclass(frozen=True, slots=True)
class ControlSide:
    """A control side that works. default_model: ``scripted`` with a script, else empty; parts: what runner and reaper
    work with."""

    runner: SecureAgentRunner
    parts: Collaborators
    names: Names
    catalog: Catalog
    broker: Broker
    gateway: Gateway
    trail: Trail
    refusals: Refusals
    redactor: Redactor
    default_model: str


def trail_of(folder: Path, redactor: Redactor) -> Trail:
    """The trail of the control side in `folder`."""
    return Trail(folder / TRAIL_FILE, redactor)


@asynccontextmanager
async def control_side(plan: Plan, report: Report) -> AsyncIterator[ControlSide]:
    """The control side, while the context is open. What killed runners left is reaped first.

    Leaving waits for tasks under way. Raises RingfenceError when a part can't be had.
    """
    brokers: list[Broker] = []

    def secrets() -> Iterable[str]:
        return {*plan.secrets(), *(value for broker in brokers for value in broker.secrets())}

    redactor = Redactor(secrets)
    trail = trail_of(plan.folder, redactor)
    refusals = Refusals(trail)
    ledger = SqliteLedger(plan.folder / BROKER_LEDGER)
    broker = Broker(plan.names, plan.catalog, plan.sts, plan.iam, ledger)
    brokers.append(broker)

    def refused(invocation: Invocation | None, refusal: Refusal) -> None:
        user = invocation.user if invocation else ""
        refusals.record(refusal, user=user, tool="model", source="sandbox", invocation=invocation, kind="model.refused")

    (plan.folder / GATEWAY_LEDGER).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = upstreams(os.environ if plan.environ is None else plan.environ, plan.script)
    gateway = Gateway(plan.folder / GATEWAY_LEDGER, found, on_refusal=refused)
    try:
        async with serving(gateway, plan.host, plan.port) as address:
            parts = Collaborators(
                names=plan.names,
                access=functools.partial(decide, plan.catalog),
                gateway=gateway,
                broker=broker,
                executor=plan.make_executor(address),
                audit=trail,
                refusals=refusals,
                journal=SqliteJournal(plan.folder / JOURNAL),
                owners=ProcessOwners(),
            )
            await _clean(parts, broker, trail, report)
            pool = WarmPool(parts, plan.warm) if plan.warm else None
            runner = SecureAgentRunner(parts, RunnerLimits(max_concurrent=plan.max_concurrent), pool)
            try:
                model = SCRIPTED if plan.script else ""
                yield ControlSide(
                    runner, parts, plan.names, plan.catalog, broker, gateway, trail, refusals, redactor, model
                )
            finally:
                await asyncio.shield(in_thread(runner.close))
    finally:
        await in_thread(gateway.stop)
        ledger.close()


async def _clean(parts: Collaborators, broker: Broker, trail: Trail, report: Report) -> None:
    """Takes away what killed runners left."""
    for item in await reap(parts):
        report(f"reaped {item.invocation_id}: {item.why}{''.join(f'; {text}' for text in item.failures)}")
        outcome = "failure" if item.failures else "success"
        await in_thread(
            trail.record, "unit.reaped", None, resource=item.invocation_id, detail=item.why, outcome=outcome
        )
    await in_thread(broker.prune)
