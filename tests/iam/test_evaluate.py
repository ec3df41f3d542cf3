"""The plain evaluator against cases worked out from AWS's evaluation logic."""

from __future__ import annotations

import pytest

from ringfence.iam.document import Permissions, parse
from ringfence.iam.evaluate import Verdict, authorize, evaluate
from ringfence.iam.request import Principal, Request

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/reader"
SESSION = Principal("AWS", f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/s1")
USER = Principal("AWS", f"arn:aws:iam::{ACCOUNT}:user/ann")
OBJECT = "arn:aws:s3:::b/x"


def policy(effect="Allow", action="s3:GetObject", resource="*", condition=None, version="2012-10-17", **others):
    statement = {"Effect": effect, "Action": action, **others}
    if resource:
        statement["Resource"] = resource
    if condition:
        statement["Condition"] = condition
    return parse({"Version": version, "Statement": statement}, "resource" if "Principal" in others else None)


def get(context=None, principal=None, resource=OBJECT, action="s3:GetObject"):
    return Request(action, resource, context or {}, principal)


NOTHING = policy(action="iam:GetRole")
ALLOW, DENY = policy(), policy("Deny")


@pytest.mark.parametrize(
    ("permissions", "verdict"),
    [
        (Permissions(), Verdict.IMPLICIT_DENY),
        (Permissions((ALLOW,)), Verdict.ALLOW),
        (Permissions((ALLOW, DENY)), Verdict.EXPLICIT_DENY),
        (Permissions((ALLOW,), boundary=NOTHING), Verdict.IMPLICIT_DENY),
        (Permissions((ALLOW,), boundary=ALLOW), Verdict.ALLOW),
        (Permissions((NOTHING,), boundary=ALLOW), Verdict.IMPLICIT_DENY),
        (Permissions((ALLOW,), boundary=DENY), Verdict.EXPLICIT_DENY),
        (Permissions((ALLOW,), session=()), Verdict.IMPLICIT_DENY),
        (Permissions((ALLOW,), session=(NOTHING, ALLOW)), Verdict.ALLOW),
        (Permissions((ALLOW,), session=(ALLOW, DENY)), Verdict.EXPLICIT_DENY),
        (Permissions((ALLOW,), scp=((ALLOW,), (NOTHING,))), Verdict.IMPLICIT_DENY),
        (Permissions((ALLOW,), scp=((ALLOW,), (NOTHING, ALLOW))), Verdict.ALLOW),
        (Permissions((ALLOW,), scp=((ALLOW, DENY),)), Verdict.EXPLICIT_DENY),
    ],
)
def test_layers_intersect_and_denies_win(permissions, verdict):
    assert evaluate(permissions, get()).verdict is verdict


TAG = "aws:RequestTag/t"


@pytest.mark.parametrize(
    ("condition", "context", "holds"),
    [
        ({"StringEquals": {TAG: "a"}}, {}, False),
        ({"StringEquals": {TAG: "a*"}}, {TAG: ("ab",)}, False),
        ({"StringEquals": {TAG: "a*"}}, {TAG: ("a*",)}, True),
        ({"StringNotEquals": {TAG: "a"}}, {}, True),
        ({"StringNotEquals": {TAG: ["a", "b"]}}, {TAG: ("b",)}, False),
        ({"StringEqualsIfExists": {TAG: "a"}}, {}, True),
        ({"StringEqualsIgnoreCase": {TAG: "aBc"}}, {TAG: ("AbC",)}, True),
        ({"StringLike": {TAG: "*"}}, {}, False),
        ({"StringLike": {TAG: "*"}}, {TAG: ("",)}, True),
        ({"StringLike": {TAG: "a?c"}}, {TAG: ("abc",)}, True),
        ({"StringLike": {TAG.upper(): "a"}}, {TAG.lower(): ("a",)}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ("a", "a")}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a", "b"]}}, {"aws:TagKeys": ("a", "c")}, False),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {}, False),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {"aws:TagKeys": ("c", "a")}, True),
        ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["a"]}}, {"aws:TagKeys": ("a", "b")}, True),
        ({"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["a"]}}, {}, False),
        ({"ForAnyValue:StringEqualsIfExists": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"Bool": {"aws:SecureTransport": True}}, {"aws:SecureTransport": ("true",)}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, {}, False),
        ({"BoolIfExists": {"aws:SecureTransport": "false"}}, {}, True),
        ({"Null": {TAG: "true"}}, {}, True),
        ({"Null": {TAG: "false"}}, {TAG: ("",)}, True),
        ({"Null": {TAG: "true"}}, {TAG: ()}, True),
        ({"NumericLessThanEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": ("10.0",)}, True),
        ({"NumericEquals": {"s3:max-keys": 10}}, {"s3:max-keys": ("ten",)}, False),
        (
            {"DateLessThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}},
            {"aws:CurrentTime": ("2025-12-31T23:59:59Z",)},
            True,
        ),
        ({"DateEquals": {"aws:CurrentTime": "1767225600"}}, {"aws:CurrentTime": ("2026-01-01T01:00:00+01:00",)}, True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": ("10.255.0.1",)}, True),
        ({"IpAddress": {"aws:SourceIp": "2001:db8::/32"}}, {"aws:SourceIp": ("10.0.0.1",)}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:b"}}, {"aws:SourceArn": ("arn:aws:s3:::b",)}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:b"}}, {"aws:SourceArn": ("arn:aws:s3:::b",)}, False),
        ({"ArnEquals": {"aws:SourceArn": "arn:aws:sns:*:1:a*"}}, {"aws:SourceArn": ("arn:aws:sns:r:1:a:b",)}, True),
        ({"ArnNotLike": {"aws:SourceArn": "arn:aws:sns:*:1:a*"}}, {}, True),
        ({"BinaryEquals": {TAG: "QQ=="}}, {TAG: ("QQ==",)}, True),
        ({"StringEquals": {TAG: "${aws:PrincipalTag/t}"}}, {TAG: ("a",), "aws:PrincipalTag/t": ("a",)}, True),
        ({"StringEquals": {TAG: "${aws:PrincipalTag/t}"}}, {TAG: ("${aws:PrincipalTag/t}",)}, False),
        ({"StringLike": {TAG: "${aws:PrincipalTag/t, 'z'}*"}}, {TAG: ("zz",)}, True),
        ({"StringLike": {TAG: "${aws:username}"}}, {TAG: ("ab",), "aws:username": ("*",)}, False),
    ],
)
def test_each_operator_holds_as_documented(condition, context, holds):
    assert evaluate(Permissions((policy(condition=condition),)), get(context)).allowed is holds


@pytest.mark.parametrize(
    ("resource", "asked", "matches"),
    [
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b/", True),
        ("arn:aws:s3:::b/*", "arn:aws:s3:::b", False),
        ("arn:aws:s3:::B/*", "arn:aws:s3:::b/x", False),
        ("arn:aws:s3:::b/?", "arn:aws:s3:::b/xy", False),
        ("arn:aws:s3:::b/${aws:username}", "arn:aws:s3:::b/ann", True),
        ("arn:aws:s3:::b/${aws:missing}", "arn:aws:s3:::b/", False),
        ("arn:aws:s3:::b/${*}", "arn:aws:s3:::b/*", True),
        ("arn:aws:s3:::b/${*}", "arn:aws:s3:::b/x", False),
    ],
)
def test_resources_match_as_documented(resource, asked, matches):
    request = get({"aws:username": ("ann",)}, resource=asked)
    assert evaluate(Permissions((policy(resource=resource),)), request).allowed is matches


def test_the_old_version_reads_variables_as_text():
    old = Permissions((policy(resource="arn:aws:s3:::b/${aws:username}", version="2008-10-17"),))
    assert not evaluate(old, get({"aws:username": ("ann",)}, resource="arn:aws:s3:::b/ann")).allowed
    assert evaluate(old, get(resource="arn:aws:s3:::b/${aws:username}")).allowed


def bucket(principal, effect="Allow", **others):
    return policy(effect, resource="arn:aws:s3:::b/*", Principal=principal, **others)


@pytest.mark.parametrize(
    ("principal", "who", "applies"),
    [
        ("*", Principal("Anonymous"), True),
        ({"AWS": "*"}, Principal("Service", "s3.amazonaws.com"), True),
        ({"AWS": ACCOUNT}, SESSION, True),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, USER, True),
        ({"AWS": "444455556666"}, USER, False),
        ({"AWS": ROLE}, SESSION, True),
        ({"AWS": f"arn:aws:iam::{ACCOUNT}:role/other"}, SESSION, False),
        ({"AWS": SESSION.value}, SESSION, True),
        ({"AWS": SESSION.value}, Principal("AWS", ROLE), False),
        ({"Service": "s3.amazonaws.com"}, Principal("Service", "s3.amazonaws.com"), True),
        ({"Service": "s3.amazonaws.com"}, USER, False),
    ],
)
def test_principals_name_whom_they_contain(principal, who, applies):
    assert evaluate(Permissions((bucket(principal),)), get(principal=who)).allowed is applies


def test_a_resource_policy_adds_to_identity_policies_in_one_account():
    none = Permissions((NOTHING,))
    for principal, who in (({"AWS": USER.value}, USER), ({"AWS": ROLE}, SESSION), ("*", USER)):
        assert authorize(none, get(principal=who), resource_policy=bucket(principal)).allowed
    delegated = authorize(none, get(principal=USER), resource_policy=bucket({"AWS": ACCOUNT}))
    assert delegated.verdict is Verdict.IMPLICIT_DENY


def test_across_accounts_both_sides_must_allow():
    granted = bucket({"AWS": USER.value})
    for permissions, policy_of_resource, verdict in (
        (Permissions((ALLOW,)), granted, Verdict.ALLOW),
        (Permissions((NOTHING,)), granted, Verdict.IMPLICIT_DENY),
        (Permissions((ALLOW,)), None, Verdict.IMPLICIT_DENY),
        (Permissions((ALLOW,)), bucket({"AWS": USER.value}, "Deny"), Verdict.EXPLICIT_DENY),
    ):
        decided = authorize(permissions, get(principal=USER), resource_policy=policy_of_resource, same_account=False)
        assert decided.verdict is verdict


def test_a_grant_to_a_role_does_not_pass_its_boundary_and_one_to_the_session_does():
    bounded = Permissions((NOTHING,), boundary=NOTHING)
    assert not authorize(bounded, get(principal=SESSION), resource_policy=bucket({"AWS": ROLE})).allowed
    assert authorize(bounded, get(principal=SESSION), resource_policy=bucket({"AWS": SESSION.value})).allowed
    stopped = Permissions((NOTHING,), scp=((NOTHING,),))
    assert not authorize(stopped, get(principal=SESSION), resource_policy=bucket({"AWS": SESSION.value})).allowed


def test_where_the_resource_policy_is_required_identity_alone_is_not_enough():
    request = get(principal=USER)
    assert not authorize(Permissions((ALLOW,)), request, resource_policy_required=True).allowed
    assert authorize(
        Permissions((ALLOW,)), request, resource_policy=bucket({"AWS": ACCOUNT}), resource_policy_required=True
    ).allowed


def test_a_service_is_decided_by_the_resource_policy_alone():
    service = Principal("Service", "logs.amazonaws.com")
    request = get(principal=service)
    assert authorize(Permissions(), request, resource_policy=bucket({"Service": "logs.amazonaws.com"})).allowed
    assert not authorize(Permissions(), request, resource_policy=bucket({"Service": "sns.amazonaws.com"})).allowed
