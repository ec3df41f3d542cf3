"""What a variable's value can be where a pattern that uses it meets another pattern: parts of that other pattern.

When one text matches both, the value takes up a stretch of it, which a stretch of the other pattern matches. All such
stretches together tell values apart as far as the other pattern can: two values that match the same ones are
interchangeable in it.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ringfence.iam import patterns
from ringfence.iam.patterns import DIGIT, ONE, RUNS, STAR

# More stretches than this are beyond any policy that people write.
_MAX_STRETCHES = 400


@lru_cache(maxsize=8_192)
def stretches(pattern: str, symbol: str, other: str) -> frozenset[str] | None:
    """The stretches of `other`, without variables, that the variable `symbol` of `pattern` can take up; a star alone,
    which tells nothing apart, is left out. None when there are too many."""
    found: set[str] = set()
    for position, token in enumerate(pattern):
        if token != symbol:
            continue
        starts = _ends(loosened(pattern[:position]), other)
        if not starts:
            continue
        backwards = _ends(loosened(pattern[position + 1 :])[::-1], other[::-1])
        ends = [len(other) - end for end in backwards]
        if len(starts) * len(ends) > _MAX_STRETCHES:
            return None
        found.update(other[start:end] for start in starts for end in ends if start <= end)
    return frozenset(found - {STAR})


def loosened(pattern: str) -> str:
    """The pattern with every variable as a star."""
    for symbol in patterns.variables_in(pattern):
        pattern = pattern.replace(symbol, STAR)
    return re.sub(f"{STAR}{{2,}}", STAR, pattern)


def may_meet(one: str, other: str) -> bool:
    """Whether some text matches both patterns, for some values of their variables; exact for patterns without any."""
    one, other = loosened(one), loosened(other)
    return patterns.may_overlap(one, other) and len(other) in _ends(one, other)


@lru_cache(maxsize=8_192)
def _ends(whole: str, other: str) -> frozenset[int]:
    """The places up to which `other` can have been read by a text that matches all of `whole`; before a run that has
    been entered as well as after it."""
    common = _common(patterns.literal_prefix(whole), patterns.literal_prefix(other))
    seen = {(common, common)}
    left = [(common, common)]
    found = set()
    while left:
        place, position = left.pop()
        head = whole[place] if place < len(whole) else ""
        token = other[position] if position < len(other) else ""
        if not head:
            found.add(position)
        following = []
        if head in RUNS:
            following.append((place + 1, position))
        if token in RUNS:
            following.append((place, position + 1))
        if head and token and _meet(head, token):
            following.append((place + (head not in RUNS), position + (token not in RUNS)))
        for state in following:
            if state not in seen:
                seen.add(state)
                left.append(state)
    return frozenset(found)


def _common(one: str, other: str) -> int:
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return min(len(one), len(other))


def _meet(one: str, other: str) -> bool:
    """Whether one character can be taken by both tokens."""
    excluded, others = (RUNS.get(token, ONE.get(token)) for token in (one, other))
    if excluded is not None and others is not None:
        return True
    if excluded is not None:
        return other not in excluded
    if others is not None:
        return one not in others
    if DIGIT in (one, other):
        rest = other if one == DIGIT else one
        return rest == DIGIT or rest in "0123456789"
    letters = [patterns.folded(token) for token in (one, other)]
    return one == other or (any(letters) and (letters[0] or one.lower()) == (letters[1] or other.lower()))
