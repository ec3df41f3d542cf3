"""The life of one invocation as one list of steps, each with what undoes it; whatever happens, all that began is undone.

Order of doing: what is worth most is made last, so that a refusal leaves little to undo. Order of undoing: credentials
first, since they are worth the most to whoever got hold of them; then the sandbox; then its session at the gateway.

Trust zone: control side. Nothing here trusts a word of the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from ringfence.catalog.model import Tool
from ringfence.catalog.runtime import runtime_tools
from ringfence.gateway.tool_models import tool_models
from ringfence.iam.session_grants import needs_credential
from ringfence.invocation import Invocation, Refusal, Status, Usage
from ringfence.redaction import Redactor
from ringfence.runner import executor as names
from ringfence.runner.executor import Exit, Fit, Unit
from ringfence.runner.ports import Collaborators, Entry, SandboxResult
from ringfence.runner.progress import Progress, State, Watch
from ringfence.runner.statements import UNTRUSTED, Statements
from ringfence.runner.threads import in_thread

# A result is posted just before the process ends, and the two travel different ways.
ANSWER_GRACE_SECONDS = 2.0
# What a person is shown of one thing that the sandbox says.
DETAIL_CHARACTERS = 500


@dataclass(slots=True)
class Work:
    """One invocation on its way: what it was given, what was made for it, what came out."""

    invocation: Invocation
    tools: tuple[Tool, ...]
    fit: Fit
    max_usd: Decimal
    owner: str
    source: str = ""
    watch: Watch | None = None
    scopes: Mapping[str, Any] = field(default_factory=dict)
    warm: bool = False
    redactor: Redactor = field(default_factory=Redactor, repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    credentials: dict[str, bytes] = field(default_factory=dict, repr=False)
    tool_secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    token: str = field(default="", repr=False)
    model_api: str = ""
    begun: list[Step] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    exit: Exit | None = None
    answer: SandboxResult | None = None
    stopped: Status | None = None
    refusals: list[Refusal] = field(default_factory=list)
    unrecorded: str = ""
    usage: Usage = field(default_factory=Usage)
    cost_usd: Decimal = Decimal(0)

    @property
    def id(self) -> str:
        """The invocation's id."""
        return self.invocation.id

    def tell(self, step: str, state: State, detail: str = "") -> None:
        """Shows the caller a step. A watcher that fails is not asked again: it must not stop the work."""
        if self.watch is None:
            return
        shown = self.redactor.text(detail)[:DETAIL_CHARACTERS]
        try:
            self.watch(Progress(self.id, step, state, shown, datetime.now(UTC)))
        except Exception:
            self.watch = None


Act = Callable[["Lifecycle", Work], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """name: as progress and audit show it; undone: place in the order of undoing."""

    name: str
    do: Act
    undo: Act | None = None
    undone: int = 0


class Lifecycle:
    """Does the steps of an invocation, and undoes those that began."""

    def __init__(self, parts: Collaborators):
        self.parts = parts
        self._under_way: dict[str, Work] = {}
        # One for all invocations: what one sandbox was given is masked in another's words too.
        self.redactor = Redactor(self.secrets)

    def secrets(self) -> frozenset[str]:
        """Exact values that nobody may see: what the broker handed out lately, and the tokens of sandboxes under way."""
        own = (work.secrets for work in list(self._under_way.values()))
        return frozenset(self.parts.broker.secrets()).union(*own)

    @contextlib.contextmanager
    def masking(self, work: Work) -> Iterator[None]:
        """While it is open, the invocation's secrets are masked wherever this runner shows anything."""
        self._under_way[work.id] = work
        try:
            yield
        finally:
            del self._under_way[work.id]

    async def forward(self, work: Work) -> None:
        """Every step in order. Raises what the first failing one raises."""
        for step in STEPS:
            work.begun.append(step)
            work.tell(step.name, State.BEGIN)
            try:
                with self.parts.tracing.step(work.invocation, step.name):
                    await step.do(self, work)
            except BaseException as error:
                work.tell(step.name, State.FAILED, str(error) or type(error).__name__)
                raise
            work.tell(step.name, State.DONE)

    async def back(self, work: Work) -> None:
        """Undoes what began, half-done steps included. A failure stops none of the others; all are in `work.failures`."""
        # A sandbox that waited stands before any step begins, and is never given back.
        begun = STEPS if work.warm else work.begun
        for step in sorted((step for step in begun if step.undo), key=lambda step: step.undone):
            work.tell(step.name, State.UNDOING)
            try:
                await step.undo(self, work)
            except Exception as error:
                text = work.redactor.text(f"{step.name}: {str(error) or type(error).__name__}")
                work.failures.append(text)
                work.tell(step.name, State.NOT_UNDONE, text)
            else:
                work.tell(step.name, State.UNDONE)

    async def finish(self, work: Work) -> None:
        """Forgets the invocation. One of which something is left stays in the journal, for the reaper."""
        if not work.failures:
            await in_thread(self.parts.journal.end, work.id)

    async def _record(self, work: Work) -> None:
        journal, invocation = self.parts.journal, work.invocation
        if work.warm:
            await in_thread(journal.bind, work.id, invocation.deadline)
        else:
            await in_thread(journal.begin, Entry(work.id, work.owner, invocation.deadline))
        await self._audit(work, "invocation.started", tools=invocation.tools, deadline=invocation.deadline.isoformat())

    async def _open(self, work: Work) -> None:
        # A warm sandbox has its token already; the gateway keeps only its hash and gives none again.
        models = tool_models(work.tools)
        token = await in_thread(self.parts.gateway.open, work.invocation, None, max_usd=work.max_usd, models=models)
        work.model_api = await in_thread(self.parts.gateway.model_api, work.invocation.model)
        if token:
            work.token = token
            work.secrets |= {token}

    async def _close(self, work: Work) -> None:
        gateway = self.parts.gateway
        try:
            work.stopped = await in_thread(gateway.stopped, work.id)
            work.refusals += await in_thread(gateway.refusals, work.id)
        finally:
            work.usage, work.cost_usd = await in_thread(gateway.close, work.id)

    async def _issue(self, work: Work) -> None:
        async with asyncio.TaskGroup() as group:
            for tool in work.tools:
                if needs_credential(tool):
                    group.create_task(self._issue_one(work, tool))
        for tool, held in work.tool_secrets.items():
            await self._audit(work, "secret.handed", tool=tool, names=sorted(held))
            work.tell("credentials", State.DETAIL, f"secrets of {tool}: {', '.join(sorted(held))}")

    async def _issue_one(self, work: Work, tool: Tool) -> None:
        credential = await in_thread(self.parts.broker.issue, work.invocation, tool, work.scopes.get(tool.name))
        work.secrets |= {credential.access_key_id, credential.secret_access_key, credential.session_token}
        work.credentials[tool.name] = credential.credential_process()
        await self._audit(work, "credential.issued", tool=tool.name, resource=credential.id)
        work.tell("credentials", State.DETAIL, f"issued for {tool.name}")

    async def _revoke(self, work: Work) -> None:
        await in_thread(self.parts.broker.revoke, invocation_id=work.id)
        for tool in work.credentials:
            await self._audit(work, "credential.revoked", tool=tool)

    async def _start(self, work: Work) -> None:
        unit = unit_of(work, self.parts.names)

        def report(text: str) -> None:
            work.tell("sandbox", State.DETAIL, text)

        if work.warm:
            await self.parts.executor.bind(unit)
            await in_thread(self.parts.gateway.assign, work.id, assignment_of(work, self.parts.names))
        else:
            await self.parts.executor.start(unit, report)
        await self._audit(work, "sandbox.started", warm=work.warm, executor=self.parts.executor.name)

    async def _remove(self, work: Work) -> None:
        await self.parts.executor.remove(work.id)
        await self._audit(work, "sandbox.removed")

    async def _result(self, work: Work) -> None:
        ended = asyncio.ensure_future(self.parts.executor.wait(work.id))
        answered = asyncio.ensure_future(self.parts.gateway.result(work.id))
        events = asyncio.create_task(self._events(work))
        try:
            await asyncio.wait({ended, answered}, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                await asyncio.wait({answered}, timeout=ANSWER_GRACE_SECONDS)
            if answered.done():
                work.answer = answered.result()
            if work.answer is None:
                work.exit = await ended
            else:
                # The result ends the events; those before it are still on their way into the record.
                await asyncio.wait({events}, timeout=ANSWER_GRACE_SECONDS)
        finally:
            for task in (ended, answered, events):
                task.cancel()
            await asyncio.gather(ended, answered, events, return_exceptions=True)

    async def _events(self, work: Work) -> None:
        """Passes on what the sandbox says of itself, and records it. Losing its stream loses nothing that is relied on;
        what arrived and can't be recorded is a failure of the task."""
        statements = Statements(
            work.redactor,
            functools.partial(self._audit, work),
            lambda refusal: self.refuse(work.invocation, refusal, work.source, "tool.refused", **UNTRUSTED),
            functools.partial(self.parts.tracing.tool_called, work.invocation),
        )
        with contextlib.suppress(Exception):
            async for event in self.parts.gateway.events(work.id):
                text = json.dumps(dict(event.data), default=str, ensure_ascii=False)
                work.tell("sandbox", State.EVENT, f"{event.type} {text}")
                await statements.take(event)
                work.unrecorded = statements.unrecorded

    async def refuse(
        self, invocation: Invocation, refusal: Refusal, source: str, kind: str = "access.refused", **fields: Any
    ) -> None:
        """Records a refused attempt, with more of the record's fields. Raises when it can't be recorded."""
        await in_thread(
            self.parts.refusals.record,
            refusal,
            user=invocation.user,
            tool=refusal.subject,
            source=source,
            invocation=invocation,
            kind=kind,
            **fields,
        )

    async def _audit(self, work: Work, kind: str, **fields: Any) -> None:
        await in_thread(self.parts.audit.record, kind, work.invocation, **fields)


STEPS: tuple[Step, ...] = (
    Step("record", Lifecycle._record),
    Step("session", Lifecycle._open, Lifecycle._close, undone=3),
    Step("credentials", Lifecycle._issue, Lifecycle._revoke, undone=1),
    Step("sandbox", Lifecycle._start, Lifecycle._remove, undone=2),
    Step("result", Lifecycle._result),
)


def unit_of(work: Work, environment: Any) -> Unit:
    """The unit of a task. environment: the Names that its grants are rendered with."""
    invocation = work.invocation
    variables = {
        names.TASK_PROMPT: invocation.prompt,
        names.ALLOWED_TOOLS: ",".join(invocation.tools),
        names.CREDENTIALS_TOKEN: work.token,
        names.MODEL: invocation.model,
        names.MODEL_API: work.model_api,
        names.DEADLINE: invocation.deadline.isoformat(),
        names.INVOCATION_ID: invocation.id,
        names.TOOLS: json.dumps(runtime_tools(work.tools, environment, work.fit.ports)),
        names.REGION: environment.region,
    }
    return Unit(
        invocation_id=invocation.id,
        owner=work.owner,
        deadline=invocation.deadline,
        tools=work.tools,
        cpu_millis=work.fit.cpu_millis,
        memory_mib=work.fit.memory_mib,
        environment=variables,
        credentials={
            **{f"{tool}.json": content for tool, content in work.credentials.items()},
            **{f"{tool}.secrets": json.dumps(dict(held)).encode() for tool, held in work.tool_secrets.items()},
        },
    )


def assignment_of(work: Work, environment: Any) -> dict[str, Any]:
    """What a waiting sandbox is handed at the gateway: task, tools, and the credentials of this invocation."""
    return {
        "prompt": work.invocation.prompt,
        "tools": runtime_tools(work.tools, environment, work.fit.ports),
        "credentials": {tool: json.loads(content) for tool, content in work.credentials.items()},
        "secrets": {tool: dict(held) for tool, held in work.tool_secrets.items()},
        "deadline": work.invocation.deadline.isoformat(),
        "model": work.invocation.model,
        "model_api": work.model_api,
        "invocation": work.id,
        "region": environment.region,
    }
