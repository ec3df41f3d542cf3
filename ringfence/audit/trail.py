"""The trail itself: one JSON object a line, each with the hash of the one before; whole records or none.

A record counts once `Trail.record` has returned: it has been written and flushed to the disk by then. What a killed
process left half-written is cut off at the next write, and that is recorded.
Trust zone: control side.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from ringfence.audit.events import event
from ringfence.errors import RingfenceError
from ringfence.invocation import Invocation
from ringfence.redaction import Redactor

# What the first record names as the one before.
GENESIS = "0" * 64
# The largest record: bounded fields keep real ones far below.
MAX_RECORD_BYTES = 4 << 20
# How long a writer waits for another one. Writes take milliseconds; a longer wait means something is stuck.
LOCK_S = 30.0
_BLOCK = 64 << 10
CHAIN = "record_integrity"
# The one kind of record that holds the prompt, which all others of the invocation follow from.
PROMPTED = "invocation.started"

# Takes a record's line, its line end included.
Mirror = Callable[[bytes], None]


class AuditError(RingfenceError):
    """A record could not be written. What it was about must not happen then."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last record: its number (0 when there is none), its hash, and the trail's size in bytes after it."""

    sequence: int = 0
    hash: str = GENESIS
    size: int = 0


def canonical(record: Mapping[str, Any]) -> bytes:
    """The bytes that are hashed: sorted keys, no spaces, ASCII."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its own hash."""
    chain = {key: value for key, value in record[CHAIN].items() if key != "hash"}
    return hashlib.sha256(canonical({**record, CHAIN: chain})).hexdigest()


def head_file(path: Path) -> Path:
    """Where the last record's number and hash stand, so that records cut off the end are missed."""
    return path.with_name(f"{path.name}.head")


class Trail:
    """Appends records to the file `path`, which is made with mode 0600. Any number of threads and processes may do so.

    redactor: masks every text of a record before it is hashed; clock: now, aware, UTC; mirror: gets each record's line too,
    once it is on the disk, in order.
    """

    def __init__(
        self,
        path: Path,
        redactor: Redactor | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        mirror: Mirror | None = None,
    ):
        self.path = path
        self._redactor = redactor or Redactor()
        self._clock = clock
        self._mirror = mirror
        self._threads = threading.Lock()
        self._known: tuple[int, Head] | None = None
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file_lock = filelock.FileLock(f"{path}.lock", timeout=LOCK_S, mode=0o600, thread_local=False)

    def record(self, kind: str, invocation: Invocation | None = None, **fields: Any) -> str:
        """Writes one event (see `ringfence.audit.events.event`) and returns its id, once it is on the disk.

        Raises AuditError when it can't be written or the trail's end is not what this code writes.
        """
        uid = secrets.token_hex(10)
        if kind == PROMPTED and invocation is not None:
            fields.setdefault("prompt", invocation.prompt)
        # Masked before anything is cut: half a secret would no longer be recognised.
        made = event(kind, uid, self._clock(), invocation, self._redactor.value(fields))
        try:
            with self._threads, self._file_lock:
                self._append(made)
        except filelock.Timeout:
            raise AuditError(
                f"{self.path} has been locked for {LOCK_S:.0f} s\n    remedy: end the process that hangs"
            ) from None
        except OSError as error:
            raise AuditError(
                f"{self.path} can't be written: {error.strerror}\n    remedy: make room, or mend its access"
            ) from None
        return uid

    def _append(self, made: dict[str, Any]) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            head = self._head(descriptor)
            head = self._mend(descriptor, head)
            self._write(descriptor, head, made)
        finally:
            os.close(descriptor)

    def _head(self, descriptor: int) -> Head:
        status = os.fstat(descriptor)
        if self._known and self._known[0] == status.st_ino and self._known[1].size == status.st_size:
            return self._known[1]
        return last(descriptor, status.st_size, self.path)

    def _mend(self, descriptor: int, head: Head) -> Head:
        """Cuts off what a killed writer left half-written, and says so in a record."""
        size = os.fstat(descriptor).st_size
        if size == head.size:
            return head
        torn = os.pread(descriptor, size - head.size, head.size)
        os.ftruncate(descriptor, head.size)
        now = self._clock()
        said = event(
            "trail.mended", secrets.token_hex(10), now, None,
            {"detail": f"{len(torn)} bytes of an unfinished record were cut off", "sha256": hashlib.sha256(torn).hexdigest()},
        )  # fmt: skip
        return self._write(descriptor, head, said)

    def _write(self, descriptor: int, head: Head, made: dict[str, Any]) -> Head:
        record = {**made, CHAIN: {"sequence": head.sequence + 1, "previous": head.hash, "algorithm": "SHA-256"}}
        record[CHAIN]["hash"] = digest(record)
        line = canonical(record) + b"\n"
        if len(line) > MAX_RECORD_BYTES:
            raise AuditError(
                f"a record of {len(line)} bytes is larger than {MAX_RECORD_BYTES}\n    remedy: record less"
            )
        written = os.write(descriptor, line)
        if written != len(line):
            os.ftruncate(descriptor, head.size)
            raise AuditError(f"{self.path}: the disk is full\n    remedy: make room")
        os.fsync(descriptor)
        if not head.size:
            self._sync_folder()
        after = Head(head.sequence + 1, record[CHAIN]["hash"], head.size + len(line))
        self._known = (os.fstat(descriptor).st_ino, after)
        self._note(after)
        if self._mirror:
            self._mirror(line)
        return after

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _note(self, head: Head) -> None:
        path = head_file(self.path)
        temporary = path.with_name(f".{path.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, canonical({"sequence": head.sequence, "hash": head.hash}) + b"\n")
        finally:
            os.close(descriptor)
        os.replace(temporary, path)


def last(descriptor: int, size: int, path: Path) -> Head:
    """The last whole record of the open trail. Raises AuditError when it isn't one that this code wrote."""
    tail, start = b"", size
    # Two line ends: the last whole record stands between them, whatever is torn behind.
    while start > 0 and tail.count(b"\n") < 2 and size - start < 2 * MAX_RECORD_BYTES:
        step = min(_BLOCK, start)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    end = tail.rfind(b"\n")
    if end < 0:
        return Head()
    line = tail[tail.rfind(b"\n", 0, end) + 1 : end]
    try:
        record = json.loads(line)
        sequence, own = int(record[CHAIN]["sequence"]), str(record[CHAIN]["hash"])
        sound = digest(record) == own and sequence > 0
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise AuditError(
            f"{path}: the last record is not sound, so nothing can be added to it\n"
            "    remedy: `ringfence audit verify`; keep the file as evidence, move it away, and a new trail begins"
        )
    return Head(sequence, own, start + end + 1)
