"""Masks what a control side's own process writes: logs, tracebacks and prints, on standard output and standard error.

The collector masks shapes of secrets before logs leave the cluster; the exact values are known here alone. Trust zone:
control side.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from ringfence.redaction.redactor import Redactor

# What stands for text that could not be masked.
WITHHELD = "[withheld: it could not be masked]"
# A line longer than this is masked and written in pieces. Characters.
_LONGEST_LINE = 1 << 20

Secrets = Callable[[], Iterable[str]]


class MaskedStream:
    """A text stream that passes whole lines on, masked: a secret that comes in several writes is found. Everything but
    writing is the stream's own. From any thread."""

    def __init__(self, stream: TextIO, redactor: Redactor):
        self._stream = stream
        self._redactor = redactor
        self._held = ""
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the lines that are complete by now. Returns the characters taken."""
        with self._lock:
            lines, newline, self._held = (self._held + text).rpartition("\n")
            if newline or len(self._held) > _LONGEST_LINE:
                if not newline:
                    lines, self._held = self._held, ""
                self._stream.write(self._masked(lines) + newline)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes what was written; half a line stays."""
        self._stream.flush()

    def finish(self) -> None:
        """Writes what is held, at the end."""
        with self._lock:
            held, self._held = self._held, ""
            if held:
                self._stream.write(self._masked(held))
            self._stream.flush()

    def _masked(self, text: str) -> str:
        try:
            return self._redactor.text(text)
        except Exception:
            return WITHHELD


class MaskedOutput:
    """Standard output and standard error of this process, masked from `install` on: by shapes, and by the exact values of
    whatever was named with `also`."""

    def __init__(self) -> None:
        self._sources: list[Secrets] = []
        self._streams: list[MaskedStream] = []

    def install(self) -> MaskedOutput:
        """Puts itself before both streams, to the process's end: also the traceback that ends it is masked. Before logging
        is set up, whose handlers keep the stream that they find."""
        redactor = Redactor(lambda: [value for source in tuple(self._sources) for value in source()])
        sys.stdout, sys.stderr = out, err = MaskedStream(sys.stdout, redactor), MaskedStream(sys.stderr, redactor)
        self._streams = [out, err]
        atexit.register(self.finish)
        return self

    @contextmanager
    def also(self, secrets: Secrets) -> Iterator[None]:
        """These values are masked too. secrets: asked at each line while the context is open; what it named last is masked
        from then on."""
        self._sources.append(secrets)
        try:
            yield
        finally:
            last = frozenset(secrets())
            self._sources[self._sources.index(secrets)] = lambda: last

    def finish(self) -> None:
        """Writes what is held of unfinished lines."""
        for stream in self._streams:
            stream.finish()
