"""Takes away what a killed or stuck runner left: units, credentials, sessions. Anyone may run it, any number of times.

An invocation is reaped when its deadline has passed, when its deadline can't be read, or when its owner doesn't live; one
of a living owner within its time is never touched, nor is one that the caller's own process has under way. Credentials
are revoked first.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ringfence.errors import RingfenceError
from ringfence.runner.executor import Leftover
from ringfence.runner.ports import Collaborators, Entry
from ringfence.runner.threads import in_thread

# A runner that is alive gets this long after the deadline for its own clean-up.
GRACE_SECONDS = 60.0
REAPED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Found:
    """One invocation that somebody knows of. deadline: None when it can't be read."""

    invocation_id: str
    owner: str
    deadline: datetime | None


@dataclass(frozen=True, slots=True)
class Reaped:
    """One invocation that was taken away. why: one sentence; failures: what could not be taken away, and why."""

    invocation_id: str
    why: str
    failures: tuple[str, ...] = ()


async def reap(
    parts: Collaborators,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    spared: Callable[[], Collection[str]] = tuple,
) -> list[Reaped]:
    """One pass. Returns what was taken away, failures included; raises only when it can't be known what there is.

    spared: ids that this process has under way and cleans up itself.
    """
    left_alone = set(spared())
    # Credentials are listed before the journal: whoever has one then is in the journal by now, or is finished.
    credentials = await in_thread(parts.broker.list, active=True)
    entries = await in_thread(parts.journal.entries)
    units = await parts.executor.leftovers()
    found = _joined(entries, units)
    doomed: dict[str, str] = {}
    now = clock()
    for item in found.values():
        if why := await _why(parts, item, now):
            doomed[item.invocation_id] = why
    stray = {item.invocation_id for item in credentials} - set(found)
    if stray:
        # Those that ended while this looked have revoked their own by now.
        for credential in await in_thread(parts.broker.list, active=True):
            if credential.invocation_id in stray:
                doomed[credential.invocation_id] = "its credentials belong to no invocation"
    # Also those that ended, or began, while this looked.
    for invocation_id in left_alone.union(spared()):
        doomed.pop(invocation_id, None)
    slots = asyncio.Semaphore(REAPED_AT_ONCE)

    async def one(invocation_id: str, why: str) -> Reaped:
        async with slots:
            return await _take_away(parts, invocation_id, why)

    reaped = await asyncio.gather(*(one(*item) for item in sorted(doomed.items())))
    # What is over by its own time: reservations, sessions, entries whose revocation was cut off, heartbeats.
    await in_thread(parts.gateway.expire)
    await in_thread(parts.broker.prune)
    await in_thread(parts.owners.forget_dead)
    return list(reaped)


def _joined(entries: list[Entry], units: list[Leftover]) -> dict[str, Found]:
    """By id. The journal's deadline is the exact one; a unit that the journal doesn't know has only its own."""
    found = {unit.invocation_id: Found(unit.invocation_id, unit.owner, unit.deadline) for unit in units}
    return found | {entry.invocation_id: Found(entry.invocation_id, entry.owner, entry.deadline) for entry in entries}


async def _why(parts: Collaborators, item: Found, now: datetime) -> str:
    """Why an invocation is to be taken away; empty when it isn't."""
    if item.deadline is None:
        return "its deadline can't be read"
    if item.deadline + timedelta(seconds=GRACE_SECONDS) <= now:
        return f"its deadline {item.deadline.isoformat(timespec='seconds')} has passed"
    # This process lives, whatever its heartbeat says.
    if item.owner != parts.owners.id and not await in_thread(parts.owners.alive, item.owner):
        return f"its owner {item.owner} is dead"
    return ""


async def _take_away(parts: Collaborators, invocation_id: str, why: str) -> Reaped:
    """Credentials, unit, session, record, journal: each also when another can't be taken away."""
    failures: list[str] = []
    for name, act in (
        ("credentials", lambda: in_thread(parts.broker.revoke, invocation_id=invocation_id)),
        ("sandbox", lambda: parts.executor.remove(invocation_id)),
        ("session", lambda: in_thread(parts.gateway.close, invocation_id)),
    ):
        try:
            await act()
        except Exception as error:
            failures.append(f"{name}: {str(error) or type(error).__name__}")
    outcome = "failure" if failures else "success"
    detail = "; ".join([f"{invocation_id}: {why}", *failures])
    try:
        await in_thread(parts.audit.record, "unit.reaped", None, outcome=outcome, resource=invocation_id, detail=detail)
        if not failures:
            await in_thread(parts.journal.end, invocation_id)
    except RingfenceError as error:
        failures.append(f"record: {error}")
    return Reaped(invocation_id, why, tuple(failures))
