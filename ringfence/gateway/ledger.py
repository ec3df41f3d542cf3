"""The money of conversations, durable: what each call may cost is written down before the call, what it did cost after.

SQLite in WAL mode with `synchronous=FULL`: a reservation is on disk before a byte goes to the provider. A reservation
that is never settled (the process was killed, the stream was cut) stays counted. Several processes may share the file:
a reservation is one transaction that takes the write lock first. Trust zone: control side.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from ringfence.gateway.errors import LedgerError, Refused
from ringfence.gateway.money import to_usd
from ringfence.invocation import Refusal, Usage
from ringfence.sqlite_file import BUSY_SECONDS, SqliteFile

# In the folder of the control side's files.
LEDGER_FILE = Path("gateway", "ledger.sqlite")
_VERSION = 1
# counted: what the call adds to its conversation's `committed`: the reservation until it is settled, then the cost.
_SCHEMA = """
CREATE TABLE conversations (
  id TEXT PRIMARY KEY, user TEXT NOT NULL, cap INTEGER NOT NULL CHECK (cap > 0),
  committed INTEGER NOT NULL DEFAULT 0 CHECK (committed >= 0), updated INTEGER NOT NULL
) STRICT;
CREATE TABLE invocations (
  id TEXT PRIMARY KEY, conversation TEXT NOT NULL REFERENCES conversations (id), model TEXT NOT NULL,
  opened INTEGER NOT NULL, deadline INTEGER NOT NULL, closed INTEGER, tool_calls INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE calls (
  id INTEGER PRIMARY KEY, invocation TEXT NOT NULL REFERENCES invocations (id),
  state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'forfeited')),
  reserved INTEGER NOT NULL CHECK (reserved >= 0), counted INTEGER NOT NULL CHECK (counted >= 0),
  input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0, at INTEGER NOT NULL
) STRICT;
CREATE INDEX calls_of_invocation ON calls (invocation);
CREATE INDEX invocations_of_conversation ON invocations (conversation);
"""
_USAGE = """
SELECT coalesce(sum(counted), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), count(*)
FROM calls WHERE invocation = ?
"""
_CONVERSATIONS = """
SELECT c.id, c.user, c.cap, c.committed, c.updated,
  coalesce((SELECT sum(k.counted) FROM calls k JOIN invocations i ON i.id = k.invocation
            WHERE i.conversation = c.id AND k.state = 'reserved'), 0),
  (SELECT count(*) FROM calls k JOIN invocations i ON i.id = k.invocation WHERE i.conversation = c.id),
  (SELECT count(*) FROM invocations i WHERE i.conversation = c.id AND i.closed IS NULL)
FROM conversations c ORDER BY c.updated DESC, c.id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one conversation has cost by now. spent_usd: settled or given up as spent; reserved_usd: held by calls under
    way; active: invocations that are not closed."""

    id: str
    user: str
    cap_usd: Decimal
    spent_usd: Decimal
    reserved_usd: Decimal
    calls: int
    active: int
    updated: datetime


class BudgetExhausted(Exception):
    """The reservation would pass the conversation's cap. left: nano-dollars that are still free."""

    def __init__(self, left: int):
        self.left = left
        super().__init__(f"${to_usd(max(left, 0)):.4f} left")


class NotOpen(Exception):
    """The invocation is unknown to the ledger, closed, or past its deadline."""


def _microseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


class Ledger:
    """One connection to the file, made with mode 0600 when missing. Methods may be called from any thread; each is one
    transaction. Amounts are nano-dollars. Raises LedgerError when the file can't be used."""

    def __init__(self, path: Path):
        self.path = path
        self._file = SqliteFile(path, lambda error: LedgerError(f"the gateway's ledger {path} can't be used: {error}"))
        self._migrate()

    def _migrate(self) -> None:
        with self._file.transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise LedgerError(f"the gateway's ledger {self.path} has version {version}, this program {_VERSION}")

    def open(
        self, invocation: str, conversation: str, user: str, model: str, *, cap: int, now: datetime, deadline: datetime
    ) -> None:
        """Opens an invocation. A conversation's cap can be lowered by a later invocation, never raised.

        Raises Refused: the conversation is another user's, or has nothing left.
        """
        at = _microseconds(now)
        with self._file.transaction() as db:
            row = db.execute("SELECT user, cap, committed FROM conversations WHERE id = ?", (conversation,)).fetchone()
            if row is None:
                db.execute(
                    "INSERT INTO conversations (id, user, cap, updated) VALUES (?, ?, ?, ?)",
                    (conversation, user, cap, at),
                )
            else:
                _admit(conversation, user, (row[0], min(row[1], cap), row[2]))
                db.execute("UPDATE conversations SET cap = min(cap, ?) WHERE id = ?", (cap, conversation))
            if db.execute("SELECT 1 FROM invocations WHERE id = ?", (invocation,)).fetchone():
                raise LedgerError(f"invocation {invocation} was opened before; each runs once")
            db.execute(
                "INSERT INTO invocations (id, conversation, model, opened, deadline) VALUES (?, ?, ?, ?, ?)",
                (invocation, conversation, model, at, _microseconds(deadline)),
            )

    def admit(self, conversation: str, user: str, *, cap: int) -> None:
        """Raises Refused when `open` would, and opens nothing."""
        with self._file.transaction() as db:
            row = db.execute("SELECT user, cap, committed FROM conversations WHERE id = ?", (conversation,)).fetchone()
        if row is not None:
            _admit(conversation, user, (row[0], min(row[1], cap), row[2]))

    def reserve(self, invocation: str, amount: int, now: datetime) -> int:
        """Sets aside what a call may cost at most, if the conversation's cap allows it. Returns the call's number.

        Raises BudgetExhausted, or NotOpen.
        """
        at = _microseconds(now)
        with self._file.transaction() as db:
            row = db.execute(
                "SELECT i.conversation, c.cap - c.committed FROM invocations i JOIN conversations c"
                " ON c.id = i.conversation WHERE i.id = ? AND i.closed IS NULL AND i.deadline > ?",
                (invocation, at),
            ).fetchone()
            if row is None:
                raise NotOpen
            conversation, left = row
            if amount > left:
                raise BudgetExhausted(left)
            self._commit_amount(db, conversation, amount, at)
            return db.execute(
                "INSERT INTO calls (invocation, state, reserved, counted, at) VALUES (?, 'reserved', ?, ?, ?)",
                (invocation, amount, amount, at),
            ).lastrowid

    def settle(self, call: int, cost: int, input_tokens: int, output_tokens: int, now: datetime) -> None:
        """Replaces what a call holds by what it did cost, also after its invocation was closed. A second time is ignored.

        A cost above the reservation is booked in full: the cap is then passed, and nothing more is reserved.
        """
        at = _microseconds(now)
        with self._file.transaction() as db:
            row = db.execute(
                "SELECT i.conversation, k.counted FROM calls k JOIN invocations i ON i.id = k.invocation"
                " WHERE k.id = ? AND k.state <> 'settled'",
                (call,),
            ).fetchone()
            if row is None:
                return
            conversation, counted = row
            db.execute(
                "UPDATE calls SET state = 'settled', counted = ?, input_tokens = ?, output_tokens = ? WHERE id = ?",
                (cost, input_tokens, output_tokens, call),
            )
            self._commit_amount(db, conversation, cost - counted, at)

    def forfeit(self, call: int) -> None:
        """The whole reservation is spent: nobody knows what the call did cost."""
        with self._file.transaction() as db:
            db.execute("UPDATE calls SET state = 'forfeited' WHERE id = ? AND state = 'reserved'", (call,))

    def close(self, invocation: str, now: datetime, tool_calls: int = 0) -> tuple[Usage, int]:
        """Ends an invocation; what is reserved then is spent. Returns its usage and cost. Twice is the same as once."""
        with self._file.transaction() as db:
            self._close(db, invocation, _microseconds(now), tool_calls)
        return self.usage(invocation)

    @staticmethod
    def _close(db: sqlite3.Connection, invocation: str, at: int, tool_calls: int = 0) -> None:
        db.execute("UPDATE calls SET state = 'forfeited' WHERE invocation = ? AND state = 'reserved'", (invocation,))
        db.execute(
            "UPDATE invocations SET closed = ?, tool_calls = max(tool_calls, ?) WHERE id = ? AND closed IS NULL",
            (at, tool_calls, invocation),
        )

    @staticmethod
    def _commit_amount(db: sqlite3.Connection, conversation: str, amount: int, at: int) -> None:
        db.execute(
            "UPDATE conversations SET committed = committed + ?, updated = ? WHERE id = ?", (amount, at, conversation)
        )

    def expire(self, now: datetime) -> list[str]:
        """Closes every invocation whose deadline has passed, whoever opened it. Returns their ids."""
        at = _microseconds(now)
        with self._file.transaction() as db:
            rows = db.execute("SELECT id FROM invocations WHERE closed IS NULL AND deadline <= ?", (at,)).fetchall()
            for (invocation,) in rows:
                self._close(db, invocation, at)
        return [invocation for (invocation,) in rows]

    def spent(self, conversation: str) -> int:
        """What a conversation has used, reservations included."""
        with self._file.transaction() as db:
            row = db.execute("SELECT committed FROM conversations WHERE id = ?", (conversation,)).fetchone()
        return row[0] if row else 0

    def usage(self, invocation: str) -> tuple[Usage, int]:
        """What an invocation used, and its cost with reservations in it. Zero when it is unknown."""
        with self._file.transaction() as db:
            cost, input_tokens, output_tokens, calls = db.execute(_USAGE, (invocation,)).fetchone()
            row = db.execute("SELECT tool_calls FROM invocations WHERE id = ?", (invocation,)).fetchone()
        return Usage(input_tokens, output_tokens, calls, row[0] if row else 0), cost

    def conversations(self, limit: int = 100) -> list[Conversation]:
        """Conversations, the last changed first."""
        with self._file.transaction() as db:
            return _conversations(db, limit)

    def stop(self) -> None:
        """Closes the connection."""
        self._file.close()


def _admit(conversation: str, user: str, row: tuple[str, int, int]) -> None:
    owner, cap, committed = row
    if owner != user:
        detail = "the conversation belongs to another user; start one of your own"
        raise Refused(Refusal("conversation_of_another_user", conversation, detail))
    if committed >= cap:
        detail = f"the conversation has used its ${to_usd(cap):.2f}; start a new one"
        raise Refused(Refusal("budget_exhausted", conversation, detail))


def _conversations(db: sqlite3.Connection, limit: int) -> list[Conversation]:
    return [
        Conversation(
            identifier, user, to_usd(cap), to_usd(committed - reserved), to_usd(reserved), calls, active,
            datetime.fromtimestamp(updated / 1_000_000, UTC),
        )
        for identifier, user, cap, committed, updated, reserved, calls, active in db.execute(_CONVERSATIONS, (limit,))
    ]  # fmt: skip


def conversations(path: Path, limit: int = 100) -> list[Conversation]:
    """Live cost per conversation from a ledger file, also while a gateway writes to it; empty when there is none.

    Raises LedgerError when the file can't be read.
    """
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as db:
            return _conversations(db, limit)
    except sqlite3.Error as error:
        raise LedgerError(f"the gateway's ledger {path} can't be read: {error}") from None
