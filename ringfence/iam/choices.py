"""Which values of policy variables are worth trying, and whether trying them proves that there is no other answer.

A variable's values fall into cells that nothing in the question tells apart: neither a condition on its own key, nor a
pattern that a text has to match together with one in which it is used (`readings`). One value per cell is tried, with a
character that no pattern names wherever the cell allows it, and as many values per cell as there are variables that
could have to differ.

Why that is enough. Take any answer, and put for each variable the value tried for its cell, wherever it is taken up by
the resource or by a condition's value. What had to match still does, since the new value takes up the same stretches.
A pattern without variables that must not match doesn't: a star of it took the unnamed character, and would have taken
what it stands in for. Where such a pattern counts characters, or the tests are more than texts and beginnings, its
stretches tell values apart as well, so that it matches exactly what it did. A pattern with variables that must not match
doesn't, as the unnamed character occurs only where the value was put in. `Choices.exact` is False where one of these
steps could fail.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ringfence.iam import patterns
from ringfence.iam.automaton import OTHERS
from ringfence.iam.budget import Budget, Exhausted, Undecided
from ringfence.iam.cells import Domain, Test, candidates, domain_of, kind_of, truth
from ringfence.iam.patterns import ANY, PART, PART_ANY, STAR
from ringfence.iam.question import Part
from ringfence.iam.readings import may_meet, stretches
from ringfence.iam.variables import Assignment, symbols_of

MAX_ASSIGNMENTS = 4_096
# A variable that more stretches or tests than this tell apart is not decided.
_MAX_TESTS = 48
FRESH = "fresh"
_PARTITIONS = ("aws-cn", "aws-us-gov", "aws")
# What takes one character, or no colon.
_COUNTING = (ANY, PART_ANY, PART)
# The dimension that is not a condition key.
_RESOURCE = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A pattern in one dimension: the resource, or the value of a key. owner: what it is an alternative of; wanted: a
    text that answers the question may have to match it."""

    dimension: str
    pattern: str
    owner: object
    wanted: bool
    folded: bool


class Choices:
    """The values to try for every variable of the parts. layers: of each, one part has to apply; opposing: none may;
    fixed: keys whose value is given, variables of which are already replaced; boolean: keys that are true or false;
    shapes: texts with FRESH in them that a variable at the beginning of a resource is worth having.

    exact: whether no answer among them proves that there is none.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[Part]],
        opposing: Sequence[Part],
        fixed: Assignment,
        boolean: frozenset[str],
        budget: Budget,
        shapes: Sequence[str] = (),
    ):
        self.exact = True
        self._shapes = shapes
        self._fixed, self._boolean, self._budget = fixed, boolean, budget
        parts = [*(part for layer in layers for part in layer), *opposing]
        self._atoms = {item for part in parts for item in part.conditions}
        symbols = {symbol for part in parts for symbol in symbols_of(part)}
        self._symbols: dict[str, list[str]] = {}
        for symbol in sorted(symbols):
            self._symbols.setdefault(patterns.variable_of(symbol)[0], []).append(symbol)
        self.keys = sorted(self._symbols)
        self._uses: dict[str, set[Use]] = {}
        for use in _uses(layers, opposing):
            self._uses.setdefault(use.dimension, set()).add(use)
        self._add_fixed()
        # A key that a set operator asks for may hold several values, and then has none as a variable.
        self.exact &= not any(item.quantifier and item.key in self._symbols for item in self._atoms)
        self._fresh = self._unnamed(parts)
        # The variables that patterns which must not match tell apart as well.
        self._told_by_all: set[str] = set()
        self._tests = self._tested()
        self._groups = self._linked()

    def __iter__(self) -> Iterator[Assignment]:
        """Every combination. Raises Undecided after MAX_ASSIGNMENTS of them, when there are more."""
        choices = [self._values(key) for key in self.keys]
        for count, values in enumerate(_nearest_first(choices)):
            if count == MAX_ASSIGNMENTS:
                raise Undecided(
                    f"none of the first {MAX_ASSIGNMENTS:,} values of policy variables decides it, and there are more"
                )
            yield dict(zip(self.keys, values, strict=True))

    def tests(self, key: str) -> frozenset[Test]:
        """What tells the values of the variable apart."""
        return self._tests[key]

    def _add_fixed(self) -> None:
        """A given value is a pattern that its key has to match."""
        for key, value in self._fixed.items():
            if key in self._uses and value is not None:
                self._uses[key].add(Use(key, value, "fixed", True, False))

    def _unnamed(self, parts: Sequence[Part]) -> dict[str, str]:
        """For each variable a text with a character of its own that no pattern names."""
        named = {c for part in parts for pattern in _texts(part) for c in (*pattern, *map(patterns.folded, pattern))}
        unnamed = [c for c in OTHERS if c.lower() not in named and c.upper() not in named and c not in "*?\\\"'"]
        if len(unnamed) < len(self.keys):
            raise Undecided("the policies name every character and have variables")
        return {key: f"{FRESH}{character}" for key, character in zip(self.keys, unnamed, strict=False)}

    # What tells a variable's values apart

    def _tested(self) -> dict[str, frozenset[Test]]:
        own = {key: self._own(key) for key in self.keys}
        tests = own
        # Where another variable has one of a few values, its pattern is one without it: this can make further ones.
        for _ in range(2):
            known = {key: [*self._literals(found), self._fresh[key]] for key, found in tests.items()}
            tests = {key: tests[key] | self._met(key, known, wanted=True) for key in self.keys}
        for key in self.keys:
            if self._counted(key) or not _simple(tests[key]):
                self._told_by_all.add(key)
                known = {key: self._literals(found) for key, found in tests.items()}
                tests[key] |= self._met(key, known, wanted=False)
        for key, found in tests.items():
            if len(found) > _MAX_TESTS:
                self.exact = False
                tests[key] = own[key]
        return tests

    def _counted(self, key: str) -> bool:
        """Whether a pattern that a text must not match could count the characters of the variable's value, or see a
        colon in it: only then does it matter what an unnamed value stands in for."""
        for uses in self._uses.values():
            counting = [use for use in uses if not use.wanted and any(mark in use.pattern for mark in _COUNTING)]
            for use in uses if counting else ():
                if use.wanted and key in _keys(use.pattern):
                    return True
        return False

    def _own(self, key: str) -> frozenset[Test]:
        found = {
            (item.operator, frozenset(value for value in item.values if not patterns.variables_in(value)))
            for item in self._atoms
            if item.key == key and item.operator != "Null"
        }
        return frozenset(test for test in found if test[1])

    def _literals(self, tests: Iterable[Test]) -> list[str]:
        return sorted({v for operator, values in tests if operator == "StringLike" for v in values if _plain(v)})[:16]

    def _met(self, key: str, known: dict[str, list[str]], *, wanted: bool) -> frozenset[Test]:
        """A test for each stretch of another pattern that the variable can take up where its own has to match.
        wanted: of those other patterns that may have to match too."""
        found: set[Test] = set()
        for uses in self._uses.values():
            for use in uses:
                for symbol in self._symbols[key] if use.wanted else ():
                    if symbol in use.pattern:
                        for other in self._others(use, uses, key, known, wanted):
                            self._budget.tick(4)
                            found |= self._stretches(use, symbol, other)
        return frozenset(found)

    def _stretches(self, use: Use, symbol: str, other: str) -> set[Test]:
        found = stretches(use.pattern, symbol, other)
        if found is None:
            self.exact = False
            return set()
        if use.folded:
            found = frozenset("".join(map(_folded, text)) for text in found)
        return {("StringLike", frozenset((text,))) for text in found}

    def _others(self, use: Use, uses: set[Use], key: str, known: dict[str, list[str]], wanted: bool) -> Iterator[str]:
        """The other patterns of the dimension without variables, or with some that have one of the known values."""
        met = {each.owner for each in uses if each.wanted and patterns.includes(each.pattern, use.pattern)}
        for other in uses:
            if other.pattern == use.pattern or other.wanted is not wanted:
                continue
            # An alternative of the pattern itself, or of one that is matched whatever the values are.
            if other.wanted and other.owner in met:
                continue
            if not may_meet(use.pattern, other.pattern) or key in _keys(other.pattern):
                continue
            yield from _with_values(other, known)

    # Variables that may have to be equal

    def _linked(self) -> dict[str, list[str]]:
        """For each variable those that may have to have the same value, itself included."""
        groups = {key: [key] for key in self.keys}
        for dimension, uses in self._uses.items():
            varied = [use for use in uses if patterns.variables_in(use.pattern)]
            if dimension in groups:
                # The key that is compared is itself a variable.
                for use in varied:
                    self.exact &= len(use.pattern) == 1
                    self._link(groups, [dimension, *_keys(use.pattern)])
            for one, other in itertools.combinations(varied, 2):
                self._budget.tick()
                self._meet(groups, one, other)
        return groups

    def _meet(self, groups: dict[str, list[str]], one: Use, other: Use) -> None:
        """Two patterns with variables in one dimension: what it takes for a text to match both."""
        whole = len(one.pattern) == 1 and len(other.pattern) == 1
        both = one.wanted and other.wanted and one.owner != other.owner
        keys = {*_keys(one.pattern), *_keys(other.pattern)}
        if whole or both:
            self._link(groups, sorted(keys))
        if not both or one.pattern == other.pattern:
            return
        if patterns.includes(one.pattern, other.pattern) or patterns.includes(other.pattern, one.pattern):
            return
        if not may_meet(one.pattern, other.pattern):
            return
        places = [[place for place, c in enumerate(use.pattern) if patterns.variables_in(c)] for use in (one, other)]
        aligned = places[0] == places[1] and len(places[0]) == 1
        before = one.pattern[: places[0][0]]
        same = aligned and patterns.is_literal(before) and other.pattern.startswith(before)
        if not (same and (whole or len(keys) == 1)):
            self.exact = False

    def _link(self, groups: dict[str, list[str]], keys: Iterable[str]) -> None:
        """Make one group of the keys' groups. What tells one member apart then tells all apart."""
        members = sorted({member for key in keys for member in groups.get(key, ())})
        joint = frozenset().union(*(self._tests[member] for member in members))
        if len(members) > 1 and not (_simple(joint) or self._told_by_all.issuperset(members)):
            self.exact = False
        for member in members:
            groups[member] = members
            self._tests[member] = joint

    # Values

    def _values(self, key: str) -> list[str | None]:
        group = self._groups[key]
        own_first = sorted(group, key=lambda member: member != key)
        tests, domain = self._tests[key], domain_of(key, self._boolean)
        found: dict[str | None, None] = {}
        if domain == "boolean":
            found.update(dict.fromkeys(("true", "false")))
        elif not tests:
            found.update(dict.fromkeys(self._fresh[member] for member in own_first))
        else:
            for cell in self._cells(tests, domain):
                found.update(dict.fromkeys(self._members(cell, tests, own_first)))
            if not self.exact:
                found.update(dict.fromkeys(self._fresh[member] for member in own_first))
        if key in self._uses:
            for use in self._uses[key]:
                found.update(dict.fromkeys(self._composed(use.pattern)))
        if any(use.wanted and use.pattern[:1] in self._symbols[key] for use in self._uses.get(_RESOURCE, ())):
            found.update(dict.fromkeys(shape.replace(FRESH, self._fresh[key]) for shape in self._shapes))
        if any(
            use.wanted and use.pattern.split(":")[1:2] == [symbol]
            for symbol in self._symbols[key]
            for use in self._uses.get(_RESOURCE, ())
        ):
            found.update(dict.fromkeys(_PARTITIONS))
        found[None] = None
        # The less special a value, the likelier that the answer is one that the catalogue lists.
        own = self._fresh[key]

        def special(value: str | None) -> tuple[bool, ...]:
            text = value or ""
            return (
                value is None,
                value != own,
                not text.startswith("arn:"),
                own not in text,
                not text,
                FRESH not in text,
            )

        return sorted(found, key=special)

    def _cells(self, tests: frozenset[Test], domain: Domain) -> tuple[str, ...]:
        try:
            return candidates(tests, domain, self._budget)
        except Exhausted:
            raise
        except Undecided:
            self.exact = False
        kinds: dict[str, set[Test]] = {}
        for test in tests:
            kinds.setdefault(kind_of(test[0]), set()).add(test)
        found: list[str] = []
        for each in kinds.values():
            # Each kind alone: values that are worth trying, though they prove nothing.
            try:
                found += candidates(frozenset(each), domain, self._budget)
            except Exhausted:
                raise
            except Undecided:
                continue
        return tuple(found)

    def _members(self, cell: str, tests: frozenset[Test], group: list[str]) -> list[str]:
        """Values of the cell: one for each variable of the group, with its own unnamed character; else the cell's one
        value."""
        if ("StringLike", cell) in {(operator, value) for operator, values in tests for value in values}:
            return [cell]
        found = []
        for member in group:
            value = _continued(cell, self._fresh[member], tests)
            if value is None:
                self.exact = False
                return [cell]
            found.append(value)
        return found

    def _composed(self, pattern: str) -> list[str]:
        """Values of a key that is compared with another variable: that pattern with the other's unnamed text."""
        values = {
            symbol: self._fresh[key]
            for symbol in patterns.variables_in(pattern)
            if (key := patterns.variable_of(symbol)[0]) in self._fresh
        }
        text = patterns.substitute(pattern, dict(values)) or ""
        text = text.replace(STAR, FRESH)
        return [text] if values and _plain(text) else []


def _nearest_first(choices: Sequence[Sequence[str | None]]) -> Iterator[tuple[str | None, ...]]:
    """Every combination, those that differ from the first values in fewer places first."""
    first = [values[0] for values in choices]
    yield tuple(first)
    for rank in range(1, max(map(len, choices), default=1)):
        for place, values in enumerate(choices):
            if rank < len(values):
                yield (*first[:place], values[rank], *first[place + 1 :])
    for count in range(2, len(choices) + 1):
        for places in itertools.combinations(range(len(choices)), count):
            for values in itertools.product(*(choices[place][1:] for place in places)):
                made = list(first)
                for place, value in zip(places, values, strict=True):
                    made[place] = value
                yield tuple(made)


def _simple(tests: Iterable[Test]) -> bool:
    """Whether the tests are texts and beginnings, or one pattern with one star: then an unnamed character can stand in
    for all of a value that isn't one of the texts or the beginning that it has."""
    values = [(operator, value) for operator, listed in tests for value in listed]
    plain = all(
        (operator == "StringLike" and _plain(value.removesuffix(STAR))) or (value == STAR) for operator, value in values
    )
    return plain or (len(values) == 1 and values[0][0] == "StringLike" and _plain(values[0][1].replace(STAR, "", 1)))


def _uses(layers: Sequence[Sequence[Part]], opposing: Sequence[Part]) -> Iterator[Use]:
    for place, layer in enumerate(layers):
        for part in layer:
            for pattern in part.resources:
                yield Use(_RESOURCE, pattern, part if part.inverted else place, not part.inverted, False)
            yield from _condition_uses(part, True, place)
    for part in opposing:
        for pattern in part.resources:
            yield Use(_RESOURCE, pattern, part, part.inverted, False)
        yield from _condition_uses(part, False, part)


def _condition_uses(part: Part, positive: bool, owner: object) -> Iterator[Use]:
    for item in part.conditions:
        if kind_of(item.operator) == "text" and item.operator != "Null":
            for value in item.values:
                folded = item.operator == "StringFolded"
                yield Use(item.key, value, (owner, item), item.negated != positive, folded)


def _with_values(use: Use, known: dict[str, list[str]]) -> Iterator[str]:
    symbols = sorted(set(patterns.variables_in(use.pattern)))
    options: list[list[str]] = []
    for symbol in symbols:
        key, default = patterns.variable_of(symbol)
        options.append([*known.get(key, ()), *([] if default is None else [default])])
    for values in itertools.islice(itertools.product(*options), 64):
        text = use.pattern
        for symbol, value in zip(symbols, values, strict=True):
            text = text.replace(symbol, patterns.encode_folded(value) if use.folded else value)
        yield text


def _continued(cell: str, fresh: str, tests: frozenset[Test]) -> str | None:
    """A value with the unnamed text that no test tells from the cell's; None when there seems to be none."""

    def same(value: str) -> bool:
        return all(truth(*test, cell) == truth(*test, value) for test in tests)

    if same(fresh):
        return fresh
    inserted = (f"{cell[:place]}{fresh}{cell[place:]}" for place in (len(cell), *range(len(cell))))
    replaced = (f"{cell[:place]}{fresh[-1]}{cell[place + 1 :]}" for place in range(len(cell)))
    return next((value for value in (*inserted, *replaced) if same(value)), None)


def _keys(pattern: str) -> set[str]:
    return {patterns.variable_of(symbol)[0] for symbol in patterns.variables_in(pattern)}


def _texts(part: Part) -> Iterator[str]:
    yield from part.resources
    for item in part.conditions:
        yield from item.values


def _plain(text: str) -> bool:
    return patterns.is_literal(text)


def _folded(character: str) -> str:
    return patterns.encode_folded(character) if character.isascii() else character
