"""Statements made ready for comparison: action sets, encoded patterns and condition atoms, equal ones made once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ringfence.iam import patterns
from ringfence.iam.catalogue import Catalogue, catalogue
from ringfence.iam.conditions import Atom, atom, implies
from ringfence.iam.model import Condition, Document, Permissions, PrincipalEntry, Statement
from ringfence.iam.patterns import STAR


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What a statement speaks of, whatever its effect; equal scopes are one object.

    actions: catalogued ones, as a set of numbers; action_patterns: lower case and encoded; resources: encoded; the
    inverted flags mark NotAction and NotResource; symbols: the policy variables used; resourceless: the statement
    names no resource, and so speaks of whatever it is attached to.
    """

    actions: int
    action_patterns: tuple[str, ...]
    actions_inverted: bool
    resources: tuple[str, ...]
    resources_inverted: bool
    resourceless: bool
    conditions: frozenset[Atom]
    principals: tuple[PrincipalEntry, ...]
    not_principals: tuple[PrincipalEntry, ...]
    symbols: frozenset[str]

    @property
    def has_principals(self) -> bool:
        return bool(self.principals or self.not_principals)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One statement at its place. layer and document: as in `Permissions.layers`."""

    layer: str
    document: int
    statement: Statement
    scope: Scope


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one permission set: allowing rows by layer, denying rows of all layers."""

    allows: dict[str, tuple[Row, ...]]
    denies: tuple[Row, ...]

    def rows(self) -> Iterable[Row]:
        """Every row."""
        for rows in self.allows.values():
            yield from rows
        yield from self.denies


def table(permissions: Permissions) -> Table:
    """The rows of a permission set."""
    allows: dict[str, tuple[Row, ...]] = {}
    denies: list[Row] = []
    for layer, documents in permissions.layers():
        allowing: list[Row] = []
        for place, document in enumerate(documents):
            for statement in document.statements:
                row = Row(layer, place, statement, _scope_of(statement, document))
                (allowing if statement.effect == "Allow" else denies).append(row)
        allows[layer] = tuple(allowing)
    return Table(allows, tuple(denies))


def _scope_of(statement: Statement, document: Document) -> Scope:
    return _scope(
        statement.actions,
        statement.not_actions,
        statement.resources,
        statement.not_resources,
        statement.principals,
        statement.not_principals,
        statement.conditions,
        document.variables_enabled,
    )


@lru_cache(maxsize=8_192)
def _scope(
    actions: tuple[str, ...],
    not_actions: tuple[str, ...],
    resources: tuple[str, ...],
    not_resources: tuple[str, ...],
    principals: tuple[PrincipalEntry, ...],
    not_principals: tuple[PrincipalEntry, ...],
    conditions: tuple[Condition, ...],
    variables: bool,
) -> Scope:
    data = catalogue()
    lower = sorted({pattern.lower() for pattern in actions or not_actions})
    named = 0
    for pattern in lower:
        named |= data.expand(pattern)
    encoded = sorted({patterns.encode(resource, variables) for resource in resources or not_resources})
    resourceless = not encoded
    atoms = frozenset(atom(condition, variables) for condition in conditions)
    used = [*encoded, *(value for item in atoms for value in item.values)]
    return Scope(
        actions=named if actions else data.everything & ~named,
        action_patterns=tuple(patterns.encode(pattern) for pattern in lower),
        actions_inverted=not actions,
        resources=tuple(encoded) or (STAR,),
        resources_inverted=bool(not_resources),
        resourceless=resourceless,
        conditions=atoms,
        principals=principals,
        not_principals=not_principals,
        symbols=frozenset(symbol for pattern in used for symbol in patterns.variables_in(pattern)),
    )


def uncatalogued_patterns(scope: Scope, data: Catalogue) -> tuple[str, ...]:
    """The action patterns that also name actions outside the catalogue (a star for NotAction)."""
    if scope.actions_inverted:
        return (STAR,)
    return tuple(p for p in scope.action_patterns if not (patterns.is_literal(p) and data.expand(p)))


def covers_pattern(scope: Scope, pattern: str) -> bool:
    """A quick test, sound but not complete: whether the scope has every action that `pattern` names."""
    if not scope.actions_inverted:
        return any(patterns.includes(wide, pattern) for wide in scope.action_patterns)
    return not any(patterns.may_overlap(excluded, pattern) for excluded in scope.action_patterns)


def subsumes(wide: Scope, narrow: Scope) -> bool:
    """A quick test, sound but not complete: whether `wide` applies wherever `narrow` does, actions left aside."""
    if wide is narrow:
        return True
    return (
        (not wide.conditions or implies(narrow.conditions, wide.conditions))
        and _principals_subsume(wide, narrow)
        and _resources_subsume(wide, narrow)
    )


def _resources_subsume(wide: Scope, narrow: Scope) -> bool:
    if not wide.resources_inverted:
        if wide.resources == (STAR,) or (STAR in wide.resources):
            return True
        if narrow.resources_inverted:
            return False
        return all(covered(pattern, wide.resources) for pattern in narrow.resources)
    if narrow.resources_inverted:
        return all(covered(pattern, narrow.resources) for pattern in wide.resources)
    return not any(patterns.may_overlap(kept, p) for p in narrow.resources for kept in wide.resources)


def covered(pattern: str, wide: tuple[str, ...]) -> bool:
    """Whether one of the patterns `wide` includes `pattern`."""
    return pattern in wide or any(patterns.includes(each, pattern) for each in wide)


def _principals_subsume(wide: Scope, narrow: Scope) -> bool:
    if not wide.has_principals:
        return True
    if wide.not_principals or narrow.not_principals or not narrow.principals:
        return any(_is_everyone(entry) for entry in wide.principals) or (
            wide.principals == narrow.principals and wide.not_principals == narrow.not_principals
        )
    return all(any(_entry_covers(entry, other) for entry in wide.principals) for other in narrow.principals)


def _is_everyone(entry: PrincipalEntry) -> bool:
    return entry.type == "*" or (entry.type == "AWS" and entry.value == "*")


def _entry_covers(wide: PrincipalEntry, narrow: PrincipalEntry) -> bool:
    if wide == narrow or _is_everyone(wide):
        return True
    if wide.type != narrow.type or narrow.value == "*":
        return False
    if wide.value == "*":
        return True
    account = account_of(wide.value)
    return bool(account) and narrow.value.split(":")[4:5] == [account]


def account_of(value: str) -> str:
    """The account that a principal entry names as a whole (by id or root ARN); empty for any other entry."""
    if value.isdigit():
        return value
    parts = value.split(":")
    return parts[4] if len(parts) == 6 and parts[2] == "iam" and parts[5] == "root" else ""
