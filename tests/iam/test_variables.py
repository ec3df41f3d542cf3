"""Policy variables, and placeholders of templates, which are read as such: idioms that people write, decided right."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from ringfence.iam import containment, patterns
from ringfence.iam.batch import compare_lines, permission_set
from ringfence.iam.containment import Outcome, contains
from ringfence.iam.document import Permissions
from ringfence.iam.evaluate import evaluate

OWN = "arn:aws:iam::*:user/${aws:username}"
HOME = "arn:aws:s3:::b/home/${aws:username}"
TEAM = "${aws:PrincipalTag/team}"
EVERYONE = "arn:aws:iam::123456789012:user/bob"


def say(effect: str, action: Any, resource: Any, condition: Any = None, **others: Any) -> dict[str, Any]:
    made = {"Effect": effect, "Action": action, "Resource": resource, "Condition": condition, **others}
    return {key: value for key, value in made.items() if value is not None}


def allow(action: Any, resource: Any, condition: Any = None, **others: Any) -> dict[str, Any]:
    return say("Allow", action, resource, condition, **others)


def deny(action: Any, resource: Any, condition: Any = None, **others: Any) -> dict[str, Any]:
    return say("Deny", action, resource, condition, **others)


def listing(*prefixes: str) -> dict[str, Any]:
    return allow("s3:ListBucket", "arn:aws:s3:::b", {"StringLike": {"s3:prefix": list(prefixes)}})


def doc(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def outcome(old: Any, new: Any) -> Outcome:
    before, after = permission_set(old, "old"), permission_set(new, "new")
    decision = contains(before, after, deadline_s=20)
    if decision.witness is not None:
        for held, expected in ((after, True), (before, False)):
            held = held if isinstance(held, Permissions) else Permissions(tuple(held))
            assert evaluate(held, decision.witness.request).allowed is expected
    return decision.outcome


WIDENED = {
    "a deny on all but one's own user, met by a named user": (
        [allow("s3:GetObject", "*")],
        [allow("s3:GetObject", "*"), allow("iam:CreateAccessKey", EVERYONE), deny("iam:*", None, NotResource=OWN)],
    ),
    "a deny on all but one's own user, met by every user": (
        [allow("s3:GetObject", "*")],
        [allow("s3:GetObject", "*"), allow("iam:CreateAccessKey", "*"), deny("iam:*", None, NotResource=OWN)],
    ),
    "a variable in an allow against an exception of the baseline": (
        [allow("s3:GetObject", None, NotResource="arn:aws:s3:::b/secret/*")],
        [allow("s3:GetObject", f"arn:aws:s3:::b/{TEAM}/*")],
    ),
    "a deny of one home lost to a deny of one's own": (
        [allow("s3:*", "*"), deny("s3:*", "arn:aws:s3:::b/home/admin/*")],
        [allow("s3:*", "*"), deny("s3:*", f"{HOME}/*")],
    ),
    "a tag compared with one of two tags, then with another": (
        [allow("*", "*"), deny("*", "*", {"StringNotEquals": {"aws:ResourceTag/o": TEAM}})],
        [allow("*", "*"), deny("*", "*", {"StringNotEquals": {"aws:ResourceTag/o": "${aws:PrincipalTag/u}"}})],
    ),
    "a variable that has to meet two conditions at once": (
        [deny("s3:GetObject", "*"), allow("s3:GetObject", "*")],
        [allow("s3:GetObject", "*", {"StringEquals": {"aws:ResourceTag/o": TEAM}, "StringLike": {"aws:ResourceTag/o": "*b", "aws:PrincipalTag/team": "a*"}})],
    ),
    "a default that stands in": (
        [allow("s3:GetObject", f"arn:aws:s3:::b/{TEAM}/*")],
        [allow("s3:GetObject", "arn:aws:s3:::b/${aws:PrincipalTag/team, 'all'}/*")],
    ),
    "one more placeholder": (
        [allow("s3:GetObject", "${aws_s3_bucket.a.arn}/*")],
        [allow("s3:GetObject", ["${aws_s3_bucket.a.arn}/*", "${aws_s3_bucket.b.arn}/*"])],
    ),
    "a region left open": (
        [allow("sqs:*", "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:q")],
        [allow("sqs:SendMessage", "arn:aws:sqs:*:${AWS::AccountId}:q")],
    ),
    "a key beginning with a value": (
        [allow("dynamodb:GetItem", "*", {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${aws:username}"]}})],
        [allow("dynamodb:GetItem", "*", {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["${aws:username}*"]}})],
    ),
    "one more prefix": ([listing("home/${aws:username}/*")], [listing("home/${aws:username}/*", "shared/*")]),
    "every home": ([listing("", "home/${aws:username}/*")], [listing("", "home/*")]),
}  # fmt: skip
CONTAINED = {
    "one's own user, said by an exception to a deny": (
        [allow("iam:*", OWN)],
        [allow("iam:*", "*"), deny("iam:*", None, NotResource=OWN)],
    ),
    "one's own user of one account": ([allow("iam:GetUser", OWN)], [allow("iam:GetUser", OWN.replace("*", "123456789012"))]),
    "a part of one's own home": ([allow("s3:*", [HOME, f"{HOME}/*"])], [allow("s3:GetObject", f"{HOME}/docs/*")]),
    "a deny that says what the allow said": (
        [allow("ec2:StartInstances", "*", {"StringEquals": {"aws:ResourceTag/p": TEAM}})],
        [allow("ec2:StartInstances", "*"), deny("ec2:*", "*", {"StringNotEquals": {"aws:ResourceTag/p": TEAM}})],
    ),
    "a narrower prefix beside a variable": (
        [listing("home/${aws:username}/*", "shared/*")],
        [listing("home/${aws:username}/*", "shared/x/*")],
    ),
    "prefixes split over two statements": (
        [listing("home/${aws:username}/*", "shared/*")],
        [listing("home/${aws:username}/*"), listing("shared/z")],
    ),
    "prefixes of two statements merged": (
        [listing("home/${aws:username}/*"), listing("shared/*")],
        [listing("home/${aws:username}/*", "shared/*")],
    ),
    "one's own home out of all": ([listing("", "home/*")], [listing("", "home/", "home/${aws:username}/*")]),
    "one region's service out of all": (
        [allow("kms:Decrypt", "*", {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}})],
        [allow("kms:Decrypt", "*", {"StringEquals": {"kms:ViaService": "s3.${aws:RequestedRegion}.amazonaws.com"}})],
    ),
    "one name of a cluster out of all": (
        [allow("ec2:*", "*", {"StringLike": {"aws:ResourceTag/k": "${aws:PrincipalTag/c}-*"}})],
        [allow("ec2:RunInstances", "*", {"StringEquals": {"aws:ResourceTag/k": "${aws:PrincipalTag/c}-node"}})],
    ),
    "a whole key out of its beginnings": (
        [allow("dynamodb:GetItem", "*", {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["${aws:username}*"]}})],
        [allow("dynamodb:GetItem", "*", {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${aws:username}"]}})],
    ),
    "a default given as a statement of its own": (
        [allow("s3:GetObject", f"arn:aws:s3:::b/{TEAM}/*"), allow("s3:GetObject", "arn:aws:s3:::b/all/*")],
        [allow("s3:GetObject", "arn:aws:s3:::b/${aws:PrincipalTag/team, 'all'}/*")],
    ),
    "a bucket's objects, by a placeholder": (
        [allow("s3:*", ["${aws_s3_bucket.a.arn}", "${aws_s3_bucket.a.arn}/*"])],
        [allow("s3:GetObject", "${aws_s3_bucket.a.arn}/x")],
    ),
    "an account by a placeholder": (
        [allow("sqs:*", "arn:aws:sqs:*:*:q*")],
        [allow("sqs:SendMessage", "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:q-${Env}")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WIDENED)
def test_what_a_variable_widens_is_found(name):
    old, new = WIDENED[name]
    assert outcome(doc(*old), doc(*new)) is Outcome.WIDENED


@pytest.mark.parametrize("name", CONTAINED)
def test_what_a_variable_leaves_contained_is_decided(name):
    old, new = CONTAINED[name]
    assert outcome(doc(*old), doc(*new)) is Outcome.CONTAINED


def test_a_session_policy_narrows_ones_own_home():
    wide, narrow = doc(allow("s3:*", f"{HOME}/*")), doc(allow("s3:GetObject", f"{HOME}/x/*"))
    assert outcome(narrow, {"identity": [wide], "session": narrow}) is Outcome.CONTAINED
    other = doc(allow("s3:GetObject", f"{HOME}/y/*"))
    assert outcome(narrow, {"identity": [wide], "session": other}) is Outcome.WIDENED


def test_a_batch_tells_any_number_of_variables_apart(monkeypatch):
    def line(number: int) -> bytes:
        buckets = (f"arn:aws:s3:::b/${{aws:PrincipalTag/t{number}}}/{end}" for end in ("*", "x"))
        old, new = (doc(allow("s3:GetObject", bucket)) for bucket in buckets)
        return json.dumps({"id": number, "baseline": old, "candidate": new}).encode() + b"\n"

    monkeypatch.setattr(containment, "_VARIABLES_KEPT", 100)
    lines = io.BytesIO(b"".join(map(line, range(1_000))))
    answers = [json.loads(each) for each in compare_lines(lines, deadline_s=5, memory_mb=192)]
    assert {answer["outcome"] for answer in answers} == {"contained"}
    assert patterns.variables_known() <= 102


def test_more_variables_than_there_are_numbers_for_is_said_in_words(monkeypatch):
    patterns.forget()
    monkeypatch.setattr(patterns, "VARIABLE_LAST", patterns.VARIABLE_FIRST + 1)
    resources = [f"arn:aws:s3:::b/${{aws:PrincipalTag/many{number}}}" for number in range(5)]
    old, new = (permission_set(doc(allow("s3:GetObject", some)), "") for some in (resources[:4], resources))
    try:
        decision = contains(old, new)
    finally:
        patterns.forget()
        containment.rows.forget()
        containment.conditions.forget()
    assert decision.outcome is Outcome.UNDECIDED
    assert "policy variables can't be told apart" in decision.reason
