"""Is everything that a candidate grants already granted by a baseline? Decided exactly, with a witness when not.

A request is newly allowed when every layer of the candidate allows it, none of its documents denies it, and either
some layer of the baseline doesn't allow it or a document of the baseline denies it. Each of these cases is a question
about one row (`comparison`), which is answered per class of actions, principal, choice of variables, resource pattern
and cell of condition values (`question`). Whatever is found is checked by the plain evaluator before it is reported.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ringfence.iam import conditions, patterns, rows
from ringfence.iam.budget import Budget, Undecided
from ringfence.iam.catalogue import catalogue
from ringfence.iam.comparison import Comparison, Hit
from ringfence.iam.evaluate import Match, evaluate
from ringfence.iam.model import Condition, Document, Permissions
from ringfence.iam.patterns import TooManyVariables, variables_known
from ringfence.iam.presentation import presentable
from ringfence.iam.request import Request
from ringfence.iam.rows import table

# Above this many, the numbers that policy variables were given are forgotten before the next decision.
_VARIABLES_KEPT = 20_000
PermissionSet = Document | Sequence[Document] | Permissions


class Outcome(StrEnum):
    """The four answers. Everything but `CONTAINED` counts as widened."""

    CONTAINED = "contained"
    WIDENED = "widened"
    WIDENED_UNCATALOGUED = "widened_uncatalogued"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class StatementRef:
    """A statement of the candidate or baseline. layer and document: as in `Permissions.layers`; index: 0-based."""

    layer: str
    document: int
    index: int
    sid: str


@dataclass(frozen=True, slots=True)
class Witness:
    """One request that the candidate allows and the baseline doesn't. Its resource is `*` where the action takes none or
    the policies speak of what they are attached to, as trust policies do. statement: the candidate's that allows it;
    lost_deny: the baseline's Deny that stops it, None when the baseline merely never allows it."""

    request: Request
    statement: StatementRef
    lost_deny: StatementRef | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. witness: confirmed by the plain evaluator, None when contained or undecided; reason: one sentence,
    empty when contained; catalogue_version: of the action data used; ms: time taken, in milliseconds."""

    outcome: Outcome
    witness: Witness | None
    reason: str
    catalogue_version: str
    ms: float

    @property
    def contained(self) -> bool:
        return self.outcome is Outcome.CONTAINED


def contains(
    baseline: PermissionSet, candidate: PermissionSet, *, deadline_s: float = 5.0, memory_mb: int = 192
) -> Decision:
    """Whether `baseline` contains `candidate`. Both are a document, documents (their union) or `Permissions`.

    deadline_s: seconds, and memory_mb: megabytes of explored states, that the decision may take; passing either makes
    it undecided. Raises RingfenceError when the action catalogue can't be read; never for what a document says.
    """
    data = catalogue()
    started = time.perf_counter()
    old, new = permissions(baseline), permissions(candidate)
    budget = Budget(deadline_s, memory_mb)
    try:
        with _variables_kept():
            outcome, witness, reason = _decide(old, new, budget)
    except (Undecided, TooManyVariables) as why:
        outcome, witness, reason = Outcome.UNDECIDED, None, f"undecided: {why}"
    except RecursionError:
        outcome, witness, reason = Outcome.UNDECIDED, None, "undecided: the policies nest too deeply to be compared"
    return Decision(outcome, witness, reason, data.version, (time.perf_counter() - started) * 1000)


_running: set[object] = set()
_running_lock = threading.Lock()


@contextlib.contextmanager
def _variables_kept() -> Iterator[None]:
    """While a decision runs, the numbers of policy variables stay; between decisions, many of them are forgotten."""
    decision = object()
    with _running_lock:
        if not _running and variables_known() > _VARIABLES_KEPT:
            patterns.forget()
            conditions.forget()
            rows.forget()
        _running.add(decision)
    try:
        yield
    finally:
        with _running_lock:
            _running.discard(decision)


def permissions(of: PermissionSet) -> Permissions:
    """The permission set of a document or of documents, whatever their kind: their union as one layer."""
    if isinstance(of, Permissions):
        return of
    return Permissions(identity=(of,) if isinstance(of, Document) else tuple(of))


def _decide(old: Permissions, new: Permissions, budget: Budget) -> tuple[Outcome, Witness | None, str]:
    comparison = Comparison(table(old), table(new), budget)
    unconfirmed = ""
    for hit in comparison.hits():
        witness = _confirm(old, new, hit)
        if witness is None:
            unconfirmed = "a request was found that the plain evaluator does not confirm"
            continue
        if hit.reason:
            return Outcome.WIDENED_UNCATALOGUED, witness, hit.reason
        return Outcome.WIDENED, witness, _sentence(witness)
    open_question = comparison.undecided or unconfirmed
    if open_question:
        return Outcome.UNDECIDED, None, f"undecided: {open_question}"
    return Outcome.CONTAINED, None, ""


def _confirm(old: Permissions, new: Permissions, hit: Hit) -> Witness | None:
    """The witness, in its most readable form, when the plain evaluator agrees that the request is newly allowed."""

    def newly_allowed(request: Request) -> bool:
        return evaluate(new, request).allowed and not evaluate(old, request).allowed

    spelt = {condition.key.lower(): condition.key for each in (old, new) for condition in _conditions(each)}
    if hit.request.principal is not None:
        spelt |= {key.lower(): key for key in hit.request.principal.context()}
    context = {spelt.get(key, key): values for key, values in hit.request.context.items()}
    request = presentable(replace(hit.request, context=context), newly_allowed, typed=not hit.reason)
    if request is None:
        return None
    denied_by = evaluate(old, request).denied_by
    allowing = evaluate(new, request).allowed_by[0]
    return Witness(request, _reference(allowing), _reference(denied_by[0]) if denied_by else None)


def _conditions(of: Permissions) -> Iterator[Condition]:
    for _, documents in of.layers():
        for document in documents:
            for statement in document.statements:
                yield from statement.conditions


def _reference(match: Match) -> StatementRef:
    return StatementRef(match.layer, match.document, match.statement.index, match.statement.sid)


def _sentence(witness: Witness) -> str:
    request = witness.request
    who = f" by {request.principal.value or 'anyone'}" if request.principal else ""
    lost = witness.lost_deny
    why = f", which statement {lost.sid or lost.index} of the baseline denies" if lost else ""
    return f"{request.action} on {request.resource}{who} is newly allowed{why}"
