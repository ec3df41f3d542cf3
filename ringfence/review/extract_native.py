"""Facts of the same resources as declared through the aws-native provider (Cloud Control's property names)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from ringfence.review.extract_access import acl_facts
from ringfence.review.extract_eks import (
    access_config_value,
    entry_value,
    pod_identity_value,
    principal_key,
    role_key,
    scope_value,
)
from ringfence.review.extract_iam import UNNAMED, boundary_of, own_name, policy_key
from ringfence.review.extract_policies import bucket_name, permission_statement, subject_name
from ringfence.review.facts import Fact, Slot, Unknown, last_part
from ringfence.review.resource import Resource, document_of, first_unknown


def _principal(kind: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        subject = f"{kind}/{own_name(resource)}"
        yield Fact(subject, Slot.EXISTS, "", True)
        if kind == "role":
            yield Fact(subject, Slot.TRUST, "", document_of(resource.get("assumeRolePolicyDocument")))
        if kind != "group":
            yield Fact(subject, Slot.BOUNDARY, "", boundary_of(resource))
        for entry in resource.items("policies"):
            if isinstance(entry, Unknown):
                yield Fact(subject, Slot.INLINE, UNNAMED, entry)
            else:
                name = str(entry.get("policyName") or UNNAMED)
                yield Fact(subject, Slot.INLINE, name, document_of(entry.get("policyDocument")))
        for arn in resource.items("managedPolicyArns"):
            key = policy_key(arn)
            yield Fact(subject, Slot.MANAGED, key, arn if key == UNNAMED else key)
        for group in resource.items("groups"):
            key = UNNAMED if isinstance(group, Unknown) else str(group)
            yield Fact(subject, Slot.MEMBERSHIP, key, group if isinstance(group, Unknown) else True)

    return extract


def _inline(kind: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        name = resource.text(f"{kind}Name")
        subject = f"{kind}/{name}" if isinstance(name, str) else f"{kind}/{UNNAMED} of {resource.name}"
        key = resource.text("policyName")
        document = document_of(resource.get("policyDocument"))
        yield Fact(subject, Slot.INLINE, key if isinstance(key, str) else resource.name, document)

    return extract


def _managed(resource: Resource) -> Iterator[Fact]:
    name = own_name(resource)
    yield Fact(f"policy/{name}", Slot.DOCUMENT, "", document_of(resource.get("policyDocument")))
    for kind in ("role", "user", "group"):
        for holder in resource.items(f"{kind}s"):
            holder_name = UNNAMED if isinstance(holder, Unknown) else last_part(str(holder))
            yield Fact(f"{kind}/{holder_name}", Slot.MANAGED, f"policy/{name}", f"policy/{name}")


def _policy(kind: str, target: str, prop: str) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        value = resource.get(prop)
        if value is None:
            return
        targets = resource.items(target) or (own_name(resource),)
        for entry in targets:
            unknown = isinstance(entry, Unknown)
            name = f"{UNNAMED} of {resource.name}" if unknown else subject_name(kind, str(entry))
            yield Fact(f"{kind}/{name}", Slot.RESOURCE_POLICY, "", document_of(value))

    return extract


def _permission(resource: Resource) -> Iterator[Fact]:
    name = resource.text("functionName")
    subject = f"function/{last_part(name)}" if isinstance(name, str) else f"function/{UNNAMED} of {resource.name}"
    keys = ("action", "principal", "sourceAccount", "sourceArn", "functionName", "functionUrlAuthType")
    props = {key: resource.get(key) for key in keys} | {"principalOrgId": resource.get("principalOrgId")}
    document = first_unknown(props) or {"Version": "2012-10-17", "Statement": [permission_statement(props)]}
    yield Fact(subject, Slot.RESOURCE_POLICY, resource.name, document)


def _access_entry(resource: Resource) -> Iterator[Fact]:
    cluster = resource.text("clusterName")
    principal = resource.get("principalArn")
    key = principal_key(principal)
    subject = f"eks/{cluster if isinstance(cluster, str) else UNNAMED}/principal/{key}"
    unknown = principal if isinstance(principal, Unknown) else None
    value = entry_value(resource.text("type"), resource.items("kubernetesGroups"), resource.text("username"))
    yield Fact(subject, Slot.ACCESS_ENTRY, "", unknown or first_unknown(value) or value)
    for entry in resource.items("accessPolicies"):
        if isinstance(entry, Unknown):
            yield Fact(subject, Slot.ACCESS_POLICY, UNNAMED, entry)
        else:
            key = last_part(str(entry.get("policyArn")))
            yield Fact(subject, Slot.ACCESS_POLICY, key, first_unknown(entry) or scope_value(entry.get("accessScope")))


def _pod_identity(resource: Resource) -> Iterator[Fact]:
    parts = [resource.text(name) for name in ("clusterName", "namespace", "serviceAccount")]
    cluster, namespace, account = (UNNAMED if isinstance(part, Unknown) else part for part in parts)
    role, target = role_key(resource.get("roleArn")), role_key(resource.get("targetRoleArn"))
    value = pod_identity_value(role, target, resource.get("policy"), resource.get("disableSessionTags"))
    subject = f"eks/{cluster}/pod/{namespace}/{account}"
    yield Fact(subject, Slot.POD_IDENTITY, "", first_unknown([value, *parts]) or value)


def _cluster(resource: Resource) -> Iterator[Fact]:
    yield Fact(f"eks/{own_name(resource)}", Slot.CLUSTER_ACCESS, "", access_config_value(resource.get("accessConfig")))


def _addon(resource: Resource) -> Iterator[Fact]:
    cluster, addon = (
        UNNAMED if isinstance(x := resource.text(n), Unknown) else x for n in ("clusterName", "addonName")
    )
    for entry in resource.items("podIdentityAssociations"):
        unknown = first_unknown(entry)
        account = UNNAMED if unknown else entry.get("serviceAccount")
        value = unknown or pod_identity_value(entry.get("roleArn"), None, None, False)
        yield Fact(f"eks/{cluster}/addon/{addon}/{account}", Slot.POD_IDENTITY, "", value)
    role = resource.get("serviceAccountRoleArn")
    if role is not None:
        yield Fact(f"eks/{cluster}/addon/{addon}", Slot.POD_IDENTITY, "service account role", role_key(role))


def _function_url(resource: Resource) -> Iterator[Fact]:
    arn = resource.text("targetFunctionArn")
    name = f"{UNNAMED} of {resource.name}" if isinstance(arn, Unknown) else last_part(arn)
    yield Fact(f"function/{name}", Slot.FUNCTION_URL, "", resource.text("authType"))


def _instance_profile(resource: Resource) -> Iterator[Fact]:
    key = resource.text("instanceProfileName")
    key = key if isinstance(key, str) and key else resource.name
    for role in resource.items("roles"):
        unknown = isinstance(role, Unknown)
        subject = f"role/{UNNAMED} of {resource.name}" if unknown else f"role/{last_part(str(role))}"
        yield Fact(subject, Slot.INSTANCE_PROFILE, key, True)


def _group_members(resource: Resource) -> Iterator[Fact]:
    group = resource.text("groupName")
    for user in resource.items("users"):
        subject = f"user/{UNNAMED if isinstance(user, Unknown) else last_part(str(user))}"
        unknown = isinstance(group, Unknown)
        yield Fact(subject, Slot.MEMBERSHIP, UNNAMED if unknown else str(group), group if unknown else True)


def _oidc(resource: Resource) -> Iterator[Fact]:
    url, audiences = resource.text("url"), list(resource.items("clientIdList"))
    host = resource.name if isinstance(url, Unknown) else url.removeprefix("https://")
    value = first_unknown([url, audiences]) or sorted(map(str, audiences))
    yield Fact(f"oidc-provider/{host}", Slot.PROVIDER, "", value)


def _saml(resource: Resource) -> Iterator[Fact]:
    metadata = resource.get("samlMetadataDocument")
    value = first_unknown(metadata) or hashlib.sha256(str(metadata).encode()).hexdigest()
    yield Fact(f"saml-provider/{own_name(resource)}", Slot.PROVIDER, "", value)


def _service_linked(resource: Resource) -> Iterator[Fact]:
    service = resource.text("awsServiceName")
    unknown = isinstance(service, Unknown)
    yield Fact(f"service-linked-role/{UNNAMED if unknown else service}", Slot.EXISTS, "", service if unknown else True)


def _bucket(resource: Resource) -> Iterator[Fact]:
    yield from acl_facts(resource, "bucket", bucket_name(resource))


EXTRACTORS: dict[str, Callable[[Resource], Iterator[Fact]]] = {
    "aws-native:iam:Role": _principal("role"),
    "aws-native:iam:User": _principal("user"),
    "aws-native:iam:Group": _principal("group"),
    "aws-native:iam:RolePolicy": _inline("role"),
    "aws-native:iam:UserPolicy": _inline("user"),
    "aws-native:iam:GroupPolicy": _inline("group"),
    "aws-native:iam:ManagedPolicy": _managed,
    "aws-native:s3:BucketPolicy": _policy("bucket", "bucket", "policyDocument"),
    "aws-native:sqs:QueuePolicy": _policy("queue", "queues", "policyDocument"),
    "aws-native:sqs:QueueInlinePolicy": _policy("queue", "queue", "policyDocument"),
    "aws-native:sns:TopicPolicy": _policy("topic", "topics", "policyDocument"),
    "aws-native:sns:TopicInlinePolicy": _policy("topic", "topicArn", "policyDocument"),
    "aws-native:secretsmanager:ResourcePolicy": _policy("secret", "secretId", "resourcePolicy"),
    "aws-native:ecr:Repository": _policy("repository", "repositoryName", "repositoryPolicyText"),
    "aws-native:kms:Key": _policy("key", "", "keyPolicy"),
    "aws-native:lambda:Permission": _permission,
    "aws-native:eks:AccessEntry": _access_entry,
    "aws-native:eks:PodIdentityAssociation": _pod_identity,
    "aws-native:eks:Cluster": _cluster,
    "aws-native:eks:Addon": _addon,
    "aws-native:lambda:Url": _function_url,
    "aws-native:iam:InstanceProfile": _instance_profile,
    "aws-native:iam:UserToGroupAddition": _group_members,
    "aws-native:iam:OidcProvider": _oidc,
    "aws-native:iam:SamlProvider": _saml,
    "aws-native:iam:ServiceLinkedRole": _service_linked,
    "aws-native:s3:Bucket": _bucket,
}
