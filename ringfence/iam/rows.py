"""Statements made ready for comparison: action sets, encoded patterns and condition atoms, equal ones made once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ringfence.iam import patterns
from ringfence.iam.budget import Budget
from ringfence.iam.catalogue import Catalogue, catalogue
from ringfence.iam.conditions import Atom, atom, implies
from ringfence.iam.model import Condition, Document, Permissions, PrincipalEntry, Statement
from ringfence.iam.patterns import STAR
from ringfence.iam.request import Principal

# Up to as many actions are looked up one by one in a scope whose own set isn't known yet.
_FEW_ACTIONS = 4
_STEPS_PER_PATTERN = 8


class Scope:
    """What a statement speaks of, whatever its effect; equal scopes are one object, and each part is worked out when
    it is first asked for, as most statements of a new version are those of the old one.

    action_patterns: lower case and encoded; resources: encoded; the inverted flags mark NotAction and NotResource;
    resourceless: the statement names no resource, and so speaks of whatever it is attached to.
    """

    def __init__(self, statement: Statement, variables: bool):
        self._statement, self._variables = statement, variables
        self._actions: int | None = None
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

    def actions(self, budget: Budget) -> int:
        """The catalogued actions, as a set of numbers."""
        if self._actions is None:
            data = catalogue()
            named = 0
            for text in self.action_texts:
                # A pattern is held against every name of its service.
                budget.tick(_STEPS_PER_PATTERN)
                named |= data.expand(text)
            self._actions = data.everything & ~named if self.actions_inverted else named
        return self._actions

    def among(self, actions: int, budget: Budget) -> int:
        """Those of the catalogued `actions` that the scope speaks of."""
        if self._actions is not None or actions.bit_count() > _FEW_ACTIONS:
            return self.actions(budget) & actions
        data = catalogue()
        found, left = 0, actions
        while left:
            action = left & -left
            left ^= action
            budget.tick(1 + len(self.action_patterns) // 8)
            name = data.name(action.bit_length() - 1).lower()
            if any(patterns.matches(pattern, name) for pattern in self.action_patterns) != self.actions_inverted:
                found |= action
        return found

    @cached_property
    def resources(self) -> tuple[str, ...]:
        listed = self._statement.resources or self._statement.not_resources
        return tuple(sorted({patterns.encode(each, self._variables) for each in listed})) or (STAR,)

    @cached_property
    def conditions(self) -> frozenset[Atom]:
        return frozenset(atom(condition, self._variables) for condition in self._statement.conditions)

    @cached_property
    def principal_index(self) -> PrincipalIndex:
        """The entries of Principal, or else of NotPrincipal."""
        return PrincipalIndex(self.principals or self.not_principals)

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


def forget() -> None:
    """Forget the scopes made so far, whose patterns hold variables' numbers."""
    _scope.cache_clear()


def uncatalogued(texts: Iterable[str], data: Catalogue) -> tuple[str, ...]:
    """Those of the lower-case action patterns, encoded, that also name actions outside the catalogue."""
    return tuple(
        patterns.encode(text) for text in sorted(texts) if patterns.has_wildcard(text) or not data.expand(text)
    )


def covers_pattern(scope: Scope, pattern: str, budget: Budget) -> bool:
    """A quick test, sound but not complete: whether the scope has every action that `pattern` names."""
    budget.tick(1 + len(scope.action_patterns) // 8)
    if not scope.actions_inverted:
        return any(patterns.includes(wide, pattern) for wide in scope.action_patterns)
    return not any(patterns.may_overlap(excluded, pattern) for excluded in scope.action_patterns)


def subsumes(wide: Scope, narrow: Scope, budget: Budget) -> bool:
    """A quick test, sound but not complete: whether `wide` applies wherever `narrow` does, actions left aside."""
    if wide is narrow:
        return True
    return (
        (not wide.conditions or implies(narrow.conditions, wide.conditions, budget))
        and _principals_subsume(wide, narrow, budget)
        and _resources_subsume(wide, narrow, budget)
    )


def _resources_subsume(wide: Scope, narrow: Scope, budget: Budget) -> bool:
    if not wide.resources_inverted:
        if wide.resources == (STAR,) or (STAR in wide.resources):
            return True
        if narrow.resources_inverted:
            return False
        return all(covered(pattern, wide.resources, budget) for pattern in narrow.resources)
    if narrow.resources_inverted:
        return all(covered(pattern, narrow.resources, budget) for pattern in wide.resources)
    for pattern in narrow.resources:
        budget.tick(1 + len(wide.resources) // 8)
        if any(patterns.may_overlap(kept, pattern) for kept in wide.resources):
            return False
    return True


def covered(pattern: str, wide: Sequence[str], budget: Budget) -> bool:
    """Whether one of the patterns `wide` includes `pattern`."""
    budget.tick(1 + len(wide) // 8)
    return pattern in wide or any(patterns.includes(each, pattern) for each in wide)


def _principals_subsume(wide: Scope, narrow: Scope, budget: Budget) -> bool:
    if not wide.has_principals:
        return True
    if wide.not_principals or narrow.not_principals or not narrow.principals:
        return any(_is_everyone(entry) for entry in wide.principals) or (
            wide.principals == narrow.principals and wide.not_principals == narrow.not_principals
        )
    named = wide.principal_index
    for entry in narrow.principals:
        budget.tick()
        if not named.covers(entry):
            return False
    return True


def _is_everyone(entry: PrincipalEntry) -> bool:
    return entry.type == "*" or (entry.type == "AWS" and entry.value == "*")


class PrincipalIndex:
    """The entries of a Principal or NotPrincipal element, looked up instead of gone through."""

    def __init__(self, entries: Sequence[PrincipalEntry]):
        self.everyone = any(_is_everyone(entry) for entry in entries)
        self._entries = {(entry.type, entry.value) for entry in entries}
        values = [entry.value for entry in entries if entry.type == "AWS"]
        self._accounts = {account_of(value) for value in values} - {""}
        # A session's ARN leaves out the path of its role.
        self._roles = {without_path(value) for value in values if ":role/" in value}

    def covers(self, entry: PrincipalEntry) -> bool:
        """A quick test, sound but not complete: whether the entries name everyone that `entry` does."""
        if self.everyone or (entry.type, entry.value) in self._entries:
            return True
        if entry.value == "*" or entry.type == "*":
            return False
        if (entry.type, "*") in self._entries:
            return True
        return entry.type == "AWS" and (account_of(entry.value) or _account_in(entry.value)) in self._accounts

    def names(self, principal: Principal) -> bool:
        """Whether one of the entries names the principal."""
        if self.everyone:
            return True
        if (principal.type, principal.value) in self._entries or (principal.type, "*") in self._entries:
            return True
        if principal.type != "AWS":
            return False
        return principal.account in self._accounts or bool(principal.role_arn and principal.role_arn in self._roles)


def without_path(arn: str) -> str:
    """The ARN of a role without its path."""
    head, separator, path = arn.partition(":role/")
    return f"{head}{separator}{path.rsplit('/', 1)[-1]}"


def _account_in(arn: str) -> str:
    parts = arn.split(":", 5)
    return parts[4] if len(parts) == 6 else ""


def account_of(value: str) -> str:
    """The account that a principal entry names as a whole (by id or root ARN); empty for any other entry."""
    if value.isdigit():
        return value
    parts = value.split(":")
    return parts[4] if len(parts) == 6 and parts[2] == "iam" and parts[5] == "root" else ""
