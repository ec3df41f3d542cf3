"""Known ways from some permissions to all of them, and which of them a permission set completes.

A path is complete only if every action that it needs is really allowed: on a resource of the kind that the action takes,
in a context that the path can have (`iam:PassRole` to the path's own service, `iam:Attach*Policy` of an administrator's
policy), past every Deny, boundary and session policy. Each completed step carries the request that proves it.
The paths and their sources are in `data/escalation_paths.json`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import resources

from ringfence.iam import catalogue as actions
from ringfence.iam.containment import Outcome, PermissionSet, contains
from ringfence.iam.evaluate import evaluate
from ringfence.iam.model import CURRENT_VERSION, Condition, Document, Permissions, Statement
from ringfence.iam.request import Request

PASS_ROLE = "iam:PassRole"  # noqa: S105 (an action, not a password)
_ADMINISTRATOR = "arn:*:iam::aws:policy/AdministratorAccess"
# Resources that are always the caller itself: access to oneself is no access to another principal.
_OWN_RESOURCE = re.compile(r"\$\{aws:(username|userid)\}", re.IGNORECASE)
_WRITES_POLICY = re.compile(r"iam:(Attach|Put)(User|Role|Group)Policy\Z")


class Scope(StrEnum):
    """How far a completed path reaches. ANY: resources that a pattern covers, so also ones made tomorrow; NAMED: only
    resources written out in full, as when one role may be passed; UNDECIDED: could not be ruled out in time."""

    ANY = "any"
    NAMED = "named"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class EscalationPath:
    """One known path. id: pathfinding.cloud's, or ``lib-…`` for those that only the libraries know; category:
    ``new-passrole``, ``existing-passrole``, ``principal-access`` or ``self-escalation``; passed_to: the service
    principals that a passed role ends up with; sources: keys of the data file's sources."""

    id: str
    category: str
    actions: tuple[str, ...]
    passed_to: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its actions in words, e.g. ``iam:PassRole + ec2:RunInstances``."""
        return " + ".join(self.actions)


@dataclass(frozen=True, slots=True)
class Escalation:
    """A completed path. requests: one allowed request per action, in the path's order; empty when undecided."""

    path: EscalationPath
    scope: Scope
    requests: tuple[Request, ...]

    @property
    def id(self) -> str:
        """The path's id."""
        return self.path.id


@functools.cache
def _data() -> dict[str, object]:
    return json.loads(resources.files("ringfence.iam").joinpath("data/escalation_paths.json").read_text("utf-8"))


def data_version() -> str:
    """Version of the path data, e.g. ``2026-11``: year and month in which the sources were read."""
    return str(_data()["version"])


@functools.cache
def catalogue() -> tuple[EscalationPath, ...]:
    """Every known path, in the data's order."""
    return tuple(
        EscalationPath(
            row["id"], row["category"], tuple(row["actions"]), tuple(row.get("passedTo", ())), tuple(row["sources"])
        )
        for row in _data()["paths"]  # type: ignore[attr-defined]
    )


def find_escalations(permissions: PermissionSet, *, include_named: bool = False) -> tuple[Escalation, ...]:
    """The paths that `permissions` completes.

    include_named: also those that reach only resources written out in full. Passing one named role to a service is how
    least privilege is written, so these are no findings by themselves; writing IAM policies always is.
    """
    search = _Search(_as_permissions(permissions))
    found = (search.complete(path) for path in catalogue())
    return tuple(
        item
        for item in found
        if item is not None and (include_named or item.scope is not Scope.NAMED or _writes_iam(item.path))
    )


def newly_complete(baseline: PermissionSet, candidate: PermissionSet) -> tuple[Escalation, ...]:
    """The paths that `candidate` completes and `baseline` doesn't. One that widened from named resources to a pattern
    is new as well."""
    after = find_escalations(candidate, include_named=True)
    if not after:
        return ()
    before = {(item.id, item.scope) for item in find_escalations(baseline, include_named=True)}
    known = before | {(name, Scope.NAMED) for name, _ in before}
    return tuple(item for item in after if (item.id, item.scope) not in known)


def _as_permissions(permissions: PermissionSet) -> Permissions:
    if isinstance(permissions, Permissions):
        return permissions
    return Permissions((permissions,) if isinstance(permissions, Document) else tuple(permissions))


@dataclass(frozen=True, slots=True)
class _Step:
    """One probe: an action in a context, off the resources excluded."""

    action: str
    conditions: tuple[Condition, ...] = ()
    other_principal: bool = False
    unnamed: bool = False


class _Search:
    """Answers the steps of all paths for one permission set, each step once."""

    def __init__(self, permissions: Permissions):
        self._permissions = permissions
        self._others = replace(permissions, identity=tuple(map(_without_own, permissions.identity)))
        self._named = tuple(sorted(_written_out(permissions.identity)))
        self._allowed_actions = _action_matcher(permissions.identity)
        self._answers: dict[_Step, Request | Scope | None] = {}

    def complete(self, path: EscalationPath) -> Escalation | None:
        """The path completed in its widest scope, or None."""
        if not all(self._allowed_actions(action) for action in path.actions):
            return None
        for scope in (Scope.ANY, Scope.NAMED):
            answers = [self._answer(_step(path, action, scope)) for action in path.actions]
            if all(answer is not None for answer in answers):
                requests = tuple(answer for answer in answers if isinstance(answer, Request))
                decided = len(requests) == len(answers)
                return Escalation(path, scope if decided else Scope.UNDECIDED, requests if decided else ())
        return None

    def _answer(self, step: _Step) -> Request | Scope | None:
        """A request that the step allows, UNDECIDED, or None when there is none."""
        if step not in self._answers:
            self._answers[step] = self._decide(step)
        return self._answers[step]

    def _decide(self, step: _Step) -> Request | Scope | None:
        held = self._others if step.other_principal else self._permissions
        statements = [Statement(0, "Allow", actions=(step.action,), resources=("*",), conditions=step.conditions)]
        if step.unnamed and self._named:
            statements.append(Statement(1, "Deny", actions=(step.action,), resources=self._named))
        probe = Document("scp", tuple(statements), CURRENT_VERSION)
        narrowed = replace(held, scp=(*held.scp, (probe,)))
        decision = contains(Permissions(), narrowed)
        if decision.outcome is Outcome.UNDECIDED:
            return Scope.UNDECIDED
        if decision.witness is None:
            return None
        if decision.outcome is Outcome.WIDENED_UNCATALOGUED and actions.catalogue().is_known(step.action.lower()):
            return None
        request = decision.witness.request
        return request if evaluate(self._permissions, request).allowed else Scope.UNDECIDED


def _step(path: EscalationPath, action: str, scope: Scope) -> _Step:
    conditions: tuple[Condition, ...] = ()
    if action == PASS_ROLE:
        conditions = (Condition("StringEquals", "iam:PassedToService", path.passed_to),)
    elif _WRITES_POLICY.match(action):
        # A policy written within a permissions boundary that the grant insists on gives no more than the boundary.
        conditions = (Condition("StringLike", "iam:PermissionsBoundary", (_ADMINISTRATOR,), if_exists=True),)
        if action.startswith("iam:Attach"):
            conditions += (Condition("StringLike", "iam:PolicyARN", (_ADMINISTRATOR,)),)
    pivot = action == PASS_ROLE or PASS_ROLE not in path.actions
    return _Step(
        action,
        conditions,
        other_principal=path.category == "principal-access",
        unnamed=scope is Scope.ANY and pivot,
    )


def _writes_iam(path: EscalationPath) -> bool:
    return any(action.startswith("iam:") and action != PASS_ROLE for action in path.actions)


def _without_own(document: Document) -> Document:
    """The document without Allows on resources that are always the caller's own, and with Denies on all other ones
    taken as Denies on everything."""
    if not document.variables_enabled:
        return document
    kept: list[Statement] = []
    for statement in document.statements:
        listed = statement.not_resources if statement.effect == "Deny" else statement.resources
        left = tuple(resource for resource in listed if not _OWN_RESOURCE.search(resource))
        if len(left) == len(listed):
            kept.append(statement)
        elif statement.effect == "Deny":
            everything = () if left else ("*",)
            kept.append(replace(statement, not_resources=left, resources=everything))
        elif left:
            kept.append(replace(statement, resources=left))
    return replace(document, statements=tuple(kept))


def _written_out(documents: Iterable[Document]) -> set[str]:
    return {
        resource
        for document in documents
        for statement in document.statements
        if statement.effect == "Allow"
        for resource in statement.resources
        if not any(mark in resource for mark in "*?$")
    }


def _action_matcher(documents: Iterable[Document]) -> Callable[[str], bool]:
    """Whether any Allow mentions an action at all: settles most paths without a decision."""
    allows = [s for document in documents for s in document.statements if s.effect == "Allow"]
    positive = _glob([pattern for s in allows for pattern in s.actions])
    negative = [_glob(s.not_actions) for s in allows if s.not_actions]

    def matches(action: str) -> bool:
        name = action.lower()
        return bool(positive.fullmatch(name)) or any(not pattern.fullmatch(name) for pattern in negative)

    return matches


def _glob(patterns: Iterable[str]) -> re.Pattern[str]:
    parts = (re.escape(p.lower()).replace(r"\*", ".*").replace(r"\?", ".") for p in patterns)
    return re.compile("|".join(parts) or r"(?!)", re.DOTALL)
