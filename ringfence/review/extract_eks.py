"""Facts of cluster access: EKS access entries and policies, Pod Identity, and the older aws-auth map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ringfence.review.extract_iam import ROLE, UNNAMED, own_name
from ringfence.review.facts import Fact, Slot, Unknown, last_part
from ringfence.review.resource import Resource, first_unknown

CLUSTER = "aws:eks/cluster:Cluster"


def _cluster_name(resource: Resource) -> str:
    name = resource.target("clusterName", (CLUSTER,), own_name)
    return name if isinstance(name, str) else UNNAMED


def role_key(value: Any, linked: Resource | None = None) -> Any:
    """A role for comparison: its bare name, since account and path are the environment's own; else the ARN."""
    if linked is not None:
        return f"role/{own_name(linked)}"
    if isinstance(value, Unknown) or value is None:
        return value
    text = str(value)
    return f"role/{last_part(text)}" if ":role/" in text else text


def principal_key(value: Any, linked: Resource | None = None) -> str:
    """Who an access entry is for: ``role/x``, ``user/x``, else the ARN."""
    key = role_key(value, linked)
    if isinstance(key, Unknown):
        return UNNAMED
    return f"user/{last_part(key)}" if ":user/" in str(key) else str(key)


def _principal(resource: Resource) -> tuple[str, Any]:
    linked = resource.linked("principalArn", ROLE)
    value = resource.get("principalArn")
    key = principal_key(value, linked)
    return f"eks/{_cluster_name(resource)}/principal/{key}", value if key == UNNAMED else None


def _access_entry(resource: Resource) -> Iterator[Fact]:
    subject, unknown = _principal(resource)
    value = entry_value(resource.text("type"), resource.items("kubernetesGroups"), resource.text("userName"))
    yield Fact(subject, Slot.ACCESS_ENTRY, "", unknown or first_unknown(value) or value)


def entry_value(type_: Any, groups: Any, user_name: Any) -> dict[str, Any]:
    """What an access entry gives. AWS's own user name, which only repeats the principal, counts as none."""
    own = isinstance(user_name, str) and (user_name.startswith("arn:") or "{{" in user_name)
    groups = list(groups)
    ordered = groups if first_unknown(groups) else sorted(map(str, groups))
    return {"type": type_ or "STANDARD", "groups": ordered, "user": "" if own else user_name}


def scope_value(scope: Any) -> Any:
    """An access policy's scope as ``cluster`` or ``namespace a, b``."""
    if isinstance(scope, Unknown) or first_unknown(scope):
        return first_unknown(scope)
    scope = scope or {}
    namespaces = sorted(scope.get("namespaces") or ())
    return "cluster" if scope.get("type", "cluster") == "cluster" else f"namespace {', '.join(namespaces)}"


def _access_policy(resource: Resource) -> Iterator[Fact]:
    subject, unknown = _principal(resource)
    arn = resource.text("policyArn")
    key = last_part(arn) if isinstance(arn, str) else UNNAMED
    value = unknown or first_unknown(arn) or scope_value(resource.get("accessScope"))
    yield Fact(subject, Slot.ACCESS_POLICY, key, value)


def pod_identity_value(role: Any, target_role: Any, policy: Any, no_session_tags: Any) -> dict[str, Any]:
    """What an association gives the pods of a service account."""
    return {
        "role": role_key(role),
        "targetRole": role_key(target_role),
        "policy": policy or None,
        "sessionTags": not no_session_tags,
    }


def _pod_identity(resource: Resource) -> Iterator[Fact]:
    namespace, account = resource.text("namespace"), resource.text("serviceAccount")
    role = role_key(resource.get("roleArn"), resource.linked("roleArn", ROLE))
    target = role_key(resource.get("targetRoleArn"), resource.linked("targetRoleArn", ROLE))
    value = pod_identity_value(role, target, resource.get("policy"), resource.get("disableSessionTags"))
    subject = f"eks/{_cluster_name(resource)}/pod/{_known(namespace)}/{_known(account)}"
    yield Fact(subject, Slot.POD_IDENTITY, "", first_unknown([value, namespace, account]) or value)


def _known(value: Any) -> str:
    return UNNAMED if isinstance(value, Unknown) else str(value)


def _addon(resource: Resource) -> Iterator[Fact]:
    cluster = _cluster_name(resource)
    addon = _known(resource.text("addonName"))
    for entry in resource.items("podIdentityAssociations"):
        unknown = isinstance(entry, Unknown)
        account = UNNAMED if unknown else _known(entry.get("serviceAccount"))
        linked = resource.linked("podIdentityAssociations", ROLE)
        role = entry if unknown else role_key(entry.get("roleArn"), linked if first_unknown(entry) else None)
        value = pod_identity_value(role, None, None, False)
        yield Fact(f"eks/{cluster}/addon/{addon}/{account}", Slot.POD_IDENTITY, "", first_unknown(value) or value)
    if resource.get("serviceAccountRoleArn") is not None:
        value = role_key(resource.get("serviceAccountRoleArn"), resource.linked("serviceAccountRoleArn", ROLE))
        yield Fact(f"eks/{cluster}/addon/{addon}", Slot.POD_IDENTITY, "service account role", value)


def access_config_value(config: Any) -> Any:
    """How a cluster authenticates, with EKS's defaults filled in."""
    if first_unknown(config):
        return first_unknown(config)
    config = config or {}
    mode = config.get("authenticationMode") or "CONFIG_MAP"
    return {"mode": mode, "creatorIsAdmin": config.get("bootstrapClusterCreatorAdminPermissions") is not False}


def _cluster(resource: Resource) -> Iterator[Fact]:
    value = access_config_value(resource.get("accessConfig"))
    yield Fact(f"eks/{own_name(resource)}", Slot.CLUSTER_ACCESS, "", value)


def _config_map(resource: Resource) -> Iterator[Fact]:
    metadata = resource.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    # A name that isn't known may be this one: only the namespaces of other maps tell then.
    if not all(
        isinstance(found := metadata.get(key), Unknown) or found == wanted
        for key, wanted in (("name", "aws-auth"), ("namespace", "kube-system"))
    ):
        return
    yield from _auth_map(resource.get("data") or {})


def _config_maps(resource: Resource) -> Iterator[Fact]:
    for item in resource.items("items"):
        if isinstance(item, Unknown):
            yield Fact("eks/aws-auth", Slot.AUTH_MAP, UNNAMED, item)
        else:
            yield from _config_map(Resource(resource.type, resource.name, resource.urn, item))


def _auth_map(data: Any) -> Iterator[Fact]:
    unknown = first_unknown(data)
    for key in (UNNAMED,) if isinstance(data, Unknown) else sorted(data):
        yield Fact("eks/aws-auth", Slot.AUTH_MAP, key, unknown or data[key])


EXTRACTORS: dict[str, Callable[[Resource], Iterator[Fact]]] = {
    CLUSTER: _cluster,
    "aws:eks/accessEntry:AccessEntry": _access_entry,
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": _access_policy,
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": _pod_identity,
    "aws:eks/addon:Addon": _addon,
    "kubernetes:core/v1:ConfigMap": _config_map,
    "kubernetes:core/v1:ConfigMapPatch": _config_map,
    "kubernetes:core/v1:ConfigMapList": _config_maps,
}
