"""Facts of IAM's own resource types."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from ringfence.review.facts import AT_PREVIEW, Fact, Slot, Unknown, last_part
from ringfence.review.resource import Resource, document_of

ROLE, USER, GROUP = "aws:iam/role:Role", "aws:iam/user:User", "aws:iam/group:Group"
POLICY = "aws:iam/policy:Policy"
TYPE_OF_KIND = {"role": ROLE, "user": USER, "group": GROUP}
# Stands in a subject for a name that isn't known at preview.
UNNAMED = "(name unknown)"


def own_name(resource: Resource) -> str:
    """The AWS name of a role, user, group or policy; its Pulumi name when AWS's is made up at creation."""
    name = resource.text("name", "roleName", "userName", "groupName", "managedPolicyName", "policyName")
    return name if isinstance(name, str) and name else resource.name


def principal(resource: Resource, prop: str, kind: str) -> str:
    """Subject of the role, user or group that a property names."""
    name = resource.target(prop, (TYPE_OF_KIND[kind],), own_name)
    return f"{kind}/{name}" if isinstance(name, str) and name else f"{kind}/{UNNAMED} of {resource.name}"


def policy_key(value: Any, linked: Resource | None = None) -> str:
    """Key of an attached policy: an AWS-managed one by ARN without partition, a customer's by ``policy/<name>``."""
    if linked is not None and linked.type == POLICY:
        return f"policy/{own_name(linked)}"
    if isinstance(value, Unknown):
        return UNNAMED
    parts = str(value).split(":", 5)
    if len(parts) == 6 and parts[4] == "aws":
        return f"aws:{parts[5]}"
    return f"policy/{last_part(str(value))}"


def _attached(subject: str, resource: Resource, prop: str, value: Any) -> Fact:
    linked = resource.linked(prop, POLICY)
    key = policy_key(value, linked)
    return Fact(subject, Slot.MANAGED, key, value if key == UNNAMED else key)


def _several_attached(subject: str, resource: Resource, prop: str) -> Iterator[Fact]:
    """A list of policy ARNs; those unknown at preview are told by the policies that they come from."""
    entries = resource.items(prop)
    keys = [policy_key(entry) for entry in entries if not isinstance(entry, Unknown)]
    unknown = [entry for entry in entries if isinstance(entry, Unknown)]
    origins = [policy_key(AT_PREVIEW, origin) for origin in resource.origins(prop, POLICY)] if unknown else []
    for key in (*keys, *origins):
        yield Fact(subject, Slot.MANAGED, key, key)
    # More than the policies that they can come from: one of them is of somewhere else.
    if len(unknown) > len(origins):
        yield Fact(subject, Slot.MANAGED, UNNAMED, unknown[0])


def boundary_of(resource: Resource) -> Any:
    """The boundary's key, None for none, `Unknown` when it can't be told."""
    value = resource.get("permissionsBoundary")
    if value is None or value == "":
        return None
    linked = resource.linked("permissionsBoundary", POLICY)
    return value if isinstance(value, Unknown) and linked is None else policy_key(value, linked)


def _role(resource: Resource) -> Iterator[Fact]:
    subject = f"role/{own_name(resource)}"
    yield Fact(subject, Slot.EXISTS, "", True)
    yield Fact(subject, Slot.TRUST, "", document_of(resource.get("assumeRolePolicy")))
    yield Fact(subject, Slot.BOUNDARY, "", boundary_of(resource))
    for entry in resource.items("inlinePolicies"):
        # A provider may report an empty entry for a role without inline policies.
        if isinstance(entry, Unknown):
            yield Fact(subject, Slot.INLINE, UNNAMED, entry)
        elif entry and entry.get("policy") is not None:
            yield Fact(subject, Slot.INLINE, str(entry.get("name") or ""), document_of(entry["policy"]))
    yield from _several_attached(subject, resource, "managedPolicyArns")


def _bare(kind: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        subject = f"{kind}/{own_name(resource)}"
        yield Fact(subject, Slot.EXISTS, "", True)
        if kind == "user":
            yield Fact(subject, Slot.BOUNDARY, "", boundary_of(resource))

    return extract


def _inline(kind: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        subject = principal(resource, kind, kind)
        yield Fact(subject, Slot.INLINE, own_name(resource), document_of(resource.get("policy")))

    return extract


def _attachment(kind: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        yield _attached(principal(resource, kind, kind), resource, "policyArn", resource.get("policyArn"))

    return extract


def _attachment_to_many(resource: Resource) -> Iterator[Fact]:
    for kind, type_ in TYPE_OF_KIND.items():
        entries = resource.items(f"{kind}s")
        names = [last_part(str(entry)) for entry in entries if not isinstance(entry, Unknown)]
        unknown = len(entries) - len(names)
        if unknown:
            linked = [own_name(other) for other in resource.links.get(f"{kind}s", ()) if other.type == type_]
            # More than the principals that they can come from: one of them is somebody else.
            names += linked if len(linked) >= unknown else [*linked, UNNAMED]
        for name in names:
            yield _attached(f"{kind}/{name}", resource, "policyArn", resource.get("policyArn"))


def _policies_exclusive(kind: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        subject = principal(resource, f"{kind}Name", kind)
        for name in resource.items("policyNames"):
            key = UNNAMED if isinstance(name, Unknown) else str(name)
            yield Fact(subject, Slot.INLINE_NAME, key, name)

    return extract


def _attachments_exclusive(kind: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        subject = principal(resource, f"{kind}Name", kind)
        yield from _several_attached(subject, resource, "policyArns")

    return extract


def _policy(resource: Resource) -> Iterator[Fact]:
    yield Fact(f"policy/{own_name(resource)}", Slot.DOCUMENT, "", document_of(resource.get("policy")))


def _instance_profile(resource: Resource) -> Iterator[Fact]:
    if resource.get("role") is not None:
        yield Fact(principal(resource, "role", "role"), Slot.INSTANCE_PROFILE, own_name(resource), True)


def _group_membership(resource: Resource) -> Iterator[Fact]:
    group = resource.target("group", (GROUP,), own_name)
    key = group if isinstance(group, str) else UNNAMED
    for user in resource.items("users"):
        subject = f"user/{UNNAMED if isinstance(user, Unknown) else last_part(str(user))}"
        yield Fact(subject, Slot.MEMBERSHIP, key, group if isinstance(group, Unknown) else True)


def _user_groups(resource: Resource) -> Iterator[Fact]:
    subject = principal(resource, "user", "user")
    for group in resource.items("groups"):
        key = UNNAMED if isinstance(group, Unknown) else str(group)
        yield Fact(subject, Slot.MEMBERSHIP, key, group if isinstance(group, Unknown) else True)


def _credential(what: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        # The types spell it in three ways.
        prop = next((name for name in ("userName", "username") if resource.get(name) is not None), "user")
        yield Fact(principal(resource, prop, "user"), Slot.CREDENTIAL, f"{what} {resource.name}", True)

    return extract


def _oidc(resource: Resource) -> Iterator[Fact]:
    url = resource.text("url")
    host = resource.name if isinstance(url, Unknown) else url.removeprefix("https://")
    audiences = document_of([*resource.items("clientIdLists")])
    value = url if isinstance(url, Unknown) else audiences if isinstance(audiences, Unknown) else sorted(audiences)
    yield Fact(f"oidc-provider/{host}", Slot.PROVIDER, "", value)


def _saml(resource: Resource) -> Iterator[Fact]:
    metadata = document_of(resource.get("samlMetadataDocument"))
    value = metadata if isinstance(metadata, Unknown) else hashlib.sha256(str(metadata).encode()).hexdigest()
    yield Fact(f"saml-provider/{own_name(resource)}", Slot.PROVIDER, "", value)


def _service_linked(resource: Resource) -> Iterator[Fact]:
    service = resource.text("awsServiceName")
    name = service if isinstance(service, str) else UNNAMED
    yield Fact(f"service-linked-role/{name}", Slot.EXISTS, "", service if isinstance(service, Unknown) else True)


EXTRACTORS: dict[str, Callable[[Resource], Iterator[Fact]]] = {
    ROLE: _role,
    USER: _bare("user"),
    GROUP: _bare("group"),
    POLICY: _policy,
    "aws:iam/rolePolicy:RolePolicy": _inline("role"),
    "aws:iam/userPolicy:UserPolicy": _inline("user"),
    "aws:iam/groupPolicy:GroupPolicy": _inline("group"),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": _attachment("role"),
    "aws:iam/userPolicyAttachment:UserPolicyAttachment": _attachment("user"),
    "aws:iam/groupPolicyAttachment:GroupPolicyAttachment": _attachment("group"),
    "aws:iam/policyAttachment:PolicyAttachment": _attachment_to_many,
    "aws:iam/rolePoliciesExclusive:RolePoliciesExclusive": _policies_exclusive("role"),
    "aws:iam/userPoliciesExclusive:UserPoliciesExclusive": _policies_exclusive("user"),
    "aws:iam/groupPoliciesExclusive:GroupPoliciesExclusive": _policies_exclusive("group"),
    "aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive": _attachments_exclusive("role"),
    "aws:iam/userPolicyAttachmentsExclusive:UserPolicyAttachmentsExclusive": _attachments_exclusive("user"),
    "aws:iam/groupPolicyAttachmentsExclusive:GroupPolicyAttachmentsExclusive": _attachments_exclusive("group"),
    "aws:iam/instanceProfile:InstanceProfile": _instance_profile,
    "aws:iam/groupMembership:GroupMembership": _group_membership,
    "aws:iam/userGroupMembership:UserGroupMembership": _user_groups,
    "aws:iam/accessKey:AccessKey": _credential("access key"),
    "aws:iam/userLoginProfile:UserLoginProfile": _credential("console password"),
    "aws:iam/serviceSpecificCredential:ServiceSpecificCredential": _credential("service credential"),
    "aws:iam/sshKey:SshKey": _credential("SSH key"),
    "aws:iam/signingCertificate:SigningCertificate": _credential("signing certificate"),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": _oidc,
    "aws:iam/samlProvider:SamlProvider": _saml,
    "aws:iam/serviceLinkedRole:ServiceLinkedRole": _service_linked,
}
