"""The joint automaton: texts told apart by which of several groups of patterns match them.

A state holds, for each group, the patterns still to be matched; equal remainders of different patterns fall together
and a remainder that another one covers is dropped, so that a group that has reached its trailing star is one remainder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ringfence.iam import patterns
from ringfence.iam.budget import Budget
from ringfence.iam.patterns import DIGIT, ONE, RUNS, STAR

Group = tuple[str, ...]
_Remainders = frozenset[str]
_State = tuple[_Remainders, ...]
_DIGITS = "0123456789"
_EVERYTHING: _Remainders = frozenset((STAR,))
# What a search keeps, in bytes, per state, per step from one set of remainders and per remainder of the set that it
# leads to; sizes of CPython 3.11's tuples, sets and dictionary entries, rounded up.
_STATE_BYTES, _STEP_BYTES, _REMAINDER_BYTES = 320, 640, 96
# Characters tried for "any other character", in this order; a pattern that names them all is beyond any quota.
OTHERS = "x0abcdefghijklmnopqrstuvwyz123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_./=+@,~ ()!#$%&;<>[]^`{|}'\"\\*?" + "".join(
    chr(code) for code in range(0xC0, 0x250)
)


def find(
    groups: Sequence[Group],
    required: int,
    budget: Budget,
    accept: Callable[[int, str], bool],
    settled: Callable[[int, int], bool] | None = None,
    forbidden: int = 0,
    skip: Callable[[str], bool] | None = None,
) -> str | None:
    """A text whose set of matching groups `accept` takes, or None when there is none.

    groups: alternatives per group, as encoded patterns without variables; required and forbidden: sets of groups (bit
    per group) that must and must not match; accept: called once per set of
    groups that match some text, with that set and text;
    settled: given groups that match whatever follows and groups that never will, whether no text can be accepted; skip: texts
    that don't count.
    """
    walk = _Walk(groups, required, forbidden, budget, accept, settled, skip)
    try:
        return walk.run()
    finally:
        budget.release(walk.kept)


class _Set:
    """What a set of remainders allows next. nullable: one matches the empty text; heads: characters told apart from
    all others; open: any other character can come next; forced: text that must come next."""

    __slots__ = ("forced", "heads", "nullable", "open")

    def __init__(self, remainders: _Remainders):
        self.nullable = any(not remainder.strip(patterns.STARS) for remainder in remainders)
        heads: set[str] = set()
        self.open = False
        prefixes = []
        for remainder in remainders:
            self.open |= _heads(remainder, heads)
            prefixes.append(patterns.literal_prefix(remainder))
        self.heads = frozenset(heads)
        self.forced = "" if self.nullable or not prefixes else _common(min(prefixes), max(prefixes))


class _Walk:
    def __init__(
        self,
        groups: Sequence[Group],
        required: int,
        forbidden: int,
        budget: Budget,
        accept: Callable[[int, str], bool],
        settled: Callable[[int, int], bool] | None,
        skip: Callable[[str], bool] | None,
    ):
        self.budget, self.accept, self.settled, self.skip = budget, accept, settled, skip
        self.start = tuple(self.reduce(set(group)) for group in groups)
        self.required = [index for index in range(len(groups)) if required >> index & 1]
        self.forbidden = [index for index in range(len(groups)) if forbidden >> index & 1]
        self.required_set, self.forbidden_set = required, forbidden
        self.answers: dict[int, bool] = {}
        self.closed: dict[tuple[int, int], bool] = {}
        self.seen: set[_State] = set()
        self.sets: dict[_Remainders, _Set] = {}
        self.steps: dict[tuple[_Remainders, str], _Remainders] = {}
        self.starred_steps: dict[tuple[_Remainders, str], frozenset[str]] = {}
        self.splits: dict[_Remainders, tuple[_Remainders, tuple[str, ...]]] = {}
        self.stack: list[tuple[_State, str]] = []
        self.kept = 0

    def run(self) -> str | None:
        self.stack.append((self.start, ""))
        while self.stack:
            state, text = self.stack.pop()
            if state in self.seen:
                continue
            self.seen.add(state)
            self.budget.tick(1 + sum(map(len, state)) // 32)
            self.keep(_STATE_BYTES + 8 * len(state))
            if self.hopeless(state):
                continue
            infos = [self.info(remainders) for remainders in state]
            matched = sum([1 << index for index, info in enumerate(infos) if info.nullable])
            counts = matched & self.required_set == self.required_set and not matched & self.forbidden_set
            if counts and self.answer(matched, text):
                return text
            self.extend(state, infos, text)
        return None

    def keep(self, size: int) -> None:
        self.kept += size
        self.budget.keep(size)

    def info(self, remainders: _Remainders) -> _Set:
        known = self.sets.get(remainders)
        if known is None:
            known = self.sets[remainders] = _Set(remainders)
        return known

    def answer(self, matched: int, text: str) -> bool:
        if self.skip is not None and self.skip(text):
            return False
        known = self.answers.get(matched)
        if known is None:
            known = self.answers[matched] = self.accept(matched, text)
        return known

    def hopeless(self, state: _State) -> bool:
        if any(not state[index] for index in self.required):
            return True
        if any(state[index] is _EVERYTHING for index in self.forbidden):
            return True
        if self.settled is None:
            return False
        certain = dead = 0
        for index, remainders in enumerate(state):
            if remainders is _EVERYTHING:
                certain |= 1 << index
            elif not remainders:
                dead |= 1 << index
        known = self.closed.get((certain, dead))
        if known is None:
            known = self.closed[(certain, dead)] = self.settled(certain, dead)
        return known

    def extend(self, state: _State, infos: list[_Set], text: str) -> None:
        forced = next((infos[index].forced for index in self.required if infos[index].forced), "")
        if forced:
            self.push(tuple([self.advance(remainders, forced) for remainders in state]), text + forced)
            return
        if all(not remainders or remainders is _EVERYTHING for remainders in state):
            # Whatever follows, the same groups match: this state's answer was the last.
            return
        heads: frozenset[str] = frozenset().union(*[info.heads for info in infos])
        useful = heads
        closed = False
        for index in self.required:
            # Characters that a required group rules out at once lead nowhere.
            if not infos[index].open:
                closed = True
                useful = useful & infos[index].heads
        characters = sorted(useful, reverse=True)
        if not closed:
            characters.append(next(candidate for candidate in OTHERS if candidate not in heads))
        step = self.step
        for character in characters:
            self.push(tuple([step(remainders, character) for remainders in state]), text + character)

    def push(self, state: _State, text: str) -> None:
        if state not in self.seen:
            self.stack.append((state, text))

    def step(self, remainders: _Remainders, character: str) -> _Remainders:
        """What is left of the remainders after the character."""
        if not remainders or remainders is _EVERYTHING:
            return remainders
        known = self.steps.get((remainders, character))
        if known is not None:
            return known
        self.budget.tick(1 + len(remainders) // 16)
        starred, others = self.split(remainders)
        found: set[str] = set(starred)
        if starred:
            found |= self.step_starred(starred, character)
        for remainder in others:
            _step(remainder, character, found)
        # Only a remainder newly at a star can cover others; most steps have none.
        fresh = any(remainder[:1] == STAR and remainder not in starred for remainder in found)
        known = self.steps[(remainders, character)] = self.reduce(found) if fresh else frozenset(found)
        self.keep(_STEP_BYTES + _REMAINDER_BYTES * len(known))
        return known

    def split(self, remainders: _Remainders) -> tuple[_Remainders, tuple[str, ...]]:
        """The remainders that begin with a star, which every character leaves in place, and the others."""
        known = self.splits.get(remainders)
        if known is None:
            starred = frozenset(remainder for remainder in remainders if remainder[:1] == STAR)
            known = self.splits[remainders] = (starred, tuple(remainders - starred))
        return known

    def advance(self, remainders: _Remainders, text: str) -> _Remainders:
        """What is left of the remainders after the text."""
        if not remainders or remainders is _EVERYTHING:
            return remainders
        found: set[str] = set()
        self.budget.tick(1 + len(remainders) // 16)
        for remainder in remainders:
            prefix = patterns.literal_prefix(remainder)
            if len(prefix) >= len(text):
                if prefix.startswith(text):
                    found.add(remainder[len(text) :])
            elif text.startswith(prefix):
                left: _Remainders = self.reduce({remainder[len(prefix) :]})
                for character in text[len(prefix) :]:
                    left = self.step(left, character)
                found |= left
        return self.reduce(found)

    def reduce(self, remainders: set[str]) -> _Remainders:
        """Without the remainders that another one covers."""
        if STAR in remainders:
            return _EVERYTHING
        starred = sorted((remainder for remainder in remainders if remainder[:1] == STAR), key=len)
        kept: list[str] = []
        for narrow in starred:
            self.budget.tick(1 + len(kept) // 8)
            if any(patterns.includes(wide, narrow) for wide in kept):
                remainders = remainders - {narrow}
            else:
                kept.append(narrow)
        return frozenset(remainders)

    def step_starred(self, starred: _Remainders, character: str) -> frozenset[str]:
        known = self.starred_steps.get((starred, character))
        if known is None:
            found: set[str] = set()
            for remainder in starred:
                _step(remainder[1:], character, found)
            known = self.starred_steps[(starred, character)] = frozenset(found)
        return known


def _common(one: str, other: str) -> str:
    """The common beginning of two texts."""
    for position, character in enumerate(one):
        if position >= len(other) or other[position] != character:
            return one[:position]
    return one


def _heads(remainder: str, heads: set[str]) -> bool:
    """Add the characters that `remainder` tells apart from all others as the next one. Whether others may come too."""
    more = False
    for token in remainder:
        excluded = RUNS.get(token)
        if excluded is not None:
            heads.update(excluded)
            more = True
            continue
        excluded = ONE.get(token)
        if excluded is not None:
            heads.update(excluded)
            return True
        if token == DIGIT:
            heads.update(_DIGITS)
            return more
        letter = patterns.folded(token)
        heads.update((letter, letter.upper()) if letter else (token,))
        return more
    return more


def _step(remainder: str, character: str, found: set[str]) -> None:
    """Add what is left of `remainder` after `character`."""
    for position, head in enumerate(remainder):
        excluded = RUNS.get(head)
        if excluded is not None:
            if character not in excluded:
                found.add(remainder[position:])
            continue
        excluded = ONE.get(head)
        if excluded is not None:
            if character not in excluded:
                found.add(remainder[position + 1 :])
        elif head == DIGIT:
            if character in _DIGITS:
                found.add(remainder[position + 1 :])
        elif head == character or (head >= "\udc00" and patterns.folded(head) == character.lower()):
            found.add(remainder[position + 1 :])
        return
