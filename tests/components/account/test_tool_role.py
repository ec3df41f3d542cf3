"""Tool roles: who becomes one, what it may do, and the boundary over all of them."""

from __future__ import annotations

import json
from datetime import date

import pytest

from components.tool_boundary import ToolBoundary, ToolBoundaryArgs, boundary_document
from components.tool_role import ToolRole, ToolRoleArgs
from ringfence.catalog.model import Grant, Tool
from ringfence.errors import InputError
from ringfence.iam.request import Principal
from ringfence.iam.tool_documents import expand, grants_document, tool_documents

BROKER = "arn:aws:sts::111122223333:assumed-role/ringfence-test-broker/broker-1"
ASSUME = {
    "sts:SourceIdentity": "inv-1",
    "aws:RequestTag/tool": "reports",
    "aws:RequestTag/invocation": "inv-1",
    "aws:RequestTag/user": "ana",
}
LIVE = {"aws:RequestedRegion": "us-east-1", "aws:SourceIdentity": "inv-1"}


def _tool(name: str = "reports", *grants: Grant) -> Tool:
    grants = grants or (
        Grant(actions=("s3:GetObject",), resources=("arn:${partition}:s3:::reports-${account}/published/*",), reason="r"),
    )
    return Tool(name=name, description="Reads reports – daily", owner="a@example.com",
                justification="Agents summarise the published reports.", review_date=date(2027, 1, 1), grants=grants)


def _everything() -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})


def test_the_documents_of_a_tool_are_known_at_preview(record, preview, names, golden):
    recording = record(lambda: ToolRole("reports", ToolRoleArgs(names, _tool())), preview=preview)
    role = recording.one("aws:iam/role:Role")
    policy = recording.one("aws:iam/rolePolicy:RolePolicy")
    shown = {"trust": json.loads(role["assumeRolePolicy"]), "grants": json.loads(policy["policy"])}
    golden("tool_role.json", json.dumps(shown, indent=2, sort_keys=True) + "\n")
    assert role["name"] == "ringfence-test-tool-reports" == policy["role"]
    assert role.parent_type == "ringfence:index:ToolRole" == policy.parent_type


def test_every_tool_role_carries_the_boundary_and_a_session_limit(record, names):
    role = record(lambda: ToolRole("reports", ToolRoleArgs(names, _tool()))).one("aws:iam/role:Role")
    boundary = record(lambda: ToolBoundary("boundary", ToolBoundaryArgs(names))).one("aws:iam/policy:Policy")
    assert role["permissionsBoundary"] == f"arn:aws:iam::111122223333:policy/{boundary['name']}"
    assert role["maxSessionDuration"] == 3600


def test_a_role_description_keeps_to_what_iam_takes(record, names):
    role = record(lambda: ToolRole("reports", ToolRoleArgs(names, _tool()))).one("aws:iam/role:Role")
    assert role["description"] == "Reads reports   daily"


def test_a_tool_without_grants_gets_a_role_and_no_policy(record, names):
    tool = _tool().model_copy(update={"grants": ()})
    recording = record(lambda: ToolRole("reports", ToolRoleArgs(names, tool)))
    assert recording.one("aws:iam/role:Role")
    assert recording.of_type("aws:iam/rolePolicy:RolePolicy") == []


def test_a_policy_added_by_hand_is_a_difference_that_refresh_shows(record, preview, names):
    recording = record(lambda: ToolRole("reports", ToolRoleArgs(names, _tool())), preview=preview)
    inline = recording.one("aws:iam/rolePoliciesExclusive:RolePoliciesExclusive")
    managed = recording.one("aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive")
    assert (inline["roleName"], inline["policyNames"]) == ("ringfence-test-tool-reports", ["grants"])
    assert (managed["roleName"], managed["policyArns"]) == ("ringfence-test-tool-reports", [])


@pytest.mark.parametrize("action", ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"])
def test_the_broker_becomes_the_tool_for_a_named_invocation(resource_permits, names, action):
    trust = tool_documents(_tool(), names).trust
    assert resource_permits(trust, Principal("AWS", BROKER), action, context=ASSUME)


@pytest.mark.parametrize("missing", sorted(ASSUME))
def test_a_session_without_source_identity_or_a_tag_is_refused(resource_permits, names, missing):
    trust = tool_documents(_tool(), names).trust
    context = {key: value for key, value in ASSUME.items() if key != missing}
    assert not resource_permits(trust, Principal("AWS", BROKER), "sts:AssumeRole", context=context)


def test_a_session_tagged_as_another_tool_is_refused(resource_permits, names):
    trust = tool_documents(_tool(), names).trust
    context = ASSUME | {"aws:RequestTag/tool": "other"}
    assert not resource_permits(trust, Principal("AWS", BROKER), "sts:AssumeRole", context=context)


@pytest.mark.parametrize(
    "principal",
    [
        Principal("AWS", "arn:aws:sts::111122223333:assumed-role/ringfence-test-runner/r"),
        Principal("AWS", "arn:aws:sts::111122223333:assumed-role/ringfence-test-broker2/r"),
        Principal("AWS", "arn:aws:iam::111122223333:root"),
        Principal("AWS", "arn:aws:sts::444455556666:assumed-role/ringfence-test-broker/b"),
        Principal("Service", "ec2.amazonaws.com"),
    ],
    ids=lambda p: p.value,
)
def test_nobody_but_the_broker_becomes_the_tool(resource_permits, names, principal):
    trust = tool_documents(_tool(), names).trust
    assert not resource_permits(trust, principal, "sts:AssumeRole", context=ASSUME)


def test_catalog_placeholders_are_filled_and_policy_variables_are_not(names):
    assert expand("arn:${partition}:x:${region}:${account}:y/${aws:PrincipalTag/user}", names) == (
        "arn:aws:x:us-east-1:111122223333:y/${aws:PrincipalTag/user}"
    )


def test_reordering_grants_changes_nothing(names):
    a = Grant(actions=("s3:GetObject",), resources=("arn:aws:s3:::a/*",), reason="r")
    b = Grant(actions=("s3:ListBucket",), resources=("arn:aws:s3:::a",), reason="r")
    assert grants_document(_tool("t1", a, b), names) == grants_document(_tool("t1", b, a), names)


def test_a_tool_too_large_for_iam_is_refused_with_its_role_and_size(names):
    grants = tuple(
        Grant(actions=("s3:GetObject",), resources=tuple(f"arn:aws:s3:::bucket-{g}/{i:0100d}" for i in range(50)),
              reason="r")
        for g in range(3)
    )
    with pytest.raises(InputError) as caught:
        tool_documents(_tool("big", *grants), names)
    (problem,) = caught.value.problems
    assert problem.where == "role ringfence-test-tool-big" and "10,240" in problem.message


def test_the_boundary_lets_an_ordinary_grant_through(identity_permits, names):
    policy = tool_documents(_tool(), names).policy
    arn = "arn:aws:s3:::reports-111122223333/published/may.csv"
    assert identity_permits([policy], "s3:GetObject", arn, LIVE, boundary_document(names))


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("iam:CreateAccessKey", "arn:aws:iam::111122223333:user/x"),
        ("iam:PassRole", "arn:aws:iam::111122223333:role/x"),
        ("sts:AssumeRole", "arn:aws:iam::111122223333:role/x"),
        ("organizations:LeaveOrganization", "*"),
        ("kms:PutKeyPolicy", "arn:aws:kms:us-east-1:111122223333:key/k"),
        ("kms:ScheduleKeyDeletion", "arn:aws:kms:us-east-1:111122223333:key/k"),
        ("logs:Unmask", "arn:aws:logs:us-east-1:111122223333:log-group:/other"),
        ("logs:DeleteDataProtectionPolicy", "arn:aws:logs:us-east-1:111122223333:log-group:/other"),
        ("cloudtrail:StopLogging", "arn:aws:cloudtrail:us-east-1:111122223333:trail/t"),
        ("s3:PutBucketPolicy", "arn:aws:s3:::any"),
        ("eks:CreateAccessEntry", "arn:aws:eks:us-east-1:111122223333:cluster/c"),
        ("lambda:UpdateFunctionCode", "arn:aws:lambda:us-east-1:111122223333:function:f"),
        ("s3:GetObject", "arn:aws:s3:::ringfence-test-audit-trail-111122223333-us-east-1/AWSLogs/x"),
        ("s3:PutObject", "arn:aws:s3:::ringfence-test-artifacts-111122223333-us-east-1/gvisor/x"),
        ("logs:PutLogEvents", "arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/test/audit:log-stream:s"),
        ("sns:Publish", "arn:aws:sns:us-east-1:111122223333:ringfence-test-alerts"),
    ],
)
def test_no_tool_gets_past_the_boundary_even_with_a_policy_that_allows_everything(
    identity_permits, names, action, resource
):
    assert identity_permits([_everything()], action, resource, LIVE)
    assert not identity_permits([_everything()], action, resource, LIVE, boundary_document(names))


def test_tools_stay_in_the_regions_given(identity_permits, names):
    probe = ("dynamodb:GetItem", "arn:aws:dynamodb:eu-west-1:111122223333:table/t")
    context = LIVE | {"aws:RequestedRegion": "eu-west-1"}
    assert not identity_permits([_everything()], *probe, context, boundary_document(names))
    assert identity_permits([_everything()], *probe, context, boundary_document(names, ("eu-west-1",)))


def test_a_session_without_source_identity_may_do_nothing(identity_permits, names):
    probe = ("dynamodb:GetItem", "arn:aws:dynamodb:us-east-1:111122223333:table/t")
    region = {"aws:RequestedRegion": "us-east-1"}
    assert identity_permits([_everything()], *probe, LIVE, boundary_document(names))
    assert not identity_permits([_everything()], *probe, region, boundary_document(names))


def test_the_boundary_is_one_reviewed_document(record, preview, names, golden):
    policy = record(lambda: ToolBoundary("boundary", ToolBoundaryArgs(names)), preview=preview).one(
        "aws:iam/policy:Policy"
    )
    golden("tool_boundary.json", json.dumps(json.loads(policy["policy"]), indent=2) + "\n")
    assert policy.parent_type == "ringfence:index:ToolBoundary"
