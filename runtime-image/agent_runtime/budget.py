"""Hard limits of one conversation: money, time, failures in a row, calls per minute. All are safe to share by threads.

Trust zone: sandbox. These give honest agents an early, clear stop; the model gateway on the control side holds the same
limits against code that ignores them.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from agent_runtime.errors import BreakerOpen, BudgetExhausted, DeadlineExceeded

# The mission's numbers: a hard 5-minute timeout, a $10 cap per conversation, a breaker after N failures.
MAX_SECONDS = 300.0
MAX_USD = Decimal(10)
BREAKER_FAILURES = 5
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """Money set aside for one call, in US dollars."""

    usd: Decimal


class Budget:
    """A conversation's money. What is reserved counts as spent until it is settled, so that calls made at once can't
    pass the cap together, and a call that never answers is paid for in full."""

    def __init__(self, max_usd: Decimal = MAX_USD):
        if not Decimal(0) < max_usd <= MAX_USD:
            raise ValueError(f"max_usd {max_usd} | more than 0 and at most {MAX_USD}")
        self.max_usd = max_usd
        self._lock = threading.Lock()
        self._open: set[Reservation] = set()
        self._spent = Decimal(0)

    @property
    def spent_usd(self) -> Decimal:
        """Settled and reserved money together."""
        with self._lock:
            return self._committed()

    def reserve(self, worst_usd: Decimal) -> Reservation:
        """Sets the worst case of a call aside. Raises BudgetExhausted when it doesn't fit, ValueError below 0."""
        if not worst_usd >= 0:
            raise ValueError(f"a worst case of {worst_usd} USD")
        with self._lock:
            left = self.max_usd - self._committed()
            if worst_usd > left:
                raise BudgetExhausted(
                    f"the call may cost ${worst_usd:.4f} and ${max(left, Decimal(0)):.4f} of ${self.max_usd} is left"
                )
            reservation = Reservation(worst_usd)
            self._open.add(reservation)
            return reservation

    def settle(self, reservation: Reservation, usd: Decimal) -> None:
        """Replaces a reservation by what the call cost. A reservation settles once; later settlements do nothing."""
        if not usd >= 0:
            raise ValueError(f"a cost of {usd} USD")
        with self._lock:
            if reservation in self._open:
                self._open.remove(reservation)
                self._spent += usd

    def _committed(self) -> Decimal:
        return self._spent + sum((item.usd for item in self._open), Decimal(0))


class Deadline:
    """The wall clock of a task."""

    def __init__(self, seconds: float = MAX_SECONDS, clock: Clock = time.monotonic):
        self._clock = clock
        self._end = clock() + min(seconds, MAX_SECONDS)

    def remaining(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self._end - self._clock())

    def check(self) -> None:
        """Raises DeadlineExceeded when no time is left."""
        if self.remaining() <= 0:
            raise DeadlineExceeded("the task's wall clock has run out | split the task")


class Breaker:
    """Opens after `failures` calls that failed in a row, refused calls included, and stays open: a task that only fails
    costs money and does nothing."""

    def __init__(self, failures: int = BREAKER_FAILURES):
        if failures < 1:
            raise ValueError(f"a breaker after {failures} failures")
        self._limit = failures
        self._count = 0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises BreakerOpen."""
        with self._lock:
            if self._count >= self._limit:
                raise BreakerOpen(f"{self._count} calls failed in a row | see the refusals and errors before")

    def failed(self) -> None:
        """Counts a failure."""
        with self._lock:
            self._count += 1

    def succeeded(self) -> None:
        """Closes the count, unless the breaker is open already."""
        with self._lock:
            if self._count < self._limit:
                self._count = 0


class Rate:
    """At most `per_minute` calls in any 60 seconds."""

    def __init__(self, per_minute: int, clock: Clock = time.monotonic):
        self._per_minute = per_minute
        self._clock = clock
        self._calls: collections.deque[float] = collections.deque()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Counts a call and returns True, or returns False when the minute is full."""
        with self._lock:
            now = self._clock()
            while self._calls and now - self._calls[0] >= 60:
                self._calls.popleft()
            if len(self._calls) >= self._per_minute:
                return False
            self._calls.append(now)
            return True
