"""Containment on the policies that AWS manages, as moto ships them: each contains itself, and every widening is found."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from ringfence.iam.containment import Outcome, contains
from ringfence.iam.document import Permissions, parse, render
from ringfence.iam.evaluate import evaluate

WIDENED = (Outcome.WIDENED, Outcome.WIDENED_UNCATALOGUED)
# A service and an action that no policy of AWS grants by name, and a resource outside every policy's own.
ADDED = "iam:PutUserPolicy"
FOREIGN = "arn:aws:iam::999988887777:user/outsider"


@cache
def managed() -> dict[str, Any]:
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    return {name: policy["Document"] for name, policy in json.loads(aws_managed_policies_data).items()}


def some(count: int) -> list[str]:
    return random.Random(11).sample(sorted(managed()), count)


def statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    listed = document["Statement"]
    return [listed] if isinstance(listed, dict) else listed


def replaced(document: dict[str, Any], index: int, changed: dict[str, Any] | None) -> dict[str, Any]:
    kept = copy.deepcopy(statements(document))
    kept[index : index + 1] = [] if changed is None else [changed]
    return document | {"Statement": kept}


def widenings(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way to widen one statement: drop a Deny, star an ARN, add an action, remove a condition."""
    for index, statement in enumerate(statements(document)):
        if statement["Effect"] == "Deny":
            if len(statements(document)) > 1:
                yield "dropped deny", replaced(document, index, None)
            continue
        if "Condition" in statement:
            plain = {name: value for name, value in statement.items() if name != "Condition"}
            yield "removed condition", replaced(document, index, plain)
        if "Resource" in statement and statement["Resource"] != "*":
            yield "widened ARN", replaced(document, index, statement | {"Resource": "*"})
        if "Action" in statement:
            listed = statement["Action"]
            actions = [listed] if isinstance(listed, str) else listed
            yield "added action", replaced(document, index, statement | {"Action": [*actions, ADDED]})


def really_widens(old: Any, new: Any, request: Any) -> bool:
    return evaluate(Permissions((new,)), request).allowed and not evaluate(Permissions((old,)), request).allowed


def check_widenings(name: str) -> list[str]:
    """What is wrong: an unconfirmed witness, an undecided pair, or a "contained" that another statement doesn't explain."""
    wrong = []
    old = parse(managed()[name], where=name)
    for kind, document in widenings(managed()[name]):
        new = parse(document, where=name)
        decision = contains(old, new, deadline_s=60)
        if decision.outcome in WIDENED:
            if not really_widens(old, new, decision.witness.request):
                wrong.append(f"{name}: {kind}: not confirmed: {decision.witness}")
        elif decision.outcome is Outcome.UNDECIDED:
            wrong.append(f"{name}: {kind}: {decision.reason}")
        elif not contained_for_a_reason(old, new):
            wrong.append(f"{name}: {kind}: contained")
    return wrong


def contained_for_a_reason(old: Any, new: Any) -> bool:
    """Whether each changed statement only grants what one other of the baseline's grants, as a reader would see it."""
    kept = [statement for statement in new.statements if statement not in old.statements]
    effective = [statement for statement in kept if statement.effect == "Allow"]

    def explained(statement: Any) -> bool:
        return any(
            other.effect == "Allow"
            and not other.conditions
            and "*" in other.resources
            and all(covers(other, action) for action in statement.actions)
            for other in old.statements
        ) or all(contains(old, single(new, statement, action), deadline_s=60).contained for action in statement.actions)

    return all(explained(statement) for statement in effective)


def covers(statement: Any, action: str) -> bool:
    return any(action == each or (each.endswith("*") and action.startswith(each[:-1])) for each in statement.actions)


def single(document: Any, statement: Any, action: str) -> Any:
    """The document with one action of one statement alone, its denies kept."""
    from dataclasses import replace

    denies = tuple(each for each in document.statements if each.effect == "Deny")
    return replace(document, statements=(replace(statement, actions=(action,)), *denies))


def test_every_managed_policy_contains_itself_however_it_is_spelt():
    assert len(managed()) > 1_000
    for name, document in managed().items():
        parsed = parse(document, where=name)
        again = parse(render(parsed), where=name)
        assert contains(parsed, again).contained, name
        assert contains(again, parsed).contained, name


@pytest.mark.parametrize("name", some(60))
def test_widenings_of_a_managed_policy_are_found(name):
    assert check_widenings(name) == []


@pytest.mark.e2e
def test_widenings_of_all_managed_policies_are_found():
    wrong = [each for name in managed() for each in check_widenings(name)]
    assert wrong == []


@pytest.mark.parametrize("name", some(40))
def test_an_added_foreign_resource_is_found_by_exactly_that_request(name):
    old = parse(managed()[name], where=name)
    added = {"Effect": "Allow", "Action": ADDED, "Resource": FOREIGN}
    document = managed()[name]
    new = parse(document | {"Statement": [*statements(document), added]})
    decision = contains(old, new)
    already = evaluate(Permissions((old,)), request_for(decision)).allowed if decision.witness else True
    if decision.contained:
        assert contains(old, parse({"Version": "2012-10-17", "Statement": [added]})).contained
    else:
        assert not already
        assert (decision.witness.request.action, decision.witness.request.resource) == (ADDED, FOREIGN)


def request_for(decision: Any) -> Any:
    return decision.witness.request


def test_pairs_of_managed_policies_are_all_decided_and_confirmed():
    names = some(120)
    undecided = 0
    for one, other in pairwise(names):
        old, new = parse(managed()[one]), parse(managed()[other])
        decision = contains(old, new, deadline_s=60)
        undecided += decision.outcome is Outcome.UNDECIDED
        if decision.outcome in WIDENED:
            assert really_widens(old, new, decision.witness.request)
    assert undecided == 0
