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
from ringfence.iam.budget import Budget, Undecided
from ringfence.iam.cells import Test, candidates, truth
from ringfence.iam.conditions import Atom, implies
from ringfence.iam.patterns import ANY, PART, PART_ANY, STAR
from ringfence.iam.question import Part

MAX_ASSIGNMENTS = 4_096
# Values by lower-case condition key; None for an absent key.
Assignment = dict[str, str | None]
# Beginnings of the fresh texts: a `?` can tell short texts from long ones, so that two lengths are tried where one is.
_FRESH, _SHORT = "fresh", "f"


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
    layers: Sequence[Sequence[Part]],
    opposing: Sequence[Part],
    fixed: Assignment,
    boolean: frozenset[str],
    budget: Budget,
) -> Iterable[Assignment]:
    """Values to try for every variable of the parts. layers: of each, one part has to apply; opposing: none may; fixed:
    keys whose value is given.

    Raises Undecided after MAX_ASSIGNMENTS combinations, when there are more.
    """
    parts = [*(part for layer in layers for part in layer), *opposing]
    keys = sorted({patterns.variable_of(symbol)[0] for part in parts for symbol in symbols_of(part)})
    texts = " ".join(
        value for part in parts for value in [*part.resources, *(v for a in part.conditions for v in a.values)]
    )
    choices: list[list[str | None]] = []
    fresh_of = {key: _fresh(texts, place) for place, key in enumerate(keys)}
    meeting = len(layers) > 1 or _compared_together(parts)
    for key in keys:
        if key in fixed:
            choices.append([fixed[key]])
            continue
        found: dict[str | None, None] = dict.fromkeys(fresh_of[key])
        if meeting:
            found.update(dict.fromkeys(texts[0] for other, texts in fresh_of.items() if other != key))
        found[None] = None
        pinned = list(_pinned(key, layers))
        found.update(dict.fromkeys(text for text, _ in pinned))
        prefixes = frozenset(text + STAR for text, open_ended in pinned if open_ended)
        found.update(dict.fromkeys(_named(key, parts, prefixes, fresh_of[key][0], key in boolean, budget)))
        choices.append(list(found))
    for count, values in enumerate(itertools.product(*choices)):
        if count == MAX_ASSIGNMENTS:
            raise Undecided(
                f"none of the first {MAX_ASSIGNMENTS:,} values of policy variables decides it, and there are more"
            )
        yield dict(zip(keys, values, strict=True))


def _fresh(texts: str, place: int) -> list[str]:
    starts = (_FRESH, _SHORT) if ANY in texts or PART_ANY in texts else (_FRESH,)
    return [next(t for t in (f"{start}{n}" for n in range(place * 100, 10_000)) if t not in texts) for start in starts]


def _compared_together(parts: Sequence[Part]) -> bool:
    """Whether one key is compared with several variables, which may then have to be equal."""
    compared: dict[str, set[str]] = {}
    for part in parts:
        for item in part.conditions:
            for value in item.values:
                compared.setdefault(item.key, set()).update(patterns.variables_in(value))
    return any(len(symbols) > 1 for symbols in compared.values())


def _named(
    key: str, parts: Sequence[Part], prefixes: frozenset[str], fresh: str, boolean: bool, budget: Budget
) -> Iterable[str]:
    """Values that conditions on the key itself, or on a key compared with it, tell apart, and `prefixes` too; each also
    continued with a fresh text, where that makes no difference to the conditions."""
    atoms = [item for part in parts for item in part.conditions]
    own = _tests(item for item in atoms if item.key == key) | {("StringLike", frozenset((each,))) for each in prefixes}
    for value in candidates(own, boolean, budget) if own else ():
        yield value
        if all(truth(*test, value) == truth(*test, value + fresh) for test in own):
            yield value + fresh
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


def _pinned(key: str, layers: Sequence[Sequence[Part]]) -> Iterable[tuple[str, bool]]:
    """Beginnings of the value that another layer's pattern asks for; True where the value may go on from there."""
    for pattern, other in _meetings(layers):
        symbols = patterns.variables_in(pattern)
        if len(symbols) == 1 and patterns.variable_of(symbols[0])[0] == key:
            yield from _readings(pattern, symbols[0], other) or ()


def _meetings(layers: Sequence[Sequence[Part]]) -> Iterable[tuple[str, str]]:
    """Each pattern with a variable, and each pattern of another layer that the same resource may have to match."""
    for one, other in itertools.permutations(layers, 2):
        plain = [pattern for part in other for pattern in (() if part.inverted else part.resources)]
        for part in one:
            for pattern in () if part.inverted else part.resources:
                if patterns.variables_in(pattern):
                    yield from ((pattern, each) for each in plain)


def _readings(pattern: str, symbol: str, other: str) -> list[tuple[str, bool]] | None:
    """All ways to read the variable's value off `other`, which is plain text or a plain beginning with a star; None
    when the two patterns are not of this form."""
    before, _, after = pattern.partition(symbol)
    open_ended = other.endswith(STAR)
    text = other.removesuffix(STAR)
    if symbol in after or not (patterns.is_literal(before) and patterns.is_literal(text)):
        return None
    if patterns.variables_in(after) or not text.startswith(before):
        return None
    rest = text[len(before) :]
    found = [(rest, True)] if open_ended else []
    for length in range(len(rest) + 1):
        left = rest[length:]
        if patterns.may_overlap(after, left + STAR) if open_ended else patterns.includes(after, left):
            found.append((rest[:length], False))
    return found


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


def is_exact(layers: Sequence[Sequence[Part]], opposing: Sequence[Part]) -> bool:
    """Whether no answer among `assignments` proves that there is none.

    A fresh value can replace any other one in an answer when no opposing pattern counts its characters with `?`, and
    when each pattern of another layer takes any value there, or none, or is one to read the value off.
    """
    meetings = list(_meetings(layers))
    positive = [part for layer in layers for part in layer]
    bound = any(patterns.variables_in(pattern) for part in positive for pattern in part.resources)
    if bound and any(ANY in pattern or PART_ANY in pattern for part in opposing for pattern in part.resources):
        return False
    if not all(_aligns(pattern, other) for pattern, other in meetings):
        return False
    return all(
        _whole_or_alone(item, [*positive, *opposing]) for part in (*positive, *opposing) for item in part.conditions
    )


def _aligns(pattern: str, other: str) -> bool:
    """Whether a match of both patterns stays one when the variable's value is replaced by one that is tried."""
    if patterns.includes(other, pattern) or patterns.includes(pattern, other):
        return True
    loose = loosened(pattern)
    if patterns.includes(other, loose) or not patterns.may_overlap(other, loose):
        return True
    symbols = patterns.variables_in(pattern)
    return len(symbols) == 1 and _readings(pattern, symbols[0], other) is not None


def _whole_or_alone(item: Atom, parts: Sequence[Part]) -> bool:
    """Whether the atom compares with a variable as a whole, or no other atom bears on its key."""
    compound = [value for value in item.values if patterns.variables_in(value) and len(value) > 1]
    if not compound:
        return True
    return all(other == item for part in parts for other in part.conditions if other.key == item.key)


def without_opposed(part: Part, opposing: Sequence[Part]) -> Part | None:
    """The part without the resource patterns that one opposing part takes in whole, whatever the variables' values;
    None when nothing is left."""
    if part.inverted:
        return part
    against = [
        pattern
        for other in opposing
        if not other.inverted and implies(part.conditions, other.conditions)
        for pattern in other.resources
    ]
    left = tuple(each for each in part.resources if not any(patterns.includes(wide, each) for wide in against))
    return replace(part, resources=left) if left else None


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
