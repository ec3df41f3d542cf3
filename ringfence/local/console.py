"""What `up`, `preview` and `down` show while the engine works: counts every few seconds, failures at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from ringfence.local.results import BARE_FAILURE, Result, step_of
from ringfence.local.toolchain.progress import duration

# The longest silence while the engine runs, in seconds.
SILENCE_S = 5.0
# How each operation reads once it is done; in the order in which they are shown.
DONE = {
    "create": "created",
    "update": "updated",
    "create-replacement": "replaced",
    "delete": "deleted",
    "delete-replaced": "old ones deleted",
    "refresh": "read",
    "same": "unchanged",
}
SIGNS = {
    "create": "+",
    "update": "~",
    "delete": "-",
    "create-replacement": "+-",
    "replace": "+-",
    "delete-replaced": "--",
}


class Clock:
    """Prints lines with the time since it was made."""

    def __init__(self, echo: Callable[[str], None] = click.echo):
        self._echo = echo
        self._started = time.monotonic()

    @property
    def elapsed(self) -> str:
        """Time since the beginning, for people."""
        return duration(time.monotonic() - self._started)

    def say(self, text: str) -> None:
        """Prints `text` behind the elapsed time."""
        self._echo(f"{self.elapsed:>6}  {text}")


class Watch:
    """Turns the engine's events into progress. Pass `on_event` to the engine; use as a context manager."""

    def __init__(self, clock: Clock, verbose: bool = False):
        self._clock = clock
        self._verbose = verbose
        self._done: Counter[str] = Counter()
        self._running: dict[str, str] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._said = ""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def on_event(self, event: dict[str, Any]) -> None:
        """Takes one event of the engine's log."""
        if step := step_of(event):
            # The stack and its components run from start to end: they say nothing about what is being waited for.
            if not step.type.startswith(("pulumi:", "ringfence:")):
                with self._lock:
                    self._running[step.urn] = f"{step.type} {step.name}"
            return
        for key, failed in (("resOutputsEvent", False), ("resOpFailedEvent", True)):
            if metadata := event.get(key, {}).get("metadata"):
                self._finished(metadata, failed)
        diagnostic = event.get("diagnosticEvent", {})
        message = diagnostic.get("message", "").strip()
        if diagnostic.get("severity") == "error" and message and not BARE_FAILURE.fullmatch(message):
            urn = diagnostic.get("urn", "").rsplit("::", 2)
            self._clock.say(f"error: {' '.join(urn[1:])}: {message}" if len(urn) == 3 else f"error: {message}")

    def _finished(self, metadata: dict[str, Any], failed: bool) -> None:
        with self._lock:
            self._running.pop(metadata["urn"], None)
            if not failed:
                self._done[metadata["op"]] += 1
        sign = "!" if failed else SIGNS.get(metadata["op"], "")
        if sign and (failed or self._verbose):
            self._clock.say(f"{sign:>2} {metadata['type']} {metadata['urn'].rsplit('::', 1)[-1]}")

    def _beat(self) -> None:
        while not self._end.wait(SILENCE_S):
            with self._lock:
                counts = summary(self._done)
                waiting = next(reversed(self._running.values()), "")
            line = f"{counts}{f'; working on {waiting}' if waiting else ''}"
            if counts:
                self._clock.say(line)


def summary(done: dict[str, int] | Counter[str]) -> str:
    """Counts of operations for people: ``12 created, 3 unchanged``."""
    return ", ".join(f"{done[op]} {words}" for op, words in DONE.items() if done.get(op))


def show_changes(result: Result, echo: Callable[[str], None] = click.echo) -> None:
    """Prints what a preview would do: one line for each change, what forces a replacement, then the counts."""
    for step in result.changed_steps:
        if step.op in ("create-replacement", "delete-replaced"):
            continue
        keys = ", ".join(f"{key}!" if key in step.replaces else key for key in step.keys)
        echo(f"  {SIGNS.get(step.op, step.op):>2} {step.type} {step.name}{f'  [{keys}]' if keys else ''}")
    for violation in result.violations:
        echo(f"  {violation.level}: {violation.pack} {violation.policy}: {violation.message}")
    for severity, message in result.diagnostics:
        echo(f"  {severity}: {message}")
    counts = ", ".join(f"{count} {op}" for op, count in result.changes.items())
    echo(counts or "nothing to do")
