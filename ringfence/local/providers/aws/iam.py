"""IAM: roles, policies, their attachment, instance profiles, OIDC providers."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.documents import canonical_json
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values
from ringfence.local.providers.aws.schema import boolean, integer, policy, record_set, string, string_set, strings, tags
from ringfence.local.providers.base import ProviderError

# IAM keeps five versions of a managed policy (IAM quotas).
_POLICY_VERSIONS = 5


def _pages(cloud: Cloud, operation: str, member: str, **parameters: Any) -> Iterator[Any]:
    for page in cloud.client("iam").get_paginator(operation).paginate(**parameters):
        yield from page[member]


def _tagging(kind: str, parameter: str, resource: str) -> Tagging:
    return Tagging(tag=f"tag_{kind}", untag=f"untag_{kind}", parameter=parameter, resource=resource)


def _attached(cloud: Cloud, role: str) -> list[str]:
    found = _pages(cloud, "list_attached_role_policies", "AttachedPolicies", RoleName=role)
    return sorted(entry["PolicyArn"] for entry in found)


def _inline_names(cloud: Cloud, role: str) -> list[str]:
    return sorted(_pages(cloud, "list_role_policies", "PolicyNames", RoleName=role))


def _inline(cloud: Cloud, role: str) -> list[Values]:
    documents = (
        cloud.call("iam", "get_role_policy", RoleName=role, PolicyName=name) for name in _inline_names(cloud, role)
    )
    return [{"name": one["PolicyName"], "policy": canonical_json(one["PolicyDocument"])} for one in documents]


class Role(Resource):
    """A role. Policies that it doesn't declare are shown as outputs, as the official provider does."""

    pulumi_type = "aws:iam/role:Role"
    service = "iam"
    props = {
        "name": string(api="RoleName", replace=True),
        "path": string(replace=True, default="/"),
        "assumeRolePolicy": policy(api="AssumeRolePolicyDocument", required=True),
        "description": string(default=""),
        "maxSessionDuration": integer(default=3600),
        "permissionsBoundary": string(),
        "forceDetachPolicies": boolean(api=None, default=False, write_only=True),
        "inlinePolicies": record_set(
            {"name": string(required=True), "policy": policy(required=True)}, api=None, computed=True
        ),
        "managedPolicyArns": string_set(api=None, computed=True),
        "tags": tags(),
    }
    outputs = {"arn": "Arn", "uniqueId": "RoleId", "createDate": "CreateDate"}
    known = {"arn": "arn:{partition}:iam::{account}:role{path}{name}"}
    auto_name = AutoName(limit=64)
    create_operation = "create_role"
    create_member = read_member = "Role"
    read_operation = "get_role"
    delete_operation = "delete_role"
    keys = {"RoleName": "id"}
    tagging = _tagging("role", "RoleName", "id")

    def state_of(self, described: Values) -> Values:
        boundary = described.get("PermissionsBoundary") or {}
        state = super().state_of({name: value for name, value in described.items() if name != "PermissionsBoundary"})
        if isinstance(boundary, dict) and boundary.get("PermissionsBoundaryArn"):
            state["permissionsBoundary"] = boundary["PermissionsBoundaryArn"]
        return state

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._put_inline(cloud, id_, [], state.get("inlinePolicies"))
        for arn in state.get("managedPolicyArns") or []:
            cloud.call("iam", "attach_role_policy", RoleName=id_, PolicyArn=arn)

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is not None:
            live["managedPolicyArns"] = _attached(cloud, id_)
            live["inlinePolicies"] = _inline(cloud, id_)
        return live

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "assumeRolePolicy" in changed:
            cloud.call("iam", "update_assume_role_policy", RoleName=id_, PolicyDocument=new["assumeRolePolicy"])
        if changed & {"description", "maxSessionDuration"}:
            values = {"Description": new["description"], "MaxSessionDuration": new["maxSessionDuration"]}
            cloud.call("iam", "update_role", RoleName=id_, **values)
        if "permissionsBoundary" in changed:
            if new.get("permissionsBoundary"):
                boundary = new["permissionsBoundary"]
                cloud.call("iam", "put_role_permissions_boundary", RoleName=id_, PermissionsBoundary=boundary)
            else:
                cloud.call("iam", "delete_role_permissions_boundary", RoleName=id_)
        if "inlinePolicies" in changed:
            self._put_inline(cloud, id_, _inline_names(cloud, id_), new.get("inlinePolicies"))
        if "managedPolicyArns" in changed:
            _set_attached(cloud, id_, new.get("managedPolicyArns") or [])

    @staticmethod
    def _put_inline(cloud: Cloud, role: str, present: list[str], wanted: list[Values] | None) -> None:
        for entry in wanted or []:
            cloud.call(
                "iam", "put_role_policy", RoleName=role, PolicyName=entry["name"], PolicyDocument=entry["policy"]
            )
        for name in set(present) - {entry["name"] for entry in wanted or []}:
            cloud.call("iam", "delete_role_policy", RoleName=role, PolicyName=name)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        force = state.get("forceDetachPolicies")
        # A role that declares its policies deletes them itself; others are separate resources or unexplained.
        for arn in _attached(cloud, id_) if force or state.get("managedPolicyArns") else []:
            cloud.call("iam", "detach_role_policy", RoleName=id_, PolicyArn=arn)
        for name in _inline_names(cloud, id_) if force or state.get("inlinePolicies") else []:
            cloud.call("iam", "delete_role_policy", RoleName=id_, PolicyName=name)
        try:
            super().delete(cloud, id_, state)
        except cloud.client("iam").exceptions.DeleteConflictException as error:
            raise ProviderError(
                f"{self.pulumi_type}: {id_} still has policies or instance profiles that this stack doesn't know. Bring it "
                "back to what is declared with `pulumi up --refresh`, or declare forceDetachPolicies, then try again."
            ) from error


def _set_attached(cloud: Cloud, role: str, wanted: list[str]) -> None:
    present = set(_attached(cloud, role))
    for arn in sorted(set(wanted) - present):
        cloud.call("iam", "attach_role_policy", RoleName=role, PolicyArn=arn)
    for arn in sorted(present - set(wanted)):
        cloud.call("iam", "detach_role_policy", RoleName=role, PolicyArn=arn)


class Policy(Resource):
    """A customer managed policy. A change makes a new default version; the oldest is dropped when there are five."""

    pulumi_type = "aws:iam/policy:Policy"
    service = "iam"
    props = {
        "name": string(api="PolicyName", replace=True),
        "path": string(replace=True, default="/"),
        "description": string(replace=True, default=""),
        "policy": policy(api="PolicyDocument", required=True),
        "tags": tags(),
    }
    outputs = {"arn": "Arn", "policyId": "PolicyId", "attachmentCount": "AttachmentCount"}
    known = {"arn": "arn:{partition}:iam::{account}:policy{path}{name}"}
    auto_name = AutoName(limit=128)
    id_path = "Arn"
    create_operation = "create_policy"
    create_member = read_member = "Policy"
    read_operation = "get_policy"
    delete_operation = "delete_policy"
    keys = {"PolicyArn": "id"}
    tagging = _tagging("policy", "PolicyArn", "id")

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        described = super().describe(cloud, id_, state)
        if described is None:
            return None
        version = described["DefaultVersionId"]
        document = cloud.call("iam", "get_policy_version", PolicyArn=id_, VersionId=version)["PolicyVersion"][
            "Document"
        ]
        return described | {"PolicyDocument": document}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        versions = self._versions(cloud, id_)
        if len(versions) >= _POLICY_VERSIONS:
            oldest = min((one for one in versions if not one["IsDefaultVersion"]), key=lambda one: one["CreateDate"])
            cloud.call("iam", "delete_policy_version", PolicyArn=id_, VersionId=oldest["VersionId"])
        cloud.call("iam", "create_policy_version", PolicyArn=id_, PolicyDocument=new["policy"], SetAsDefault=True)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        for version in self._versions(cloud, id_):
            if not version["IsDefaultVersion"]:
                cloud.call("iam", "delete_policy_version", PolicyArn=id_, VersionId=version["VersionId"])
        super().delete(cloud, id_, state)

    @staticmethod
    def _versions(cloud: Cloud, arn: str) -> list[Values]:
        return list(_pages(cloud, "list_policy_versions", "Versions", PolicyArn=arn))


class RolePolicy(Resource):
    """An inline policy of a role. Its id is ``<role>:<name>``."""

    pulumi_type = "aws:iam/rolePolicy:RolePolicy"
    service = "iam"
    props = {
        "name": string(api="PolicyName", replace=True),
        "role": string(api="RoleName", required=True, replace=True),
        "policy": policy(api="PolicyDocument", required=True),
    }
    auto_name = AutoName(limit=128)
    create_operation = update_operation = "put_role_policy"
    read_operation = "get_role_policy"
    delete_operation = "delete_role_policy"

    def identify(self, inputs: Values, described: Values) -> str:
        return f"{inputs['role']}:{inputs['name']}"

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        role, _, name = id_.partition(":")
        return {"RoleName": role, "PolicyName": name}


class RolePolicyAttachment(Resource):
    """The attachment of a managed policy to a role. Its id is ``<role>/<policy ARN>``, the form in which it is imported."""

    pulumi_type = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
    service = "iam"
    props = {
        "role": string(api="RoleName", required=True, replace=True),
        "policyArn": string(required=True, replace=True),
    }
    create_operation = "attach_role_policy"
    delete_operation = "detach_role_policy"

    def identify(self, inputs: Values, described: Values) -> str:
        return f"{inputs['role']}/{inputs['policyArn']}"

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        role, _, arn = id_.partition("/")
        return {"RoleName": role, "PolicyArn": arn}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = self.parameters(cloud, id_, state)
        return found if found["PolicyArn"] in _attached(cloud, found["RoleName"]) else None


class RolePoliciesExclusive(Resource):
    """The complete set of a role's inline policy names: one more is drift, and is deleted."""

    pulumi_type = "aws:iam/rolePoliciesExclusive:RolePoliciesExclusive"
    service = "iam"
    props = {
        "roleName": string(required=True, replace=True),
        "policyNames": string_set(required=True),
    }

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        self._set(cloud, inputs["roleName"], inputs["policyNames"])
        return inputs["roleName"], {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        return {"RoleName": id_, "PolicyNames": _inline_names(cloud, id_)}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._set(cloud, id_, new["policyNames"])

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        """Nothing: the policies are other resources; only the watch over the set ends."""

    @staticmethod
    def _set(cloud: Cloud, role: str, wanted: list[str]) -> None:
        for name in set(_inline_names(cloud, role)) - set(wanted):
            cloud.call("iam", "delete_role_policy", RoleName=role, PolicyName=name)


class RolePolicyAttachmentsExclusive(Resource):
    """The complete set of managed policies attached to a role: one more or one less is drift, and is mended."""

    pulumi_type = "aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive"
    service = "iam"
    props = {
        "roleName": string(required=True, replace=True),
        "policyArns": string_set(required=True),
    }

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        _set_attached(cloud, inputs["roleName"], inputs["policyArns"])
        return inputs["roleName"], {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        return {"RoleName": id_, "PolicyArns": _attached(cloud, id_)}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        _set_attached(cloud, id_, new["policyArns"])

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        """Nothing: the attachments are other resources; only the watch over the set ends."""


class InstanceProfile(Resource):
    """An instance profile and the one role in it."""

    pulumi_type = "aws:iam/instanceProfile:InstanceProfile"
    service = "iam"
    props = {
        "name": string(api="InstanceProfileName", replace=True),
        "path": string(replace=True, default="/"),
        "role": string(api=None),
        "tags": tags(),
    }
    outputs = {"arn": "Arn", "uniqueId": "InstanceProfileId", "createDate": "CreateDate"}
    known = {"arn": "arn:{partition}:iam::{account}:instance-profile{path}{name}"}
    auto_name = AutoName(limit=128)
    create_operation = "create_instance_profile"
    create_member = read_member = "InstanceProfile"
    read_operation = "get_instance_profile"
    delete_operation = "delete_instance_profile"
    keys = {"InstanceProfileName": "id"}
    tagging = _tagging("instance_profile", "InstanceProfileName", "id")

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("role"):
            cloud.call("iam", "add_role_to_instance_profile", InstanceProfileName=id_, RoleName=state["role"])

    def state_of(self, described: Values) -> Values:
        roles = described.get("Roles") or []
        return super().state_of(described) | ({"role": roles[0]["RoleName"]} if roles else {})

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._empty(cloud, id_)
        self.complete(cloud, id_, new)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._empty(cloud, id_)
        super().delete(cloud, id_, state)

    @staticmethod
    def _empty(cloud: Cloud, name: str) -> None:
        for role in cloud.call("iam", "get_instance_profile", InstanceProfileName=name)["InstanceProfile"]["Roles"]:
            cloud.call("iam", "remove_role_from_instance_profile", InstanceProfileName=name, RoleName=role["RoleName"])


class OpenIdConnectProvider(Resource):
    """An OIDC identity provider, such as that of CI. moto can't change its clients, so here that replaces it."""

    pulumi_type = "aws:iam/openIdConnectProvider:OpenIdConnectProvider"
    service = "iam"
    props = {
        "url": string(required=True, replace=True),
        "clientIdLists": strings(api="ClientIDList", required=True, replace=True),
        "thumbprintLists": strings(api="ThumbprintList", computed=True),
        "tags": tags(),
    }
    outputs = {"arn": "OpenIDConnectProviderArn"}
    id_path = "OpenIDConnectProviderArn"
    create_operation = "create_open_id_connect_provider"
    read_operation = "get_open_id_connect_provider"
    delete_operation = "delete_open_id_connect_provider"
    keys = {"OpenIDConnectProviderArn": "id"}
    tagging = _tagging("open_id_connect_provider", "OpenIDConnectProviderArn", "id")

    def expected(self, cloud: Cloud, inputs: Values) -> Values:
        state = super().expected(cloud, inputs)
        if isinstance(url := inputs["url"], str):
            host = url.removeprefix("https://")
            state["arn"] = f"arn:{cloud.partition}:iam::{cloud.account}:oidc-provider/{host}"
        return state

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if (url := state.get("url")) and not url.startswith("https://"):
            state["url"] = f"https://{url}"
        return state

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = super().describe(cloud, id_, state)
        return None if found is None else found | {"OpenIDConnectProviderArn": id_}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        parameters = {"OpenIDConnectProviderArn": id_, "ThumbprintList": new["thumbprintLists"]}
        cloud.call("iam", "update_open_id_connect_provider_thumbprint", **parameters)


RESOURCES = (
    Role,
    Policy,
    RolePolicy,
    RolePolicyAttachment,
    RolePoliciesExclusive,
    RolePolicyAttachmentsExclusive,
    InstanceProfile,
    OpenIdConnectProvider,
)
