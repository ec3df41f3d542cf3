"""Accepts tasks, runs them, tells how they stand, cancels them, and ends without losing one.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from ringfence.errors import RingfenceError
from ringfence.invocation import Result, Status, Usage, new_id
from ringfence.service.identity import Caller
from ringfence.service.metrics import Metrics
from ringfence.service.problems import ApiError
from ringfence.service.store import ACCEPTED, Row, Store

# A task that waited longer, over a restart too, isn't run any more: its caller has given up.
MAX_WAIT_S = 900.0
# Progress kept for each request, and requests whose progress is kept after their end.
MAX_EVENTS, MAX_ENDED = 500, 1000
_log = logging.getLogger("ringfence.service")


class Runner(Protocol):
    """What the desk needs of `ringfence.runner.agent.SecureAgentRunner`."""

    async def run(self, user_id: str, task_prompt: str, allowed_tools: Sequence[str], **options: Any) -> Result: ...

    def cancel(self, invocation_id: str) -> bool: ...


@dataclass(slots=True)
class Ticket:
    """One request in this process. cancelled: by its caller or by the end of the service."""

    id: str
    invocation_id: str = ""
    cancelled: bool = False
    ended: bool = False
    started: bool = False
    count: int = 0
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, event: dict[str, Any]) -> None:
        """Adds an event and wakes who waits. Called in the service's loop."""
        self.count += 1
        self.events.append((self.count, event))
        del self.events[:-MAX_EVENTS]
        self.wake()

    def wake(self) -> None:
        """Wakes who waits."""
        self.changed.set()
        self.changed = asyncio.Event()


def outcome(result: Result) -> dict[str, Any]:
    """A result as JSON."""
    said = dataclasses.asdict(result)
    return said | {"status": result.status.value, "cost_usd": str(result.cost_usd)}


def _without_run(status: Status, error: str) -> dict[str, Any]:
    nothing = Result("", status, "", usage=Usage(), cost_usd=Decimal(0), audit_id="", duration_seconds=0, error=error)
    return outcome(nothing)


class Desk:
    """max_running: tasks at once; max_open: accepted and not ended, above which new ones are refused."""

    def __init__(self, runner: Runner, store: Store, metrics: Metrics, *, max_running: int = 100, max_open: int = 1000):
        self._runner, self._store, self._metrics = runner, store, metrics
        self._slots = asyncio.Semaphore(max_running)
        self._max_open = max_open
        self._open: dict[str, Ticket] = {}
        self._ended: OrderedDict[str, Ticket] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    @property
    def active(self) -> int:
        """Tasks that run."""
        return sum(ticket.started for ticket in self._open.values())

    @property
    def waiting(self) -> int:
        """Tasks that wait for a place."""
        return len(self._open) - self.active

    async def recover(self) -> None:
        """Takes up what an earlier process accepted; what it was running when it was killed has failed."""
        for row in await asyncio.to_thread(self._store.unfinished):
            if row.state != ACCEPTED:
                text = "the service was stopped while the task ran; its sandbox is removed by `ringfence reap`"
                await asyncio.to_thread(self._store.end, row.id, _without_run(Status.FAILED, text))
            elif time.time() - row.accepted > MAX_WAIT_S:
                text = f"the task waited longer than {MAX_WAIT_S:.0f} s; send it again"
                await asyncio.to_thread(self._store.end, row.id, _without_run(Status.CANCELLED, text))
            else:
                self._begin(row)

    async def accept(self, caller: Caller, task: Mapping[str, Any]) -> Row:
        """Writes the task down and runs it as soon as there is a place. Raises ApiError (503) when there is no room."""
        self._check_open()
        request_id = new_id()
        # The place is taken before anything is awaited, so that no crowd gets past the limit.
        self._open[request_id] = Ticket(request_id)
        full = {**task, "groups": list(caller.groups), "source": caller.source}
        try:
            row = await asyncio.to_thread(self._store.accept, request_id, caller.user, full)
        except BaseException:
            del self._open[request_id]
            raise
        self._begin(row)
        return row

    def _check_open(self) -> None:
        if self.draining:
            raise ApiError(
                503, "draining", "the service is about to stop; try again shortly", headers={"Retry-After": "10"}
            )
        if len(self._open) >= self._max_open:
            text = f"{self._max_open} tasks are under way or wait; try again later"
            raise ApiError(503, "busy", text, headers={"Retry-After": "30"})

    def _begin(self, row: Row) -> None:
        ticket = self._open.setdefault(row.id, Ticket(row.id))
        task = asyncio.create_task(self._serve(row, ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, row: Row, ticket: Ticket) -> None:
        try:
            async with self._slots:
                if ticket.cancelled:
                    await self._end(ticket, _without_run(Status.CANCELLED, "the task was cancelled before it started"))
                elif self.draining:
                    # It stays written down; the next process runs it.
                    return
                else:
                    await self._run(row, ticket)
        except RingfenceError as error:
            _log.error("request %s: %s", row.id, type(error).__name__)
            with contextlib.suppress(RingfenceError):
                await self._end(ticket, _without_run(Status.FAILED, str(error)))
        except Exception as error:
            _log.error("request %s: %s", row.id, type(error).__name__)
            with contextlib.suppress(RingfenceError):
                await self._end(ticket, _without_run(Status.FAILED, f"internal error: {type(error).__name__}"))
        finally:
            self._open.pop(row.id, None)
            self._ended[row.id] = ticket
            if len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)
            ticket.ended = True
            ticket.wake()

    async def _run(self, row: Row, ticket: Ticket) -> None:
        task = dict(row.task)
        kept = {key: value for key, value in task.items() if key != "prompt"}
        if not await asyncio.to_thread(self._store.start, row.id, kept):
            return
        ticket.started = True
        loop = asyncio.get_running_loop()

        def report(progress: Any) -> None:
            loop.call_soon_threadsafe(self._progress, ticket, progress)

        prompt, tools = task.pop("prompt"), task.pop("tools")
        result = await self._runner.run(row.user, prompt, tools, **task, report=report)
        self._metrics.ended(result.status.value, result.cost_usd)
        await self._end(ticket, outcome(result))

    def _progress(self, ticket: Ticket, progress: Any) -> None:
        if not ticket.invocation_id and progress.invocation_id:
            ticket.invocation_id = progress.invocation_id
            naming = asyncio.create_task(asyncio.to_thread(self._store.name, ticket.id, progress.invocation_id))
            self._tasks.add(naming)
            naming.add_done_callback(self._tasks.discard)
            if ticket.cancelled:
                self._runner.cancel(ticket.invocation_id)
        ticket.tell(
            {
                "step": progress.step,
                "state": str(progress.state),
                "detail": progress.detail,
                "at": progress.at.isoformat(),
                "invocation_id": progress.invocation_id,
            }
        )

    async def _end(self, ticket: Ticket, result: Mapping[str, Any]) -> None:
        await asyncio.to_thread(self._store.end, ticket.id, result)

    async def find(self, request_id: str, user: str) -> Row:
        """The caller's own request. Raises ApiError (404) for another's too, which must not be told from none."""
        row = await asyncio.to_thread(self._store.find, request_id)
        if row is None or row.user != user:
            raise ApiError(404, "not_found", "there is no such invocation of yours")
        return row

    async def wait(self, request_id: str, seconds: float) -> None:
        """Returns when the request has ended or the time is over."""
        ticket = self._open.get(request_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while ticket and not ticket.ended:
                    await ticket.changed.wait()

    async def cancel(self, row: Row) -> None:
        """Cancels a request; the sandbox is gone when it has ended. Nothing happens when it has ended before."""
        if ticket := self._open.get(row.id):
            self._cancel(ticket)
        elif row.state == ACCEPTED:
            await asyncio.to_thread(self._store.end, row.id, _without_run(Status.CANCELLED, "the task was cancelled"))

    def _cancel(self, ticket: Ticket) -> None:
        ticket.cancelled = True
        if ticket.invocation_id:
            self._runner.cancel(ticket.invocation_id)

    async def watch(self, row: Row, after: int, beat_s: float) -> AsyncIterator[tuple[int, dict[str, Any]] | None]:
        """Every event with a number above `after`; None when there was none for `beat_s` seconds. Ends with the request."""
        ticket = self._open.get(row.id) or self._ended.get(row.id)
        while ticket:
            changed = ticket.changed
            for number, event in list(ticket.events):
                if number > after:
                    after = number
                    yield number, event
            if ticket.ended:
                return
            try:
                await asyncio.wait_for(changed.wait(), beat_s)
            except TimeoutError:
                yield None

    async def drain(self, seconds: float) -> None:
        """Accepts nothing more; gives what runs `seconds` to end, cancels the rest and waits until all is cleaned up.
        What has not started stays written down for the next process."""
        self.draining = True
        deadline = time.monotonic() + seconds
        while self.active and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        for ticket in list(self._open.values()):
            if ticket.started:
                self._cancel(ticket)
        while self._tasks:
            await asyncio.wait(set(self._tasks))
