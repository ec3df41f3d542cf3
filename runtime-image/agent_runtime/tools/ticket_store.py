"""ticket-store: reads support tickets and appends agent notes."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agent_runtime.errors import ToolError
from agent_runtime.tool import Tool
from agent_runtime.tools import aws
from agent_runtime.tools.surroundings import Surroundings

TABLE, INDEX = "support-tickets", "by-customer"
MAX_TICKETS = 50
_PARAMETERS = {
    "type": "object",
    "properties": {
        "action": {"type": "string", "enum": ["get", "query", "note"]},
        "ticket_id": {"type": "string", "description": "get, note: the ticket"},
        "customer": {"type": "string", "description": "query: whose tickets"},
        "note": {"type": "string", "description": "note: what the human who answers the ticket should know"},
    },
    "required": ["action"],
    "additionalProperties": False,
}


def tool(surroundings: Surroundings) -> Tool:
    """The tool for one task."""

    def run(arguments: Mapping[str, Any]) -> Any:
        action = arguments.get("action")
        needed = {"get": ("ticket_id",), "query": ("customer",), "note": ("ticket_id", "note")}.get(str(action))
        if needed is None:
            raise ToolError("action must be get, query or note")
        for name in needed:
            if not isinstance(arguments.get(name), str) or not arguments[name]:
                raise ToolError(f"{name} is missing")
        database = aws.client("dynamodb", surroundings)
        try:
            return _ACTIONS[str(action)](database, arguments)
        except ToolError:
            raise
        except Exception as error:
            raise aws.fault(error) from error

    declaration = surroundings.declaration
    return Tool(declaration.name, declaration.description or "Reads tickets and notes.", _PARAMETERS, run)


def _get(database: Any, arguments: Mapping[str, Any]) -> Any:
    answer = database.get_item(TableName=TABLE, Key={"ticket_id": {"S": arguments["ticket_id"]}})
    if "Item" not in answer:
        raise ToolError("there is no such ticket")
    return _plain(answer["Item"])


def _query(database: Any, arguments: Mapping[str, Any]) -> Any:
    answer = database.query(
        TableName=TABLE,
        IndexName=INDEX,
        KeyConditionExpression="customer = :customer",
        ExpressionAttributeValues={":customer": {"S": arguments["customer"]}},
        Limit=MAX_TICKETS,
    )
    return {"tickets": [_plain(item) for item in answer["Items"]], "more": "LastEvaluatedKey" in answer}


def _note(database: Any, arguments: Mapping[str, Any]) -> Any:
    moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    database.update_item(
        TableName=TABLE,
        Key={"ticket_id": {"S": arguments["ticket_id"]}},
        UpdateExpression="SET agent_note = :note, agent_note_at = :moment",
        ExpressionAttributeValues={":note": {"S": arguments["note"]}, ":moment": {"S": moment}},
    )
    return {"noted": arguments["ticket_id"], "at": moment}


_ACTIONS = {"get": _get, "query": _query, "note": _note}


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    from boto3.dynamodb.types import TypeDeserializer

    deserializer = TypeDeserializer()
    values = {name: deserializer.deserialize(value) for name, value in item.items()}
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in values.items()}
