"""The journal of unfinished invocations in one SQLite file, for runners of one machine.

Trust zone: control side. Holds ids, owners and deadlines; nothing secret.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ringfence.errors import RingfenceError
from ringfence.runner.ports import Entry

# How long a writer waits for another process's write.
BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS invocations (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, deadline TEXT NOT NULL, warm INTEGER NOT NULL
) STRICT
"""


class SqliteJournal:
    """`Journal` in the file `path`, which is made (mode 0600) when missing. Every write is on disk when it returns."""

    def __init__(self, path: Path):
        self._path = path
        self._local = threading.local()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with self._writing() as connection:
            connection.execute(_SCHEMA)

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            self._local.connection = connection
        return connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise RingfenceError(
                f"the journal {self._path} can't be written: {error}\n    remedy: make room or repair it"
            ) from None

    def begin(self, entry: Entry) -> None:
        """Writes the entry. Raises RingfenceError when it is there already or can't be written."""
        row = (entry.invocation_id, entry.owner, entry.deadline.isoformat(), int(entry.warm))
        with self._writing() as connection:
            connection.execute("INSERT INTO invocations VALUES (?, ?, ?, ?)", row)

    def bind(self, invocation_id: str, deadline: datetime) -> None:
        """Turns a warm entry into one with a task. Raises RingfenceError when there is no such warm entry."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE invocations SET deadline = ?, warm = 0 WHERE id = ? AND warm = 1",
                (deadline.isoformat(), invocation_id),
            ).rowcount
        if not changed:
            raise RingfenceError(f"invocation {invocation_id} is not waiting for a task")

    def end(self, invocation_id: str) -> None:
        """Takes the entry out; nothing happens when it isn't there."""
        with self._writing() as connection:
            connection.execute("DELETE FROM invocations WHERE id = ?", (invocation_id,))

    def entries(self) -> list[Entry]:
        """Every entry. Raises RingfenceError when the file can't be read."""
        try:
            rows = self._connection().execute("SELECT id, owner, deadline, warm FROM invocations").fetchall()
        except sqlite3.Error as error:
            raise RingfenceError(f"the journal {self._path} can't be read: {error}") from None
        return [Entry(row[0], row[1], datetime.fromisoformat(row[2]), bool(row[3])) for row in rows]
