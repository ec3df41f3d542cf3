"""Every IAM type, through its whole life against the real server."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.local.providers.base import ProviderError
from tests.local.aws_provider.documents import allow, role, trust
from tests.local.aws_provider.life_cycle import Case, Made, World, live


def managed(world: World) -> Made:
    """A managed policy to attach."""
    return world.make("aws:iam/policy:Policy", policy=allow("s3:GetObject"))


def _retrust(world: World, made: Made) -> Any:
    return world.client("iam").update_assume_role_policy(RoleName=made.id, PolicyDocument=trust("lambda.amazonaws.com"))


def _reversion(world: World, made: Made) -> Any:
    document = allow("s3:*")
    return world.client("iam").create_policy_version(PolicyArn=made.id, PolicyDocument=document, SetAsDefault=True)


def _rewrite(world: World, made: Made) -> Any:
    name, document = made["name"], allow("*")
    return world.client("iam").put_role_policy(RoleName=made["role"], PolicyName=name, PolicyDocument=document)


def _attached_role(world: World) -> dict[str, Any]:
    one, other = role(world), managed(world)
    world.make("aws:iam/rolePolicyAttachment:RolePolicyAttachment", role=one.id, policyArn=other.id)
    return {"roleName": one.id, "policyArns": [other.id]}


def _role_with_policy(world: World) -> dict[str, Any]:
    one = role(world)
    world.make("aws:iam/rolePolicy:RolePolicy", name="own", role=one.id, policy=allow("s3:GetObject"))
    return {"roleName": one.id, "policyNames": ["own"]}


ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"

CASES = [
    Case(
        "aws:iam/role:Role",
        lambda world: {
            "name": world.name(),
            "description": "a tool",
            "path": "/tools/",
            "assumeRolePolicy": trust(),
            "maxSessionDuration": 7200,
            "permissionsBoundary": managed(world).id,
            "tags": {"ringfence.dev/environment": "local", "kind": "tool"},
        },
        update={"assumeRolePolicy": trust("eks.amazonaws.com"), "description": "", "tags": {"kind": "other"}},
        replace={"path": "/elsewhere/"},
        drift=_retrust,
        drifted="assumeRolePolicy",
    ),
    Case(
        "aws:iam/role:Role",
        lambda world: {
            "assumeRolePolicy": trust(),
            "inlinePolicies": [{"name": "one", "policy": allow("s3:GetObject")}],
            "managedPolicyArns": [managed(world).id],
        },
        update={"inlinePolicies": [{"name": "two", "policy": allow("s3:PutObject")}], "maxSessionDuration": 3601},
        drift=lambda world, made: world.client("iam").attach_role_policy(RoleName=made.id, PolicyArn=ADMINISTRATOR),
        drifted="managedPolicyArns",
    ),
    Case(
        "aws:iam/role:Role",
        lambda world: {"assumeRolePolicy": trust(), "tags": {"a": "b"}},
        update=lambda world: {"permissionsBoundary": managed(world).id, "tags": None},
        drift=lambda world, made: world.client("iam").tag_role(RoleName=made.id, Tags=[{"Key": "x.y", "Value": "1"}]),
        drifted='tags["x.y"]',
    ),
    Case(
        "aws:iam/policy:Policy",
        lambda world: {"name": world.name(), "description": "d", "policy": allow("s3:GetObject"), "tags": {"a": "b"}},
        update={"policy": allow("s3:GetObject", "s3:ListBucket"), "tags": {"a": "c"}},
        replace={"description": "another"},
        drift=_reversion,
        drifted="policy",
    ),
    Case(
        "aws:iam/rolePolicy:RolePolicy",
        lambda world: {"name": "own", "role": role(world).id, "policy": allow("s3:GetObject")},
        update={"policy": allow("s3:PutObject")},
        replace={"name": "other"},
        drift=_rewrite,
        drifted="policy",
    ),
    Case(
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        lambda world: {"role": role(world).id, "policyArn": managed(world).id},
        replace={"policyArn": ADMINISTRATOR},
        drift=lambda world, made: world.client("iam").detach_role_policy(
            RoleName=made["role"], PolicyArn=made["policyArn"]
        ),
        drifted="gone",
    ),
    Case(
        "aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive",
        _attached_role,
        drift=lambda world, made: world.client("iam").attach_role_policy(RoleName=made.id, PolicyArn=ADMINISTRATOR),
        drifted="policyArns",
        outlives=True,
    ),
    Case(
        "aws:iam/rolePoliciesExclusive:RolePoliciesExclusive",
        _role_with_policy,
        drift=lambda world, made: world.client("iam").put_role_policy(
            RoleName=made.id, PolicyName="more", PolicyDocument=allow("iam:*")
        ),
        drifted="policyNames",
        outlives=True,
    ),
    Case(
        "aws:iam/instanceProfile:InstanceProfile",
        lambda world: {"name": world.name(), "role": role(world).id, "tags": {"a": "b"}},
        update=lambda world: {"role": role(world).id, "tags": {"a": "c", "d": "e"}},
        replace={"path": "/x/"},
        drift=lambda world, made: world.client("iam").remove_role_from_instance_profile(
            InstanceProfileName=made.id, RoleName=made["role"]
        ),
        drifted="role",
        mended=False,
    ),
    Case(
        "aws:iam/openIdConnectProvider:OpenIdConnectProvider",
        lambda world: {
            "url": f"https://{world.name('ci')}.example.com",
            "clientIdLists": ["sts.amazonaws.com"],
            "thumbprintLists": ["a" * 40],
            "tags": {"a": "b"},
        },
        update={"thumbprintLists": ["b" * 40], "tags": {}},
        replace={"url": "https://other.example.com"},
        drift=lambda world, made: world.client("iam").update_open_id_connect_provider_thumbprint(
            OpenIDConnectProviderArn=made.id, ThumbprintList=["c" * 40]
        ),
        drifted="thumbprintLists",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_iam_resource_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


def test_a_role_that_was_widened_goes_only_when_that_is_declared_and_says_how(world: World) -> None:
    made = role(world)
    world.client("iam").attach_role_policy(RoleName=made.id, PolicyArn=ADMINISTRATOR)
    with pytest.raises(ProviderError, match="forceDetachPolicies"):
        world.delete(made)
    made.outputs["forceDetachPolicies"] = True
    world.delete(made)
    assert world.read(made) is None


def test_a_managed_policy_keeps_at_most_five_versions(world: World) -> None:
    made = managed(world)
    for index in range(7):
        world.update(made, made.inputs | {"policy": allow(f"s3:Get{index}")})
    versions = world.client("iam").list_policy_versions(PolicyArn=made.id)["Versions"]
    assert len(versions) == 5
    world.read(made)
    assert "s3:Get6" in made["policy"]
