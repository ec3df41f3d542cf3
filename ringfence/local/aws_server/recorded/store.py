"""What is recorded: attributes by resource, in memory, for as long as the server lives."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.utilities.utils import get_partition

from ringfence.local.aws_server.wire import Call

Key = tuple[str, ...]


@dataclass(slots=True)
class Record:
    """One recorded resource: its members by the name in the service model, and its tags."""

    attributes: dict[str, Any]
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where the records of one kind are kept."""

    account: str
    region: str
    service: str
    kind: str


class Store:
    """All records of the process. Not synchronised: the application's lock is held around every use."""

    def __init__(self) -> None:
        self._shelves: dict[Shelf, dict[Key, Record]] = {}

    def shelf(self, account: str, region: str, service: str, kind: str) -> dict[Key, Record]:
        """The records of one kind, by identity; the live mapping."""
        return self._shelves.setdefault(Shelf(account, region, service, kind), {})

    def shelves(self) -> Iterator[tuple[Shelf, dict[Key, Record]]]:
        """Everything that holds at least one record."""
        return ((shelf, records) for shelf, records in self._shelves.items() if records)

    def clear(self) -> None:
        """Forget everything."""
        self._shelves.clear()


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler works with: the call, its parameters and the store."""

    store: Store
    call: Call

    @property
    def params(self) -> dict[str, Any]:
        """The request's members."""
        return self.call.params

    @property
    def account(self) -> str:
        """Twelve digits."""
        return self.call.account

    @property
    def region(self) -> str:
        """E.g. ``us-east-1``."""
        return self.call.region

    @property
    def partition(self) -> str:
        """``aws``, ``aws-cn`` or ``aws-us-gov``."""
        return get_partition(self.region)

    def records(self, kind: str, service: str = "") -> dict[Key, Record]:
        """Records of one kind in the call's account and region."""
        return self.store.shelf(self.account, self.region, service or self.call.service, kind)

    def arn(self, service: str, resource: str) -> str:
        """A regional ARN of the call's account."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


# A handler answers with the output's members, with PASS for "not one of ours, ask moto", or raises ApiError.
Handler = Callable[[Context], "Mapping[str, Any] | object"]
PASS = object()


def now() -> datetime:
    """The time, in UTC, to the millisecond as AWS gives it."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def iso_now() -> str:
    """The same as text, for services whose model has times as strings."""
    return now().strftime("%Y-%m-%dT%H:%M:%SZ")


def hex_id(length: int) -> str:
    """Random lower-case hexadecimal digits."""
    return secrets.token_hex((length + 1) // 2)[:length]


def new_uuid() -> str:
    """A random UUID."""
    return str(uuid.uuid4())
