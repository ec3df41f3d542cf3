"""Who may talk to the gateway: one token for one invocation, until its deadline.

Tokens have 256 random bits; only their SHA-256 is kept, and compared in constant time. Trust zone: control side.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ringfence.gateway.limits import Breaker, Limits, Rate
from ringfence.gateway.signals import Log, Once
from ringfence.invocation import Invocation, Refusal, Status

TOKEN_BYTES = 32
# Refusals of one session that are recorded; a loop would only repeat them.
MOST_REFUSALS = 100


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What the sandbox says came out; untrusted. status: ``succeeded`` or ``failed``."""

    output: str = field(repr=False)
    status: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """What the sandbox says it did; untrusted. type: ``tool_call``, ``model_call``, ``refusal``, ``progress``
    or ``log``; data: the rest."""

    type: str
    data: Mapping[str, Any] = field(repr=False)
    at: datetime


class Session:
    """One invocation's state in memory. invocation: None while it is warm. A killed gateway forgets it, and its token
    with it; the money lies in the ledger."""

    def __init__(self, invocation_id: str, token_hash: bytes, expires: datetime, limits: Limits):
        self.invocation_id = invocation_id
        self.token_hash = token_hash
        self.expires = expires
        self.limits = limits
        self.invocation: Invocation | None = None
        self.models: frozenset[str] = frozenset()
        self.breaker = Breaker(limits.failures)
        self.calls = Rate(limits.calls_per_minute)
        self.posts = Rate(limits.posts_per_minute)
        self.at_once = 0
        self.bytes_at_once = 0
        self.tool_calls = 0
        self.assignment: Once[Mapping[str, Any]] = Once()
        self.assignment_taken = False
        self.result: Once[SandboxResult | None] = Once()
        self.ended: Once[bool] = Once()
        self.events: Log[SandboxEvent] = Log(limits.events)
        self.refusals: list[Refusal] = []
        self.stopped: Status | None = None

    def bind(self, invocation: Invocation, models: Iterable[str]) -> None:
        """From now on the token is good for this invocation, its model and these."""
        self.models = frozenset({invocation.model, *models})
        self.expires = invocation.deadline
        self.invocation = invocation

    def goes_on(self) -> None:
        """A call fits into the budget again: the one before that didn't was too large, or came beside others."""
        if self.stopped is Status.BUDGET_EXHAUSTED:
            self.stopped = None

    def end(self) -> None:
        """Wakes everybody who waits for something of it."""
        self.ended.set(True)
        self.result.set(None)
        self.events.end()


class Sessions:
    """The open sessions, by invocation and by token. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, Session] = {}
        self._by_hash: dict[bytes, Session] = {}

    def add(self, invocation_id: str, expires: datetime, limits: Limits) -> tuple[Session, str]:
        """A new session and its token, which nobody can read out of it. Raises ValueError for an id that is taken."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session = Session(invocation_id, _hash(token), expires, limits)
        with self._lock:
            if invocation_id in self._by_id:
                raise ValueError(f"invocation {invocation_id} has a session")
            self._by_id[invocation_id] = session
            self._by_hash[session.token_hash] = session
        return session, token

    def of(self, invocation_id: str) -> Session | None:
        """The session of an invocation."""
        with self._lock:
            return self._by_id.get(invocation_id)

    def by_token(self, token: str) -> Session | None:
        """The session that a token opens. The look-up is by the hash of a random token, so its time says nothing."""
        presented = _hash(token)
        with self._lock:
            session = self._by_hash.get(presented)
        return session if session is not None and hmac.compare_digest(session.token_hash, presented) else None

    def remove(self, invocation_id: str) -> Session | None:
        """Forgets a session and ends it; its token is worth nothing from here on."""
        with self._lock:
            session = self._by_id.pop(invocation_id, None)
            if session is not None:
                self._by_hash.pop(session.token_hash, None)
        if session is not None:
            session.end()
        return session

    def expired(self, now: datetime) -> list[str]:
        """Ids of sessions past their time."""
        with self._lock:
            return [session.invocation_id for session in self._by_id.values() if session.expires <= now]


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
