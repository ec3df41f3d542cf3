"""`SecureAgentRunner`: one agent task in a sandbox of its own, with credentials of its own, and nothing left of either.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any

from ringfence.broker.session_policy import session_policy
from ringfence.errors import InputError, RingfenceError
from ringfence.invocation import Invocation, Refusal, Result, Status, new_id
from ringfence.runner.executor import ExecutorError, Fit
from ringfence.runner.lifecycle import Lifecycle, Work
from ringfence.runner.pool import WarmPool, WarmUnit
from ringfence.runner.ports import Collaborators, Decision
from ringfence.runner.progress import Progress, State
from ringfence.runner.reaper import Reaped, reap
from ringfence.runner.request import RunnerLimits, TaskRequest, task_request
from ringfence.runner.threads import LoopThread, in_thread, outlast

REFUSED_BUSY, REFUSED_UNFIT, REFUSED_SCOPE = "too_many_invocations", "sandbox_too_small", "scope_not_granted"
# Tool → name → text.
Secrets = dict[str, Mapping[str, str]]
# Part of what a sandbox says about its failure; the rest is in its events.
MAX_ERROR_CHARACTERS = 2000


@dataclass(slots=True)
class _Ticket:
    """A request on its way through the runner's loop. forward: the task that does the steps, once it runs."""

    request: TaskRequest
    id: str
    cancelled: bool = False
    forward: asyncio.Task[None] | None = None
    user: str = field(init=False)

    def __post_init__(self) -> None:
        self.user = self.request.user

    def cancel(self) -> None:
        """Called in the runner's loop."""
        self.cancelled = True
        if self.forward:
            self.forward.cancel()


class SecureAgentRunner:
    """Runs agent tasks, many at once, each in one unit of namespace, fence, credentials and process.

    parts: the control side; limits: see `RunnerLimits`; pool: pre-started sandboxes, or None for cold starts only.
    May be used from any thread and any event loop; its own work happens on a loop in a thread of its own. Close it: that
    waits for what runs and drains the pool. A runner that is killed instead leaves all of that to `ringfence reap`.
    """

    def __init__(self, parts: Collaborators, limits: RunnerLimits | None = None, pool: WarmPool | None = None):
        self._parts = parts
        self._limits = limits or RunnerLimits()
        self._pool = pool
        self._lifecycle = Lifecycle(parts)
        self._loop = LoopThread("ringfence-runner-loop")
        self._slots = asyncio.Semaphore(self._limits.max_concurrent)
        self._waiting = 0
        self._tickets: dict[str, _Ticket] = {}
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._started = self._closing = False

    # Entry points

    def execute_agent_task(
        self, user_id: str, task_prompt: str, allowed_tools: Sequence[str], **options: Any
    ) -> Result:
        """Runs one task to its end and returns how it ended; see `ringfence.runner.request.task_request` for `options`.

        Raises InputError for what can't be a task, RingfenceError when the refusal or the end can't be recorded.
        """
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise RingfenceError("execute_agent_task blocks: inside of asynchronous code, await run() instead")
        ticket = self._ticket(user_id, task_prompt, allowed_tools, options)
        future = asyncio.run_coroutine_threadsafe(self._serve(ticket), self._loop.running())
        try:
            return future.result()
        except KeyboardInterrupt:
            self._loop.call(ticket.cancel)
            future.result()
            raise

    async def run(self, user_id: str, task_prompt: str, allowed_tools: Sequence[str], **options: Any) -> Result:
        """As `execute_agent_task`, awaited. Cancelling the caller cancels the task; the cancellation is raised once all of
        it is cleaned up and recorded."""
        ticket = self._ticket(user_id, task_prompt, allowed_tools, options)
        future = asyncio.run_coroutine_threadsafe(self._serve(ticket), self._loop.running())
        served = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(served)
        except asyncio.CancelledError:
            self._loop.call(ticket.cancel)
            with contextlib.suppress(RingfenceError):
                await outlast(served)
            raise

    async def stream(
        self, user_id: str, task_prompt: str, allowed_tools: Sequence[str], **options: Any
    ) -> AsyncIterator[Progress]:
        """Runs a task and yields every step as it happens; the last one has the result. Leaving the loop cancels the task."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Progress | None] = asyncio.Queue()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, progress)

        task = asyncio.create_task(self.run(user_id, task_prompt, allowed_tools, **{**options, "report": report}))
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (progress := await queue.get()) is not None:
                yield progress
            await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RingfenceError):
                await outlast(task)

    def cancel(self, invocation_id: str) -> bool:
        """Cancels a task; its caller gets a result with status ``cancelled`` after the clean-up. False: no such task."""
        with self._lock:
            ticket = self._tickets.get(invocation_id)
        if ticket is None:
            return False
        self._loop.call(ticket.cancel)
        return True

    def secrets(self) -> frozenset[str]:
        """Exact values that nobody may see: credentials handed out lately, tokens of sandboxes under way."""
        return self._lifecycle.secrets()

    def active(self) -> list[str]:
        """Ids of the tasks that are under way or wait for a place."""
        with self._lock:
            return sorted(self._tickets)

    async def reap(self) -> list[Reaped]:
        """One pass of the reaper beside the tasks, all of which it spares. Raises as `ringfence.runner.reaper.reap` does."""
        future = asyncio.run_coroutine_threadsafe(reap(self._parts, spared=self.active), self._loop.running())
        return await asyncio.wrap_future(future)

    def start(self) -> None:
        """Begins the heartbeat and fills the pool; the first task does it otherwise."""
        with self._starting:
            if self._started:
                return
            # Without a heartbeat nothing may run: anybody would be right to reap it.
            self._parts.owners.start()
            if self._pool:
                self._pool.start(self._loop.running())
            self._started = True

    def close(self) -> None:
        """Refuses new tasks, waits for those under way, drains the pool and ends the heartbeat."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        if self._loop.started:
            asyncio.run_coroutine_threadsafe(self._drain(), self._loop.running()).result()
        self._loop.stop()
        self._parts.owners.close()

    def __enter__(self) -> SecureAgentRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside of the runner's loop

    async def _drain(self) -> None:
        while self._tickets:
            await asyncio.sleep(0.05)
        if self._pool:
            await self._pool.close()

    def _ticket(self, user: str, prompt: str, tools: Sequence[str], options: dict[str, Any]) -> _Ticket:
        request = task_request(user, prompt, tools, options, self._limits)
        ticket = _Ticket(request, request.invocation_id or new_id())
        with self._lock:
            closing = self._closing
            if ticket.id in self._tickets:
                raise RingfenceError(f"invocation {ticket.id} is under way already\n    remedy: leave its id out")
            if not closing:
                self._tickets[ticket.id] = ticket
        if closing:
            raise RingfenceError("the runner is closing and takes no more tasks")
        try:
            self.start()
        except BaseException:
            with self._lock:
                del self._tickets[ticket.id]
            raise
        return ticket

    async def _serve(self, ticket: _Ticket) -> Result:
        began = time.monotonic()
        try:
            return await self._admit(ticket, began)
        finally:
            with self._lock:
                self._tickets.pop(ticket.id, None)

    async def _admit(self, ticket: _Ticket, began: float) -> Result:
        """Refuses, or runs the task as soon as there is a place. Nothing is made before every check has passed."""
        request = ticket.request
        decision = await in_thread(self._parts.access, request.user, request.groups, request.tools)
        refusals = list(decision.refusals)
        fit: Fit | None = None
        if not refusals:
            try:
                fit = self._parts.executor.fit(decision.allowed)
            except ExecutorError as error:
                refusals.append(Refusal(REFUSED_UNFIT, request.tools[0] if request.tools else "", str(error)))
        if not refusals and self._waiting >= self._limits.max_waiting and self._slots.locked():
            text = f"{self._limits.max_concurrent} invocations run and {self._waiting} wait; try again later"
            refusals.append(Refusal(REFUSED_BUSY, "", text))
        if refusals:
            return await self._refused(ticket, refusals, began)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._perform(ticket, decision, fit, began)
        finally:
            self._slots.release()

    def _invocation(self, ticket: _Ticket, unit: WarmUnit | None = None) -> Invocation:
        request, now = ticket.request, datetime.now(UTC)
        return Invocation(
            id=unit.id if unit else ticket.id,
            user=request.user,
            prompt=request.prompt,
            tools=request.tools,
            started=now,
            deadline=now + timedelta(seconds=request.timeout_seconds),
            conversation=request.conversation,
            model=request.model,
        )

    async def _refused(self, ticket: _Ticket, refusals: list[Refusal], began: float) -> Result:
        work = self._nothing(ticket)
        for refusal in refusals:
            await self._lifecycle.refuse(work.invocation, refusal, ticket.request.source)
        work.refusals = refusals
        return await self._ended(work, Status.REFUSED, "; ".join(item.detail for item in refusals), began)

    def _nothing(self, ticket: _Ticket) -> Work:
        """The work of a task for which nothing was made."""
        return Work(
            self._invocation(ticket),
            (),
            Fit(0, 0),
            Decimal(0),
            self._parts.owners.id,
            watch=ticket.request.report,
            redactor=self._lifecycle.redactor,
        )

    async def _prepare(self, invocation: Invocation, ticket: _Ticket, decision: Decision) -> Secrets:
        """The tools' secrets. Raises what still says no before anything is made, or a waiting sandbox taken."""
        for tool in decision.allowed:
            if scope := ticket.request.scopes.get(tool.name):
                try:
                    session_policy(tool, self._parts.names, invocation.deadline, scope)
                except InputError as error:
                    error.refusal = Refusal(REFUSED_SCOPE, tool.name, str(error))
                    raise
        await in_thread(self._parts.gateway.admit, invocation, max_usd=ticket.request.max_usd)
        return {
            tool.name: await in_thread(self._parts.broker.tool_secrets, invocation, tool)
            for tool in decision.allowed
            if tool.secrets
        }

    async def _work(self, ticket: _Ticket, decision: Decision, fit: Fit, secrets: Secrets) -> Work:
        request = ticket.request
        unit = None if request.invocation_id or not self._pool else await self._pool.take(fit)
        invocation = self._invocation(ticket, unit)
        if unit:
            with self._lock:
                self._tickets[unit.id] = self._tickets.pop(ticket.id)
                ticket.id = unit.id
        work = Work(
            invocation=invocation,
            tools=tuple(decision.allowed),
            fit=fit,
            max_usd=request.max_usd,
            owner=self._parts.owners.id,
            source=request.source,
            watch=request.report,
            scopes=request.scopes,
            warm=unit is not None,
            redactor=self._lifecycle.redactor,
            tool_secrets=secrets,
        )
        work.secrets |= {value for held in secrets.values() for value in held.values()}
        if unit:
            work.secrets |= {unit.token}
        return work

    async def _perform(self, ticket: _Ticket, decision: Decision, fit: Fit, began: float) -> Result:
        """Does the steps within the wall clock, then undoes them, whatever happened. Only the steps can be cancelled."""
        nothing, error, secrets = self._nothing(ticket), None, {}
        if not ticket.cancelled:
            try:
                secrets = await self._prepare(nothing.invocation, ticket, decision)
            except Exception as caught:
                error = caught
        if error is not None or ticket.cancelled:
            status, text = _outcome(nothing, error, False, ticket.cancelled)
            if status is Status.REFUSED:
                await self._lifecycle.refuse(nothing.invocation, nothing.refusals[-1], ticket.request.source)
            return await self._ended(nothing, status, text, began)
        work = await self._work(ticket, decision, fit, secrets)
        with self._lifecycle.masking(work):
            return await self._carry_out(ticket, work, began)

    async def _carry_out(self, ticket: _Ticket, work: Work, began: float) -> Result:
        remaining = (work.invocation.deadline - datetime.now(UTC)).total_seconds()
        forward = asyncio.create_task(self._lifecycle.forward(work))
        ticket.forward = forward
        if ticket.cancelled:
            forward.cancel()
        await asyncio.wait({forward}, timeout=max(0.0, remaining))
        timed_out = not forward.done()
        if timed_out:
            forward.cancel()
            await asyncio.wait({forward})
        error = None if forward.cancelled() else forward.exception()
        await self._lifecycle.back(work)
        answer = await in_thread(_redacted, work)
        status, text = _outcome(work, error, timed_out, ticket.cancelled)
        if status is Status.REFUSED:
            await self._lifecycle.refuse(work.invocation, work.refusals[-1], work.source)
        return await self._ended(work, status, text, began, output=answer)

    async def _ended(self, work: Work, status: Status, error: str, began: float, output: str = "") -> Result:
        """Records the end, forgets the invocation and tells the caller."""
        if work.unrecorded:
            status, error = Status.FAILED, "; ".join(filter(None, (error, work.unrecorded)))
        if work.failures:
            status = Status.FAILED
            error = "; ".join([*([error] if error else []), f"clean-up failed: {'; '.join(work.failures)}"])
        error = work.redactor.text(error)[:MAX_ERROR_CHARACTERS]
        result = Result(
            invocation_id=work.id,
            status=status,
            output=output,
            usage=work.usage,
            cost_usd=work.cost_usd,
            audit_id="",
            duration_seconds=time.monotonic() - began,
            refusals=tuple(
                dataclasses.replace(
                    item, subject=work.redactor.text(item.subject), detail=work.redactor.text(item.detail)
                )
                for item in work.refusals
            ),
            error=error,
        )
        audit_id = await in_thread(
            self._parts.audit.record,
            "invocation.ended",
            work.invocation,
            outcome="success" if status is Status.SUCCEEDED else "failure",
            status=status.value,
            detail=error,
            usage=dataclasses.asdict(work.usage),
            cost_usd=str(work.cost_usd),
            clean_up_failures=work.failures,
            duration_seconds=round(result.duration_seconds, 3),
        )
        result = dataclasses.replace(result, audit_id=audit_id)
        self._parts.tracing.ended(work.invocation, status, work.cost_usd)
        if work.begun or work.warm:
            await self._lifecycle.finish(work)
        if work.watch:
            with contextlib.suppress(Exception):
                work.watch(Progress(work.id, "result", State.ENDED, status.value, datetime.now(UTC), result))
        return result


def _redacted(work: Work) -> str:
    """The sandbox's output without secrets, which the broker knows for a while after their end."""
    return work.redactor.text(work.answer.output) if work.answer else ""


def _outcome(work: Work, error: BaseException | None, timed_out: bool, cancelled: bool) -> tuple[Status, str]:
    """How it ended, and the sentence when it did not succeed. The control side's word comes before the sandbox's."""
    if cancelled:
        return Status.CANCELLED, "the task was cancelled"
    if error is not None:
        refusal = getattr(error, "refusal", None)
        if isinstance(refusal, Refusal):
            work.refusals.append(refusal)
            return Status.REFUSED, refusal.detail
        known = isinstance(error, RingfenceError)
        return Status.FAILED, str(error) if known else f"internal error: {type(error).__name__}"
    if work.stopped is not None and work.stopped is not Status.SUCCEEDED:
        return work.stopped, _STOPPED.get(work.stopped, "the model gateway stopped the task")
    if timed_out:
        return Status.TIMED_OUT, _STOPPED[Status.TIMED_OUT]
    if work.answer is None:
        return Status.FAILED, _without_answer(work)
    if work.answer.status == Status.SUCCEEDED.value:
        return Status.SUCCEEDED, ""
    return Status.FAILED, work.answer.error or "the agent says that it failed, without a reason"


_STOPPED = {
    Status.TIMED_OUT: "the task did not end within its time and was stopped",
    Status.BUDGET_EXHAUSTED: "the conversation's budget is spent; start another conversation",
    Status.BREAKER_OPEN: "too many failures in a row; the breaker stopped the task",
}


def _without_answer(work: Work) -> str:
    if work.exit is None:
        return "the sandbox gave no result"
    code = "" if work.exit.code is None else f" (exit code {work.exit.code})"
    last = work.exit.log.strip().splitlines()[-1:] or [""]
    return f"the sandbox ended without a result: {work.exit.reason}{code} {last[0]}".strip()
