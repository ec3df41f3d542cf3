"""The joint automaton: texts told apart by which of several groups of patterns match them.

A state holds, for each group, the patterns still to be matched; equal remainders of different patterns fall together
and a remainder that another one covers is dropped, so that a group that has reached its trailing star is one remainder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ringfence.iam import patterns
from ringfence.iam.budget import Budget
from ringfence.iam.patterns import ANY, PART, PART_ANY, STAR

Group = tuple[str, ...]
_Remainders = frozenset[str]
_EVERYTHING: _Remainders = frozenset((STAR,))
_NOTHING: _Remainders = frozenset()
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
        budget.release(len(walk.seen))


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
        self.start = tuple(_reduce(set(group)) for group in groups)
        self.count = len(groups)
        self.required = [index for index in range(self.count) if required >> index & 1]
        self.forbidden = [index for index in range(self.count) if forbidden >> index & 1]
        self.required_set, self.forbidden_set = required, forbidden
        self.budget, self.accept, self.settled, self.skip = budget, accept, settled, skip
        self.answers: dict[int, bool] = {}
        self.closed: dict[tuple[int, int], bool] = {}
        self.seen: set[tuple[_Remainders, ...]] = set()
        self.steps: dict[tuple[_Remainders, str], _Remainders] = {}

    def run(self) -> str | None:
        stack: list[tuple[tuple[_Remainders, ...], str]] = [(self.start, "")]
        while stack:
            state, text = stack.pop()
            if state in self.seen:
                continue
            self.seen.add(state)
            self.budget.state()
            if self.hopeless(state):
                continue
            matched = 0
            for index, remainders in enumerate(state):
                if remainders and ("" in remainders or STAR in remainders or PART in remainders):
                    matched |= 1 << index
            counts = matched & self.required_set == self.required_set and not matched & self.forbidden_set
            if counts and self.answer(matched, text):
                return text
            self.extend(state, text, stack)
        return None

    def answer(self, matched: int, text: str) -> bool:
        if self.skip is not None and self.skip(text):
            return False
        known = self.answers.get(matched)
        if known is None:
            known = self.answers[matched] = self.accept(matched, text)
        return known

    def hopeless(self, state: tuple[_Remainders, ...]) -> bool:
        if any(not state[index] for index in self.required):
            return True
        if any(state[index] == _EVERYTHING for index in self.forbidden):
            return True
        if self.settled is None:
            return False
        certain = dead = 0
        for index, remainders in enumerate(state):
            if remainders == _EVERYTHING:
                certain |= 1 << index
            elif not remainders:
                dead |= 1 << index
        known = self.closed.get((certain, dead))
        if known is None:
            known = self.closed[(certain, dead)] = self.settled(certain, dead)
        return known

    def extend(
        self, state: tuple[_Remainders, ...], text: str, stack: list[tuple[tuple[_Remainders, ...], str]]
    ) -> None:
        forced = self.forced_text(state)
        if forced:
            following = tuple(_advance(remainders, forced) if remainders else _NOTHING for remainders in state)
            stack.append((following, text + forced))
            return
        heads: set[str] = set()
        undetermined = False
        for remainders in state:
            if remainders == _EVERYTHING:
                continue
            for remainder in remainders:
                undetermined = True
                _heads(remainder, heads)
        if not undetermined:
            # Whatever follows, the same groups match: this state's answer was the last.
            return
        useful = self.useful(state, heads)
        for character in sorted(useful, reverse=True):
            self.push(state, text, character, stack)
        other = next(candidate for candidate in OTHERS if candidate not in heads)
        self.push(state, text, other, stack)

    def useful(self, state: tuple[_Remainders, ...], heads: set[str]) -> set[str]:
        """The characters with a transition of their own that no required group rules out at once."""
        useful = heads
        for index in self.required:
            taken: set[str] = set()
            for remainder in state[index]:
                if _is_open(remainder):
                    break
                _heads(remainder, taken)
            else:
                useful = useful & taken
        return useful

    def forced_text(self, state: tuple[_Remainders, ...]) -> str:
        """Plain text that must come next, since one required group has nothing else left."""
        for index in self.required:
            remainders = state[index]
            if len(remainders) == 1:
                (remainder,) = remainders
                forced = patterns.literal_prefix(remainder)
                if forced:
                    return forced
        return ""

    def push(
        self,
        state: tuple[_Remainders, ...],
        text: str,
        character: str,
        stack: list[tuple[tuple[_Remainders, ...], str]],
    ) -> None:
        following = tuple(self.step(remainders, character) for remainders in state)
        if following not in self.seen:
            stack.append((following, text + character))

    def step(self, remainders: _Remainders, character: str) -> _Remainders:
        if not remainders or remainders == _EVERYTHING:
            return remainders
        known = self.steps.get((remainders, character))
        if known is None:
            known = self.steps[(remainders, character)] = _step_all(remainders, character)
            self.budget.tick()
        return known


def _is_open(remainder: str) -> bool:
    """Whether characters without a transition of their own can come next."""
    return remainder[:1] in (STAR, ANY, PART, PART_ANY) and remainder != ""


def _heads(remainder: str, heads: set[str]) -> None:
    """Add the characters that `remainder` tells apart from all others as the next one."""
    for token in remainder:
        if token == STAR:
            continue
        if token == PART:
            heads.add(":")
            continue
        if token == PART_ANY:
            heads.add(":")
        elif token != ANY:
            letter = patterns.folded(token)
            if letter:
                heads.update((letter, letter.upper()))
            else:
                heads.add(token)
        return


def _step_all(remainders: _Remainders, character: str) -> _Remainders:
    found: set[str] = set()
    for remainder in remainders:
        _step(remainder, character, found)
    if not found:
        return _NOTHING
    # Only a remainder newly at a star can cover others; most steps have none.
    if any(remainder[:1] == STAR and remainder not in remainders for remainder in found):
        return _reduce(found)
    return frozenset(found)


def _step(remainder: str, character: str, found: set[str]) -> None:
    """Add what is left of `remainder` after `character`."""
    position = 0
    for token in remainder:
        position += 1
        if token == STAR:
            found.add(remainder[position - 1 :])
            continue
        if token == PART:
            if character != ":":
                found.add(remainder[position - 1 :])
            continue
        if token in (character, ANY):
            found.add(remainder[position:])
        elif token == PART_ANY:
            if character != ":":
                found.add(remainder[position:])
        elif patterns.folded(token) and patterns.folded(token) == character.lower():
            found.add(remainder[position:])
        return


def _advance(remainders: _Remainders, text: str) -> _Remainders:
    """What is left of the remainders after `text`."""
    if remainders == _EVERYTHING:
        return remainders
    found: set[str] = set()
    for remainder in remainders:
        prefix = patterns.literal_prefix(remainder)
        if len(prefix) >= len(text):
            if prefix.startswith(text):
                found.add(remainder[len(text) :])
            continue
        if not text.startswith(prefix):
            continue
        current: Iterable[str] = (remainder[len(prefix) :],)
        for character in text[len(prefix) :]:
            following: set[str] = set()
            for left in current:
                _step(left, character, following)
            if STAR in following:
                following = {STAR}
                current = following
                break
            current = following
            if not following:
                break
        found.update(current)
    return _reduce(found)


def _reduce(remainders: set[str]) -> _Remainders:
    """Without the remainders that another one covers."""
    if STAR in remainders:
        return _EVERYTHING
    if len(remainders) > 2:
        starred = [remainder for remainder in remainders if remainder[:1] == STAR]
        if len(starred) > 1:
            dropped = {
                narrow
                for narrow in starred
                if any(
                    wide is not narrow and len(wide) <= len(narrow) and patterns.includes(wide, narrow)
                    for wide in starred
                )
            }
            remainders = remainders - dropped
    return frozenset(remainders)
