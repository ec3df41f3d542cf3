"""EKS beyond moto: add-ons, access entries and their policies, pod identity, updates, and the cluster's newer settings."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Kind, Table, change, operations, tagging
from ringfence.local.aws_server.recorded.store import Context, Record, hex_id, new_uuid, now
from ringfence.local.aws_server.wire import ApiError

# Policies that EKS offers for access entries. Source: EKS User Guide, "Review access policy permissions".
ACCESS_POLICIES = (
    "AmazonEKSAdminPolicy",
    "AmazonEKSAdminViewPolicy",
    "AmazonEKSAutoNodePolicy",
    "AmazonEKSClusterAdminPolicy",
    "AmazonEKSEditPolicy",
    "AmazonEKSViewPolicy",
)
# Types of access entry whose user and group EKS itself sets. Source: the EKS API reference, CreateAccessEntry.
_NODE_USERS = {
    "EC2_LINUX": ("system:node:{{EC2PrivateDNSName}}", ["system:nodes"]),
    "EC2_WINDOWS": ("system:node:{{EC2PrivateDNSName}}", ["system:nodes", "eks:kube-proxy-windows"]),
    "FARGATE_LINUX": ("system:node:{{SessionName}}", ["system:node-proxier", "system:nodes"]),
}
_TOKENS = frozenset({"clientRequestToken", "resolveConflicts", "preserve"})


def cluster(context: Context) -> Any:
    """moto's cluster that a request names; raises ResourceNotFoundException."""
    from moto.eks.models import eks_backends

    name = context.params.get("clusterName") or context.params["name"]
    found = eks_backends[context.account][context.region].clusters.get(name)
    if found is None:
        raise ApiError("ResourceNotFoundException", f"No cluster found for name: {name}.", clusterName=name)
    return found


def _kept_tags(context: Context, arn: str) -> dict[str, str] | None:
    """The tags of node groups and Fargate profiles; moto finds only clusters by ARN."""
    from moto.eks.models import eks_backends

    for owner in eks_backends[context.account][context.region].clusters.values():
        made = {nodes.arn: nodes for nodes in owner.nodegroups.values()}
        made |= {profile.fargate_profile_arn: profile for profile in owner.fargate_profiles.values()}
        if arn in made:
            tags: dict[str, str] = made[arn].tags
            return tags
    return None


def _needs_cluster(context: Context, _record: Record | None) -> None:
    cluster(context)


def record_update(context: Context, type_: str, resource: str = "") -> dict[str, Any]:
    """An EKS update that is already done, readable by DescribeUpdate."""
    skipped = _TOKENS | {"clusterName", "name", "addonName", "nodegroupName"}
    given = {name: value for name, value in context.params.items() if name not in skipped}
    update = {
        "id": new_uuid(),
        "status": "Successful",
        "type": type_,
        "params": [{"type": name[0].upper() + name[1:], "value": str(value)} for name, value in given.items()],
        "createdAt": now(),
        "errors": [],
    }
    name = context.params.get("clusterName") or context.params["name"]
    context.records("update", "eks")[(name, update["id"])] = Record({**update, "name": name, "resource": resource})
    return {"update": update}


def _describe_update(context: Context) -> dict[str, Any]:
    name, update_id = context.params["name"], context.params["updateId"]
    found = context.records("update").get((name, update_id))
    if found is None:
        raise ApiError("ResourceNotFoundException", f"No update found for ID: {update_id}.")
    return {"update": found.attributes}


def _list_updates(context: Context) -> dict[str, Any]:
    cluster(context)
    resource = context.params.get("addonName") or context.params.get("nodegroupName") or ""
    found = [r.attributes for (name, _), r in context.records("update").items() if name == context.params["name"]]
    return {"updateIds": [update["id"] for update in found if update["resource"] == resource]}


def _build_addon(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    if not given.get("addonVersion"):
        raise ApiError(
            "InvalidParameterException",
            "addonVersion: give one; this recorded service doesn't know which version AWS would take by default.",
        )
    name, addon = given["clusterName"], given["addonName"]
    arn = context.arn("eks", f"addon/{name}/{addon}/{new_uuid()}")
    pods = given.pop("podIdentityAssociations", [])
    attributes = {**given, "addonArn": arn, "status": "ACTIVE", "health": {"issues": []}}
    if pods:
        attributes["podIdentityAssociations"] = _own_associations(context, arn, pods)
    return attributes


def _own_associations(context: Context, owner: str, wanted: list[dict[str, str]]) -> list[str]:
    """Makes the pod identity associations that an add-on owns be exactly `wanted`; answers their ARNs."""
    records = context.records("podIdentityAssociation", "eks")
    for key in [key for key, record in records.items() if record.attributes.get("ownerArn") == owner]:
        del records[key]
    arns = []
    for item in wanted:
        given = {
            "clusterName": context.params["clusterName"],
            "namespace": "kube-system",
            "serviceAccount": item["serviceAccount"],
            "roleArn": item["roleArn"],
            "ownerArn": owner,
        }
        arns.append(ASSOCIATION.add(context, _build_association(context, given), {}).attributes["associationArn"])
    return arns


def _update_addon(context: Context) -> dict[str, Any]:
    cluster(context)
    _, record = ADDON.find(context)
    params = dict(context.params)
    if "podIdentityAssociations" in params:
        arn = record.attributes["addonArn"]
        params["podIdentityAssociations"] = _own_associations(context, arn, params["podIdentityAssociations"])
    change(ADDON, record, params)
    return record_update(context, "AddonUpdate", context.params["addonName"])


def _forget_owned(context: Context, record: Record) -> None:
    _own_associations(context, record.attributes["addonArn"], [])


def _build_access_entry(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    principal = given["principalArn"]
    kind = given.setdefault("type", "STANDARD")
    path = principal.split(":", 5)[5] if principal.count(":") >= 5 else principal
    noun, _, name = path.partition("/")
    user, groups = _NODE_USERS.get(kind, ("", []))
    if user and (given.get("username") or given.get("kubernetesGroups")):
        raise ApiError("InvalidParameterException", f"username and kubernetesGroups can't be given for type {kind}.")
    if not user:
        role = principal.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
        user = f"{role}/{{{{SessionName}}}}" if noun == "role" else principal
    account = principal.split(":")[4] if principal.count(":") >= 5 else context.account
    cluster_name = given["clusterName"]
    return {
        "kubernetesGroups": groups,
        "username": user,
        **given,
        "accessEntryArn": context.arn(
            "eks", f"access-entry/{cluster_name}/{noun}/{account}/{name.rsplit('/', 1)[-1]}/{new_uuid()}"
        ),
    }


def _forget_policies(context: Context, record: Record) -> None:
    records = context.records("accessPolicyAssociation")
    owner = (record.attributes["clusterName"], record.attributes["principalArn"])
    for key in [key for key in records if key[:2] == owner]:
        del records[key]


def _associate_policy(context: Context) -> dict[str, Any]:
    cluster(context)
    ACCESS_ENTRY.find(context)
    params = context.params
    known = {f"arn:{context.partition}:eks::aws:cluster-access-policy/{name}" for name in ACCESS_POLICIES}
    if params["policyArn"] not in known:
        raise ApiError(
            "InvalidParameterException", f"policyArn: {params['policyArn']} is none of {', '.join(sorted(known))}."
        )
    scope = params["accessScope"]
    if (scope.get("type") == "namespace") != bool(scope.get("namespaces")):
        raise ApiError("InvalidParameterException", "accessScope: namespaces go with type namespace, and only with it.")
    key = (params["clusterName"], params["principalArn"], params["policyArn"])
    records = context.records("accessPolicyAssociation")
    first = records[key].attributes["associatedAt"] if key in records else now()
    attributes = {**params, "associatedAt": first, "modifiedAt": now()}
    records[key] = Record(attributes)
    return {**params, "associatedAccessPolicy": attributes}


def _disassociate_policy(context: Context) -> dict[str, Any]:
    cluster(context)
    ACCESS_ENTRY.find(context)
    params = context.params
    key = (params["clusterName"], params["principalArn"], params["policyArn"])
    if context.records("accessPolicyAssociation").pop(key, None) is None:
        raise ApiError("ResourceNotFoundException", f"The policy {key[2]} is not associated with {key[1]}.")
    return {}


def _list_associated(context: Context) -> dict[str, Any]:
    cluster(context)
    ACCESS_ENTRY.find(context)
    owner = (context.params["clusterName"], context.params["principalArn"])
    found = [r.attributes for key, r in context.records("accessPolicyAssociation").items() if key[:2] == owner]
    return {"clusterName": owner[0], "principalArn": owner[1], "associatedAccessPolicies": found}


def _list_access_policies(context: Context) -> dict[str, Any]:
    prefix = f"arn:{context.partition}:eks::aws:cluster-access-policy/"
    return {"accessPolicies": [{"name": name, "arn": prefix + name} for name in ACCESS_POLICIES]}


def _build_association(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    association = f"a-{hex_id(17)}"
    arn = context.arn("eks", f"podidentityassociation/{given['clusterName']}/{association}")
    return {"disableSessionTags": False, **given, "associationId": association, "associationArn": arn}


ADDON = Kind(
    service="eks",
    name="addon",
    identity={"clusterName": "clusterName", "addonName": "addonName"},
    arn="addonArn",
    create="CreateAddon",
    describe="DescribeAddon",
    list="ListAddons",
    delete="DeleteAddon",
    answer="addon",
    listing="addons",
    listed="addonName",
    filters={"clusterName": "clusterName"},
    build=_build_addon,
    omit=_TOKENS,
    stamps=("createdAt", "modifiedAt"),
    check_create=_needs_cluster,
    check_list=_needs_cluster,
    after_delete=_forget_owned,
)
ACCESS_ENTRY = Kind(
    service="eks",
    name="accessEntry",
    identity={"clusterName": "clusterName", "principalArn": "principalArn"},
    arn="accessEntryArn",
    create="CreateAccessEntry",
    describe="DescribeAccessEntry",
    list="ListAccessEntries",
    update="UpdateAccessEntry",
    delete="DeleteAccessEntry",
    answer="accessEntry",
    listing="accessEntries",
    listed="principalArn",
    filters={"clusterName": "clusterName"},
    build=_build_access_entry,
    omit=_TOKENS,
    stamps=("createdAt", "modifiedAt"),
    check_create=_needs_cluster,
    check_list=_needs_cluster,
    after_delete=_forget_policies,
)
ASSOCIATION = Kind(
    service="eks",
    name="podIdentityAssociation",
    identity={"clusterName": "clusterName", "associationId": "associationId"},
    key=("clusterName", "namespace", "serviceAccount"),
    arn="associationArn",
    create="CreatePodIdentityAssociation",
    describe="DescribePodIdentityAssociation",
    list="ListPodIdentityAssociations",
    update="UpdatePodIdentityAssociation",
    delete="DeletePodIdentityAssociation",
    answer="association",
    listing="associations",
    filters={"clusterName": "clusterName", "namespace": "namespace", "serviceAccount": "serviceAccount"},
    build=_build_association,
    omit=_TOKENS,
    stamps=("createdAt", "modifiedAt"),
    check_create=_needs_cluster,
    check_list=_needs_cluster,
)
KINDS = (ADDON, ACCESS_ENTRY, ASSOCIATION)
TABLE: Table = {
    **{name: handler for kind in KINDS for name, handler in operations(kind).items()},
    **tagging(KINDS, "resourceArn", "tags", "tagKeys", _kept_tags),
    "UpdateAddon": _update_addon,
    "AssociateAccessPolicy": _associate_policy,
    "DisassociateAccessPolicy": _disassociate_policy,
    "ListAssociatedAccessPolicies": _list_associated,
    "ListAccessPolicies": _list_access_policies,
    "DescribeUpdate": _describe_update,
    "ListUpdates": _list_updates,
}
