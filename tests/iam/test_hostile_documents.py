"""Documents made to break the reader or the comparison: a clear error or "undecided", never a traceback, never a yes."""

from __future__ import annotations

import itertools
import json
import resource

import pytest
import yaml

from ringfence.errors import InputError
from ringfence.iam import budget
from ringfence.iam.comparison import Comparison, Hit
from ringfence.iam.containment import Outcome, contains
from ringfence.iam.document import parse
from ringfence.iam.request import Request

GOOD = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}


def policy(*statements, **others):
    return {"Version": "2012-10-17", "Statement": list(statements), **others}


def recursive_yaml():
    return yaml.safe_load(
        "&top {Version: '2012-10-17', Statement: [{Effect: Allow, Action: 's3:*', Resource: '*', Condition: *top}]}"
    )


def recursive_list():
    entries: list[object] = []
    entries.append(entries)
    return policy(GOOD | {"Resource": entries})


@pytest.mark.parametrize(
    ("hostile", "said"),
    [
        ({}, "Statement: is missing"),
        ("{}", "Statement: is missing"),
        ("", "isn't JSON"),
        ("null", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        (42, "must be a JSON object"),
        (policy(), "Statement: is empty"),
        ({"Statement": "s3:*"}, "must be a list"),
        (policy(GOOD | {"Sid": "\U000f0000"}), "private use"),
        (policy(*[GOOD] * 10_000), "10,000 statements"),
        (json.dumps(policy(*[GOOD] * 10_000)), "characters"),
        ('{"a":' * 40_000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        (policy(GOOD | {"Resource": "arn:aws:s3:::" + "x" * 5_000_000}), "characters"),
        (json.dumps(policy(GOOD | {"Sid": "x" * 5_000_000})), "characters"),
        (b'{"Version": "2012-10-17\xff"}', "isn't UTF-8"),
        (b"\xff\xfe{\x00}\x00", "isn't UTF-8"),
        ('{"Version":"2012-10-17","Version":"2008-10-17","Statement":[]}', "given twice"),
        ('{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Effect":"Allow"}]}', "given twice"),
        ('{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":NaN}]}', "not a JSON value"),
        ('{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"\\ud800"}]}', "surrogate"),
        (policy(GOOD | {"Condition": {"StringMatches": {"a": "b"}}}), "StringMatches"),
        (policy(GOOD | {"Condition": {"ForSomeValues:StringLike": {"a": "b"}}}), "ForSomeValues"),
        (policy(GOOD | {"Condition": {"NullIfExists": {"a": "true"}}}), "NullIfExists"),
        (policy(GOOD | {"Condition": {"StringEquals": {"a": {"b": "c"}}}}), "must be text"),
        (policy(GOOD | {"Condition": {"StringEquals": {"a": None}}}), "must be text"),
        (policy(GOOD | {"Condition": {"StringEquals": "a"}}), "must be an object"),
        (policy(GOOD | {"Condition": []}), "must be an object"),
        (policy(GOOD | {"Condition": {"StringEquals": {"a": "b"}, "stringequals": {"a": "c"}}}), "twice"),
        (policy(GOOD | {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}}), "not an IP range"),
        (policy(GOOD | {"Condition": {"NumericLessThan": {"a": "many"}}}), "not a number"),
        (policy(GOOD | {"Condition": {"NumericLessThan": {"a": "1e999999999"}}}), "not a number"),
        (policy(GOOD | {"Condition": {"DateLessThan": {"a": "tomorrow"}}}), "not a date"),
        (policy(GOOD | {"Condition": {"Bool": {"a": "yes"}}}), "not a boolean"),
        (policy(GOOD | {"Condition": {"BinaryEquals": {"a": "%"}}}), "not base64"),
        (policy(GOOD | {"Effect": "allow"}), "must be Allow or Deny"),
        (policy(GOOD | {"Effect": 10**5000}), "a huge number"),
        (policy(GOOD | {"Action": []}), "is empty"),
        (policy(GOOD | {"Action": "GetObject"}), "is not an action"),
        (policy(GOOD | {"NotAction": "s3:*"}), "exclude each other"),
        (policy(GOOD | {"Resource": "my-bucket"}), "is not an ARN"),
        (policy(GOOD | {"Principal": "*"}, {k: v for k, v in GOOD.items() if k != "Resource"}), "Principal"),
        (policy(GOOD, Statements=[]), "Statements"),
        (policy(GOOD, Version="2012-10-18"), "not a version"),
        (policy({1: 2}), "not an element"),
        (policy("Allow"), "must be an object"),
        (recursive_yaml(), "Condition"),
        (recursive_list(), "must be text"),
        (policy(GOOD | {"Resource": ["*"] * 30_000}), "20,000 entries"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_a_hostile_document_is_a_clear_error(hostile, said):
    with pytest.raises(InputError) as error:
        parse(hostile, where="hostile.json")
    assert said in str(error.value)
    assert "hostile.json" in str(error.value)
    assert len(str(error.value)) < 40_000


def test_every_problem_is_reported_at_once_with_its_line():
    text = """{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Actions": "s3:*", "Resource": "*"},
    {"Effect": "Maybe", "Action": "s3:GetObject", "Resource": "bucket",
     "Condition": {"StringLikes": {"a": "b"}}}
  ]
}"""
    with pytest.raises(InputError) as error:
        parse(text, where="p.json")
    told = {(problem.key, problem.line) for problem in error.value.problems}
    assert ("Statement[0].Actions", 4) in told
    assert ("Statement[1].Resource", 5) in told
    assert ("Statement[1].Condition", 6) in told
    assert all(problem.remedy for problem in error.value.problems)
    assert len(error.value.problems) == 5


def test_problems_are_bounded():
    with pytest.raises(InputError) as error:
        parse(policy(*[{"Effect": "x"}] * 900))
    assert len(error.value.problems) == 50


def exponential():
    """A resource must hold each of 24 numbers, in any order: every set of those seen so far is a state of its own."""
    numbers = range(100, 124)
    denies = [{"Effect": "Deny", "Action": "s3:GetObject", "NotResource": f"arn:aws:s3:::b/*{n}*"} for n in numbers]
    new = parse(policy(GOOD | {"Resource": "arn:aws:s3:::b/*"}, *denies))
    old = parse(policy(GOOD | {"Resource": "arn:aws:s3:::b/*100*"}))
    return old, new


def test_a_decision_past_its_deadline_is_undecided():
    old, new = exponential()
    decision = contains(old, new, deadline_s=0.2)
    assert decision.outcome is Outcome.UNDECIDED
    assert "deadline" in decision.reason
    assert decision.witness is None


def many(make, count=3_000):
    return [make(number) for number in range(count)]


LISTS = {
    "resources with a star inside": ("Resource", "arn:aws:s3:::a*x{}y*", "arn:aws:s3:::a*x{}yz*"),
    "resources with a mark inside": ("Resource", "arn:aws:s3:::a?x{}y*", "arn:aws:s3:::a?x{}yz*"),
    "actions": ("Action", "s3:*a{}*", "s3:*a{}b*"),
    "excluded actions": ("NotAction", "s3:*a{}b*", "s3:*a{}*"),
    "excluded resources": ("NotResource", "arn:aws:s3:::a*x{}yz*", "arn:aws:s3:::a*x{}y*"),
}


@pytest.mark.parametrize("name", LISTS)
def test_long_lists_of_patterns_keep_the_deadline(monkeypatch, name):
    """By a clock of which each look costs a millisecond: work between two looks is counted, not timed."""
    element, before, after = LISTS[name]
    looks = itertools.count()
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(looks) / 1_000)

    def policy_of(text):
        statement = {"Effect": "Allow", element: many(text.format)}
        for other in ("Action", "Resource"):
            if not element.endswith(other):
                statement[other] = "s3:GetObject" if other == "Action" else "*"
        return parse({"Version": "2012-10-17", "Statement": [statement]})

    decision = contains(policy_of(before), policy_of(after), deadline_s=0.2)
    assert decision.outcome is Outcome.UNDECIDED
    assert "deadline" in decision.reason
    assert next(looks) < 210


def test_long_lists_of_condition_values_keep_the_deadline(monkeypatch):
    looks = itertools.count()
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(looks) / 1_000)
    old, new = (
        parse(policy(GOOD | {"Condition": {"StringLike": {"aws:RequestTag/t": many(text.format)}}}))
        for text in ("a*x{}y", "a*x{}yz")
    )
    decision = contains(old, new, deadline_s=0.2)
    assert decision.outcome is Outcome.UNDECIDED
    assert "deadline" in decision.reason


def test_a_decision_past_its_memory_bound_is_undecided():
    old, new = exponential()
    decision = contains(old, new, deadline_s=120, memory_mb=1)
    assert decision.outcome is Outcome.UNDECIDED
    assert "memory" in decision.reason


def test_a_witness_that_the_evaluator_does_not_confirm_is_not_reported(monkeypatch):
    bogus = [Hit(Request("s3:GetObject", "arn:aws:s3:::b/x"))]
    monkeypatch.setattr(Comparison, "hits", lambda self: iter(bogus))
    same = parse(policy(GOOD))
    decision = contains(same, same)
    assert decision.outcome is Outcome.UNDECIDED
    assert "evaluator" in decision.reason


def test_the_worst_known_statement_is_decided_in_little_memory():
    patterns = [f"arn:aws:ssm:*::document/AWS-{name}Document*" for name in range(100, 176)]
    new = parse(policy(GOOD | {"Action": "ssm:GetDocument", "Resource": patterns}))
    old = parse(policy(GOOD | {"Action": "ssm:GetDocument", "Resource": patterns[:-1]}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert contains(old, new).outcome is Outcome.WIDENED
    assert contains(new, old).outcome is Outcome.CONTAINED
    assert contains(new, new).outcome is Outcome.CONTAINED
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024


@pytest.mark.parametrize("stars", [30, 200])
def test_a_pattern_of_many_stars_does_not_explode(stars):
    many = parse(policy(GOOD | {"Resource": "arn:aws:s3:::" + "*a" * stars + "b"}))
    more = parse(policy(GOOD | {"Resource": "arn:aws:s3:::" + "*a" * (stars + 1) + "b"}))
    assert contains(many, more, deadline_s=20).outcome is Outcome.CONTAINED
    assert contains(more, many, deadline_s=20).outcome is Outcome.WIDENED
