"""Rates: one token bucket for each caller, in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

# Callers remembered; the longest silent is forgotten first, and then has a full bucket again.
MAX_CALLERS = 10_000


class Rate:
    """`per_minute` calls for each caller in the long run, `burst` at once. Used from one event loop."""

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic):
        self._per_second = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Takes one call. Returns 0 when it may go ahead, else the seconds to wait."""
        now = self._clock()
        tokens, last = self._buckets.pop(caller, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - last) * self._per_second)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._per_second
