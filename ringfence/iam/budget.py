"""The deadline and the memory bound of one decision. Passing either ends in "undecided", never in an answer."""

from __future__ import annotations

import time

# What one explored state costs at most, measured with tracemalloc on joint automata over 76 long patterns.
BYTES_PER_STATE = 2_048


class Undecided(Exception):
    """The decision can't be reached; the message says why in one clause."""


class Exhausted(Undecided):
    """Time or memory ran out: nothing more can be tried."""


class Budget:
    """Time and memory left for one decision. deadline_s: seconds from now; memory_mb: for explored states."""

    __slots__ = ("_deadline", "_memory_mb", "_seconds", "_states", "_states_left", "_ticks")

    def __init__(self, deadline_s: float, memory_mb: int):
        self._seconds = deadline_s
        self._deadline = time.monotonic() + deadline_s
        self._memory_mb = memory_mb
        self._states_left = memory_mb * 1024 * 1024 // BYTES_PER_STATE
        self._states = 0
        self._ticks = 0

    def tick(self) -> None:
        """Count one step of work. Raises Exhausted when the deadline has passed."""
        self._ticks += 1
        if not self._ticks & 63 and time.monotonic() > self._deadline:
            raise Exhausted(f"the deadline of {self._seconds:g} s passed")

    def state(self) -> None:
        """Count one state kept in memory. Raises Exhausted at the bound."""
        self._states += 1
        if self._states > self._states_left:
            raise Exhausted(f"the memory bound of {self._memory_mb} MB was reached")
        self.tick()

    def release(self, states: int) -> None:
        """Give back states that are no longer kept."""
        self._states -= states
