"""Breaker and rates of one session: money is not the only thing that a loop can use up. Trust zone: control side."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from ringfence.gateway.errors import ApiError
from ringfence.invocation import BREAKER_FAILURES

WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may do. calls_per_minute: model calls; calls_at_once: requests under way; bytes_at_once: of their
    bodies, in memory; failures: model calls failing in a row, and identical calls, that open the breaker; events: kept
    of the sandbox's own statements; posts_per_minute: of events; body_seconds: in which a request's body must arrive."""

    calls_per_minute: int = 60
    calls_at_once: int = 64
    bytes_at_once: int = 64 * 1024 * 1024
    failures: int = BREAKER_FAILURES
    posts_per_minute: int = 240
    events: int = 5000
    body_seconds: float = 30.0


@dataclass(slots=True)
class Rate:
    """At most so many in any sixty seconds."""

    most: int
    _times: deque[float] = field(default_factory=deque)

    def take(self, now: float) -> bool:
        """Counts one at `now` (seconds, any epoch); False when it is one too many, which isn't counted."""
        while self._times and self._times[0] <= now - WINDOW_SECONDS:
            self._times.popleft()
        if len(self._times) >= self.most:
            return False
        self._times.append(now)
        return True


@dataclass(slots=True)
class Breaker:
    """Opens after so many failures in a row, or so many identical calls; stays open: an invocation lasts minutes."""

    most: int
    reason: str = ""
    _failures: int = 0
    _calls: Counter[bytes] = field(default_factory=Counter)

    def check(self) -> None:
        """Raises ApiError when it is open."""
        if self.reason:
            raise ApiError("breaker_open", self.reason)

    def call(self, digest: bytes) -> None:
        """Notes a call. Raises ApiError when the same was made too often: a retry loop."""
        self.check()
        self._calls[digest] += 1
        if self._calls[digest] > self.most:
            self.reason = (
                f"the same call was made more than {self.most} times; the invocation may make no further calls"
            )
            self.check()

    def failed(self) -> None:
        """Notes a failed call."""
        self._failures += 1
        if self._failures >= self.most and not self.reason:
            self.reason = f"{self.most} model calls in a row failed; the invocation may make no further calls"

    def succeeded(self) -> None:
        """Notes a call that did not fail."""
        self._failures = 0
