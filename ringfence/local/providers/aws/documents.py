"""When two texts are the same document: JSON by value, IAM policies as the official provider compares them."""

from __future__ import annotations

import json
from typing import Any

# Where IAM takes one value for a list of one, and where the order of the list has no meaning.
_STATEMENT_LISTS = ("Action", "NotAction", "Resource", "NotResource")


def parsed(text: Any) -> Any:
    """The value of a JSON text; a dict or list passes. Raises ValueError when `text` is no JSON."""
    if isinstance(text, dict | list):
        return text
    return json.loads(text)


def canonical_json(text: Any) -> str:
    """One spelling for every JSON text of the same value."""
    return json.dumps(parsed(text), sort_keys=True, separators=(",", ":"))


def canonical_policy(text: Any) -> str:
    """One spelling for every IAM policy that differs in statement order, list order or one-element lists only."""
    document = parsed(text)
    if not isinstance(document, dict):
        raise ValueError("an IAM policy document is a JSON object")
    statements = document.get("Statement", [])
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not all(isinstance(entry, dict) for entry in statements):
        raise ValueError("Statement is an object or a list of objects")
    spelled = sorted(json.dumps(_statement(entry), sort_keys=True, separators=(",", ":")) for entry in statements)
    rest = {key: value for key, value in document.items() if key != "Statement"}
    return json.dumps([rest, spelled], sort_keys=True, separators=(",", ":"))


def _statement(entry: dict[str, Any]) -> dict[str, Any]:
    spelled = dict(entry)
    for key in _STATEMENT_LISTS:
        if key in spelled:
            values = _many(spelled[key])
            spelled[key] = (
                sorted({value.lower() for value in values}) if key.endswith("Action") else sorted(set(values))
            )
    for key in ("Principal", "NotPrincipal"):
        if isinstance(spelled.get(key), dict):
            spelled[key] = {kind: sorted(set(_many(values))) for kind, values in spelled[key].items()}
    if isinstance(spelled.get("Condition"), dict):
        spelled["Condition"] = {
            operator: {key: sorted(set(_many(values))) for key, values in tests.items()}
            for operator, tests in spelled["Condition"].items()
            if isinstance(tests, dict)
        }
    if not spelled.get("Sid"):
        spelled.pop("Sid", None)
    return spelled


def _many(value: Any) -> list[str]:
    """Condition values may be booleans or numbers in JSON; IAM reads them as their text."""
    values = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in values]
