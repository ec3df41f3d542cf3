"""From facts to typed documents: parsed once, with policies that AWS manages and boundaries resolved where known."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from typing import Any

from ringfence.errors import InputError
from ringfence.iam.document import parse
from ringfence.iam.model import Document, Kind, Permissions, PrincipalEntry, Statement
from ringfence.review import aws_managed
from ringfence.review.facts import Fact, Slot, Surface, Unknown


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a document can't be read."""

    reason: str


@functools.lru_cache(maxsize=4096)
def _parse(text: str, kind: Kind) -> Document | Unreadable:
    try:
        return parse(text, kind)
    except InputError as error:
        # Keys and messages only, and few of them: a document may hold secrets.
        told = "; ".join(f"{problem.key}: {problem.message}" for problem in error.problems[:3])
        return Unreadable(f"it is no valid policy document ({told})")


def parsed(fact: Fact, kind: Kind) -> Document | Unreadable | None:
    """A fact's document; None when the fact has none."""
    value = fact.value
    if value is None or isinstance(value, Unknown):
        return None
    return _parse(value if isinstance(value, str) else json.dumps(value, sort_keys=True), kind)


def equal_documents(one: Any, other: Any) -> bool:
    """Whether two documents hold the same statements but for order and single values against lists: a quick yes that
    spares a decision. A no says nothing."""
    if isinstance(one, Unknown) or isinstance(other, Unknown):
        return False
    return one == other or _shape(one) == _shape(other)


def _shape(document: Any) -> Any:
    return _text_shape(document) if isinstance(document, str) else _mapping_shape(document)


# Many roles share a trust policy, and the pack compares each document twice: alone, and as part of the stack.
@functools.lru_cache(maxsize=4096)
def _text_shape(text: str) -> Any:
    try:
        return _mapping_shape(json.loads(text, object_pairs_hook=unique_keys))
    except (ValueError, RecursionError):
        # Equal to no document: parsing proper says what is wrong.
        return text


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `json.loads`. Raises ValueError for a key that stands twice: who reads it takes either one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _mapping_shape(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    listed = document.get("Statement")
    statements = listed if isinstance(listed, list) else [listed]
    shapes = sorted(json.dumps(_listed(item), sort_keys=True, default=str) for item in statements)
    return {key: value for key, value in document.items() if key not in ("Statement", "Id")} | {"Statement": shapes}


def _listed(value: Any) -> Any:
    """Mappings with every single value as a list, and every list sorted."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    values = value if isinstance(value, list) else [value]
    return sorted(values, key=str)


def holds_deny(document: Document) -> bool:
    """Whether a document has a Deny."""
    return any(statement.effect == "Deny" for statement in document.statements)


def allow_everything(kind: Kind) -> Document:
    """A document that allows everything, to everybody where it names principals."""
    everybody = (PrincipalEntry("*", "*"),) if kind == "resource" else ()
    return Document(kind, (Statement(0, "Allow", ("*",), resources=("*",), principals=everybody),), "2012-10-17")


@dataclass(frozen=True)
class PrincipalSet:
    """A principal's own policies. documents: with the fact that holds or attaches each; unreadable: with the reason;
    boundary: its key, None for none."""

    permissions: Permissions
    documents: tuple[tuple[Fact, Document], ...]
    boundary: str | None
    unreadable: tuple[tuple[Fact, str], ...] = field(default=())

    def denies(self) -> tuple[Document, ...]:
        """The documents' Denies alone."""
        return tuple(
            replace(document, statements=tuple(s for s in document.statements if s.effect == "Deny"))
            for _, document in self.documents
            if holds_deny(document)
        )


def managed_document(key: str, surface: Surface) -> Document | Unreadable | None:
    """The document of an attached policy: a customer's from the surface, AWS's from what is bundled."""
    value = aws_managed.document(key) if key.startswith("aws:") else surface.value(key, Slot.DOCUMENT)
    return None if value is None else parsed(Fact(key, Slot.DOCUMENT, "", value), "identity")


def principal_set(subject: str, surface: Surface) -> PrincipalSet:
    """The policies of ``role/x``, ``user/x`` or ``group/x`` in a surface.

    A boundary whose document isn't in the surface is left out on either side, which never hides a widening.
    """
    documents: list[tuple[Fact, Document]] = []
    unreadable: list[tuple[Fact, str]] = []
    for fact in surface.of_subject(subject):
        if fact.slot is Slot.INLINE:
            document = parsed(fact, "identity")
        elif fact.slot is Slot.MANAGED and not fact.unknown:
            document = managed_document(fact.key, surface)
        else:
            continue
        if isinstance(document, Unreadable):
            unreadable.append((fact, document.reason))
        elif document is not None:
            documents.append((fact, document))
    boundary = surface.value(subject, Slot.BOUNDARY)
    key = boundary if isinstance(boundary, str) else None
    limit = managed_document(key, surface) if key else None
    limit = replace(limit, kind="boundary") if isinstance(limit, Document) else None
    identity = tuple(document for _, document in documents)
    return PrincipalSet(Permissions(identity, limit), tuple(documents), key, tuple(unreadable))
