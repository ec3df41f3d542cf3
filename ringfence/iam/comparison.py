"""The search for a request that a candidate allows and a baseline doesn't: which rows to set against which."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from ringfence.iam import patterns, variables
from ringfence.iam.automaton import find
from ringfence.iam.budget import Budget, Exhausted, Undecided
from ringfence.iam.catalogue import Catalogue, catalogue
from ringfence.iam.choices import FRESH, Choices
from ringfence.iam.conditions import Solution, Solver
from ringfence.iam.patterns import ANY, NAME, PART, PART_ANY, STAR
from ringfence.iam.principals import decided_by_cells, keys_of, names, representatives
from ringfence.iam.question import Found, Question
from ringfence.iam.request import Principal, Request
from ringfence.iam.rows import Row, Scope, Table, covered, covers_pattern, subsumes, uncatalogued
from ringfence.iam.view import View

# Every action: a service, a colon, a name.
_ACTION = f"{PART_ANY}{PART}:{ANY}{STAR}"
# How many values of variables are tried for a typed answer when others have given one that isn't.
_MORE_ASSIGNMENTS = 512
# How many ARN formats are tried as the value of a variable that a resource begins with.
_MORE_SHAPES = 8
# Up to as many services are tried one by one; of more, first those that some resource reaches are found out.
_FEW_SERVICES = 3
_SEVERAL = "needs several values of {keys}, which hold one value at most"
_SHAPE = "{action} takes no resource of this shape, according to the catalogue"
_NAME = "only actions that the catalogue doesn't list are newly allowed"


@dataclass(frozen=True, slots=True)
class Hit:
    """A request found. reason: empty when it is typed as the catalogue has it, else what it is that it doesn't list."""

    request: Request
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Task:
    """main must apply, one row of each of `layers` too, and none of `opposing`. actions and names: what is left of
    main's actions after those that single rows settle, as a catalogued set and as patterns for others."""

    main: Row
    layers: tuple[tuple[Row, ...], ...]
    opposing: tuple[Row, ...]
    actions: int
    names: tuple[str, ...]


@dataclass(slots=True)
class Comparison:
    """One comparison. `hits` yields requests in the order of worth: typed ones first, then the others."""

    baseline: Table
    candidate: Table
    budget: Budget
    data: Catalogue = field(default_factory=catalogue)
    undecided: str = ""
    _told_apart: dict[tuple[int, ...], list[Principal | None]] = field(default_factory=dict)

    def hits(self) -> Iterator[Hit]:
        """Requests newly allowed. When none is typed, `undecided` tells whether a question was left open."""
        tasks = list(self._tasks())
        later: list[Hit] = []
        for task in tasks:
            for hit in self._catalogued(task):
                if not hit.reason:
                    yield hit
                else:
                    later.append(hit)
        for task in tasks:
            if task.names:
                later.extend(self._uncatalogued(task))
        yield from later

    # Which rows to set against which

    def _tasks(self) -> Iterator[_Task]:
        candidate_layers = self.candidate.allows
        for layer, allowing in self.baseline.allows.items():
            source = layer if layer in candidate_layers else "identity"
            others = tuple(rows for name, rows in candidate_layers.items() if name != source)
            for row in candidate_layers[source]:
                actions, names_left = self._left(row, allowing)
                if actions or names_left:
                    yield _Task(row, others, (*allowing, *self.candidate.denies), actions, names_left)
        every_layer = tuple(candidate_layers.values())
        for row in self.baseline.denies:
            actions, names_left = self._left(row, self.candidate.denies)
            if actions:
                for rows in every_layer:
                    granted = 0
                    for each in rows:
                        granted |= each.scope.among(actions, self.budget)
                    actions &= granted
            if actions or names_left:
                yield _Task(row, every_layer, self.candidate.denies, actions, names_left)

    def _left(self, row: Row, rows: Sequence[Row]) -> tuple[int, tuple[str, ...]]:
        """The actions of `row` that no single one of `rows` settles."""
        scope = row.scope
        if any(other.scope is scope for other in rows):
            return 0, ()
        if scope.actions_inverted:
            actions, names_left = scope.actions(self.budget), (STAR,)
        else:
            texts = self._texts_left(scope, rows)
            actions, names_left = 0, uncatalogued(texts, self.data)
            for text in texts:
                self.budget.tick(8)
                actions |= self.data.expand(text)
        for other in rows:
            if not actions and not names_left:
                break
            self.budget.tick()
            settled = other.scope.among(actions, self.budget)
            bears = settled or any(covers_pattern(other.scope, each, self.budget) for each in names_left)
            if bears and subsumes(other.scope, scope, self.budget):
                actions &= ~settled
                names_left = self._names_left(scope, other.scope, names_left)
        return actions, names_left

    def _texts_left(self, scope: Scope, rows: Sequence[Row]) -> set[str]:
        """The action patterns of `scope` that are in none of `rows` as they are written."""
        left = set(scope.action_texts)
        for other in rows:
            if not left:
                break
            self.budget.tick()
            if other.scope.actions_inverted:
                continue
            common = left & other.scope.action_texts
            if common and subsumes(other.scope, scope, self.budget):
                left -= common
        return left

    def _names_left(self, scope: Scope, other: Scope, left: tuple[str, ...]) -> tuple[str, ...]:
        if scope.actions_inverted and other.actions_inverted:
            kept = scope.action_patterns
            if all(covered(each, kept, self.budget) for each in other.action_patterns):
                return ()
        return tuple(each for each in left if not covers_pattern(other, each, self.budget))

    # Catalogued actions, class by class

    def _catalogued(self, task: _Task) -> Iterator[Hit]:
        if not task.actions:
            return
        flat = [*task.opposing, *(row for layer in task.layers for row in layer)]
        for actions, mask in self._classes(task.actions, flat):
            bearing = [row for place, row in enumerate(flat) if mask >> place & 1]
            yield from self._decide(task, bearing, actions)

    def _classes(self, actions: int, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """The actions split by which of the rows speak of them: pairs of a set of actions and a set of rows."""
        classes = [(actions, 0)]
        for place, row in enumerate(rows):
            bit = 1 << place
            named = row.scope.among(actions, self.budget)
            if not named:
                continue
            split: list[tuple[int, int]] = []
            for members, mask in classes:
                inside = members & named
                if not inside:
                    split.append((members, mask))
                    continue
                split.append((inside, mask | bit))
                outside = members & ~inside
                if outside:
                    split.append((outside, mask))
            classes = split
            self.budget.tick()
        # The fewer rows speak of a class, the sooner it shows a request.
        return sorted(classes, key=lambda pair: pair[1].bit_count())

    # Actions outside the catalogue

    def _uncatalogued(self, task: _Task) -> Iterator[Hit]:
        flat = [*task.opposing, *(row for layer in task.layers for row in layer)]
        groups: list[tuple[str, ...]] = [task.names, (_ACTION,)]
        forbidden = 0
        if task.main.scope.actions_inverted:
            groups.append(task.main.scope.action_patterns)
            forbidden = 4
        first = len(groups)
        groups += [row.scope.action_patterns for row in flat]
        written = {action.lower(): action for action in task.main.statement.actions}
        hits: list[Hit] = []

        def accept(matched: int, text: str) -> bool:
            bearing = [
                row
                for place, row in enumerate(flat)
                if bool(matched >> (first + place) & 1) != row.scope.actions_inverted
            ]
            hits.extend(self._decide(task, bearing, 0, written.get(text, text)))
            return bool(hits)

        try:
            find(groups, 3, self.budget, accept, None, forbidden, self.data.is_known)
        except Exhausted:
            raise
        except Undecided as why:
            self.undecided = str(why)
        yield from hits

    # One class of actions: principals, variables, resources and conditions

    def _decide(self, task: _Task, bearing: Sequence[Row], actions: int, name: str = "") -> Iterator[Hit]:
        """Hits for a class of actions of which exactly `bearing` speak: catalogued `actions`, or else one `name`."""
        bears = {id(row) for row in bearing}
        layers = [[row for row in layer if id(row) in bears] for layer in task.layers]
        if not all(layers):
            return
        opposing = [row for row in task.opposing if id(row) in bears]
        scopes = [task.main.scope, *(row.scope for row in bearing)]
        try:
            for principal in self._principals(task.main.scope, scopes):
                view = View.of(task.main, layers, opposing, principal)
                if view is not None:
                    yield from self._with_variables(view, principal, scopes, actions, name)
        except Exhausted:
            raise
        except Undecided as why:
            self.undecided = str(why)

    def _principals(self, main: Scope, scopes: Sequence[Scope]) -> list[Principal | None]:
        """Of the principals that `main` speaks of, one for each way in which the scopes tell them apart."""
        if not any(scope.has_principals for scope in scopes):
            return [None]
        key = (id(main), *sorted({id(scope) for scope in scopes}))
        if key in self._told_apart:
            return self._told_apart[key]
        naming = [scope for scope in dict.fromkeys(scopes) if scope.has_principals]
        tested = keys_of(scopes)
        found: dict[object, Principal | None] = {}
        for principal in representatives(scopes, self.budget):
            self.budget.tick(1 + len(naming) // 8)
            if main.has_principals and not names(main, principal):
                continue
            given = _fixed(principal)
            ways = (tuple(names(scope, principal) for scope in naming), tuple(given.get(key, "") for key in tested))
            found.setdefault((ways, tuple(key in given for key in tested)), principal)
        self._told_apart[key] = list(found.values())
        return self._told_apart[key]

    def _with_variables(
        self, view: View, principal: Principal | None, scopes: Sequence[Scope], actions: int, name: str
    ) -> Iterator[Hit]:
        fixed = _fixed(principal)
        if not any(variables.symbols_of(part) for part in view.parts()):
            yield from self._ask(view, fixed, principal, actions, name)
            return
        used = {patterns.variable_of(symbol)[0] for part in view.parts() for symbol in variables.symbols_of(part)}
        given = view.bind(fixed)
        if given is None:
            return
        for main in variables.cases(given.main):
            for pins in variables.pinned(main, used - fixed.keys()):
                bound = View(main, given.layers, given.opposing, given.resourceless).bind(pins)
                narrowed = bound and bound.without_opposed(self.budget)
                if narrowed and self._find_any(narrowed.for_any_values(), fixed | pins) is not None:
                    yield from self._with_values(narrowed, fixed | pins, principal, scopes, actions, name)

    def _with_values(
        self,
        view: View,
        fixed: variables.Assignment,
        principal: Principal | None,
        scopes: Sequence[Scope],
        actions: int,
        name: str,
    ) -> Iterator[Hit]:
        found = False
        shapes = self._arns(actions) if view.begins_with_variable() else []
        choices = Choices([[view.main], *view.layers], view.opposing, fixed, self.data.boolean, self.budget, shapes)
        for count, assignment in enumerate(choices):
            if found and count > _MORE_ASSIGNMENTS:
                break
            bound = view.bind(assignment)
            if bound is not None:
                for hit in self._ask(bound, fixed | assignment, principal, actions, name):
                    found = True
                    yield hit
        if not found and not (choices.exact and (principal is None or decided_by_cells(scopes))):
            raise Undecided("a policy variable meets patterns in a way that has no finite set of cases")

    def _arns(self, actions: int) -> list[str]:
        """ARNs that the actions take, with FRESH for names."""
        numbers = [
            number for formats in self.data.by_service(actions).values() for _, each in formats for number in each
        ]
        return [self.data.example(number, FRESH) for number in dict.fromkeys(numbers[:_MORE_SHAPES])]

    def _find_any(self, view: View, fixed: variables.Assignment) -> Found | None:
        """Any answer whatever, typed or not."""
        question = self._question(view, fixed, typed=False)
        found = question.ask_without_resource()
        return found if found is not None or view.resourceless else question.ask(view.universe())

    def _ask(
        self, view: View, fixed: variables.Assignment, principal: Principal | None, actions: int, name: str
    ) -> Iterator[Hit]:
        question = self._question(view, fixed, typed=True)
        bare = question.ask_without_resource()
        broad = None if view.resourceless else question.ask(view.universe())
        if bare is None and broad is None:
            yield from self._untyped_values(view, fixed, principal, actions, name)
            return
        if not actions:
            yield Hit(_request(name, bare or broad, fixed, principal), _NAME)
            return
        if view.resourceless:
            yield Hit(_request(self._name(actions), bare, fixed, principal))
            return
        if broad is not None:
            service = broad.resource.split(":", 3)[2] if broad.resource.count(":") > 2 else ""
            likely = self.data.likely(actions, service)
            for members in (likely, actions & ~likely):
                yield from self._typed(view, question, fixed, principal, members)
        if bare is not None and actions & self.data.taking_star:
            yield Hit(_request(self._name(actions & self.data.taking_star), bare, fixed, principal))
        action = self._name(actions)
        yield Hit(_request(action, broad or bare, fixed, principal), _SHAPE.format(action=action))

    def _typed(
        self,
        view: View,
        question: Question,
        fixed: variables.Assignment,
        principal: Principal | None,
        actions: int,
    ) -> Iterator[Hit]:
        """Answers whose resource the catalogue gives for the action. Where a placeholder may hold a colon, a wildcard
        of a row to apply must stay within its part of the ARN: otherwise it would reach into the resource's own name."""
        by_parts = self._question(view.by_parts(), fixed, typed=True)
        formats = self.data.by_service(actions)
        for service in self._services_reached(question, formats):
            for members, numbers in formats[service]:
                strict = tuple(self.data.strict_formats[number] for number in numbers)
                found = question.ask(strict) or by_parts.ask(tuple(self.data.formats[number] for number in numbers))
                if found is not None:
                    yield Hit(_request(self._name(members), found, fixed, principal))

    def _services_reached(self, question: Question, services: Collection[str]) -> Iterator[str]:
        """Those of the services of which some ARN answers the question; the empty one, which stands for any, last."""
        left = {service for service in services if service}
        few = len(left) <= _FEW_SERVICES
        while left:
            if few:
                yield left.pop()
                continue
            found = question.ask(tuple(_arn_of(service) for service in sorted(left)))
            if found is None:
                break
            service = found.resource.split(":", 3)[2]
            left.discard(service)
            yield service
        if "" in services:
            yield ""

    def _untyped_values(
        self, view: View, fixed: variables.Assignment, principal: Principal | None, actions: int, name: str
    ) -> Iterator[Hit]:
        """Answers that give several values to a key known to hold one; and the check that none was missed because a
        plain operator met a key with several values, for which IAM defines no meaning."""
        atoms = {item for part in view.parts() for item in part.conditions}
        if any(item.quantifier and self.data.single_valued(item.key) for item in atoms):
            found = self._find_any(view, fixed)
            if found is not None:
                keys = ", ".join(found.solution.several)
                action = name or self._name(actions)
                yield Hit(_request(action, found, fixed, principal), _SEVERAL.format(keys=keys))
                return
        doubtful = {item for item in atoms if not item.quantifier and item.operator != "Null"}
        doubtful = {item for item in doubtful if item.key in self.data.multivalued and item.key not in fixed}
        if doubtful and self._find_any(view.with_opaque(doubtful), fixed) is not None:
            keys = ", ".join(sorted({item.key for item in doubtful}))
            raise Undecided(f"a plain operator on {keys}, which hold several values, has no defined meaning")

    def _question(self, view: View, fixed: variables.Assignment, *, typed: bool) -> Question:
        atoms = [item for part in view.parts() for item in part.conditions]
        solver = Solver(
            atoms,
            self.budget,
            boolean=self.data.boolean,
            single_valued=self.data.single_valued,
            fixed=fixed,
            typed=typed,
        )
        return Question(view.main, view.layers, view.opposing, solver, self.budget, view.resourceless)

    def _name(self, actions: int) -> str:
        return self.data.name((actions & -actions).bit_length() - 1)


def _arn_of(service: str) -> str:
    return f"arn:aws{NAME}:{service}:{NAME}:{NAME}:{STAR}"


def _fixed(principal: Principal | None) -> variables.Assignment:
    """Condition keys whose value follows from the principal, or which it can't have."""
    if principal is None:
        return {}
    known: variables.Assignment = {key.lower(): values[0] for key, values in principal.context().items()}
    return known | dict.fromkeys(principal.never())


def _request(action: str, found: Found, fixed: variables.Assignment, principal: Principal | None) -> Request:
    context: dict[str, tuple[str, ...]] = {key: (value,) for key, value in fixed.items() if value is not None}
    context.update(found.solution.context)
    return Request(action, found.resource, context, principal)


__all__ = ["Comparison", "Hit", "Solution"]
