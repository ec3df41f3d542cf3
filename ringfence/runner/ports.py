"""What the runner needs from the rest of the control side, as small protocols; the real parts satisfy them as they are.

Blocking methods are called from threads, many at once. Trust zone: control side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from ringfence.catalog.model import Tool
from ringfence.invocation import Invocation, Refusal, Status, Usage
from ringfence.names import Names
from ringfence.runner.executor import Executor
from ringfence.runner.tracing import NoTracing, Tracing


class Decision(Protocol):
    """Who may use what. `refusals` is empty exactly when every tool asked for is allowed."""

    allowed: tuple[Tool, ...]
    refusals: tuple[Refusal, ...]


# (user, groups of the identity provider, tool names) → decision; `ringfence.access.decide` with its catalog bound.
Access = Callable[[str, Sequence[str], Sequence[str]], Decision]


class SandboxResult(Protocol):
    """What the sandbox says about its task: untrusted. status: ``succeeded`` or ``failed``."""

    output: str
    status: str
    error: str


class SandboxEvent(Protocol):
    """One thing that the sandbox says while it works: untrusted. type: ``tool_call``, ``refusal``, ``progress``, ``log``.
    at: when it arrived."""

    type: str
    data: Mapping[str, Any]
    at: datetime


class Gateway(Protocol):
    """The model gateway's control side: sessions, money, assignments, results."""

    def open(
        self,
        invocation: Invocation,
        assignment: Mapping[str, Any] | None,
        *,
        max_usd: Decimal,
        models: Sequence[str],
    ) -> str: ...

    def model_api(self, model: str) -> str: ...

    def admit(self, invocation: Invocation, *, max_usd: Decimal) -> None: ...

    def warm(self, invocation_id: str, expires: datetime) -> str: ...

    def assign(self, invocation_id: str, assignment: Mapping[str, Any]) -> None: ...

    def result(self, invocation_id: str) -> Awaitable[SandboxResult | None]: ...

    def events(self, invocation_id: str) -> AsyncIterator[SandboxEvent]: ...

    def stopped(self, invocation_id: str) -> Status | None: ...

    def refusals(self, invocation_id: str) -> Sequence[Refusal]: ...

    def close(self, invocation_id: str) -> tuple[Usage, Decimal]: ...

    def expire(self) -> Sequence[str]: ...


class Credential(Protocol):
    """One tool's credentials of one invocation."""

    id: str
    tool: str
    access_key_id: str
    secret_access_key: str
    session_token: str

    def credential_process(self) -> bytes: ...


class LedgerEntry(Protocol):
    """A credential as the broker's ledger knows it."""

    invocation_id: str


class Broker(Protocol):
    """Per-invocation credentials: issued, listed, revoked."""

    def issue(self, invocation: Invocation, tool: Tool, scope: Any = None) -> Credential: ...

    def tool_secrets(self, invocation: Invocation, tool: Tool) -> Mapping[str, str]: ...

    def revoke(self, *, invocation_id: str) -> Any: ...

    def list(self, *, active: bool) -> Sequence[LedgerEntry]: ...

    def prune(self) -> Any: ...

    def secrets(self) -> Sequence[str]: ...


class Audit(Protocol):
    """The audit trail."""

    def record(self, kind: str, invocation: Invocation | None, **fields: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """An invocation that is not finished, as the journal keeps it. deadline: aware, UTC; warm: not bound yet."""

    invocation_id: str
    owner: str
    deadline: datetime
    warm: bool = field(default=False)


class Journal(Protocol):
    """Which invocations are not finished, kept where a killed runner's successor finds it.

    An entry is written before anything of the invocation is made and taken out after everything of it is gone.
    """

    def begin(self, entry: Entry) -> None: ...

    def bind(self, invocation_id: str, deadline: datetime) -> None:
        """A warm invocation got its task: from now on it ends at `deadline`. Raises RingfenceError when it isn't there."""

    def end(self, invocation_id: str) -> None: ...

    def entries(self) -> list[Entry]: ...


class Owners(Protocol):
    """Which runners live. id: this runner's own, a label value."""

    id: str

    def start(self) -> None: ...

    def alive(self, owner: str) -> bool: ...

    def forget_dead(self) -> None: ...

    def close(self) -> None: ...


class RefusalLog(Protocol):
    """Where refused attempts are recorded and clustered."""

    def record(
        self, refusal: Refusal, *, user: str, tool: str, source: str, invocation: Invocation | None, kind: str
    ) -> Any: ...


@dataclass(frozen=True, slots=True)
class Collaborators:
    """The parts of the control side that a runner or a reaper works with."""

    names: Names
    access: Access
    gateway: Gateway
    broker: Broker
    executor: Executor
    audit: Audit
    refusals: RefusalLog
    journal: Journal
    owners: Owners
    tracing: Tracing = field(default_factory=NoTracing)
