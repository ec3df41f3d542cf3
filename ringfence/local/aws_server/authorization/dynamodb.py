"""What DynamoDB operations ask for, with the attributes and partition keys that they touch.

Reference: DynamoDB Developer Guide, "Using IAM policy conditions for fine-grained access control".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ringfence.local.aws_server.authorization.asking import Asked, Question, Service, Unmapped, View, one

_TABLE = re.compile(r"^[A-Za-z0-9_.-]{3,255}\Z")
_EXPRESSIONS = (
    "UpdateExpression", "ConditionExpression", "ProjectionExpression", "FilterExpression", "KeyConditionExpression",
)  # fmt: skip
# A name, an alias or a value of an expression, with what stands before it. Reference: "Expressions in DynamoDB".
_WORD = re.compile(r"([.:#]?)([A-Za-z_][A-Za-z0-9_]*)(\s*\()?")
_KEYWORDS = frozenset({"set", "remove", "add", "delete", "and", "or", "not", "between", "in"})
_EQUALS = re.compile(r"(#?[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(:[A-Za-z0-9_]+)")


def _table_arn(view: View, name: object, index: object = None) -> str:
    if not isinstance(name, str) or not name:
        raise Unmapped("TableName is missing")
    if not _TABLE.match(name):
        raise Unmapped("TableName must be a name, not an ARN")
    if index is not None and not (isinstance(index, str) and _TABLE.match(index)):
        raise Unmapped("IndexName is not a name")
    return view.arn("dynamodb", f"table/{name}" + (f"/index/{index}" if index else ""))


def attributes(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Top-level names of every attribute that a request names: keys, items, expressions, the older parameters."""
    aliases = params.get("ExpressionAttributeNames") or {}
    names: set[str] = set(aliases.values())
    for member in ("Key", "Item", "AttributeUpdates", "Expected", "KeyConditions", "QueryFilter", "ScanFilter"):
        names |= set(params.get(member) or {})
    names |= set(params.get("AttributesToGet") or ())
    for member in _EXPRESSIONS:
        for mark, word, call in _WORD.findall(params.get(member) or ""):
            # An alias is in the list above already, a value is no name, and what follows a dot is inside of one.
            if not mark and not call and word.lower() not in _KEYWORDS:
                names.add(word)
    return tuple(sorted(names))


def _hash_key(view: View, name: str, index: object) -> str:
    """Name of the partition key; empty when there is no such table or index."""
    from moto.dynamodb.models import dynamodb_backends

    table = dynamodb_backends[view.call.account][view.call.region].tables.get(name)
    if table is None:
        return ""
    if not index:
        return str(table.hash_key_attr or "")
    found = next((entry for entry in table.indexes + table.global_indexes if entry.name == index), None)
    schema = found.schema if found else ()
    return next((str(entry["AttributeName"]) for entry in schema if entry["KeyType"] == "HASH"), "")


def _scalar(value: object) -> str | None:
    """A key's value as policies compare it."""
    if isinstance(value, Mapping) and len(value) == 1:
        kind, inner = next(iter(value.items()))
        if kind in ("S", "N", "B"):
            return inner.decode("utf-8", "replace") if isinstance(inner, bytes) else str(inner)
    return None


def _leading(view: View, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Values of the partition key that the request names."""
    name = _hash_key(view, str(params.get("TableName", "")), params.get("IndexName"))
    if not name:
        return ()
    for member in ("Key", "Item"):
        if name in (params.get(member) or {}):
            return one(_scalar(params[member][name]))
    aliases, values = params.get("ExpressionAttributeNames") or {}, params.get("ExpressionAttributeValues") or {}
    named = [
        _scalar(values.get(value))
        for word, value in _EQUALS.findall(params.get("KeyConditionExpression") or "")
        if aliases.get(word, word) == name
    ]
    return one(*named)


def _select(params: Mapping[str, Any]) -> tuple[str, ...]:
    if params.get("Select"):
        return (str(params["Select"]),)
    chosen = params.get("ProjectionExpression") or params.get("AttributesToGet")
    whole = "ALL_PROJECTED_ATTRIBUTES" if params.get("IndexName") else "ALL_ATTRIBUTES"
    return ("SPECIFIC_ATTRIBUTES",) if chosen else (whole,)


def _context(view: View, params: Mapping[str, Any], reading: bool) -> dict[str, tuple[str, ...]]:
    return {
        "dynamodb:Attributes": attributes(params),
        "dynamodb:LeadingKeys": _leading(view, params),
        "dynamodb:Select": _select(params) if reading else (),
        "dynamodb:ReturnValues": one(params.get("ReturnValues")),
        "dynamodb:ReturnConsumedCapacity": one(params.get("ReturnConsumedCapacity")),
    }


def _on_table(action: str, *, reading: bool = False) -> Question:
    def ask(view: View) -> list[Asked]:
        params = view.params
        arn = _table_arn(view, params.get("TableName"), params.get("IndexName"))
        return [Asked(f"dynamodb:{action}", arn, _context(view, params, reading))]

    return ask


def _batch(action: str, requests: Iterable[tuple[str, Mapping[str, Any]]], view: View, reading: bool) -> list[Asked]:
    asked = [
        Asked(f"dynamodb:{action}", _table_arn(view, name), _context(view, {**params, "TableName": name}, reading))
        for name, params in requests
    ]
    if not asked:
        raise Unmapped("no table is named")
    return asked


def _batch_get(view: View) -> list[Asked]:
    listed = view.params.get("RequestItems") or {}
    requests = [(name, {**wanted, "Key": key}) for name, wanted in listed.items() for key in wanted.get("Keys") or ()]
    return _batch("BatchGetItem", requests, view, True)


def _batch_write(view: View) -> list[Asked]:
    listed = view.params.get("RequestItems") or {}
    requests = [
        (name, entry.get("PutRequest") or entry.get("DeleteRequest") or {})
        for name, entries in listed.items()
        for entry in entries
    ]
    return _batch("BatchWriteItem", requests, view, False)


DYNAMODB = Service(
    {
        "BatchGetItem": _batch_get,
        "BatchWriteItem": _batch_write,
        "DeleteItem": _on_table("DeleteItem"),
        "DescribeTable": _on_table("DescribeTable"),
        "GetItem": _on_table("GetItem", reading=True),
        "PutItem": _on_table("PutItem"),
        "Query": _on_table("Query", reading=True),
        "Scan": _on_table("Scan", reading=True),
        "UpdateItem": _on_table("UpdateItem"),
    },
    frozenset(
        {
            "dynamodb:attributes", "dynamodb:leadingkeys", "dynamodb:select", "dynamodb:returnvalues",
            "dynamodb:returnconsumedcapacity",
        }
    ),
)  # fmt: skip
