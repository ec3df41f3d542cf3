"""The ledger in one SQLite file, for a broker on one machine: WAL, a new entry on disk before it counts, mode 0600."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from ringfence.broker.ledger import FIELDS, OPEN, TIMES, Entry, State, decode, encode, plain
from ringfence.broker.model import BrokerError
from ringfence.sqlite_file import SqliteFile

_COLUMNS = ", ".join(f"{name} {'REAL' if name in TIMES else 'TEXT NOT NULL'}" for name in FIELDS)
_OPEN = ", ".join(f"'{state}'" for state in sorted(OPEN))


class SqliteLedger:
    """See `Ledger`. path: made with its folder when missing. Raises BrokerError when the file is unusable or others can
    read it."""

    def __init__(self, path: Path):
        def failed(error: Exception) -> Exception:
            if isinstance(error, sqlite3.IntegrityError):
                return KeyError(str(error))
            return BrokerError(f"the ledger {path} can't be used: {error}\n    remedy: repair or remove it")

        self._path = path
        self._file = SqliteFile(path, failed, synchronous="NORMAL")
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            self._file.close()
            raise BrokerError(f"{path} has mode {mode:04o}: others can read it\n    remedy: chmod 600 {path}")
        with self._file.connection() as database:
            database.row_factory = sqlite3.Row
            database.execute(f"CREATE TABLE IF NOT EXISTS credentials ({_COLUMNS}, PRIMARY KEY (id)) STRICT")
            database.execute("CREATE INDEX IF NOT EXISTS by_state ON credentials (state, role_arn)")

    def add(self, entry: Entry) -> None:
        values = encode(entry)
        marks = ", ".join(f":{name}" for name in values)
        with self._file.connection() as database:
            # On disk before STS is asked. What changes later survives its process without; a machine that loses power
            # takes the sandboxes with it.
            database.execute("PRAGMA synchronous=FULL")
            try:
                database.execute(f"INSERT INTO credentials ({', '.join(values)}) VALUES ({marks})", values)  # noqa: S608
            finally:
                database.execute("PRAGMA synchronous=NORMAL")

    def change(self, id: str, states: Collection[State], **values: Any) -> bool:
        setting = ", ".join(f"{name} = :{name}" for name in values)
        allowed = ", ".join(f"'{State(state)}'" for state in states)
        named = {name: plain(name, value) for name, value in values.items() if name in FIELDS}
        with self._file.connection() as database:
            done = database.execute(
                f"UPDATE credentials SET {setting} WHERE id = :wanted AND state IN ({allowed})",  # noqa: S608
                {**named, "wanted": id},
            )
            return done.rowcount == 1

    def note_network(self, id: str, network: str) -> str:
        with self._file.connection() as database:
            database.execute("UPDATE credentials SET network = ? WHERE id = ? AND network = ''", (network, id))
        found = self.get(id)
        return found.network if found else ""

    def get(self, id: str) -> Entry | None:
        found = self._select("id = :id", id=id)
        return found[0] if found else None

    def open(self, invocation_id: str = "", role_arn: str = "", states: Collection[State] = OPEN) -> list[Entry]:
        wanted = ", ".join(f"'{State(state)}'" for state in sorted(OPEN & set(states)))
        where = [f"state IN ({wanted})"]
        where += ["invocation_id = :invocation_id"] if invocation_id else []
        where += ["role_arn = :role_arn"] if role_arn else []
        return self._select(" AND ".join(where), invocation_id=invocation_id, role_arn=role_arn)

    def _select(self, where: str, **values: str) -> list[Entry]:
        with self._file.connection() as database:
            rows = database.execute(
                f"SELECT * FROM credentials WHERE {where} ORDER BY requested, id",  # noqa: S608
                values,
            ).fetchall()
        return [decode(dict(row), lambda seconds: datetime.fromtimestamp(seconds, UTC)) for row in rows]

    def forget(self, before: datetime) -> int:
        with self._file.connection() as database:
            done = database.execute(
                f"DELETE FROM credentials WHERE state NOT IN ({_OPEN}) AND ends < ?",  # noqa: S608
                (before.timestamp(),),
            )
            return done.rowcount

    def exclusive(self, name: str) -> AbstractContextManager[Any]:
        # A lock object of its own for each holder: it keeps out other threads as it does other processes.
        safe = "".join(character if character.isalnum() else "-" for character in name)
        return filelock.FileLock(self._path.with_name(f"{self._path.name}.{safe}.lock"), mode=0o600)

    def close(self) -> None:
        """Closes the file; nothing is lost without it."""
        self._file.close()
