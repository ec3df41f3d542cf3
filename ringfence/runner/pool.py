"""Pre-started sandboxes without credentials, each in a unit of its own, that wait at the gateway for one task.

A unit is handed out once, to one task, and is destroyed after it like any other: nothing of one task meets another. What
a waiting sandbox holds is a token that can ask for its assignment and nothing else, until the task's own session is opened
on it. Its wall clock begins anew with the task: the journal gets the task's deadline, the gateway's session ends at it, the
runner stops it, and on Kubernetes the pod's `activeDeadlineSeconds`, set at first to the longest wait plus the longest task,
is lowered to the task's (the API allows lowering alone) before the assignment is given out.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ringfence.invocation import MAX_SECONDS, new_id
from ringfence.runner import executor as names
from ringfence.runner.executor import CPU_MILLIS, MEMORY_MIB, Fit, Unit
from ringfence.runner.manifests import MAX_WARM_SECONDS
from ringfence.runner.ports import Collaborators, Entry
from ringfence.runner.threads import in_thread

# Sandboxes that are started at once: a node pulls and starts only so many without slowing the others down.
STARTS_AT_ONCE = 8
# Between two looks at ages, and after a failed start; doubled with each failure up to the most.
LOOK_SECONDS, RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 1.0, 60.0
# A sandbox about to be too old for a task isn't handed out.
AGE_MARGIN_SECONDS = 15.0


@dataclass(slots=True)
class WarmUnit:
    """A waiting sandbox. made: on the monotonic clock; ended: done as soon as its process is."""

    id: str
    token: str = field(repr=False)
    made: float
    ended: asyncio.Future[object] = field(repr=False)


class WarmPool:
    """Keeps `size` sandboxes waiting. max_age_seconds: after that long a waiting one is replaced (at most 600)."""

    def __init__(self, parts: Collaborators, size: int, max_age_seconds: float = MAX_WARM_SECONDS / 2):
        if not 0 < max_age_seconds <= MAX_WARM_SECONDS - AGE_MARGIN_SECONDS:
            raise ValueError(f"max_age_seconds must be above 0 and at most {MAX_WARM_SECONDS - AGE_MARGIN_SECONDS}")
        if size < 1:
            raise ValueError("size must be at least 1")
        self._parts = parts
        self._size = size
        self._max_age = max_age_seconds
        self._units: deque[WarmUnit] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._wake: asyncio.Event | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._failures = 0

    @property
    def waiting(self) -> int:
        """Sandboxes that could be handed out now."""
        return sum(self._usable(unit) for unit in list(self._units))

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to fill up, in `loop`, which every other method is called in too."""
        self._loop = loop
        loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._keeper is None and not self._closing:
            self._wake = asyncio.Event()
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def take(self, fit: Fit) -> WarmUnit | None:
        """A waiting sandbox, the caller's alone from now on; None when there is none, or the task needs a larger one."""
        if self._closing or fit.cpu_millis > CPU_MILLIS or fit.memory_mib > MEMORY_MIB:
            return None
        # No await up to the return: two tasks never get the same one.
        taken = None
        while self._units and taken is None:
            unit = self._units.popleft()
            if self._usable(unit):
                taken = unit
            else:
                self._spawn(self._discard(unit))
        if taken is not None:
            taken.ended.cancel()
        if self._wake:
            self._wake.set()
        return taken

    async def close(self) -> None:
        """Removes every waiting sandbox and starts no more."""
        self._closing = True
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._discard(unit) for unit in self._units))
        self._units.clear()

    def _usable(self, unit: WarmUnit) -> bool:
        return not unit.ended.done() and time.monotonic() - unit.made < self._max_age

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self) -> None:
        """Replaces what is dead or old and fills up, again and again; after failures with growing pauses."""
        while True:
            for unit in [unit for unit in self._units if not self._usable(unit)]:
                self._units.remove(unit)
                self._spawn(self._discard(unit))
            pause = LOOK_SECONDS
            if self._failures:
                pause = min(RETRY_SECONDS * 2 ** (self._failures - 1), MAX_RETRY_SECONDS)
            missing = self._size - len(self._units) - self._starting
            allowed = STARTS_AT_ONCE - self._starting if not self._failures else 1 - self._starting
            for _ in range(max(0, min(missing, allowed))):
                self._starting += 1
                self._spawn(self._make())
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _make(self) -> None:
        """Starts one sandbox and adds it to those that wait; a failed start is undone and counted."""
        unit_id = new_id()
        expires = datetime.now(UTC) + timedelta(seconds=self._max_age + AGE_MARGIN_SECONDS)
        made = time.monotonic()
        parts = self._parts
        try:
            await in_thread(parts.journal.begin, Entry(unit_id, parts.owners.id, expires, warm=True))
            token = await in_thread(parts.gateway.warm, unit_id, expires)
            variables = {
                names.CREDENTIALS_TOKEN: token,
                names.WARM: "1",
                names.INVOCATION_ID: unit_id,
                names.REGION: parts.names.region,
            }
            # The unit's own deadline bounds wait and task together; the journal's, which the reaper goes by, is exact.
            bound = expires + timedelta(seconds=MAX_SECONDS)
            await parts.executor.warm(Unit(unit_id, parts.owners.id, bound, (), environment=variables), _silent)
        except Exception:
            self._failures += 1
            await self._undo(unit_id)
        else:
            self._failures = 0
            self._units.append(WarmUnit(unit_id, token, made, asyncio.ensure_future(parts.executor.wait(unit_id))))
        finally:
            self._starting -= 1
            # Only success calls for the next look at once: a failure waits its pause out.
            if not self._failures:
                self._wake.set()

    async def _discard(self, unit: WarmUnit) -> None:
        unit.ended.cancel()
        await asyncio.gather(unit.ended, return_exceptions=True)
        await self._undo(unit.id)

    async def _undo(self, unit_id: str) -> None:
        """Takes a unit away. What can't be taken away stays in the journal, for the reaper, and is recorded."""
        parts = self._parts
        failures = []
        for undo in (parts.executor.remove(unit_id), in_thread(parts.gateway.close, unit_id)):
            try:
                await undo
            except Exception as error:
                failures.append(str(error) or type(error).__name__)
        if failures:
            with contextlib.suppress(Exception):
                detail = f"waiting sandbox {unit_id}: {'; '.join(failures)}"
                await in_thread(parts.audit.record, "sandbox.not_removed", None, outcome="failure", detail=detail)
            return
        with contextlib.suppress(Exception):
            await in_thread(parts.journal.end, unit_id)


def _silent(_: str) -> None:
    """Nobody watches a start that no task asked for."""
