"""Statements made ready for comparison: action sets, encoded patterns and condition atoms, equal ones made once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ringfence.iam import patterns
from ringfence.iam.catalogue import Catalogue, catalogue
from ringfence.iam.conditions import Atom, atom, implies
from ringfence.iam.model import Condition, Document, Permissions, PrincipalEntry, Statement
from ringfence.iam.patterns import STAR

# Up to as many actions are looked up one by one in a scope whose own set isn't known yet.
_FEW_ACTIONS = 4


class Scope:
    """What a statement speaks of, whatever its effect; equal scopes are one object, and each part is worked out when
    it is first asked for, as most statements of a new version are those of the old one.

    action_patterns: lower case and encoded; resources: encoded; the inverted flags mark NotAction and NotResource;
    resourceless: the statement names no resource, and so speaks of whatever it is attached to.
    """

    def __init__(self, statement: Statement, variables: bool):
        self._statement, self._variables = statement, variables
        self.actions_inverted = not statement.actions
        self.resources_inverted = bool(statement.not_resources)
        self.resourceless = not (statement.resources or statement.not_resources)
        self.principals, self.not_principals = statement.principals, statement.not_principals

    @cached_property
    def action_texts(self) -> frozenset[str]:
        """The action patterns in lower case, as written."""
        return frozenset(pattern.lower() for pattern in self._statement.actions or self._statement.not_actions)

    @cached_property
    def action_patterns(self) -> tuple[str, ...]:
        return tuple(patterns.encode(text) for text in sorted(self.action_texts))

    @cached_property
    def actions(self) -> int:
        """The catalogued actions, as a set of numbers."""
        data = catalogue()
        named = 0
        for text in self.action_texts:
            named |= data.expand(text)
        return data.everything & ~named if self.actions_inverted else named

    def among(self, actions: int) -> int:
        """Those of the catalogued `actions` that the scope speaks of."""
        if "actions" in self.__dict__ or actions.bit_count() > _FEW_ACTIONS:
            return self.actions & actions
        data = catalogue()
        found, left = 0, actions
        while left:
            action = left & -left
            left ^= action
            if covers_pattern(self, data.name(action.bit_length() - 1).lower()):
                found |= action
        return found

    @cached_property
    def resources(self) -> tuple[str, ...]:
        listed = self._statement.resources or self._statement.not_resources
        return tuple(sorted({patterns.encode(each, self._variables) for each in listed})) or (STAR,)

    @cached_property
    def conditions(self) -> frozenset[Atom]:
        return frozenset(atom(condition, self._variables) for condition in self._statement.conditions)

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
    said = Statement(0, "Allow", actions, not_actions, resources, not_resources, principals, not_principals, conditions)
    return Scope(said, variables)


def uncatalogued(texts: Iterable[str], data: Catalogue) -> tuple[str, ...]:
    """Those of the lower-case action patterns, encoded, that also name actions outside the catalogue."""
    return tuple(
        patterns.encode(text) for text in sorted(texts) if patterns.has_wildcard(text) or not data.expand(text)
    )


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
