"""The record of every credential: what was asked for, what is in use, what was revoked. Holds no secret.

An entry is written before STS is asked, so that a broker killed in between leaves a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

# How long closed entries are kept: CloudTrail's events come late, and a session that the ledger has forgotten would
# look like one that it never knew.
KEPT_DAYS = 30


class State(StrEnum):
    """requested: STS is being asked; issued: in use; revoking: to be denied, not yet written; revoked: denied by the
    role's policy; failed: STS refused; lapsed: its time is over."""

    REQUESTED = "requested"
    ISSUED = "issued"
    REVOKING = "revoking"
    REVOKED = "revoked"
    FAILED = "failed"
    LAPSED = "lapsed"


# Entries in these states may stand for a session that still lives.
OPEN = frozenset({State.REQUESTED, State.ISSUED, State.REVOKING, State.REVOKED})
# Entries in these states may still be used.
ACTIVE = frozenset({State.REQUESTED, State.ISSUED})
# Entries in these states belong in the role's list of revoked credentials.
DENIED = frozenset({State.REVOKING, State.REVOKED})


@dataclass(frozen=True, slots=True)
class Entry:
    """One credential. requested, ends, issued, revoked_at: aware, UTC; issued: by AWS's clock. access_key_id and
    fingerprint (SHA-256 of the session token): empty until STS has answered; network: the first network that it was
    seen used from; note: why it failed or was revoked."""

    id: str
    invocation_id: str
    tool: str
    user: str
    role_arn: str
    session_name: str
    requested: datetime
    ends: datetime
    state: State = State.REQUESTED
    issued: datetime | None = None
    access_key_id: str = ""
    fingerprint: str = ""
    revoked_at: datetime | None = None
    network: str = ""
    note: str = ""


TIMES = ("requested", "ends", "issued", "revoked_at")
FIELDS = tuple(field.name for field in fields(Entry))


class Ledger(Protocol):
    """Where entries are kept. Every method may be called from many threads and processes at once."""

    def add(self, entry: Entry) -> None:
        """Keeps a new entry, durably, before it returns. Raises KeyError when its id is taken."""

    def change(self, id: str, states: Collection[State], **values: Any) -> bool:
        """Sets fields of an entry if it is in one of the states; whether it was. Atomic."""

    def note_network(self, id: str, network: str) -> str:
        """Keeps the first network that a credential was used from, in an entry of any state; the one that is kept.

        Empty when there is no such entry. Atomic.
        """

    def get(self, id: str) -> Entry | None:
        """An entry, open or closed."""

    def open(self, invocation_id: str = "", role_arn: str = "", states: Collection[State] = OPEN) -> list[Entry]:
        """Every entry in an open state, of one invocation or role if given, oldest first; nothing newer is missed.
        states: narrows further."""

    def forget(self, before: datetime) -> int:
        """Deletes closed entries that ended before; how many."""

    def exclusive(self, name: str) -> AbstractContextManager[Any]:
        """At most one holder at a time, within what the ledger can lock."""


def encode(entry: Entry) -> dict[str, Any]:
    """An entry as plain values: times in seconds since the epoch, None for none."""
    return {name: plain(name, getattr(entry, name)) for name in FIELDS}


def plain(name: str, value: Any) -> Any:
    """One field as a plain value."""
    if name in TIMES:
        return None if value is None else value.timestamp()
    return str(value)


def decode(values: dict[str, Any], moment: Callable[[float], datetime]) -> Entry:
    """The entry of plain values."""
    times = {name: moment(float(values[name])) for name in TIMES if values.get(name) is not None}
    return Entry(**{name: values.get(name) for name in FIELDS} | times | {"state": State(values["state"])})
