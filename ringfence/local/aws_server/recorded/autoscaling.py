"""Tags of the Auto Scaling groups of EKS node groups: moto makes a node group without making its Auto Scaling group."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import PASS, Context, Record
from ringfence.local.aws_server.wire import ApiError

KIND = "tag"
# The filters of DescribeTags, by the member of a tag that each looks at.
_FILTERS = {
    "auto-scaling-group": "ResourceId",
    "key": "Key",
    "value": "Value",
    "propagate-at-launch": "PropagateAtLaunch",
}


def _backend(context: Context) -> Any:
    from moto.autoscaling.models import autoscaling_backends

    return autoscaling_backends[context.account][context.region]


def _all_moto(context: Context) -> bool:
    """Whether a request is only about groups that moto has; raises ValidationError for a group that nobody has."""
    from moto.eks.models import eks_backends

    named = {tag["ResourceId"] for tag in context.params["Tags"]}
    own = {
        group["name"]
        for cluster in eks_backends[context.account][context.region].clusters.values()
        for nodes in cluster.nodegroups.values()
        for group in nodes.resources["autoScalingGroups"]
    }
    others = named - own
    missing = sorted(others - set(_backend(context).autoscaling_groups))
    if missing:
        raise ApiError("ValidationError", f"AutoScalingGroup name not found - {', '.join(missing)}")
    if others and named & own:
        raise ApiError(
            "ValidationError", "Groups of EKS node groups and other groups can't be tagged in one request here."
        )
    return bool(others)


def _put(context: Context) -> dict[str, Any] | object:
    if _all_moto(context):
        return PASS
    for tag in context.params["Tags"]:
        whole = {"ResourceType": "auto-scaling-group", "Value": "", "PropagateAtLaunch": False, **tag}
        context.records(KIND)[(whole["ResourceId"], whole["Key"])] = Record(whole)
    return {}


def _delete(context: Context) -> dict[str, Any] | object:
    if _all_moto(context):
        return PASS
    for tag in context.params["Tags"]:
        context.records(KIND).pop((tag["ResourceId"], tag["Key"]), None)
    return {}


def _describe(context: Context) -> dict[str, Any]:
    found = [record.attributes for record in context.records(KIND).values()]
    found += [{"PropagateAtLaunch": False, "Value": "", **tag} for tag in _backend(context).describe_tags([])]
    for wanted in context.params.get("Filters", []):
        if wanted.get("Name") not in _FILTERS:
            raise ApiError("ValidationError", f"Filter '{wanted.get('Name')}' is none of {', '.join(_FILTERS)}.")
        member, values = _FILTERS[wanted["Name"]], [value.lower() for value in wanted.get("Values", [])]
        found = [tag for tag in found if str(tag[member]).lower() in values]
    return {"Tags": found}


TABLE: Table = {"CreateOrUpdateTags": _put, "DeleteTags": _delete, "DescribeTags": _describe}
