"""Policy variables: replacing them by values, and parts that stand for all of their values at once."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from ringfence.iam import patterns
from ringfence.iam.budget import Budget
from ringfence.iam.conditions import Atom, implies
from ringfence.iam.question import Part
from ringfence.iam.readings import loosened
from ringfence.iam.rows import covered

# Values by lower-case condition key; None for an absent key.
Assignment = dict[str, str | None]
_PATTERNED = ("StringLike", "StringFolded", "ArnLike")
# Into how many cases the lists of a part's conditions are split at most.
_MAX_CASES = 256
# So many values that a condition names for a variable are tried one by one.
_MAX_PINS = 8


def symbols_of(part: Part) -> set[str]:
    """The variables that a part uses."""
    used = [*part.resources, *(value for item in part.conditions for value in item.values)]
    return {symbol for pattern in used for symbol in patterns.variables_in(pattern)}


def bind(part: Part, assignment: Assignment) -> Part | None:
    """The part with the variables whose key `assignment` gives replaced; None when it can't apply, as a resource it
    needs has no value."""
    values: dict[str, str | None] = {}
    for symbol in symbols_of(part):
        key, default = patterns.variable_of(symbol)
        if key in assignment:
            value = assignment[key]
            values[symbol] = default if value is None else value
    if not values:
        return part
    bound = (patterns.substitute(pattern, values) for pattern in part.resources)
    resources = tuple(pattern for pattern in bound if pattern is not None)
    if not resources and not part.inverted:
        return None
    return Part(resources, part.inverted, frozenset(_bind_atom(item, values) for item in part.conditions))


def _bind_atom(item: Atom, values: dict[str, str | None]) -> Atom:
    if not any(patterns.variables_in(value) for value in item.values):
        return item
    if item.operator == "StringFolded":
        values = {symbol: value and patterns.encode_folded(value) for symbol, value in values.items()}
    bound = (patterns.substitute(value, values) for value in item.values)
    return replace(item, values=frozenset(value for value in bound if value is not None))


def cases(part: Part) -> Iterator[Part]:
    """Parts that together apply where the part does: one for each choice of one value from its lists of patterns."""
    lists = [
        [replace(item, values=frozenset((value,))) for value in sorted(item.values)]
        if item.operator in _PATTERNED and not item.negated and not item.quantifier and len(item.values) > 1
        else [item]
        for item in part.conditions
    ]
    count = 1
    for alternatives in lists:
        count *= len(alternatives)
    if count == 1 or count > _MAX_CASES:
        yield part
        return
    for chosen in itertools.product(*lists):
        yield replace(part, conditions=frozenset(chosen))


def pinned(part: Part, keys: Collection[str]) -> Iterator[Assignment]:
    """The values that the part's conditions leave to those of the variables `keys` of which they name all: every
    combination; one empty assignment when they name none."""
    choices: dict[str, list[str | None]] = {}
    for item in part.conditions:
        if item.key not in keys or item.quantifier or item.negated or item.if_exists:
            continue
        if item.operator == "Null" and item.values == {"true"}:
            choices[item.key] = [None]
        elif (
            item.operator == "StringLike"
            and all(map(patterns.is_literal, item.values))
            and len(item.values) <= _MAX_PINS
        ):
            choices.setdefault(item.key, sorted(item.values))
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def without_opposed(part: Part, opposing: Sequence[Part], budget: Budget) -> Part | None:
    """The part without the resource patterns that one opposing part takes in whole, whatever the variables' values;
    None when nothing is left."""
    implied = [other for other in opposing if implies(part.conditions, other.conditions, budget)]
    if any(other.inverted and _within(other, part, budget) for other in implied):
        return None
    against = [pattern for other in implied if not other.inverted for pattern in other.resources]
    if against and any(
        other.inverted and all(covered(each, against, budget) for each in other.resources) for other in implied
    ):
        return None
    if part.inverted:
        return part
    left = tuple(each for each in part.resources if not covered(each, against, budget))
    return replace(part, resources=left) if left else None


def _within(wide: Part, narrow: Part, budget: Budget) -> bool:
    """Whether an inverted part's resources hold all of another's, whatever the variables' values."""
    if narrow.inverted:
        return all(covered(pattern, narrow.resources, budget) for pattern in wide.resources)
    kept = [loosened(pattern) for pattern in wide.resources]
    return not any(patterns.may_overlap(each, loosened(pattern)) for pattern in narrow.resources for each in kept)


def loosen(part: Part) -> Part:
    """A positive part that applies at least wherever the part does for some values."""
    if part.inverted:
        resources: tuple[str, ...] = tuple(p for p in part.resources if not patterns.variables_in(p))
    else:
        resources = tuple(loosened(pattern) for pattern in part.resources)
    return Part(resources, part.inverted, frozenset(_freed(item, wider=True) for item in part.conditions))


def narrow(part: Part) -> Part | None:
    """An opposing part that applies at most wherever the part does for all values; None when it may never apply."""
    if part.inverted:
        resources: tuple[str, ...] = tuple(loosened(pattern) for pattern in part.resources)
    else:
        resources = tuple(p for p in part.resources if not patterns.variables_in(p))
        if not resources:
            return None
    return Part(resources, part.inverted, frozenset(_freed(item, wider=False) for item in part.conditions))


def _freed(item: Atom, *, wider: bool) -> Atom:
    """The test without variables: one that holds at least (wider) or at most wherever it does for some values."""
    if not any(patterns.variables_in(value) for value in item.values):
        return item
    if wider != item.negated:
        values = frozenset(loosened(value) for value in item.values)
    else:
        values = frozenset(value for value in item.values if not patterns.variables_in(value))
    return replace(item, values=values)
