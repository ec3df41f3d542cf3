"""The journal of unfinished invocations in one SQLite file, for runners of one machine.

Trust zone: control side. Holds ids, owners and deadlines; nothing secret.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from ringfence.errors import RingfenceError
from ringfence.runner.ports import Entry
from ringfence.sqlite_file import SqliteFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS invocations (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, deadline TEXT NOT NULL, warm INTEGER NOT NULL
) STRICT
"""


class SqliteJournal:
    """`Journal` in the file `path`, which is made (mode 0600) when missing. Every write is on disk when it returns."""

    def __init__(self, path: Path):
        def failed(error: Exception) -> RingfenceError:
            return RingfenceError(f"the journal {path} can't be used: {error}\n    remedy: make room or repair it")

        self._file = SqliteFile(path, failed)
        with self._file.transaction() as connection:
            connection.execute(_SCHEMA)

    def begin(self, entry: Entry) -> None:
        """Writes the entry. Raises RingfenceError when it is there already or can't be written."""
        row = (entry.invocation_id, entry.owner, entry.deadline.isoformat(), int(entry.warm))
        with self._file.transaction() as connection:
            connection.execute("INSERT INTO invocations VALUES (?, ?, ?, ?)", row)

    def bind(self, invocation_id: str, deadline: datetime) -> None:
        """Turns a warm entry into one with a task. Raises RingfenceError when there is no such warm entry."""
        with self._file.transaction() as connection:
            changed = connection.execute(
                "UPDATE invocations SET deadline = ?, warm = 0 WHERE id = ? AND warm = 1",
                (deadline.isoformat(), invocation_id),
            ).rowcount
        if not changed:
            raise RingfenceError(f"invocation {invocation_id} is not waiting for a task")

    def end(self, invocation_id: str) -> None:
        """Takes the entry out; nothing happens when it isn't there."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM invocations WHERE id = ?", (invocation_id,))

    def entries(self) -> list[Entry]:
        """Every entry. Raises RingfenceError when the file can't be read."""
        with self._file.connection() as connection:
            rows = connection.execute("SELECT id, owner, deadline, warm FROM invocations").fetchall()
        return [Entry(row[0], row[1], datetime.fromisoformat(row[2]), bool(row[3])) for row in rows]
