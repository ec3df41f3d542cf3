"""The rows that bear on one class of actions and one principal, as the parts of a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.iam import patterns, variables
from ringfence.iam.budget import Budget
from ringfence.iam.conditions import Atom
from ringfence.iam.patterns import STAR
from ringfence.iam.principals import names
from ringfence.iam.question import ARN, Part
from ringfence.iam.request import Principal
from ringfence.iam.rows import Row


@dataclass(frozen=True, slots=True)
class View:
    """The rows that bear on one class of actions and one principal."""

    main: Part
    layers: list[list[Part]]
    opposing: list[Part]
    resourceless: bool

    @classmethod
    def of(
        cls, main: Row, layers: Sequence[Sequence[Row]], opposing: Sequence[Row], principal: Principal | None
    ) -> View | None:
        """None when the principal is none that the rows to apply speak of."""

        def speaking(rows: Sequence[Row]) -> list[Part]:
            scopes = [
                row.scope for row in rows if not row.scope.has_principals or (principal and names(row.scope, principal))
            ]
            return [Part(s.resources, s.resources_inverted, s.conditions) for s in scopes]

        applying = [speaking(layer) for layer in layers]
        first = speaking([main])
        if not first or not all(applying):
            return None
        rows = [main, *opposing, *(row for layer in layers for row in layer)]
        return cls(first[0], applying, speaking(opposing), all(row.scope.resourceless for row in rows))

    def parts(self) -> list[Part]:
        return [self.main, *(part for layer in self.layers for part in layer), *self.opposing]

    def bind(self, assignment: variables.Assignment) -> View | None:
        """With variables replaced; None when a row that must apply can't."""
        main = variables.bind(self.main, assignment)
        layers = [[bound for part in layer if (bound := variables.bind(part, assignment))] for layer in self.layers]
        if main is None or not all(layers):
            return None
        opposing = [bound for part in self.opposing if (bound := variables.bind(part, assignment))]
        return View(main, layers, opposing, self.resourceless)

    def for_any_values(self) -> View:
        """Without variables: has an answer wherever this one has for some of their values."""
        layers = [[variables.loosen(part) for part in layer] for layer in self.layers]
        opposing = [part for part in map(variables.narrow, self.opposing) if part is not None]
        return View(variables.loosen(self.main), layers, opposing, self.resourceless)

    def without_opposed(self, budget: Budget) -> View | None:
        """Without what an opposing row takes in whole; None when a row that must apply is taken in."""
        main = variables.without_opposed(self.main, self.opposing, budget)
        kept = [
            [left for part in layer if (left := variables.without_opposed(part, self.opposing, budget))]
            for layer in self.layers
        ]
        if main is None or not all(kept):
            return None
        return View(main, kept, self.opposing, self.resourceless)

    def begins_with_variable(self) -> bool:
        """Whether a resource that must be matched begins with a variable, as ARNs made by templates do."""
        wanted = (part for part in [self.main, *(part for layer in self.layers for part in layer)] if not part.inverted)
        return any(patterns.variables_in(pattern[:1]) for part in wanted for pattern in part.resources)

    def universe(self) -> tuple[str, ...]:
        """The shapes that a resource can have: an ARN, unless a row names something else."""
        listed = [pattern for part in self.parts() for pattern in part.resources]
        return (ARN,) if all(patterns.may_overlap(pattern, ARN) for pattern in listed) else (STAR,)

    def by_parts(self) -> View:
        """With wildcards of the patterns that the resource must match kept within their part of the ARN: those of the
        rows that must apply, and those that opposing rows leave alone."""

        def kept(part: Part, wanted: bool) -> Part:
            if not wanted:
                return part
            return Part(tuple(map(patterns.by_parts, part.resources)), part.inverted, part.conditions)

        layers = [[kept(part, not part.inverted) for part in layer] for layer in self.layers]
        opposing = [kept(part, part.inverted) for part in self.opposing]
        return View(kept(self.main, not self.main.inverted), layers, opposing, self.resourceless)

    def with_opaque(self, doubtful: set[Atom]) -> View:
        """With each doubtful atom turned into a test of its own made-up key, free to hold or not."""
        numbers = {item: number for number, item in enumerate(sorted(doubtful, key=repr))}

        def opaque(part: Part) -> Part:
            conditions = frozenset(
                Atom("StringLike", f"opaque {numbers[item]}", frozenset(("true",)), "", False, False)
                if item in numbers
                else item
                for item in part.conditions
            )
            return Part(part.resources, part.inverted, conditions)

        return View(
            opaque(self.main),
            [[opaque(part) for part in layer] for layer in self.layers],
            [opaque(part) for part in self.opposing],
            self.resourceless,
        )
