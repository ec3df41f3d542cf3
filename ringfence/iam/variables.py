"""Policy variables: which values are worth trying, and when trying them proves that there is no other answer.

A variable stands for the same unknown text everywhere. A fresh text, which nothing else names, is the least special
value; values that other patterns or conditions name are tried as well. See `is_exact` for when this is complete.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ringfence.iam import patterns
from ringfence.iam.automaton import find
from ringfence.iam.budget import Budget, Undecided
from ringfence.iam.cells import Test, candidates
from ringfence.iam.conditions import Atom
from ringfence.iam.patterns import ANY, PART, PART_ANY, STAR
from ringfence.iam.question import Part

MAX_ASSIGNMENTS = 256
# Values by lower-case condition key; None for an absent key.
Assignment = dict[str, str | None]
# Lengths of the fresh texts: a `?` in an opposing pattern can tell short texts from long ones.
_FRESH = ("fresh", "f")


def symbols_of(part: Part) -> set[str]:
    """The variables that a part uses."""
    used = [*part.resources, *(value for item in part.conditions for value in item.values)]
    return {symbol for pattern in used for symbol in patterns.variables_in(pattern)}


def bind(part: Part, assignment: Assignment) -> Part | None:
    """The part with its variables replaced; None when it can't apply, as a resource it needs has no value."""
    symbols = symbols_of(part)
    if not symbols:
        return part
    values: dict[str, str | None] = {}
    for symbol in symbols:
        key, default = patterns.variable_of(symbol)
        value = assignment.get(key)
        values[symbol] = default if value is None else value
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


def assignments(
    positive: Sequence[Part], opposing: Sequence[Part], fixed: Assignment, boolean: frozenset[str], budget: Budget
) -> Iterable[Assignment]:
    """Values to try for every variable of the parts. fixed: keys whose value is given.

    Raises Undecided when there are over MAX_ASSIGNMENTS combinations.
    """
    parts = [*positive, *opposing]
    keys = sorted({patterns.variable_of(symbol)[0] for part in parts for symbol in symbols_of(part)})
    texts = " ".join(
        value for part in parts for value in [*part.resources, *(v for a in part.conditions for v in a.values)]
    )
    choices: list[list[str | None]] = []
    fresh_of = {key: _fresh(texts, place) for place, key in enumerate(keys)}
    for key in keys:
        if key in fixed:
            choices.append([fixed[key]])
            continue
        found: dict[str | None, None] = dict.fromkeys(fresh_of[key])
        if len(keys) > 1:
            found.update(dict.fromkeys(texts[0] for other, texts in fresh_of.items() if other != key))
        found[None] = None
        found.update(dict.fromkeys(_named(key, parts, key in boolean, budget)))
        found.update(dict.fromkeys(_aligned(key, positive, budget)))
        choices.append(list(found))
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MAX_ASSIGNMENTS:
        raise Undecided(f"policy variables have over {MAX_ASSIGNMENTS} combinations of values")
    for values in itertools.product(*choices):
        yield dict(zip(keys, values, strict=True))


def _fresh(texts: str, place: int) -> list[str]:
    found = []
    for start in _FRESH:
        candidate = next(t for t in (f"{start}{n}" for n in range(place * 100, 10_000)) if t not in texts)
        found.append(candidate)
    return found


def _named(key: str, parts: Sequence[Part], boolean: bool, budget: Budget) -> Iterable[str]:
    """Values that conditions on the key itself, or on a key compared with it, tell apart."""
    atoms = [item for part in parts for item in part.conditions]
    own = _tests(item for item in atoms if item.key == key)
    if own:
        yield from candidates(own, boolean, budget)
    for item in atoms:
        for value in item.values:
            if not any(patterns.variable_of(symbol)[0] == key for symbol in patterns.variables_in(value)):
                continue
            others = _tests(other for other in atoms if other.key == item.key)
            for text in candidates(others, False, budget) if others else ():
                yield from _extract(value, key, text)


def _tests(atoms: Iterable[Atom]) -> frozenset[Test]:
    found = set()
    for item in atoms:
        values = frozenset(value for value in item.values if not patterns.variables_in(value))
        if values and item.operator != "Null":
            found.add((item.operator, values))
    return frozenset(found)


def _aligned(key: str, positive: Sequence[Part], budget: Budget) -> Iterable[str]:
    """Values at which a pattern with the variable meets a resource that another layer's pattern asks for."""
    all_patterns = {(number, pattern) for number, part in enumerate(positive) for pattern in part.resources}
    plain = [(number, pattern) for number, pattern in all_patterns if not patterns.variables_in(pattern)]
    for number, pattern in all_patterns:
        if not any(patterns.variable_of(symbol)[0] == key for symbol in patterns.variables_in(pattern)):
            continue
        loose = loosened(pattern)
        for other_number, other in plain:
            if other_number == number or patterns.includes(other, loose):
                continue
            text = find([(loose,), (other,)], 3, budget, lambda _matched, _text: True)
            if text is not None:
                yield from _extract(pattern, key, text)


def loosened(pattern: str) -> str:
    """The pattern with every variable as a star."""
    for symbol in patterns.variables_in(pattern):
        pattern = pattern.replace(symbol, STAR)
    return re.sub(f"{STAR}{{2,}}", STAR, pattern)


def _extract(pattern: str, key: str, text: str) -> Iterable[str]:
    """What the variable of `key` has to be for the pattern to match the text, when that can be read off."""
    expression = ""
    seen = False
    for token in pattern:
        if patterns.variables_in(token):
            if patterns.variable_of(token)[0] != key:
                expression += ".*?"
            elif seen:
                expression += "(?P=value)"
            else:
                seen = True
                expression += "(?P<value>.*?)"
        elif token in (STAR, PART):
            expression += ".*?"
        elif token in (ANY, PART_ANY):
            expression += "."
        else:
            expression += re.escape(patterns.folded(token) or token)
    # A pattern with many stars could take a regular expression exponential time; it has no reading worth trying.
    if expression.count(".*?") > 4:
        return
    found = re.fullmatch(expression, text, re.DOTALL | re.IGNORECASE)
    if found:
        yield found.group("value")


def is_exact(positive: Sequence[Part], opposing: Sequence[Part]) -> bool:
    """Whether no answer among `assignments` proves that there is none.

    A fresh value can replace any other one in an answer when no opposing pattern counts its characters with `?`, and
    when every positive pattern of another layer either takes any value there or none at all.
    """
    bound = {symbol for part in positive for pattern in part.resources for symbol in patterns.variables_in(pattern)}
    if bound:
        if any(ANY in pattern or PART_ANY in pattern for part in opposing for pattern in part.resources):
            return False
        for part, other in itertools.permutations(positive, 2):
            for pattern in part.resources:
                if patterns.variables_in(pattern) and not all(_aligns(pattern, each) for each in other.resources):
                    return False
    return all(
        _whole_or_alone(item, [*positive, *opposing]) for part in (*positive, *opposing) for item in part.conditions
    )


def _aligns(pattern: str, other: str) -> bool:
    """Whether a match of both patterns stays one when the variable's value is replaced by a fresh one."""
    if patterns.includes(other, pattern) or patterns.includes(pattern, other):
        return True
    loose = loosened(pattern)
    if patterns.is_literal(other) and loose.count(STAR) == 1 and patterns.is_literal(loose.replace(STAR, "")):
        # The value can be read off, and is among those tried.
        return True
    return patterns.includes(other, loose) or not patterns.may_overlap(other, loose)


def _whole_or_alone(item: Atom, parts: Sequence[Part]) -> bool:
    """Whether the atom compares with a variable as a whole, or no other atom bears on its key."""
    compound = [value for value in item.values if patterns.variables_in(value) and len(value) > 1]
    if not compound:
        return True
    return all(other == item for part in parts for other in part.conditions if other.key == item.key)


def loosen(part: Part) -> Part:
    """A positive part that applies at least wherever the part does for some values."""
    if part.inverted:
        resources: tuple[str, ...] = tuple(p for p in part.resources if not patterns.variables_in(p))
    else:
        resources = tuple(loosened(pattern) for pattern in part.resources)
    conditions = frozenset(
        item for item in part.conditions if not any(patterns.variables_in(value) for value in item.values)
    )
    return Part(resources, part.inverted, conditions)


def narrow(part: Part) -> Part | None:
    """An opposing part that applies at most wherever the part does for all values; None when it may never apply."""
    return None if symbols_of(part) else part
