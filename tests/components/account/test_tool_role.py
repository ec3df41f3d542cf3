"""Tool roles: who becomes one, what it may do, and the boundary over all of them."""

from __future__ import annotations

import json
from datetime import date

import pytest

from components.tool_boundary import ToolBoundary, ToolBoundaryArgs, boundary_document
from components.tool_role import ToolRole, ToolRoleArgs
from ringfence.broker.revocation import revoked_document
from ringfence.catalog.model import Grant, Tool
from ringfence.errors import InputError
from ringfence.iam.containment import contains
from ringfence.iam.document import parse
from ringfence.iam.model import Permissions
from ringfence.iam.request import Principal
from ringfence.iam.tool_documents import expand, grants_document, tool_documents

BROKER = "arn:aws:sts::111122223333:assumed-role/ringfence-test-broker/broker-1"
ASSUME = {
    "sts:SourceIdentity": "inv-1",
    "aws:RequestTag/tool": "reports",
    "aws:RequestTag/invocation": "inv-1",
    "aws:RequestTag/user": "ana",
    "aws:RequestTag/credential": "abcdefgh",
}
LIVE = {"aws:RequestedRegion": "us-east-1", "aws:SourceIdentity": "inv-1"}


def _tool(name: str = "reports", *grants: Grant) -> Tool:
    grants = grants or (
        Grant(
            actions=("s3:GetObject",), resources=("arn:${partition}:s3:::reports-${account}/published/*",), reason="r"
        ),
    )
    return Tool(
        name=name,
        description="Reads reports – daily",
        owner="a@example.com",
        justification="Agents summarise the published reports.",
        review_date=date(2027, 1, 1),
        grants=grants,
    )


def _everything() -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})


def test_the_documents_of_a_tool_are_known_at_preview(record, preview, names, golden):
    recording = record(lambda: ToolRole("reports", ToolRoleArgs(names, _tool())), preview=preview)
    role = recording.one("aws:iam/role:Role")
    policy = recording.one("aws:iam/rolePolicy:RolePolicy", "reports-grants")
    revoked = recording.one("aws:iam/rolePolicy:RolePolicy", "reports-revoked")
    shown = {
        "trust": json.loads(role["assumeRolePolicy"]),
        "grants": json.loads(policy["policy"]),
        "revoked": json.loads(revoked["policy"]),
    }
    golden("tool_role.json", json.dumps(shown, indent=2, sort_keys=True) + "\n")
    assert role["name"] == "ringfence-test-tool-reports" == policy["role"]
    assert role.parent_type == "ringfence:index:ToolRole" == policy.parent_type


def test_a_tool_of_which_no_credential_could_be_issued_is_refused_at_preview(record, names):
    def declared(count: int) -> Tool:
        places = tuple(f"arn:aws:s3:::reports/{place:03d}/*" for place in range(count))
        return _tool("reports", Grant(actions=("s3:GetObject",), resources=places, reason="r"))

    assert record(lambda: ToolRole("reports", ToolRoleArgs(names, declared(20)))).one("aws:iam/role:Role")
    with pytest.raises(InputError, match="split the tool"):
        record(lambda: ToolRole("reports", ToolRoleArgs(names, declared(90))))


def test_every_tool_role_carries_its_own_boundary_and_a_session_limit(record, names):
    recording = record(lambda: ToolRole("reports", ToolRoleArgs(names, _tool())))
    role, boundary = recording.one("aws:iam/role:Role"), recording.one("aws:iam/policy:Policy")
    assert role["permissionsBoundary"] == f"arn:aws:iam::111122223333:policy/{boundary['name']}"
    assert boundary.urn in role.options.depends_on
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
    assert (inline["roleName"], inline["policyNames"]) == ("ringfence-test-tool-reports", ["grants", "revoked"])
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
        Grant(
            actions=("s3:GetObject",),
            resources=tuple(f"arn:aws:s3:::bucket-{g}/{i:0100d}" for i in range(50)),
            reason="r",
        )
        for g in range(3)
    )
    with pytest.raises(InputError) as caught:
        tool_documents(_tool("big", *grants), names)
    (problem,) = caught.value.problems
    assert problem.where == "role ringfence-test-tool-big" and "10,240" in problem.message


def _wide(*actions: str) -> Tool:
    """A catalog entry that asks for too much."""
    everywhere = {"Null": {"aws:RequestedRegion": ("false",)}}
    return _tool("wide", Grant(actions=actions, resources=("*",), conditions=everywhere, reason="r"))


def test_the_boundary_lets_what_is_granted_through_and_nothing_else(identity_permits, names):
    boundary = boundary_document(names, _tool())
    arn = "arn:aws:s3:::reports-111122223333/{}/may.csv"
    assert identity_permits([_everything()], "s3:GetObject", arn.format("published"), LIVE, boundary)
    assert not identity_permits([_everything()], "s3:GetObject", arn.format("drafts"), LIVE, boundary)
    assert not identity_permits([_everything()], "s3:PutObject", arn.format("published"), LIVE, boundary)


def test_no_policy_of_a_role_gives_more_than_the_grants_by_proof(names):
    """What the broker gains by writing a tool role's policy: nothing, for whatever it writes, the boundary is within
    what the tool is granted, and the broker may become the tool anyway."""
    tool = _tool()
    granted = parse(tool_documents(tool, names).policy)
    written = Permissions((parse(_everything()),), parse(boundary_document(names, tool), "boundary"))
    assert contains(Permissions((granted,)), written).contained
    without_cap = Permissions((parse(_everything()),))
    assert not contains(Permissions((granted,)), without_cap).contained


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("iam:CreateAccessKey", "arn:aws:iam::111122223333:user/x"),
        ("iam:PassRole", "arn:aws:iam::111122223333:role/x"),
        ("sts:AssumeRole", "arn:aws:iam::111122223333:role/x"),
        ("organizations:LeaveOrganization", "arn:aws:organizations::111122223333:organization/o-1"),
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
def test_no_tool_gets_past_the_boundary_even_when_the_catalog_grants_it(identity_permits, names, action, resource):
    boundary = json.loads(boundary_document(names, _wide(action)))
    cap = {**boundary, "Statement": [s for s in boundary["Statement"] if s["Effect"] == "Allow"]}
    assert identity_permits([_everything()], action, resource, LIVE, json.dumps(cap))
    assert not identity_permits([_everything()], action, resource, LIVE, json.dumps(boundary))


def test_tools_stay_in_the_regions_given(identity_permits, names):
    probe = ("dynamodb:GetItem", "arn:aws:dynamodb:eu-west-1:111122223333:table/t")
    context = LIVE | {"aws:RequestedRegion": "eu-west-1"}
    tool = _wide("dynamodb:GetItem")
    assert not identity_permits([_everything()], *probe, context, boundary_document(names, tool))
    assert identity_permits([_everything()], *probe, context, boundary_document(names, tool, ("eu-west-1",)))


def test_a_session_without_source_identity_may_do_nothing(identity_permits, names):
    probe = ("dynamodb:GetItem", "arn:aws:dynamodb:us-east-1:111122223333:table/t")
    region = {"aws:RequestedRegion": "us-east-1"}
    boundary = boundary_document(names, _wide("dynamodb:GetItem"))
    assert identity_permits([_everything()], *probe, LIVE, boundary)
    assert not identity_permits([_everything()], *probe, region, boundary)


def test_the_boundary_is_one_reviewed_document(record, preview, names, golden):
    policy = record(lambda: ToolBoundary("boundary", ToolBoundaryArgs(names, _tool())), preview=preview).one(
        "aws:iam/policy:Policy"
    )
    golden("tool_boundary.json", json.dumps(json.loads(policy["policy"]), indent=2) + "\n")
    assert policy.parent_type == "ringfence:index:ToolBoundary"


def test_a_tool_whose_grants_don_t_fit_its_boundary_is_refused_with_the_remedy(record, names):
    grants = [
        Grant(actions=("s3:GetObject",), resources=(f"arn:aws:s3:::bucket-{index:03d}-with-a-long-name/*",), reason="r")
        for index in range(60)
    ]
    with pytest.raises(InputError) as caught:
        record(lambda: ToolBoundary("boundary", ToolBoundaryArgs(names, _tool("big", *grants))))
    (problem,) = caught.value.problems
    assert "6,144" in problem.message and "split the tool" in problem.remedy


def test_what_the_broker_writes_into_the_list_of_revoked_credentials_is_no_difference(record, preview, names):
    recording = record(lambda: ToolRole("reports", ToolRoleArgs(names, _tool())), preview=preview)
    revoked = recording.one("aws:iam/rolePolicy:RolePolicy", "reports-revoked")
    assert revoked["name"] == "revoked" and revoked.options.ignore_changes == ("policy",)
    assert recording.one("aws:iam/rolePolicy:RolePolicy", "reports-grants").options.ignore_changes == ()


def test_the_list_of_revoked_credentials_denies_exactly_the_listed_ones(identity_permits):
    listed = revoked_document(["abcdefgh"])
    probe = ("s3:GetObject", "arn:aws:s3:::b/k")
    for credential, allowed in (("abcdefgh", False), ("bcdefghi", True)):
        context = {"aws:PrincipalTag/credential": credential}
        assert identity_permits([_everything(), listed], *probe, context) is allowed
    assert identity_permits([_everything(), revoked_document()], *probe, {"aws:PrincipalTag/credential": "abcdefgh"})
