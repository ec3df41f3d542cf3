"""The ledger in one DynamoDB table, for brokers on several machines. The table is made by components/broker_access.py.

Items: partition key `shelf` (`open` or `closed`), sort key `id`. Open entries are read as a whole and consistently,
which no index of DynamoDB's offers; closed ones expire by the table's time to live (attribute `forget`).
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ringfence.broker.ledger import KEPT_DAYS, OPEN, TIMES, Entry, State, decode, encode, plain
from ringfence.broker.model import BrokerError
from ringfence.names import Names

OPEN_SHELF, CLOSED_SHELF = "open", "closed"
# Attributes of the table.
PARTITION_KEY, SORT_KEY, TIME_TO_LIVE = "shelf", "id", "forget"
_TAKEN = "ConditionalCheckFailedException"
# An entry that is moved to the other shelf at that moment may lose a note.
_NOTE_TRIES = 3


def ledger_table(names: Names) -> str:
    """Name of the environment's table."""
    return names.name("credentials")


class DynamoDbLedger:
    """See `Ledger`. client: a boto3 DynamoDB client; table: its name. Locks only within this process: writers of one
    role on several machines are told apart by reading again after each write (`revocation`)."""

    def __init__(self, client: Any, table: str):
        self._client = client
        self._table = table
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def add(self, entry: Entry) -> None:
        item = {PARTITION_KEY: {"S": OPEN_SHELF}, **_marshal(encode(entry))}
        try:
            self._call("put_item", Item=item, ConditionExpression="attribute_not_exists(id)")
        except KeyError:
            raise KeyError(entry.id) from None

    def change(self, id: str, states: Collection[State], **values: Any) -> bool:
        named = {name: plain(name, value) for name, value in values.items()}
        names = {f"#{name}": name for name in named} | {"#state": "state"}
        marked = {f":{name}": value for name, value in _marshal(named, nulls=True).items()}
        marked |= {f":allowed{place}": {"S": str(state)} for place, state in enumerate(states)}
        allowed = ", ".join(f":allowed{place}" for place in range(len(states)))
        try:
            self._call(
                "update_item",
                Key=_key(OPEN_SHELF, id),
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in named),
                ConditionExpression=f"#state IN ({allowed})",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=marked,
            )
        except KeyError:
            return False
        if named.get("state") and State(named["state"]) not in OPEN:
            self._close(id)
        return True

    def _close(self, id: str) -> None:
        """Moves an entry to the closed shelf. Repeating it after a crash does no harm: `open` leaves it out."""
        item = self._call("get_item", Key=_key(OPEN_SHELF, id), ConsistentRead=True).get("Item")
        if item is None:
            return
        kept = datetime.fromtimestamp(float(item["ends"]["N"]), UTC) + timedelta(days=KEPT_DAYS)
        closed = {**item, PARTITION_KEY: {"S": CLOSED_SHELF}, TIME_TO_LIVE: {"N": str(int(kept.timestamp()))}}
        self._call("put_item", Item=closed)
        self._call("delete_item", Key=_key(OPEN_SHELF, id))

    def note_network(self, id: str, network: str) -> str:
        for _ in range(_NOTE_TRIES):
            for shelf in (OPEN_SHELF, CLOSED_SHELF):
                with contextlib.suppress(KeyError):
                    self._call(
                        "update_item",
                        Key=_key(shelf, id),
                        UpdateExpression="SET #network = :network",
                        ConditionExpression="attribute_exists(id) AND #network = :none",
                        ExpressionAttributeNames={"#network": "network"},
                        ExpressionAttributeValues={":network": {"S": network}, ":none": {"S": ""}},
                    )
            found = self.get(id)
            if found is None or found.network:
                return found.network if found else ""
        return ""

    def get(self, id: str) -> Entry | None:
        for shelf in (OPEN_SHELF, CLOSED_SHELF):
            item = self._call("get_item", Key=_key(shelf, id), ConsistentRead=True).get("Item")
            if item is not None:
                return _entry(item)
        return None

    def open(self, invocation_id: str = "", role_arn: str = "", states: Collection[State] = OPEN) -> list[Entry]:
        found = []
        for item in self._shelf(OPEN_SHELF):
            entry = _entry(item)
            if entry.state not in OPEN:
                self._close(entry.id)
            elif (
                entry.state in states
                and invocation_id in ("", entry.invocation_id)
                and role_arn in ("", entry.role_arn)
            ):
                found.append(entry)
        return sorted(found, key=lambda entry: (entry.requested, entry.id))

    def forget(self, before: datetime) -> int:
        """DynamoDB does it by itself; this deletes what its sweep has not reached yet."""
        gone = [item for item in self._shelf(CLOSED_SHELF) if float(item["ends"]["N"]) < before.timestamp()]
        for item in gone:
            self._call("delete_item", Key=_key(CLOSED_SHELF, item["id"]["S"]))
        return len(gone)

    def exclusive(self, name: str) -> AbstractContextManager[Any]:
        return self._locks[name]

    def _shelf(self, shelf: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        while True:
            page = self._call(
                "query",
                KeyConditionExpression="shelf = :shelf",
                ExpressionAttributeValues={":shelf": {"S": shelf}},
                ConsistentRead=True,
                **start,
            )
            items += page["Items"]
            if not page.get("LastEvaluatedKey"):
                return items
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _call(self, operation: str, **parameters: Any) -> Any:
        """Raises KeyError when a condition failed, BrokerError for everything else."""
        try:
            return getattr(self._client, operation)(TableName=self._table, **parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] == _TAKEN:
                raise KeyError(_TAKEN) from None
            raise BrokerError(f"the ledger, table {self._table}: {error}") from None
        except BotoCoreError as error:
            raise BrokerError(f"the ledger, table {self._table}: {error}") from None


def _key(shelf: str, id: str) -> dict[str, Any]:
    return {PARTITION_KEY: {"S": shelf}, SORT_KEY: {"S": id}}


def _marshal(values: dict[str, Any], nulls: bool = False) -> dict[str, Any]:
    """Plain values as DynamoDB's. Without `nulls`, what is None is left out."""
    marked: dict[str, Any] = {}
    for name, value in values.items():
        if value is not None:
            marked[name] = {"N": str(Decimal(repr(value)))} if name in TIMES else {"S": value}
        elif nulls:
            marked[name] = {"NULL": True}
    return marked


def _entry(item: dict[str, Any]) -> Entry:
    values = {name: next(iter(value.values())) for name, value in item.items() if "NULL" not in value}
    return decode(values, lambda seconds: datetime.fromtimestamp(seconds, UTC))
