"""Conditions as atoms over one key each, the finite cells of a key's values, and the search over them.

A key is absent, or holds one value (several, when only set operators ask for it). Values fall into cells that no atom
tells apart, so one value per cell is enough: per glob combination, threshold interval, address range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ringfence.iam import patterns
from ringfence.iam.budget import Budget, Undecided
from ringfence.iam.cells import candidates, domain_of, truth
from ringfence.iam.model import Condition

_NEGATIONS = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
    "ArnNotEquals": "ArnLike",
    "ArnNotLike": "ArnLike",
    # The two are documented to behave the same.
    "ArnEquals": "ArnLike",
}
_AS_PATTERNS = {"StringEquals": "StringLike", "StringEqualsIgnoreCase": "StringFolded", "Bool": "StringFolded"}
# Operators whose values are encoded patterns, of which one may include another.
_PATTERNED = ("StringLike", "StringFolded", "ArnLike")


@dataclass(frozen=True, slots=True)
class Atom:
    """One test. operator: positive base; key: lower case; values: encoded patterns for String and Arn operators, text
    for the others; quantifier: as in `Condition`; negated: the operator was a Not… one."""

    operator: str
    key: str
    values: frozenset[str]
    quantifier: str
    negated: bool
    if_exists: bool

    @property
    def when_absent(self) -> bool:
        """Whether the atom holds when the key is absent."""
        if self.operator == "Null":
            return "true" in self.values
        return self.if_exists or self.quantifier == "ForAllValues" or (self.negated and self.quantifier == "")


@lru_cache(maxsize=16_384)
def atom(condition: Condition, variables: bool) -> Atom:
    """The atom of one condition. variables: whether the document has policy variables."""
    base = _NEGATIONS.get(condition.operator, condition.operator)
    negated = condition.operator in _NEGATIONS and condition.operator != "ArnEquals"
    encode: dict[str, Callable[[str], str]] = {
        "StringEquals": lambda value: patterns.encode(value, variables, False),
        "StringLike": lambda value: patterns.encode(value, variables),
        "StringEqualsIgnoreCase": lambda value: patterns.encode_folded(value, variables),
        "ArnLike": lambda value: patterns.encode_arn(value, variables),
        # A boolean is text in any case: on a key that may hold other text, that is neither true nor false.
        "Bool": lambda value: patterns.encode_folded(value),
        "Null": str.lower,
    }
    make = encode.get(base, str)
    values = frozenset(make(value) for value in condition.values)
    # An equality is a pattern without wildcards, so that the two operators fall together.
    base = _AS_PATTERNS.get(base, base)
    return Atom(base, condition.key.lower(), values, condition.quantifier, negated, condition.if_exists)


def forget() -> None:
    """Forget the atoms made so far, whose values hold variables' numbers."""
    atom.cache_clear()


def implies(stronger: frozenset[Atom], weaker: frozenset[Atom], budget: Budget) -> bool:
    """A quick test, sound but not complete: whether conditions `stronger` all holding makes `weaker` all hold."""
    return all(wanted in stronger or any(_entails(given, wanted, budget) for given in stronger) for wanted in weaker)


def _entails(given: Atom, wanted: Atom, budget: Budget) -> bool:
    if given.key != wanted.key:
        return False
    if wanted.operator == "Null":
        return wanted.values == {"false"} and not given.when_absent and given.operator != "Null"
    if (given.quantifier, given.negated) != (wanted.quantifier, wanted.negated):
        return False
    if given.if_exists and not wanted.if_exists:
        return False
    narrow, wide = (wanted.values, given.values) if given.negated else (given.values, wanted.values)
    if given.operator == wanted.operator and narrow <= wide:
        return True
    if given.operator not in _PATTERNED or wanted.operator not in _PATTERNED:
        return False
    if given.operator == wanted.operator:
        narrow = narrow - wide
    return all(_within_one(value, wide, budget) for value in narrow)


def _within_one(value: str, wide: frozenset[str], budget: Budget) -> bool:
    """Whether one of the patterns `wide` includes `value`, whatever the values of its variables."""
    for each in wide:
        budget.tick()
        if patterns.includes(each, value):
            return True
    return False


# One choice of a disjunction: literals (atom, whether it must hold) that all have to be met.
Literals = tuple[tuple[Atom, bool], ...]
Context = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Solution:
    """Values by lower-case key, absent keys left out. several: keys known to be single-valued that got several."""

    context: Context
    several: tuple[str, ...] = ()


class _Key:
    """What is known of one key's cells: candidate values and, per atom, the set of them that satisfies its operator."""

    __slots__ = ("all", "masks", "single", "values")

    def __init__(self, values: tuple[str, ...], masks: dict[Atom, int], single: bool):
        self.values, self.masks, self.single = values, masks, single
        self.all = (1 << len(values)) - 1


# State of one key in a search: may be absent, may be present, cells allowed, sets of which one value must come from.
_State = tuple[bool, bool, int, tuple[int, ...]]


class Solver:
    """Finds contexts for one question. fixed: keys whose values are given (None: absent), by lower-case key; typed:
    keys known to be single-valued hold one value at most."""

    def __init__(
        self,
        atoms: Sequence[Atom],
        budget: Budget,
        *,
        boolean: frozenset[str],
        single_valued: Callable[[str], bool],
        fixed: dict[str, str | None] | None = None,
        typed: bool = True,
    ):
        self.budget = budget
        self.single_valued, self.typed = single_valued, typed
        self.fixed = fixed or {}
        by_key: dict[str, set[Atom]] = {}
        for item in atoms:
            by_key.setdefault(item.key, set()).add(item)
        self.keys = {key: self._key(key, frozenset(found), boolean) for key, found in by_key.items()}

    def _key(self, key: str, atoms: frozenset[Atom], boolean: frozenset[str]) -> _Key:
        tests = frozenset((item.operator, item.values) for item in atoms if item.operator != "Null")
        if key in self.fixed:
            value = self.fixed[key]
            values: tuple[str, ...] = () if value is None else (value,)
        else:
            values = candidates(tests, domain_of(key, boolean), self.budget)
        masks = {}
        for item in atoms:
            mask = 0
            if item.operator == "Null":
                mask = (1 << len(values)) - 1 if "false" in item.values else 0
            else:
                for place, value in enumerate(values):
                    if truth(item.operator, item.values, value) != item.negated:
                        mask |= 1 << place
            masks[item] = mask
        plain = any(item.quantifier == "" and item.operator != "Null" for item in atoms)
        single = plain or key in self.fixed or (self.typed and self.single_valued(key))
        return _Key(values, masks, single)

    def solve(self, required: Literals, choices: Sequence[Sequence[Literals]]) -> Solution | None:
        """A context that meets all `required` literals and, for each of `choices`, all literals of one alternative."""
        states: dict[str, _State] = {}
        if not self._assert(states, required):
            return None
        return self._search(states, [list(choice) for choice in choices], 0)

    def _search(self, states: dict[str, _State], choices: list[list[Literals]], depth: int) -> Solution | None:
        self.budget.tick()
        if depth > 200:
            raise Undecided("over 200 conditioned statements bear on one request")
        # Alternatives that can no longer be met are dropped; the choice with the fewest left is taken first.
        open_choices: list[list[tuple[Literals, dict[str, _State]]]] = []
        for choice in choices:
            viable: list[tuple[Literals, dict[str, _State]]] = []
            met = False
            for literals in choice:
                after = dict(states)
                if self._assert(after, literals):
                    if after == states:
                        met = True
                        break
                    viable.append((literals, after))
            if met:
                continue
            if not viable:
                return None
            open_choices.append(viable)
        if not open_choices:
            return self._solution(states)
        open_choices.sort(key=len)
        rest = [[literals for literals, _ in choice] for choice in open_choices[1:]]
        for _, after in open_choices[0]:
            solution = self._search(after, rest, depth + 1)
            if solution is not None:
                return solution
        return None

    def _assert(self, states: dict[str, _State], literals: Literals) -> bool:
        """Narrow `states` by the literals. False when no value is left for some key."""
        for item, wanted in literals:
            key = self.keys[item.key]
            state = states.get(item.key)
            if state is None:
                may_be_absent = self.fixed.get(item.key) is None
                state = (may_be_absent, bool(key.values), key.all, ())
            absent, present, allowed, some = state
            absent = absent and item.when_absent == wanted
            mask = key.masks[item] if wanted else key.all & ~key.masks[item]
            if item.operator == "Null":
                present = present and bool(mask)
            elif key.single or (item.quantifier == "ForAllValues") == wanted:
                allowed &= mask
            elif mask not in some:
                some = (*some, mask)
            present = present and bool(allowed) and all(each & allowed for each in some)
            if not absent and not present:
                return False
            if present is False:
                allowed, some = 0, ()
            states[item.key] = (absent, present, allowed, some)
        return True

    def _solution(self, states: dict[str, _State]) -> Solution:
        context: Context = {}
        several = []
        for name, (absent, present, allowed, some) in states.items():
            if absent or not present:
                continue
            values = self.keys[name].values
            common = allowed
            for each in some:
                common &= each
            if common:
                context[name] = (values[(common & -common).bit_length() - 1],)
                continue
            picked: dict[str, None] = {}
            for each in some:
                bits = each & allowed
                picked.setdefault(values[(bits & -bits).bit_length() - 1])
            context[name] = tuple(picked)
            if self.single_valued(name):
                several.append(name)
        return Solution(context, tuple(several))
