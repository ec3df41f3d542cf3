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
from ringfence.iam.patterns import PART, STAR

# Every ARN: five parts without a colon, then anything. Source: AWS General Reference, "Amazon Resource Names".
ARN = f"arn:{PART}:{PART}:{PART}:{PART}:{STAR}"
_NO_RESOURCE = "*"


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
    _answers: dict[tuple[frozenset[int], frozenset[int]], Solution | None] = field(default_factory=dict)

    def ask(self, shape: Group) -> Found | None:
        """The first answer whose resource matches one of `shape`'s patterns."""
        for pattern in (STAR,) if self.main.inverted else self.main.resources:
            found = self._ask_pattern(pattern, shape)
            if found is not None:
                return found
        return None

    def ask_without_resource(self) -> Found | None:
        """An answer for a request that names no resource, `*`."""

        def applies(part: Part) -> bool:
            return any(patterns.matches(pattern, _NO_RESOURCE) for pattern in part.resources) != part.inverted

        if not self.resourceless and not applies(self.main):
            return None
        everything = self._parts()
        applying = frozenset(i for i, part in enumerate(everything) if self.resourceless or applies(part))
        solution = self._solve(applying)
        return Found(_NO_RESOURCE, solution) if solution else None

    def _parts(self) -> list[Part]:
        return [*self.opposing, *(part for layer in self.layers for part in layer)]

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

    def _ask_pattern(self, pattern: str, shape: Group) -> Found | None:
        """The first answer whose resource matches `pattern` and one of `shape`'s patterns."""
        shape = tuple(each for each in shape if patterns.may_overlap(each, pattern))
        if not shape:
            return None
        certain, uncertain = self._bearing(pattern)
        possible = frozenset(number for number, _ in uncertain)
        if self._hopeless(certain, possible):
            return None
        layout = _Layout(pattern, shape, certain, uncertain, self._parts(), len(self.opposing))
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

    def _bearing(self, pattern: str) -> tuple[frozenset[int], list[tuple[int, Group]]]:
        """The parts that apply to all of `pattern`, and those that apply to some of it, with the patterns that matter."""
        certain: set[int] = set()
        uncertain: list[tuple[int, Group]] = []
        for number, part in enumerate(self._parts()):
            overlapping = tuple(each for each in part.resources if patterns.may_overlap(each, pattern))
            whole = any(patterns.includes(each, pattern) for each in overlapping)
            if part.inverted:
                if not overlapping:
                    certain.add(number)
                elif not whole:
                    uncertain.append((number, overlapping))
            elif whole:
                certain.add(number)
            elif overlapping:
                uncertain.append((number, overlapping))
        return frozenset(certain), uncertain


class _Layout:
    """Which group of the automaton stands for which parts. Parts with the same conditions share a group."""

    def __init__(
        self,
        pattern: str,
        shape: Group,
        certain: frozenset[int],
        uncertain: list[tuple[int, Group]],
        parts: list[Part],
        opposing: int,
    ):
        self.certain = certain
        self.groups: list[Group] = [(pattern,), shape]
        self.required = 3
        self.forbidden = 0
        # Group number → (numbers of the parts that apply when it matches, those that apply when it doesn't).
        self.meaning: dict[int, tuple[list[int], list[int]]] = {}
        merged: dict[object, tuple[set[str], list[int]]] = {}
        for number, overlapping in uncertain:
            part = parts[number]
            if part.inverted:
                group = self._add(overlapping)
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
