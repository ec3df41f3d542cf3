"""What the service has accepted, on disk before the caller is told so: nothing accepted is lost by a crash.

Trust zone: control side. A prompt is kept only until its task starts; results are redacted before they come here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.errors import RingfenceError
from ringfence.sqlite_file import SqliteFile

ACCEPTED, RUNNING, ENDED = "accepted", "running", "ended"
# Ended rows are kept this long and at most so many.
KEEP_S, KEEP_ROWS = 24 * 3600.0, 10_000
_TABLE = """CREATE TABLE IF NOT EXISTS request (
    id TEXT PRIMARY KEY, user TEXT NOT NULL, state TEXT NOT NULL, accepted REAL NOT NULL, ended REAL,
    invocation_id TEXT NOT NULL, task TEXT NOT NULL, result TEXT)"""
_COLUMNS = "id, user, state, accepted, ended, invocation_id, task, result"


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted request. accepted, ended: seconds since the epoch; task: what to run, its prompt only until it
    starts; result: how it ended."""

    id: str
    user: str
    state: str
    accepted: float
    ended: float | None = None
    invocation_id: str = ""
    task: Mapping[str, Any] = field(default_factory=dict, repr=False)
    result: Mapping[str, Any] | None = field(default=None, repr=False)


def _row(values: tuple) -> Row:
    *plain, task, result = values
    return Row(*plain, json.loads(task), json.loads(result) if result else None)


class Store:
    """Requests in the SQLite file `path` (made with mode 0600). Every method may be called from any thread.

    Raises RingfenceError when the file can't be read or written.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        def failed(error: Exception) -> RingfenceError:
            return RingfenceError(f"{path}: {error}\n    remedy: make room, or mend its access")

        self._clock = clock
        self._file = SqliteFile(path, failed)
        with self._file.connection() as database:
            database.execute(_TABLE)
            database.execute("CREATE INDEX IF NOT EXISTS by_user ON request (user, accepted)")
            # What is blanked out must not stay on free pages.
            database.execute("PRAGMA secure_delete=ON")

    def accept(self, request_id: str, user: str, task: Mapping[str, Any]) -> Row:
        """Writes a new request down; it is on disk when this returns."""
        row = Row(request_id, user, ACCEPTED, self._clock(), task=dict(task))
        with self._file.transaction() as database:
            values = (row.id, row.user, row.state, row.accepted, None, "", json.dumps(row.task), None)
            database.execute(f"INSERT INTO request ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608
        return row

    def start(self, request_id: str, task: Mapping[str, Any]) -> bool:
        """Marks a request as running, `task` in the place of what was kept. False when it doesn't wait any more."""
        with self._file.transaction() as database:
            done = database.execute(
                "UPDATE request SET state = ?, task = ? WHERE id = ? AND state = ?",
                (RUNNING, json.dumps(dict(task)), request_id, ACCEPTED),
            )
            return done.rowcount == 1

    def name(self, request_id: str, invocation_id: str) -> None:
        """Notes which invocation a request became."""
        with self._file.transaction() as database:
            database.execute("UPDATE request SET invocation_id = ? WHERE id = ?", (invocation_id, request_id))

    def end(self, request_id: str, result: Mapping[str, Any]) -> None:
        """Notes how a request ended, once; forgets old ones."""
        now = self._clock()
        with self._file.transaction() as database:
            database.execute(
                "UPDATE request SET state = ?, ended = ?, result = ?,"
                " invocation_id = coalesce(nullif(?, ''), invocation_id) WHERE id = ? AND state != ?",
                (ENDED, now, json.dumps(dict(result)), result.get("invocation_id", ""), request_id, ENDED),
            )
            database.execute("DELETE FROM request WHERE state = ? AND ended < ?", (ENDED, now - KEEP_S))
            database.execute(
                "DELETE FROM request WHERE id IN (SELECT id FROM request WHERE state = ?"
                " ORDER BY ended DESC LIMIT -1 OFFSET ?)",
                (ENDED, KEEP_ROWS),
            )

    def find(self, request_id: str) -> Row | None:
        """The request of that id."""
        with self._file.connection() as database:
            found = database.execute(f"SELECT {_COLUMNS} FROM request WHERE id = ?", (request_id,)).fetchone()  # noqa: S608
        return _row(found) if found else None

    def list(self, user: str, limit: int) -> list[Row]:
        """A user's last requests, newest first."""
        query = f"SELECT {_COLUMNS} FROM request WHERE user = ? ORDER BY accepted DESC, id LIMIT ?"  # noqa: S608
        with self._file.connection() as database:
            return [_row(values) for values in database.execute(query, (user, limit)).fetchall()]

    def unfinished(self) -> list[Row]:
        """Requests that haven't ended, oldest first."""
        query = f"SELECT {_COLUMNS} FROM request WHERE state != ? ORDER BY accepted, id"  # noqa: S608
        with self._file.connection() as database:
            return [_row(values) for values in database.execute(query, (ENDED,)).fetchall()]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
