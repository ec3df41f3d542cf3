"""One question of a comparison: is there a resource and a context for which one row applies, one row of each further
layer too, and none of the opposing rows? For one principal and one choice of values for policy variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ringfence.iam import patterns
from ringfence.iam.automaton import Group, find
from ringfence.iam.budget import Budget
from ringfence.iam.conditions import Atom, Literals, Solution, Solver
from ringfence.iam.patterns import NAME, STAR

# Every ARN: partition, service, region and account hold no colon or slash, then anything. Source: AWS General
# Reference, "Amazon Resource Names (ARNs)".
ARN = f"arn:{NAME}:{NAME}:{NAME}:{NAME}:{STAR}"
_NO_RESOURCE = "*"
# How many of a row's resource patterns are asked about one by one before the rest are together.
_ALONE = 2


@dataclass(frozen=True, slots=True)
class Part:
    """What one row contributes: resource patterns without variables (inverted for NotResource) and conditions."""

    resources: tuple[str, ...]
    inverted: bool
    conditions: frozenset[Atom]


@dataclass(frozen=True, slots=True)
class Found:
    """A resource and a context that answer the question."""

    resource: str
    solution: Solution


@dataclass(slots=True)
class Question:
    """main: the row that must apply; layers: of each further layer one part must apply; opposing: none may apply.

    resourceless: the policies speak of what they are attached to, so that there is no resource to choose.
    """

    main: Part
    layers: Sequence[Sequence[Part]]
    opposing: Sequence[Part]
    solver: Solver
    budget: Budget
    resourceless: bool = False
    _listed: list[Part] | None = None
    _open: list[str] | None = None
    _bearings: dict[str, tuple[frozenset[int], dict[int, Group]]] = field(default_factory=dict)
    _answers: dict[tuple[frozenset[int], frozenset[int]], Solution | None] = field(default_factory=dict)

    def ask(self, shape: Group) -> Found | None:
        """The first answer whose resource matches one of `shape`'s patterns."""
        left = [each for each in self._open_patterns() if any(patterns.may_overlap(each, one) for one in shape)]
        # Most answers are found with the first pattern; when they aren't, all others together cost little more.
        for chosen in (*((each,) for each in left[:_ALONE]), tuple(left[_ALONE:])):
            if chosen:
                found = self._ask_patterns(chosen, shape)
                if found is not None:
                    return found
        return None

    def ask_without_resource(self) -> Found | None:
        """An answer for a request that names no resource, `*`."""

        def applies(part: Part) -> bool:
            return any(patterns.matches(pattern, _NO_RESOURCE) for pattern in part.resources) != part.inverted

        if not self.resourceless and not applies(self.main):
            return None
        applying = frozenset(i for i, part in enumerate(self._parts()) if self.resourceless or applies(part))
        solution = self._solve(applying)
        return Found(_NO_RESOURCE, solution) if solution else None

    def _parts(self) -> list[Part]:
        if self._listed is None:
            self._listed = [*self.opposing, *(part for layer in self.layers for part in layer)]
        return self._listed

    def _solve(self, applying: frozenset[int]) -> Solution | None:
        """A context when exactly the numbered parts (as in `_parts`) and the main row reach the resource."""
        key = (applying, frozenset())
        if key in self._answers:
            return self._answers[key]
        self._answers[key] = solution = self._solution(applying, frozenset())
        return solution

    def _hopeless(self, certain: frozenset[int], possible: frozenset[int]) -> bool:
        """Whether no context answers while the `certain` parts reach the resource and the `possible` ones may."""
        key = (certain, possible)
        if key not in self._answers:
            self._answers[key] = self._solution(certain, possible)
        return self._answers[key] is None

    def _solution(self, certain: frozenset[int], possible: frozenset[int]) -> Solution | None:
        required: Literals = tuple((item, True) for item in self.main.conditions)
        choices: list[list[Literals]] = []
        seen: set[frozenset[Atom]] = set()
        for number, part in enumerate(self.opposing):
            if number in certain and part.conditions not in seen:
                seen.add(part.conditions)
                choices.append([((item, False),) for item in part.conditions])
        number = len(self.opposing)
        for layer in self.layers:
            reaching = []
            for part in layer:
                if number in certain or number in possible:
                    reaching.append(tuple((item, True) for item in part.conditions))
                number += 1
            choices.append(reaching)
        return self.solver.solve(required, choices)

    def _open_patterns(self) -> list[str]:
        """The main row's patterns that the parts applying to all of them don't settle."""
        if self._open is None:
            self._open = []
            for pattern in (STAR,) if self.main.inverted else self.main.resources:
                bearing = self._bearings[pattern] = self._bearing(pattern)
                if not self._hopeless(bearing[0], frozenset(bearing[1])):
                    self._open.append(pattern)
        return self._open

    def _ask_patterns(self, chosen: Group, shape: Group) -> Found | None:
        """The first answer whose resource matches one of the main row's patterns and one of `shape`'s."""
        shape = tuple(each for each in shape if any(patterns.may_overlap(each, pattern) for pattern in chosen))
        certain = frozenset.intersection(*(self._bearings[pattern][0] for pattern in chosen))
        uncertain: dict[int, set[str]] = {}
        for pattern in chosen:
            whole, partly = self._bearings[pattern]
            for number in whole - certain:
                part = self._parts()[number]
                uncertain.setdefault(number, set()).update(part.resources)
            for number, overlapping in partly.items():
                uncertain.setdefault(number, set()).update(overlapping)
        layout = _Layout(chosen, shape, certain, uncertain, self._parts(), len(self.opposing))
        if self.main.inverted:
            layout.forbid(self.main.resources)
        found: list[Solution] = []

        def accept(matched: int, _text: str) -> bool:
            solution = self._solve(layout.applying(matched))
            if solution:
                found.append(solution)
            return solution is not None

        def settled(matched: int, dead: int) -> bool:
            return self._hopeless(*layout.outlook(matched, dead))

        text = find(layout.groups, layout.required, self.budget, accept, settled, layout.forbidden)
        return Found(text, found[-1]) if text is not None else None

    def _bearing(self, pattern: str) -> tuple[frozenset[int], dict[int, Group]]:
        """The parts that apply to all of `pattern`, and those that apply to some of it, with the patterns that matter."""
        certain: set[int] = set()
        uncertain: dict[int, Group] = {}
        for number, part in enumerate(self._parts()):
            self.budget.tick(1 + len(part.resources) // 8)
            overlapping = tuple(each for each in part.resources if patterns.may_overlap(each, pattern))
            whole = any(patterns.includes(each, pattern) for each in overlapping)
            if part.inverted:
                # One that excludes the whole pattern is kept too: it may apply to another pattern asked about with it.
                if overlapping:
                    uncertain[number] = overlapping
                else:
                    certain.add(number)
            elif whole:
                certain.add(number)
            elif overlapping:
                uncertain[number] = overlapping
        return frozenset(certain), uncertain


class _Layout:
    """Which group of the automaton stands for which parts. Parts with the same conditions share a group."""

    def __init__(
        self,
        chosen: Group,
        shape: Group,
        certain: frozenset[int],
        uncertain: dict[int, set[str]],
        parts: list[Part],
        opposing: int,
    ):
        self.certain = certain
        self.groups: list[Group] = [chosen, shape]
        self.required = 3
        self.forbidden = 0
        # Group number → (numbers of the parts that apply when it matches, those that apply when it doesn't).
        self.meaning: dict[int, tuple[list[int], list[int]]] = {}
        merged: dict[object, tuple[set[str], list[int]]] = {}
        for number, overlapping in sorted(uncertain.items()):
            part = parts[number]
            if part.inverted:
                group = self._add(tuple(sorted(overlapping)))
                if number < opposing and not part.conditions:
                    self.required |= 1 << group
                else:
                    self.meaning.setdefault(group, ([], []))[1].append(number)
                continue
            key = part.conditions if number < opposing else number
            patterns_of, numbers_of = merged.setdefault(key, (set(), []))
            patterns_of.update(overlapping)
            numbers_of.append(number)
        for key, (patterns_of, numbers_of) in merged.items():
            group = self._add(tuple(sorted(patterns_of)))
            if isinstance(key, frozenset) and not key:
                self.forbidden |= 1 << group
            else:
                # One part stands for all that share its conditions.
                self.meaning.setdefault(group, ([], []))[0].append(numbers_of[0])

    def _add(self, group: Group) -> int:
        if group in self.groups[2:]:
            return self.groups.index(group, 2)
        self.groups.append(group)
        return len(self.groups) - 1

    def forbid(self, group: Group) -> None:
        """No text of `group` counts."""
        self.forbidden |= 1 << self._add(group)

    def applying(self, matched: int) -> frozenset[int]:
        """The parts that apply to a text that matches these groups."""
        found = set(self.certain)
        for group, (when, unless) in self.meaning.items():
            found.update(when if matched >> group & 1 else unless)
        return frozenset(found)

    def outlook(self, matched: int, dead: int) -> tuple[frozenset[int], frozenset[int]]:
        """The parts that certainly apply, and those that may, when some groups match whatever follows, others never."""
        certain, possible = set(self.certain), set()
        for group, (when, unless) in self.meaning.items():
            if matched >> group & 1:
                certain.update(when)
            elif dead >> group & 1:
                certain.update(unless)
            else:
                possible.update(when)
                possible.update(unless)
        return frozenset(certain), frozenset(possible)
