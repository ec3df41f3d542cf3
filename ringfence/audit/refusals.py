"""Refused attempts: each recorded, counted in clusters, and a cluster that grows raises one alert.

Counts lie in a small database beside the trail, so that attempts by many processes, one after the other, add up.
Protects against: blind spots (mission.md): probing that stays unseen because every single refusal looks harmless.
Trust zone: control side.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ringfence.audit.trail import AuditError, Trail
from ringfence.invocation import Invocation, Refusal
from ringfence.sqlite_file import SqliteFile

# Attempts belong to one cluster while no more than this lies between one and the next, in seconds.
WINDOW_S = 300.0
# Attempts of one user for one tool with one code from one source; and of one user from one source for anything at all,
# which is what probing of many tools looks like.
SAME_THRESHOLD, ANY_THRESHOLD = 5, 15
_ANY = "*"
_TABLE = """CREATE TABLE IF NOT EXISTS cluster (
    user TEXT, tool TEXT, code TEXT, source TEXT, first REAL, last REAL, count INTEGER, alert TEXT,
    PRIMARY KEY (user, tool, code, source)) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True)
class Alert:
    """One cluster of refused attempts. tool, code: ``*`` for any; first, last: of its attempts, aware, UTC;
    audit_id: of the alert's record, empty while the cluster is below its threshold."""

    user: str
    tool: str
    code: str
    source: str
    first: datetime
    last: datetime
    count: int
    audit_id: str = ""


class Refusals:
    """Records refused attempts in `trail` and clusters them by user, tool, code and source."""

    def __init__(
        self,
        trail: Trail,
        *,
        window_seconds: float = WINDOW_S,
        same_threshold: int = SAME_THRESHOLD,
        any_threshold: int = ANY_THRESHOLD,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self._trail = trail
        self._window = window_seconds
        self._thresholds = (same_threshold, any_threshold)
        self._clock = clock
        self._opening = threading.Lock()
        self._opened: SqliteFile | None = None
        self.path = trail.path.with_name(f"{trail.path.stem}-refusals.sqlite")

    def record(
        self,
        refusal: Refusal,
        *,
        user: str,
        tool: str = "",
        source: str = "",
        invocation: Invocation | None = None,
        kind: str = "access.refused",
        **fields: Any,
    ) -> tuple[str, Alert | None]:
        """Records one attempt. Returns its record's id, and the alert that it raised, if any.

        tool: default the refusal's subject; fields: more of the record's. Raises AuditError when the attempt can't be recorded.
        """
        tool = tool or refusal.subject
        uid = self._trail.record(
            kind, invocation, user=user, tool=tool, code=refusal.code, detail=refusal.detail, source=source, **fields
        )
        with self._file().transaction() as database:
            raised = [
                self._count(database, (user, tool, refusal.code, source), self._thresholds[0]),
                self._count(database, (user, _ANY, _ANY, source), self._thresholds[1]),
            ]
        return uid, next((alert for alert in raised if alert), None)

    def clusters(self) -> tuple[Alert, ...]:
        """Clusters of the window that ends now, the largest first."""
        since = self._clock().timestamp() - self._window
        with self._file().connection() as database:
            rows = database.execute(
                "SELECT user, tool, code, source, first, last, count, alert FROM cluster WHERE last >= ?"
                " ORDER BY count DESC, user, tool, code, source",
                (since,),
            ).fetchall()
        return tuple(_alert(row) for row in rows)

    def _file(self) -> SqliteFile:
        """The counts' file, made with the first refusal."""
        with self._opening:
            if self._opened is None:
                file = SqliteFile(self.path, self._failed, synchronous="NORMAL")
                with file.connection() as database:
                    database.execute(_TABLE)
                self._opened = file
            return self._opened

    def _failed(self, error: Exception) -> AuditError:
        return AuditError(f"{self.path}: {error}\n    remedy: make room, or mend its access")

    def _count(self, database: sqlite3.Connection, key: tuple[str, str, str, str], threshold: int) -> Alert | None:
        """Adds one attempt to its cluster; the alert, when this attempt is the one that reaches the threshold."""
        now = self._clock().timestamp()
        database.execute("DELETE FROM cluster WHERE last < ?", (now - self._window,))
        row = database.execute(
            "INSERT INTO cluster VALUES (?, ?, ?, ?, ?, ?, 1, '') ON CONFLICT DO UPDATE SET"
            " count = count + 1, last = excluded.last RETURNING user, tool, code, source, first, last, count, alert",
            (*key, now, now),
        ).fetchone()
        found = _alert(row)
        if found.audit_id or found.count < threshold:
            return None
        # Before the commit: a process killed in between raises the alert again rather than never.
        found = replace(found, audit_id=self._raise(found))
        database.execute(
            "UPDATE cluster SET alert = ? WHERE user = ? AND tool = ? AND code = ? AND source = ?",
            (found.audit_id, *key),
        )
        return found

    def _raise(self, found: Alert) -> str:
        what = "of many kinds" if found.tool == _ANY else f"of {found.tool or 'no tool'} with {found.code}"
        seconds = (found.last - found.first).total_seconds()
        return self._trail.record(
            "alert.refusals",
            user=found.user,
            tool="" if found.tool == _ANY else found.tool,
            source=found.source,
            detail=f"{found.count} refused attempts {what} by {found.user or 'an unknown caller'} in {seconds:.0f} s",
            count=found.count,
            refusal_code=found.code,
        )


def _alert(row: tuple) -> Alert:
    user, tool, code, source, first, last, count, uid = row
    return Alert(
        user, tool, code, source, datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), count, uid
    )
