"""Puts the control side together: broker, model gateway, access, audit, executor, into one runner.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ringfence.access import decide
from ringfence.audit import TRAIL_FILE, Mirror, Refusals, Trail
from ringfence.broker import Anomaly, Broker
from ringfence.broker.watch import LATE, Events, Watch
from ringfence.catalog.model import Catalog
from ringfence.egress.decisions import Decisions
from ringfence.errors import RingfenceError
from ringfence.gateway import Gateway, upstreams
from ringfence.gateway.ledger import LEDGER_FILE
from ringfence.gateway.scripted import MODEL as SCRIPTED
from ringfence.gateway.serving import serving
from ringfence.gateway.uses import ModelUse
from ringfence.invocation import Invocation, Refusal
from ringfence.names import Names
from ringfence.redaction import Redactor
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.executor import Executor, Report
from ringfence.runner.journal import SqliteJournal
from ringfence.runner.owners import ProcessOwners
from ringfence.runner.pool import WarmPool
from ringfence.runner.ports import Access, Collaborators, Journal, Owners
from ringfence.runner.reaper import Reaped, reap
from ringfence.runner.request import RunnerLimits
from ringfence.runner.rounds import Round, going
from ringfence.runner.threads import in_thread
from ringfence.runner.tracing import Tracing, exported

# Where things lie below a control side's folder.
JOURNAL, SANDBOXES = Path("runner", "journal.sqlite"), Path("sandboxes")

# CloudTrail answers twice a second at most, a page each; at the embedded target the plan says otherwise.
REAP_SECONDS, WATCH_SECONDS = 45.0, 120.0

Address = tuple[str, int]
# Makes the executor once it is known where the gateway listens.
MakeExecutor = Callable[[Address], Executor]
# Runs the egress proxy while the context is open, with its decisions recorded. It is open when the executor is made.
RunEgress = Callable[[Decisions, Report], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a control side is made from.

    folder: of its files; make_executor: given where the gateway listens; make_journal, make_owners: default a file in the
    folder and processes of this machine, for a control side that is alone; secrets: further exact values that no record
    may hold; mirror: gets each audit record too; script: steps of the scripted model; host, port: where the gateway
    listens, port 0 for a free one; warm: sandboxes kept waiting; egress: runs the tools' way out, where the environment
    has none of its own; directory: groups of a user who comes without any, for callers whose word on users is taken;
    events: what credentials are used for, None when nobody can tell; late: how late that comes; reap_seconds,
    watch_seconds: from one pass to the next.
    """

    names: Names
    catalog: Catalog
    folder: Path
    make_broker: Callable[[], Broker]
    make_executor: MakeExecutor
    make_journal: Callable[[], Journal] | None = None
    make_owners: Callable[[], Owners] = ProcessOwners
    mirror: Mirror | None = None
    secrets: Callable[[], Iterable[str]] = tuple
    environ: Mapping[str, str] | None = None
    script: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    warm: int = 0
    max_concurrent: int = 100
    egress: RunEgress | None = None
    directory: Callable[[str], Iterable[str]] | None = None
    events: Events | None = None
    late: timedelta = LATE
    reap_seconds: float = REAP_SECONDS
    watch_seconds: float = WATCH_SECONDS


@dataclass(frozen=True, slots=True)
class ControlSide:
    """A control side that works. folder: of its files; default_model: ``scripted`` with a script, else empty; parts: what
    runner and reaper work with; secrets: every exact value that it knows at the moment."""

    folder: Path
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
    secrets: Callable[[], frozenset[str]]


@dataclass(frozen=True, slots=True)
class _Base:
    """What does not depend on where the gateway listens."""

    trail: Trail
    refusals: Refusals
    redactor: Redactor
    broker: Broker
    gateway: Gateway
    secrets: Callable[[], Iterable[str]]
    tracing: Tracing


@contextmanager
def _base(plan: Plan) -> Iterator[_Base]:
    with exported(os.environ if plan.environ is None else plan.environ) as tracing, _traced(plan, tracing) as base:
        yield base


@contextmanager
def _traced(plan: Plan, tracing: Tracing) -> Iterator[_Base]:
    brokers: list[Broker] = []

    def secrets() -> Iterable[str]:
        keys = (key for upstream in found for key in upstream.secrets())
        return {*plan.secrets(), *keys, *(value for broker in brokers for value in broker.secrets())}

    environ = os.environ if plan.environ is None else plan.environ
    found = upstreams(environ, plan.script)
    redactor = Redactor(secrets)
    trail = Trail(plan.folder / TRAIL_FILE, redactor, mirror=plan.mirror)
    refusals = Refusals(trail)

    def refused(invocation: Invocation | None, refusal: Refusal) -> None:
        user = invocation.user if invocation else ""
        refusals.record(refusal, user=user, tool="model", source="sandbox", invocation=invocation, kind="model.refused")

    def used(invocation: Invocation, use: ModelUse) -> None:
        trail.record("model.called", invocation, **use.fields())
        tracing.model_called(invocation, use)

    (plan.folder / LEDGER_FILE).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    brokers.append(plan.make_broker())
    gateway = Gateway(plan.folder / LEDGER_FILE, found, on_refusal=refused, on_use=used)
    try:
        yield _Base(trail, refusals, redactor, brokers[0], gateway, secrets, tracing)
    finally:
        gateway.stop()


def _access(plan: Plan) -> Access:
    if (known := plan.directory) is None:
        return functools.partial(decide, plan.catalog)
    return lambda user, groups, tools: decide(plan.catalog, user, groups or known(user), tools)


def _parts(plan: Plan, base: _Base, gateway: Address) -> Collaborators:
    return Collaborators(
        names=plan.names,
        access=_access(plan),
        gateway=base.gateway,
        broker=base.broker,
        executor=plan.make_executor(gateway),
        audit=base.trail,
        refusals=base.refusals,
        journal=plan.make_journal() if plan.make_journal else SqliteJournal(plan.folder / JOURNAL),
        owners=plan.make_owners(),
        tracing=base.tracing,
    )


@contextmanager
def collaborators(plan: Plan) -> Iterator[Collaborators]:
    """The parts without a gateway that listens: for reaping and looking, not for running."""
    with _base(plan) as base:
        yield _parts(plan, base, (plan.host, plan.port))


@asynccontextmanager
async def control_side(plan: Plan, report: Report) -> AsyncIterator[ControlSide]:
    """The control side, while the context is open. What killed runners left is reaped first.

    Leaving waits for tasks under way. Raises RingfenceError when a part can't be had.
    """
    with _base(plan) as base:
        async with serving(base.gateway, plan.host, plan.port) as address, _egress(plan, base, report):
            parts = _parts(plan, base, address)
            await _clean(parts, report)
            pool = WarmPool(parts, plan.warm) if plan.warm else None
            model = SCRIPTED if plan.script else ""
            runner = SecureAgentRunner(parts, RunnerLimits(max_concurrent=plan.max_concurrent, model=model), pool)
            try:
                async with going(_rounds(plan, base, runner, report), base.trail, report):
                    yield ControlSide(
                        folder=plan.folder,
                        runner=runner,
                        parts=parts,
                        names=plan.names,
                        catalog=plan.catalog,
                        broker=base.broker,
                        gateway=base.gateway,
                        trail=base.trail,
                        refusals=base.refusals,
                        redactor=base.redactor,
                        default_model=model,
                        secrets=lambda: runner.secrets().union(base.secrets()),
                    )
            finally:
                await asyncio.shield(in_thread(runner.close))
                # Before the listener ends, so that long polls end at once.
                await in_thread(base.gateway.stop)


def _egress(plan: Plan, base: _Base, report: Report) -> AbstractAsyncContextManager[None]:
    if plan.egress is None:
        return contextlib.nullcontext()
    return plan.egress(Decisions(base.trail, base.refusals, base.gateway.invocation), report)


async def _clean(parts: Collaborators, report: Report) -> None:
    """Takes away what killed runners left."""
    _tell_reaped(await reap(parts), report)


def _tell_reaped(reaped: Iterable[Reaped], report: Report) -> None:
    for item in reaped:
        report(f"reaped {item.invocation_id}: {item.why}{''.join(f'; {text}' for text in item.failures)}")


def _rounds(plan: Plan, base: _Base, runner: SecureAgentRunner, report: Report) -> list[Round]:
    """What is done again and again while the control side lives."""

    async def clean() -> None:
        reaped = await runner.reap()
        _tell_reaped(reaped, report)
        if failed := [item for item in reaped if item.failures]:
            raise RingfenceError(f"{len(failed)} could not be taken away whole: {failed[0].failures[0]}")

    def tell(anomaly: Anomaly) -> None:
        fields = {"code": anomaly.kind, "detail": anomaly.detail, "source": anomaly.source, "event": anomaly.event}
        fields |= {"at": anomaly.at.isoformat(), "allowed": anomaly.allowed, "role": anomaly.role_arn}
        fields |= {
            "session": anomaly.session_name,
            "of_invocation": anomaly.invocation_id,
            "resource": anomaly.credential_id,
        }
        base.trail.record("alert.credential", None, **fields)
        report(f"alert: {anomaly.kind}: {anomaly.detail}")

    rounds = [Round("reaping", plan.reap_seconds, clean)]
    if plan.events is not None:
        watch = Watch(base.broker, plan.events, tell, late=plan.late)
        rounds.append(Round("watching", plan.watch_seconds, functools.partial(in_thread, watch.look)))
    return rounds
