"""Typed documents back to JSON, canonically, and the sizes that IAM allows."""

from __future__ import annotations

import json

from ringfence.iam.model import Document, PrincipalEntry, Statement
from ringfence.iam.rendering import INLINE_POLICIES_LIMIT, MANAGED_POLICY_LIMIT, TRUST_POLICY_LIMIT, policy_size

# What IAM lets a document hold, in characters without whitespace. Source: IAM User Guide, "IAM and AWS STS quotas".
# A role's or a user's inline policies share their limit.
SIZE_LIMITS: dict[str, int] = {
    "role-inline": INLINE_POLICIES_LIMIT,
    "user-inline": 2_048,
    "group-inline": 5_120,
    "managed": MANAGED_POLICY_LIMIT,
    "trust": TRUST_POLICY_LIMIT,
    "session": 2_048,
}


def to_mapping(document: Document) -> dict[str, object]:
    """The document as plain JSON values in canonical form: entries sorted and unique, statements in a fixed order."""
    statements = sorted(
        (_statement(s) for s in document.statements), key=lambda value: json.dumps(value, sort_keys=True)
    )
    mapping: dict[str, object] = {"Version": document.version, "Statement": statements}
    if document.id:
        mapping["Id"] = document.id
    return mapping


def render(document: Document, *, indent: int | None = None) -> str:
    """Canonical JSON text: the same for documents that differ only in order, spelling of operators or repetition.

    indent: spaces per level for a text that people read; None for the compact form that counts against IAM's sizes.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(to_mapping(document), sort_keys=True, indent=indent, separators=separators, ensure_ascii=False)


def size_problem(text: str, use: str) -> str:
    """Why `text` is too large for `use` (a key of SIZE_LIMITS), or an empty string when it fits."""
    count, limit = policy_size(text), SIZE_LIMITS[use]
    if count <= limit:
        return ""
    return f"has {count:,} characters without whitespace; IAM allows {limit:,} for a {use} policy"


def _statement(statement: Statement) -> dict[str, object]:
    mapping: dict[str, object] = {"Effect": statement.effect}
    if statement.sid:
        mapping["Sid"] = statement.sid
    for name, entries in (
        ("Action", statement.actions),
        ("NotAction", statement.not_actions),
        ("Resource", statement.resources),
        ("NotResource", statement.not_resources),
    ):
        if entries:
            mapping[name] = sorted(set(entries))
    for name, principals in (("Principal", statement.principals), ("NotPrincipal", statement.not_principals)):
        if principals:
            mapping[name] = _principals(principals)
    conditions: dict[str, dict[str, list[str]]] = {}
    for condition in statement.conditions:
        conditions.setdefault(condition.full_operator, {})[condition.key] = sorted(set(condition.values))
    if conditions:
        mapping["Condition"] = conditions
    return mapping


def _principals(entries: tuple[PrincipalEntry, ...]) -> str | dict[str, list[str]]:
    if any(entry.type == "*" for entry in entries):
        return "*"
    mapping: dict[str, list[str]] = {}
    for entry in entries:
        mapping.setdefault(entry.type, []).append(entry.value)
    return {name: sorted(set(values)) for name, values in mapping.items()}
