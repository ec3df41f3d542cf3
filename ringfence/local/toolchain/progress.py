"""Progress of a long set-up: one line when something begins or ends, and a sign of life every 10 seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

# The longest silence, in seconds.
HEARTBEAT_S = 10.0


def duration(seconds: float) -> str:
    """`seconds` for people: ``7s``, ``1m20s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Task:
    """One line of work among several. Threads may set `phase` at any time."""

    def __init__(self, progress: Progress, number: int, title: str):
        self._progress = progress
        self._number = number
        self.title = title
        self.phase = ""
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Prints `text` with the task's number, title and elapsed time."""
        elapsed = duration(time.monotonic() - self._started)
        self._progress.write(f"[{self._number}/{self._progress.total}] {self.title}: {text}, {elapsed}")


class Progress:
    """Prints what running tasks do. Use as a context manager; `report` gets one line at a time."""

    def __init__(self, total: int, report: Callable[[str], None], heartbeat_s: float = HEARTBEAT_S):
        self.total = total
        self._report = report
        self._heartbeat_s = heartbeat_s
        self._lock = threading.Lock()
        self._running: list[Task] = []
        self._count = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def write(self, line: str) -> None:
        """Prints one line; lines of several threads don't mix."""
        with self._lock:
            self._report(line)

    def begin(self, title: str) -> Task:
        """Starts a task; it shows in every sign of life until `end`."""
        with self._lock:
            self._count += 1
            task = Task(self, self._count, title)
            self._running.append(task)
        return task

    def end(self, task: Task) -> None:
        """The task shows no more."""
        with self._lock:
            self._running.remove(task)

    def _beat(self) -> None:
        while not self._done.wait(self._heartbeat_s):
            with self._lock:
                running = list(self._running)
            for task in running:
                if task.phase:
                    task.say(task.phase)
