"""Access that no policy document shows, and resources that stand for others: each is a fact that has to be approved."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi_aws
import pytest

from ringfence.review import extract_access, live
from ringfence.review.conflicts import resolved
from ringfence.review.extract import EXTRACTORS, facts_of, may_grant
from ringfence.review.facts import AT_PREVIEW, CONTRADICTED, Fact, Slot, Surface, Unknown
from ringfence.review.lockfile import Lockfile
from ringfence.review.pack_rules import CreepRules
from ringfence.review.resource import Resource

ARN = "arn:aws:iam::123456789012"
OPEN = json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]})


def resource(type_: str, name: str = "x", /, **props: Any) -> Resource:
    return Resource(type_, name, f"urn:pulumi:s::p::{type_}::{name}", props)


def linked(made: Resource, **links: Resource) -> Resource:
    made.links.update({prop: (other,) for prop, other in links.items()})
    return made


@pytest.fixture
def told(lock: Callable[..., Lockfile], tmp_path: Path) -> Callable[..., list[str]]:
    """What the pack says of a program, against what another program's lockfile approves."""

    def tell(program: list[Resource], approved: list[Resource] | None = None) -> list[str]:
        held = lock(
            *(fact for item in approved or [] for fact in facts_of(item)), Fact("role/a", Slot.EXISTS, "", True)
        )
        rules, config = CreepRules(tmp_path, "test"), {"lockfile": str(held.path)}
        alone = [text for item in program for text in rules.check_resource(item, config)]
        return [*alone, *(text for text, _ in rules.check_stack(program, config))]

    return tell


# What each of these gives somebody, as a program would write it.
GIVEN: dict[str, dict[str, Any]] = {
    "aws:ssoadmin/accountAssignment:AccountAssignment": {
        "principalId": "p",
        "permissionSetArn": "arn",
        "targetId": "1",
    },
    "aws:ssoadmin/customerManagedPolicyAttachment:CustomerManagedPolicyAttachment": {
        "permissionSetArn": "arn",
        "customerManagedPolicyReference": {"name": "wide"},
    },
    "aws:ssoadmin/managedPolicyAttachmentsExclusive:ManagedPolicyAttachmentsExclusive": {
        "permissionSetArn": "arn",
        "managedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"],
    },
    "aws:ssoadmin/permissionsBoundaryAttachment:PermissionsBoundaryAttachment": {
        "permissionSetArn": "arn",
        "permissionsBoundary": {"managedPolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
    },
    "aws:rolesanywhere/profile:Profile": {"roleArns": [f"{ARN}:role/admin"]},
    "aws:rolesanywhere/trustAnchor:TrustAnchor": {"source": {"sourceType": "CERTIFICATE_BUNDLE"}},
    "aws:iot/policyAttachment:PolicyAttachment": {"policy": "wide", "target": "arn:aws:iot:::cert/1"},
    "aws:iot/roleAlias:RoleAlias": {"roleArn": f"{ARN}:role/admin"},
    "aws:cognito/identityPoolRoleAttachment:IdentityPoolRoleAttachment": {
        "identityPoolId": "p",
        "roles": {"unauthenticated": f"{ARN}:role/admin"},
    },
    "aws:ram/principalAssociation:PrincipalAssociation": {"principal": "999999999999", "resourceShareArn": "arn"},
    "aws:ram/resourceShare:ResourceShare": {"allowExternalPrincipals": True},
    "aws:lakeformation/permissions:Permissions": {"principal": f"{ARN}:role/a", "permissions": ["ALL"]},
    "aws:lakeformation/dataLakeSettings:DataLakeSettings": {"admins": [f"{ARN}:role/a"]},
    "aws:opensearch/serverlessAccessPolicy:ServerlessAccessPolicy": {
        "type": "data",
        "policy": '[{"Principal": ["*"]}]',
    },
    "aws:s3/bucketAcl:BucketAcl": {"bucket": "data", "acl": "public-read"},
    "aws:s3/bucket:Bucket": {"bucket": "data", "acl": "authenticated-read"},
    "aws:s3/bucketObjectv2:BucketObjectv2": {"bucket": "data", "key": "k", "acl": "public-read"},
    "aws:s3control/accessGrant:AccessGrant": {"grantee": {"granteeIdentifier": ARN}, "permission": "READ"},
    "aws:ec2/amiLaunchPermission:AmiLaunchPermission": {"imageId": "ami-1", "group": "all"},
    "aws:ec2/snapshotCreateVolumePermission:SnapshotCreateVolumePermission": {"snapshotId": "s", "accountId": "9"},
    "aws:rds/snapshot:Snapshot": {"sharedAccounts": ["all"]},
    "aws:ssm/document:Document": {"permissions": {"type": "Share", "accountIds": "All"}},
    "aws:chatbot/slackChannelConfiguration:SlackChannelConfiguration": {"iamRoleArn": f"{ARN}:role/admin"},
    "aws:servicecatalog/provisionedProduct:ProvisionedProduct": {"productName": "role-maker"},
    "aws:serverlessrepository/cloudFormationStack:CloudFormationStack": {"capabilities": ["CAPABILITY_IAM"]},
    "aws:organizations/delegatedAdministrator:DelegatedAdministrator": {"accountId": "9"},
    "aws:eks/identityProviderConfig:IdentityProviderConfig": {"clusterName": "c", "oidc": {"issuerUrl": "https://x"}},
    "aws:transfer/user:User": {"role": f"{ARN}:role/admin", "userName": "u"},
    "aws:cloudformation/stack:Stack": {"templateBody": '{"Resources": {"P": {"Type": "AWS::S3::BucketPolicy"}}}'},
    "aws-native:cloudformation:Stack": {"templateBody": "{}"},
    "aws-native:sso:PermissionSet": {"managedPolicies": ["arn:aws:iam::aws:policy/AdministratorAccess"]},
    "aws-native:iam:InstanceProfile": {"roles": ["admin"]},
    "aws-native:iam:UserToGroupAddition": {"groupName": "admins", "users": ["ci"]},
    "aws-native:iam:OidcProvider": {"url": "https://token.example.com", "clientIdList": ["sts.amazonaws.com"]},
    "aws-native:eks:Cluster": {"name": "c", "accessConfig": {"authenticationMode": "API"}},
    "aws-native:eks:Addon": {"clusterName": "c", "addonName": "a", "serviceAccountRoleArn": f"{ARN}:role/admin"},
    "aws-native:lambda:Url": {"targetFunctionArn": "f", "authType": "NONE"},
    "aws-native:s3:Bucket": {"bucketName": "b", "accessControl": "PublicRead"},
    "aws:iam/signingCertificate:SigningCertificate": {"userName": "ci", "certificateBody": "c"},
    "pulumi-python:dynamic:Resource": {"__provider": "code"},
    "command:local:Command": {"create": "aws iam attach-role-policy"},
}


@pytest.mark.parametrize("type_", GIVEN)
def test_what_it_gives_is_refused_until_it_is_approved(told: Callable[..., list[str]], type_: str) -> None:
    assert may_grant(type_)
    made = resource(type_, **GIVEN[type_])
    (said,) = told([made])
    assert "gains" in said and "Why it matters:" in said and "Approve:" in said
    assert told([made], [made]) == []


@pytest.mark.parametrize("type_", [type_ for type_ in GIVEN if type_ not in ("aws-native:eks:Cluster",)])
def test_what_it_gives_is_refused_when_it_is_more_than_approved(told: Callable[..., list[str]], type_: str) -> None:
    changed = {name: f"{value}-2" if isinstance(value, str) else value for name, value in GIVEN[type_].items()}
    changed |= {name: [*value, "other"] for name, value in changed.items() if isinstance(value, list)}
    changed |= {name: {**value, "also": "x"} for name, value in changed.items() if isinstance(value, dict)}
    changed |= {name: not value for name, value in changed.items() if isinstance(value, bool)}
    assert told([resource(type_, **changed)], [resource(type_, **GIVEN[type_])])


@pytest.mark.parametrize("type_", GIVEN)
def test_what_it_gives_is_refused_when_nobody_can_read_it(told: Callable[..., list[str]], type_: str) -> None:
    unread = dict.fromkeys(GIVEN[type_], AT_PREVIEW)
    assert any("not reviewable" in said or "gains" in said for said in told([resource(type_, **unread)]))


def test_properties_of_the_table_are_those_of_the_sdk() -> None:
    for type_, (_, names) in extract_access._ROWS.items():
        if not type_.startswith("aws:"):
            continue
        module, name = re.fullmatch(r"aws:(\w+)/\w+:(\w+)", type_).groups()  # type: ignore[union-attr]
        package = importlib.import_module(f"pulumi_aws.{'lambda_' if module == 'lambda' else module}")
        known = inspect.signature(getattr(package, f"{name}Args")).parameters
        for prop in names.split():
            assert re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", prop).lower() in known, (type_, prop)
    assert pulumi_aws


def test_an_id_that_is_made_up_at_creation_is_the_same_before_and_after(told: Callable[..., list[str]]) -> None:
    type_ = "aws:ec2/snapshotCreateVolumePermission:SnapshotCreateVolumePermission"
    before = resource("aws:ebs/snapshot:Snapshot", "disk")
    after = Resource(before.type, "disk", before.urn, {"arn": "arn:aws:ec2:::snapshot/snap-1"}, id="snap-1")
    planned = linked(resource(type_, snapshotId=AT_PREVIEW, accountId="111111111111"), snapshotId=before)
    made = linked(resource(type_, snapshotId="snap-1", accountId="111111111111"), snapshotId=after)
    assert told([after, made], [planned]) == []
    # Another snapshot under cover of the same origin isn't the approved one.
    other = linked(resource(type_, snapshotId="snap-2", accountId="111111111111"), snapshotId=after)
    assert told([after, other], [planned])


def test_an_unknown_value_beside_a_known_origin_can_not_be_reviewed(told: Callable[..., list[str]]) -> None:
    role = resource("aws:iam/role:Role", "a", name="a", assumeRolePolicy=OPEN)
    type_ = "aws:rolesanywhere/profile:Profile"
    one = linked(resource(type_, roleArns=[AT_PREVIEW]), roleArns=role)
    two = linked(resource(type_, roleArns=[AT_PREVIEW, AT_PREVIEW]), roleArns=role)
    assert told([one], [one]) == []
    assert "not reviewable" in "".join(told([two], [one]))
    # One value from two roles may be either's.
    either = resource(type_, roleArns=[AT_PREVIEW])
    either.links["roleArns"] = (role, resource("aws:iam/role:Role", "b", name="b"))
    assert "not reviewable" in "".join(told([either], [one]))


def test_a_live_account_is_not_held_to_access_that_it_is_not_asked_for(lock: Callable[..., Lockfile]) -> None:
    held = lock(*facts_of(resource("aws:s3/bucket:Bucket", bucket="data", acl="public-read", policy=OPEN)))
    assert {fact.slot for fact in held.surface.facts.values()} == {Slot.ACCESS, Slot.RESOURCE_POLICY}
    assert {fact.slot for fact in live.comparable(held).facts.values()} == {Slot.RESOURCE_POLICY}


@pytest.mark.parametrize(
    "props",
    [
        {"acl": "private"},
        {"acl": "log-delivery-write"},
        {"grants": [{"id": "me", "type": "CanonicalUser", "permissions": ["FULL_CONTROL"]}]},
        {"accessControlPolicy": {"owner": {"id": "me"}, "grants": [{"grantee": {"id": "me"}, "permission": "READ"}]}},
    ],
)
def test_an_access_list_of_the_owner_alone_is_no_fact(props: dict[str, Any]) -> None:
    assert facts_of(resource("aws:s3/bucketAcl:BucketAcl", bucket="data", **props)) == []


def test_a_list_that_names_everybody_is_a_fact_however_it_is_written() -> None:
    everybody = {"grantee": {"uri": "http://acs.amazonaws.com/groups/global/AllUsers"}, "permission": "READ"}
    for props in (
        {"accessControlPolicy": {"owner": {"id": "me"}, "grants": [everybody]}},
        {"grants": [{"uri": "http://acs.amazonaws.com/groups/global/AllUsers", "permissions": ["READ"]}]},
        {"accessControlPolicy": AT_PREVIEW},
        {"acl": AT_PREVIEW},
    ):
        (fact,) = facts_of(resource("aws:s3/bucketAcl:BucketAcl", bucket="data", **props))
        assert (fact.subject, fact.slot) == ("bucket/data", Slot.ACCESS)


@pytest.mark.parametrize(
    ("name", "props", "count"),
    [
        ("other", {"assumeRoles": f'[{{"roleArn": "{ARN}:role/deploy", "externalId": "hunter2"}}]'}, 1),
        ("other", {"profile": "production"}, 1),
        ("other", {"accessKey": "AKIA", "secretKey": "hunter2"}, 1),
        ("other", {"assumeRoles": AT_PREVIEW}, 1),
        ("other", {"region": "eu-west-1", "allowedAccountIds": ["123456789012"]}, 0),
        ("default_7_51_1", {"profile": "production"}, 0),
    ],
)
def test_a_provider_that_acts_elsewhere_has_to_be_approved(name: str, props: dict[str, Any], count: int) -> None:
    found = facts_of(resource("pulumi:providers:aws", name, **props))
    assert len(found) == count
    assert "hunter2" not in str(found) and "AKIA" not in str(found)


@pytest.mark.parametrize(
    ("type_", "props"),
    [
        (
            "aws:cloudcontrol/resource:Resource",
            {
                "typeName": "AWS::IAM::Role",
                "desiredState": json.dumps(
                    {"RoleName": "app", "ManagedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"]}
                ),
            },
        ),
        (
            "aws-native:index:ExtensionResource",
            {
                "type": "AWS::IAM::Role",
                "properties": {"RoleName": "app", "ManagedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"]},
            },
        ),
        (
            "aws:index/iamRolePolicyAttachment:IamRolePolicyAttachment",
            {"role": "app", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
        ),
    ],
)
def test_a_resource_that_stands_for_another_is_read_as_the_other(type_: str, props: dict[str, Any]) -> None:
    keys = {(fact.subject, fact.slot, fact.key) for fact in facts_of(resource(type_, **props))}
    assert ("role/app", Slot.MANAGED, "aws:policy/AdministratorAccess") in keys


def test_a_document_within_cloud_control_keeps_its_own_spelling() -> None:
    policy = {"Version": "2012-10-17", **json.loads(OPEN)}
    for name, state in (
        ("AWS::S3::BucketPolicy", {"Bucket": "data", "PolicyDocument": policy}),
        ("AWS::New::Thing", {"Deep": {"AccessPolicy": policy}}),
    ):
        props = {"typeName": name, "desiredState": json.dumps(state)}
        assert policy in [fact.value for fact in facts_of(resource("aws:cloudcontrol/resource:Resource", **props))]


@pytest.mark.parametrize("state", [AT_PREVIEW, "{", "[]", None])
def test_cloud_control_s_state_that_can_not_be_read_can_not_be_reviewed(state: Any) -> None:
    props = {"typeName": "AWS::IAM::Role", "desiredState": state}
    (fact,) = facts_of(resource("aws:cloudcontrol/resource:Resource", **props))
    assert isinstance(fact.value, Unknown)


def test_a_list_of_config_maps_and_one_without_a_known_name_may_be_the_aws_auth_map() -> None:
    item = {"metadata": {"name": "aws-auth", "namespace": "kube-system"}, "data": {"mapRoles": "- groups: []"}}
    assert facts_of(resource("kubernetes:core/v1:ConfigMapList", items=[item]))
    assert facts_of(
        resource(
            "kubernetes:core/v1:ConfigMap", **item | {"metadata": {"name": AT_PREVIEW, "namespace": "kube-system"}}
        )
    )
    assert not facts_of(
        resource("kubernetes:core/v1:ConfigMap", **item | {"metadata": {"name": AT_PREVIEW, "namespace": "x"}})
    )


def test_two_resources_that_contradict_each_other_can_not_be_reviewed(told: Callable[..., list[str]]) -> None:
    """One of them would hide behind the other: a key's policy waits for the stack, and the last one counted."""
    narrow = OPEN.replace('"Action": "*"', '"Action": "kms:Decrypt"')
    key = resource("aws:kms/key:Key", "k", tags={"Name": "main"}, policy=narrow)
    wide = linked(resource("aws:kms/keyPolicy:KeyPolicy", "one", keyId=AT_PREVIEW, policy=OPEN), keyId=key)
    same = linked(resource("aws:kms/keyPolicy:KeyPolicy", "two", keyId=AT_PREVIEW, policy=narrow), keyId=key)
    assert told([key, same], [key]) == []
    for order in itertools.permutations([key, wide, same]):
        assert "declared more than once" in "".join(told(list(order), [key]))
    for order in itertools.permutations([key, wide]):
        assert "allows more" in "".join(told(list(order), [key]))


def test_a_preview_s_inputs_contradict_across_types_a_state_s_outputs_only_within_one() -> None:
    role = resource("aws:iam/role:Role", name="app", inlinePolicies=[{"name": "main", "policy": OPEN}])
    policy = resource(
        "aws:iam/rolePolicy:RolePolicy",
        name="main",
        role="app",
        policy=OPEN.replace('"Action": "*"', '"Action": "s3:GetObject"'),
    )
    stated = [*facts_of(role), *facts_of(policy)]
    place = ("role/app", Slot.INLINE, "main")
    for order in (stated, stated[::-1]):
        assert Surface.of("preview", resolved(order, declared=True)).facts[place].value is CONTRADICTED
        # What the role repeats of its policy may be older than the policy.
        assert Surface.of("state", resolved(order, declared=False)).facts[place].value == policy.props["policy"]


def test_one_role_with_two_policies_of_one_name_can_not_be_reviewed(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    def role(*documents: str) -> Resource:
        inline = [{"name": "main", "policy": item.replace(', "Principal": "*"', "")} for item in documents]
        trust = OPEN.replace(', "Resource": "*"', "")
        return resource("aws:iam/role:Role", name="app", assumeRolePolicy=trust, inlinePolicies=inline)

    narrow = OPEN.replace('"Action": "*"', '"Action": "s3:GetObject"')
    (alone, *_) = told([role(OPEN, narrow)], [role(narrow)])
    # Before the role is made, not only when the whole stack is looked at.
    assert alone.startswith("role/app inline policy main is not reviewable: declared more than once")
    rules, held = CreepRules(tmp_path, "test"), {"lockfile": str(tmp_path / "grants.lock.json")}
    assert rules.check_resource(role(narrow), held) == []
    assert len(rules.check_resource(role(OPEN, narrow), held)) == 1


@pytest.mark.parametrize(
    ("type_", "props"),
    [
        ("aws:iam/role:Role", {"name": "x", "managedPolicyArns": [AT_PREVIEW, AT_PREVIEW]}),
        ("aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive", {"policyArns": [AT_PREVIEW] * 2}),
    ],
)
def test_an_unknown_arn_does_not_hide_behind_a_known_policy(type_: str, props: dict[str, Any]) -> None:
    policy = resource("aws:iam/policy:Policy", "p", name="p", policy=OPEN)
    prop = "managedPolicyArns" if "managedPolicyArns" in props else "policyArns"
    made = linked(resource(type_, **props), **{prop: policy})
    assert sum(isinstance(fact.value, Unknown) for fact in facts_of(made) if fact.slot is Slot.MANAGED) == 1


def test_an_unknown_principal_does_not_hide_behind_a_known_one() -> None:
    user = resource("aws:iam/user:User", "u", name="u")
    made = linked(
        resource("aws:iam/policyAttachment:PolicyAttachment", users=[AT_PREVIEW] * 2, policyArn="p"), users=user
    )
    assert {fact.subject for fact in facts_of(made)} == {"user/u", "user/(name unknown)"}


@pytest.mark.parametrize(
    ("type_", "prop"),
    [
        ("aws:iam/sshKey:SshKey", "username"),
        ("aws:iam/serviceSpecificCredential:ServiceSpecificCredential", "userName"),
        ("aws:iam/accessKey:AccessKey", "user"),
    ],
)
def test_a_credential_is_its_user_s_however_the_type_names_it(type_: str, prop: str) -> None:
    (fact,) = facts_of(resource(type_, **{prop: "ci"}))
    assert fact.subject == "user/ci"


def test_a_policy_taken_away_whole_loses_its_denies(told: Callable[..., list[str]]) -> None:
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    bucket = resource("aws:s3/bucket:Bucket", bucket="data")
    held = resource("aws:s3/bucketPolicy:BucketPolicy", "p", bucket="data", policy=policy)
    assert told([bucket, held], [held]) == []
    assert "no longer denies" in "".join(told([bucket], [held]))
    # Another program's bucket says nothing.
    assert told([resource("aws:s3/bucket:Bucket", bucket="other")], [held]) == []


def test_every_row_is_of_a_type_that_the_pack_looks_at() -> None:
    assert all(may_grant(type_) for type_ in EXTRACTORS)
