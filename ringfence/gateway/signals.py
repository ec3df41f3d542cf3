"""Values that one thread sets and any event loop waits for: runner and gateway may run in loops of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """A value that is set once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._value: T | None = None
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def set(self, value: T) -> bool:
        """Sets the value and wakes whoever waits; False when it was set before, which stays."""
        with self._lock:
            if self._set:
                return False
            self._set, self._value = True, value
            waiting, self._waiting = self._waiting, []
        for loop, event in waiting:
            _wake(loop, event)
        return True

    @property
    def is_set(self) -> bool:
        """Whether there is a value."""
        return self._set

    @property
    def value(self) -> T | None:
        """The value; None when there is none yet."""
        return self._value

    async def wait(self) -> T:
        """The value, as soon as there is one."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if not self._set:
                self._waiting.append((loop, event))
            else:
                event.set()
        try:
            await event.wait()
        finally:
            with self._lock:
                self._waiting = [entry for entry in self._waiting if entry[1] is not event]
        return self._value  # type: ignore[return-value]


class Log(Generic[T]):
    """A list that grows up to a bound, and that any number of readers follow from its start to its end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._entries: list[T] = []
        self._ended = False
        self._changed: Once[bool] = Once()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: T) -> bool:
        """Appends; False when the log is full or ended."""
        with self._lock:
            if self._ended or len(self._entries) >= self._most:
                return False
            self._entries.append(entry)
            changed, self._changed = self._changed, Once()
        changed.set(True)
        return True

    def end(self) -> None:
        """Nothing is added any more; readers stop when they have read everything."""
        with self._lock:
            self._ended = True
            changed = self._changed
        changed.set(True)

    async def follow(self) -> AsyncIterator[T]:
        """Every entry, in order, waiting for further ones until the log ends."""
        position = 0
        while True:
            with self._lock:
                ready, ended, changed = self._entries[position:], self._ended, self._changed
            for entry in ready:
                yield entry
            position += len(ready)
            if not ready:
                if ended:
                    return
                await changed.wait()


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    # The waiter's loop may have ended meanwhile; then nobody waits.
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        return
