"""The deadline and the memory bound of one decision. Passing either ends in "undecided", never in an answer."""

from __future__ import annotations

import time

# How many steps are counted between two looks at the clock.
_STEPS_BETWEEN_LOOKS = 64


class Undecided(Exception):
    """The decision can't be reached; the message says why in one clause."""


class Exhausted(Undecided):
    """Time or memory ran out: nothing more can be tried."""


class Budget:
    """Time and memory left for one decision. deadline_s: seconds from now; memory_mb: for what a search remembers."""

    __slots__ = ("_deadline", "_kept", "_limit", "_memory_mb", "_next_look", "_seconds", "_ticks")

    def __init__(self, deadline_s: float, memory_mb: int):
        self._seconds = deadline_s
        self._deadline = time.monotonic() + deadline_s
        self._memory_mb = memory_mb
        self._limit = memory_mb * 1024 * 1024
        self._kept = 0
        self._ticks = 0
        self._next_look = _STEPS_BETWEEN_LOOKS

    def tick(self, steps: int = 1) -> None:
        """Count steps of work, of some microseconds each. Raises Exhausted when the deadline has passed."""
        self._ticks += steps
        if self._ticks >= self._next_look:
            self._next_look = self._ticks + _STEPS_BETWEEN_LOOKS
            if time.monotonic() > self._deadline:
                raise Exhausted(f"the deadline of {self._seconds:g} s passed")

    def keep(self, size: int) -> None:
        """Count bytes that stay in memory. Raises Exhausted at the bound."""
        self._kept += size
        if self._kept > self._limit:
            raise Exhausted(f"the memory bound of {self._memory_mb} MB was reached")

    def release(self, size: int) -> None:
        """Give back bytes that are no longer kept."""
        self._kept -= size
