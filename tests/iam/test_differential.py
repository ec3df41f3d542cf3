"""Containment against an evaluator that shares nothing with it, on random documents: no wrong answer, few undecided."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ringfence.iam.batch import permission_set
from ringfence.iam.containment import Outcome, contains
from tests.iam import differential as vocabulary
from tests.iam.independent_evaluator import Asked, allowed

Statement = Callable[[random.Random], dict[str, Any]]


def asked(request: Any) -> Asked:
    context = {key.lower(): tuple(values) for key, values in request.context.items() if values}
    who = (request.principal.type, request.principal.value) if request.principal else None
    return Asked(request.action, request.resource, context, who)


def disagreement(old: Any, new: Any, requests: Sequence[Asked]) -> tuple[Outcome, str]:
    """The outcome, and what is wrong with it; empty when nothing is."""
    decision = contains(permission_set(old, "old"), permission_set(new, "new"), deadline_s=30)
    shown = f"\n  old {json.dumps(old)}\n  new {json.dumps(new)}"
    if decision.witness is not None:
        found = asked(decision.witness.request)
        confirmed = allowed(new, found) and not allowed(old, found)
        return decision.outcome, "" if confirmed else f"false alarm {found}{shown}"
    if decision.contained:
        missed = next((each for each in requests if allowed(new, each) and not allowed(old, each)), None)
        return decision.outcome, f"missed {missed}{shown}" if missed else ""
    return decision.outcome, ""


def check(statement: Statement, requests: Sequence[Asked], pairs: int, seed: int, undecided: float = 0.0) -> None:
    chance = random.Random(seed)
    outcomes: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
    wrong = []
    for _ in range(pairs):
        old, new = (vocabulary.documents(chance, statement) for _ in range(2))
        outcome, what = disagreement(old, new, requests)
        outcomes[outcome] += 1
        if what:
            wrong.append(what)
    assert not wrong, "\n".join(wrong[:5])
    assert outcomes[Outcome.UNDECIDED] <= undecided * pairs, outcomes
    assert outcomes[Outcome.CONTAINED] > pairs / 20


def test_principals_by_account_type_service_and_pattern_are_decided_right():
    check(vocabulary.principal_statement, vocabulary.principal_requests(), 350, 41)


def test_variables_in_resources_and_conditions_are_decided_right():
    # What stays open are variables compared with variables.
    check(vocabulary.varied_statement, vocabulary.varied_requests(), 120, 42, undecided=0.05)


@pytest.mark.parametrize("key", sorted(vocabulary.OPERANDS))
def test_mixed_operators_on_one_key_are_decided_right(key: str):
    check(vocabulary.mixed(key), vocabulary.mixed_requests(key), 120, 43)


def test_inverted_actions_and_resources_with_infix_wildcards_are_decided_right():
    check(vocabulary.action_statement, vocabulary.action_requests(), 150, 44)
