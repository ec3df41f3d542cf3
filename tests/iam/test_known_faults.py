"""Every false alarm and miss that other tools are known to make, each as a test."""

from __future__ import annotations

import pytest

from ringfence.errors import InputError
from ringfence.iam.catalogue import catalogue
from ringfence.iam.containment import Outcome, contains
from ringfence.iam.document import Permissions, parse
from ringfence.iam.evaluate import Verdict, evaluate
from ringfence.iam.request import Request

OBJECTS = "arn:aws:s3:::logs/*"


def allow(resource="*", condition=None, action="s3:GetObject", **others):
    return {
        "Effect": "Allow",
        "Action": action,
        "Resource": resource,
        **({"Condition": condition} if condition else {}),
        **others,
    }


def deny(resource="*", condition=None, action="s3:GetObject", **others):
    return allow(resource, condition, action, **others) | {"Effect": "Deny"}


def policy(*statements, version="2012-10-17"):
    return parse({"Version": version, "Statement": list(statements)})


def assert_contained(old, new):
    decision = contains(policy(*old), policy(*new))
    assert decision.outcome is Outcome.CONTAINED, decision.reason


def assert_widened(old, new, outcome=Outcome.WIDENED):
    """Widened one way, so that the witness is real, and contained the other way where the documents allow it."""
    decision = contains(policy(*old), policy(*new))
    assert decision.outcome is outcome, decision.reason
    request = decision.witness.request
    assert evaluate(Permissions((policy(*new),)), request).allowed
    assert not evaluate(Permissions((policy(*old),)), request).allowed
    return request


# False alarms


def test_reordered_and_split_statements_are_no_widening():
    whole = [
        allow(["arn:aws:s3:::a/*", "arn:aws:s3:::b/*"], action=["s3:GetObject", "s3:PutObject"]),
        deny("arn:aws:s3:::a/x"),
    ]
    parts = [
        deny("arn:aws:s3:::a/x"),
        *(allow(f"arn:aws:s3:::{name}/*", action=f"s3:{verb}Object") for name in "ba" for verb in ("Put", "Get")),
    ]
    assert_contained(whole, parts)
    assert_contained(parts, whole)


def test_an_added_allow_that_is_wholly_denied_is_no_widening():
    old = [allow(OBJECTS), deny("*", action="iam:*")]
    assert_contained(old, [*old, allow("*", action="iam:PutUserPolicy")])


def test_coverage_by_a_union_alone_is_no_widening():
    old = [
        allow("arn:aws:s3:::b/a*"),
        {"Effect": "Allow", "Action": "s3:GetObject", "NotResource": "arn:aws:s3:::b/a*"},
    ]
    assert_contained(old, [allow("*")])


def test_coverage_by_a_union_of_actions_alone_is_no_widening():
    assert_contained(
        [allow(action="iam:*Role"), allow(action="iam:*User")], [allow(action=["iam:GetRole", "iam:GetUser"])]
    )


def test_conditions_split_into_cases_are_no_widening():
    key = "aws:RequestTag/team"
    assert_contained(
        [allow(condition={"StringEquals": {key: "a"}}), allow(condition={"StringNotEquals": {key: "a"}})], [allow()]
    )


def test_two_halves_of_an_address_range_are_the_range():
    halves = [allow(condition={"IpAddress": {"aws:SourceIp": half}}) for half in ("10.0.0.0/9", "10.128.0.0/9")]
    whole = [allow(condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})]
    assert_contained(halves, whole)
    assert_contained(whole, halves)
    assert_widened(halves[:1], whole)


def test_a_boolean_written_as_text_is_the_boolean():
    as_text = [allow(condition={"Bool": {"aws:SecureTransport": "true"}})]
    as_boolean = [allow(condition={"Bool": {"aws:SecureTransport": True}})]
    as_string = [allow(condition={"StringEquals": {"aws:SecureTransport": "true"}})]
    for one in (as_text, as_boolean, as_string):
        for other in (as_text, as_boolean, as_string):
            assert_contained(one, other)


def test_a_region_wildcard_cannot_reach_an_arn_that_does_not_exist():
    # As texts, `arn:aws:sns:a:b:c:topic` and the like would tell these apart; a topic's ARN has neither.
    old = [allow("arn:aws:ec2:*:*:instance/*", action="ec2:StartInstances")]
    assert_contained(old, [allow("arn:aws:ec2:*:instance/*", action="ec2:StartInstances")])


def test_a_wildcard_that_would_reach_into_a_resource_name_is_not_typed():
    old = [allow("arn:aws:iam::*:role/x", action="iam:GetRole")]
    new = [*old, allow("arn:*:ec2:*:*:instance/*", action="iam:GetRole")]
    assert_widened(old, new, Outcome.WIDENED_UNCATALOGUED)


# Misses


def test_merging_statements_widens_by_the_cross_product():
    old = [allow("arn:aws:s3:::a/*", action="s3:GetObject"), allow("arn:aws:s3:::b/*", action="s3:PutObject")]
    request = assert_widened(
        old, [allow(["arn:aws:s3:::a/*", "arn:aws:s3:::b/*"], action=["s3:GetObject", "s3:PutObject"])]
    )
    assert (request.action, request.resource[:14]) in (
        ("s3:PutObject", "arn:aws:s3:::a"),
        ("s3:GetObject", "arn:aws:s3:::b"),
    )


def test_a_star_right_after_a_name_reaches_other_names():
    request = assert_widened([allow("arn:aws:s3:::logs/*")], [allow("arn:aws:s3:::logs*")])
    assert not request.resource.startswith("arn:aws:s3:::logs/")


def test_if_exists_lets_an_absent_key_pass():
    key = "aws:PrincipalTag/team"
    request = assert_widened(
        [allow(condition={"StringEquals": {key: "a"}})], [allow(condition={"StringEqualsIfExists": {key: "a"}})]
    )
    assert key not in request.context


def test_for_all_values_holds_when_the_key_is_absent():
    key = "aws:TagKeys"
    old = [allow(condition={"ForAllValues:StringEquals": {key: "a"}, "Null": {key: "false"}})]
    request = assert_widened(old, [allow(condition={"ForAllValues:StringEquals": {key: "a"}})])
    assert key not in request.context


def test_for_all_values_and_for_any_value_differ_both_ways():
    every = [allow(condition={"ForAllValues:StringEquals": {"aws:TagKeys": "a"}})]
    some = [allow(condition={"ForAnyValue:StringEquals": {"aws:TagKeys": "a"}})]
    assert_widened(every, some)
    assert_widened(some, every)


def test_for_any_value_in_a_deny_is_not_skipped():
    old = [allow(), deny(condition={"ForAnyValue:StringEquals": {"aws:TagKeys": "secret"}})]
    request = assert_widened(old, [allow()])
    assert "secret" in request.context["aws:TagKeys"]


def test_a_deny_by_bool_misses_the_absent_key_that_bool_if_exists_denies():
    key = "aws:MultiFactorAuthPresent"
    strict = [allow(), deny(condition={"BoolIfExists": {key: "false"}})]
    request = assert_widened(strict, [allow(), deny(condition={"Bool": {key: "false"}})])
    assert key not in request.context


def test_a_longer_not_resource_in_a_deny_widens():
    def kept(*resources):
        return [allow(), {"Effect": "Deny", "Action": "s3:*", "NotResource": list(resources)}]

    old, new = kept("arn:aws:s3:::a/*"), kept("arn:aws:s3:::a/*", "arn:aws:s3:::b/*")
    request = assert_widened(old, new)
    assert request.resource.startswith("arn:aws:s3:::b/")
    assert_contained(new, old)


def test_a_longer_not_action_in_a_deny_widens():
    def kept(*actions):
        return [allow(action="*"), {"Effect": "Deny", "NotAction": list(actions), "Resource": "*"}]

    assert assert_widened(kept("s3:*"), kept("s3:*", "iam:*")).action.startswith("iam:")
    assert_contained(kept("s3:*", "iam:*"), kept("s3:*"))


@pytest.mark.parametrize("misspelt", ["NotActions", "notAction", "Not_Action", "Actions"])
def test_a_misspelt_not_action_is_an_error(misspelt):
    with pytest.raises(InputError, match=misspelt):
        policy(allow(), {"Effect": "Deny", misspelt: "s3:*", "Resource": "*"})


def test_a_variable_can_collide_with_a_denied_literal():
    own = [allow("arn:aws:s3:::home/${aws:username}/*")]
    request = assert_widened([*own, deny("arn:aws:s3:::home/admin/*")], own)
    assert request.resource.startswith(f"arn:aws:s3:::home/{request.context['aws:username'][0]}/")
    assert request.resource.startswith("arn:aws:s3:::home/admin/")


def test_a_variable_is_not_a_wildcard():
    own, everyone = [allow("arn:aws:s3:::home/${aws:username}/*")], [allow("arn:aws:s3:::home/*/*")]
    assert_widened(own, everyone)
    assert_contained(everyone, own)


def test_an_old_version_has_no_variables():
    statement = allow("arn:aws:s3:::home/${aws:username}/*")
    assert contains(policy(statement, version="2008-10-17"), policy(statement)).outcome is Outcome.WIDENED
    assert contains(policy(statement), policy(statement, version="2008-10-17")).outcome is Outcome.WIDENED


def test_a_bucket_is_not_its_objects():
    assert_widened(
        [allow("arn:aws:s3:::b", action="s3:*")], [allow(["arn:aws:s3:::b", "arn:aws:s3:::b/*"], action="s3:*")]
    )
    # An action on objects gets nothing from the bucket's own ARN: a shape that the catalogue doesn't give it.
    assert_widened(
        [allow("arn:aws:s3:::b/*")], [allow(["arn:aws:s3:::b/*", "arn:aws:s3:::b"])], Outcome.WIDENED_UNCATALOGUED
    )


def test_a_dropped_deny_widens_and_is_named():
    old = [allow(action="*"), deny(action="iam:*", Sid="NoIam")]
    decision = contains(policy(*old), policy(allow(action="*")))
    assert decision.outcome is Outcome.WIDENED
    assert decision.witness.lost_deny.sid == "NoIam"
    assert decision.witness.request.action.startswith("iam:")


# Faults of single tools


def test_two_entries_of_not_resource_both_stay_out():
    kept = {"Effect": "Allow", "Action": "s3:GetObject", "NotResource": ["arn:aws:s3:::a/*", "arn:aws:s3:::b/*"]}
    for name in "ab":
        request = Request("s3:GetObject", f"arn:aws:s3:::{name}/x")
        assert evaluate(Permissions((policy(kept),)), request).verdict is Verdict.IMPLICIT_DENY
        assert_widened([kept], [kept, allow(f"arn:aws:s3:::{name}/x")])


def test_resources_differ_by_case_and_actions_do_not():
    assert_widened([allow("arn:aws:s3:::b/x")], [allow("arn:aws:s3:::b/X")])
    assert_contained(
        [allow("arn:aws:s3:::b/x", action="s3:getobject")], [allow("arn:aws:s3:::b/x", action="S3:GETOBJECT")]
    )


def test_condition_keys_do_not_differ_by_case_and_values_do():
    old = [allow(condition={"StringEquals": {"aws:RequestTag/team": "a"}})]
    assert_contained(old, [allow(condition={"StringEquals": {"AWS:requesttag/TEAM": "a"}})])
    assert_widened(old, [allow(condition={"StringEquals": {"aws:RequestTag/team": "A"}})])


def test_a_deny_by_string_not_equals_denies_the_absent_key():
    guarded = [allow(), deny(condition={"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}})]
    verdict = evaluate(Permissions((policy(*guarded),)), Request("s3:GetObject", "arn:aws:s3:::b/x")).verdict
    assert verdict is Verdict.EXPLICIT_DENY
    lax = [
        allow(),
        deny(
            condition={
                "StringNotEqualsIfExists": {"aws:PrincipalOrgID": "o-1"},
                "Null": {"aws:PrincipalOrgID": "false"},
            }
        ),
    ]
    request = assert_widened(guarded, lax)
    assert "aws:PrincipalOrgID" not in request.context


@pytest.mark.parametrize(
    ("pattern", "resource", "action"),
    [
        (
            "arn:aws:autoscaling:*:*:*:autoScalingGroupName/eks-*",
            "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:u-u:autoScalingGroupName/eks-a",
            "autoscaling:SetDesiredCapacity",
        ),
        (
            "arn:aws:ec2:*:*:security-group*/*",
            "arn:aws:ec2:eu-west-1:123456789012:security-group-rule/sgr-1",
            "ec2:CreateTags",
        ),
    ],
)
def test_wildcards_match_inside_the_resource_part(pattern, resource, action):
    assert evaluate(Permissions((policy(allow(pattern, action=action)),)), Request(action, resource)).allowed
    assert_contained([allow(pattern, action=action)], [allow(resource, action=action)])


def test_an_action_that_takes_no_resource_gets_nothing_from_one():
    old = [allow("*", action="ec2:StartInstances")]
    listed = [*old, allow("arn:aws:ec2:*:*:instance/*", action="ec2:DescribeInstances")]
    assert_widened(old, listed, Outcome.WIDENED_UNCATALOGUED)
    assert assert_widened(old, [*old, allow("*", action="ec2:DescribeInstances")]).resource == "*"


def test_an_action_outside_the_catalogue_is_said_to_be():
    request = assert_widened([allow()], [allow(), allow(action="s3:GetObjectt")], Outcome.WIDENED_UNCATALOGUED)
    assert request.action == "s3:GetObjectt"
    assert_contained([allow(action="s3:Get*")], [allow(action="s3:GetObjectt")])
    # All of a service's Get actions, one by one, are not yet Get*: AWS may add one.
    known = catalogue().names("sts:get*")
    assert "sts:GetCallerIdentity" in known
    assert_contained([allow(action="sts:Get*")], [allow(action=known)])
    assert_widened([allow(action=known)], [allow(action="sts:Get*")], Outcome.WIDENED_UNCATALOGUED)


def test_plain_operators_on_a_key_with_several_values_are_not_guessed():
    old = [allow(condition={"StringEquals": {"aws:TagKeys": "a"}})]
    assert_contained(old, old)
    doubtful = [
        allow(condition={"StringLike": {"aws:TagKeys": ["a", "b"]}}),
        deny(condition={"StringEquals": {"aws:TagKeys": "b"}}),
    ]
    assert contains(policy(*old), policy(*doubtful)).outcome is Outcome.UNDECIDED


def test_several_values_for_a_key_that_holds_one_are_not_typed():
    key = "aws:PrincipalTag/team"
    both = {"ForAnyValue:StringEquals": {key: "a"}, "ForAnyValue:StringLike": {key: "b*"}}
    decision = contains(policy(allow(action="sts:GetCallerIdentity")), policy(allow(condition=both)))
    assert decision.outcome is Outcome.WIDENED_UNCATALOGUED
    assert key.lower() in decision.reason


# Found by an audit


def test_a_dropped_deny_beside_an_exception_with_a_leading_wildcard_is_found():
    kept = {"Effect": "Allow", "NotAction": "*:Delete*", "Resource": "*"}
    request = assert_widened([kept, deny("*", action="iam:PassRole")], [kept])
    assert request.action == "iam:PassRole"


def test_an_exception_with_an_infix_wildcard_is_exact_in_denies_too():
    objects = ["s3:GetObject", "s3:PutObject"]
    rest = {"Effect": "Deny", "NotAction": ["s3:Get*", "s3:P*Object"], "Resource": "*"}
    assert_contained([allow("*", action=objects)], [allow("*", action=[*objects, "s3:DeleteObject"]), rest])


def test_a_tag_that_is_neither_true_nor_false_is_tried():
    def denied(test):
        return [allow("*", action="ec2:StopInstances"), deny("*", test, action="ec2:StopInstances")]

    tag = "aws:ResourceTag/tmp"
    before, after = {"StringNotEqualsIfExists": {tag: "true"}}, {"BoolIfExists": {tag: "false"}}
    assert_widened(denied(before), denied(after))
    either = [allow("*", {"Bool": {tag: value}}, action="ec2:StopInstances") for value in ("true", "false")]
    assert_widened(either, [allow("*", {"Null": {tag: "false"}}, action="ec2:StopInstances")])


def test_a_tag_that_is_no_number_is_tried():
    tag = "aws:ResourceTag/n"
    tests = [{f"Numeric{relation}": {tag: "10"}} for relation in ("LessThan", "GreaterThanEquals")]
    either = [allow("*", test, action="ec2:StopInstances") for test in tests]
    assert_widened(either, [allow("*", {"Null": {tag: "false"}}, action="ec2:StopInstances")])


def test_a_time_read_as_a_date_and_as_a_number_is_one_time():
    by_date, by_number = ({f"{kind}LessThan": {"aws:EpochTime": "1893456000"}} for kind in ("Date", "Numeric"))
    assert_contained([allow(OBJECTS, by_date)], [allow(OBJECTS, by_number)])
    later = {"NumericLessThan": {"aws:EpochTime": "1893456001"}}
    assert_widened([allow(OBJECTS, by_date)], [allow(OBJECTS, later)])


def test_an_address_read_as_text_is_a_range():
    network = [allow(OBJECTS, {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})]
    assert_contained(network, [allow(OBJECTS, {"StringLike": {"aws:SourceIp": ["10.1.*", "10.2.3.4"]}})])
    assert_widened(network, [allow(OBJECTS, {"StringLike": {"aws:SourceIp": "11.*"}})])
    all_but_one = {"StringNotEquals": {"aws:SourceIp": "10.0.0.0"}, "IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    assert_widened([deny("*"), allow(OBJECTS)], [allow(OBJECTS, all_but_one)])


def test_a_confirmed_request_outlives_a_question_left_open():
    unlisted = allow("*", action="s3:GetNothingKnown")
    open_question = allow("*", {"StringEquals": {"aws:CalledVia": "a"}}, action="s3:GetObject")
    known = allow("*", {"ForAnyValue:StringEquals": {"aws:CalledVia": "a"}}, action="s3:GetObject")
    decision = contains(policy(known), policy(open_question, unlisted))
    assert decision.outcome is Outcome.WIDENED_UNCATALOGUED
