"""What must not change an answer, and what can change it in one direction only."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.iam.containment import contains
from ringfence.iam.document import CURRENT_VERSION, parse

Statements = list[dict[str, Any]]
RESOURCES = [
    "*",
    "arn:aws:s3:::a/*",
    "arn:aws:s3:::a*",
    "arn:aws:s3:::*/b",
    "arn:aws:s3:::b/${aws:username}/*",
    "arn:aws:s3:::a/b?",
]
ACTIONS = ["s3:GetObject", "s3:Get*", "s3:*Object", "*", "s3:PutObject", "iam:ListUsers", "s3:GetNothingKnown"]
CONDITIONS = [
    {"StringEquals": {"aws:RequestTag/t": ["a", "b"]}},
    {"StringNotLike": {"aws:RequestTag/t": "a*"}},
    {"BoolIfExists": {"aws:SecureTransport": "true"}},
    {"ForAllValues:StringLike": {"aws:TagKeys": ["a*", "b"]}},
    {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "NumericLessThan": {"s3:max-keys": "10"}},
]


@st.composite
def statements(draw: st.DrawFn, effect: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": effect or draw(st.sampled_from(["Allow", "Allow", "Deny"]))}
    actions = st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3)
    resources = st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=3)
    made[draw(st.sampled_from(["Action", "Action", "Action", "NotAction"]))] = draw(actions)
    made[draw(st.sampled_from(["Resource", "Resource", "Resource", "NotResource"]))] = draw(resources)
    if draw(st.booleans()):
        made["Condition"] = copy.deepcopy(draw(st.sampled_from(CONDITIONS)))
    return made


documents = st.lists(statements(), min_size=1, max_size=4)


def answer(old: Statements, new: Statements) -> str:
    both = [parse({"Version": CURRENT_VERSION, "Statement": copy.deepcopy(each)}) for each in (old, new)]
    return contains(both[0], both[1], deadline_s=30).outcome.value


def shuffled(given_statements: Statements, chance: random.Random) -> Statements:
    made = copy.deepcopy(given_statements)
    chance.shuffle(made)
    for statement in made:
        for entries in statement.values():
            if isinstance(entries, list):
                chance.shuffle(entries)
    return made


def split(given_statements: Statements, _chance: random.Random) -> Statements:
    """One statement per action and resource; what is excluded stays together."""
    made: Statements = []
    for statement in given_statements:
        for action in statement.get("Action", [None]):
            for resource in statement.get("Resource", [None]):
                part = copy.deepcopy(statement)
                part |= ({"Action": action} if action else {}) | ({"Resource": resource} if resource else {})
                made.append(part)
    return made


def respelt(given_statements: Statements, chance: random.Random) -> Statements:
    """Other case where case doesn't matter, doubled stars, repeated entries, single entries without a list."""
    made = copy.deepcopy(given_statements)
    for statement in made:
        for element in ("Action", "NotAction"):
            if element in statement:
                spelt = [
                    chance.choice([str.upper, str.lower])(entry).replace("*", "**") for entry in statement[element]
                ]
                statement[element] = spelt[0] if len(spelt) == 1 else spelt + spelt[:1]
        for element in ("Resource", "NotResource"):
            if element in statement:
                statement[element] = [entry.replace("*", "***") for entry in statement[element] * 2]
        if "Condition" in statement:
            statement["Condition"] = {
                operator.lower(): {key.upper(): values for key, values in tests.items()}
                for operator, tests in statement["Condition"].items()
            }
        statement["Sid"] = f"S{chance.randrange(9)}"
    return made


@pytest.mark.parametrize("change", [shuffled, split, respelt], ids=lambda change: change.__name__)
@given(old=documents, new=documents, seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_order_splitting_and_spelling_never_change_the_answer(
    change: Callable[[Statements, random.Random], Statements], old: Statements, new: Statements, seed: int
):
    expected = answer(old, new)
    chance = random.Random(seed)
    assert answer(old, change(new, chance)) == expected
    assert answer(change(old, chance), new) == expected
    assert answer(old, change(old, chance)) == "contained"


@given(old=documents, new=documents, extra=statements(effect="Allow"))
@settings(max_examples=60, deadline=None)
def test_adding_an_allow_never_narrows(old: Statements, new: Statements, extra: dict[str, Any]):
    assert answer([*new, extra], new) == "contained"
    if answer(old, new) != "contained":
        assert answer(old, [*new, extra]) != "contained"


@given(old=documents, new=documents, extra=statements(effect="Deny"))
@settings(max_examples=60, deadline=None)
def test_adding_a_deny_never_widens(old: Statements, new: Statements, extra: dict[str, Any]):
    assert answer(new, [*new, extra]) == "contained"
    if answer(old, new) == "contained":
        assert answer(old, [*new, extra]) == "contained"


@given(one=documents, two=documents, three=documents)
@settings(max_examples=60, deadline=None)
def test_containment_is_transitive(one: Statements, two: Statements, three: Statements):
    if answer(one, two) == "contained" and answer(two, three) == "contained":
        assert answer(one, three) == "contained"
