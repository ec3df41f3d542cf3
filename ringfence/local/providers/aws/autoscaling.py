"""Auto Scaling: tags on groups that another service made, such as an EKS node group's."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import Resource, Values
from ringfence.local.providers.aws.schema import boolean, record, string

_GROUP = "auto-scaling-group"


class Tag(Resource):
    """One tag of one group. Its id is ``<group>,<key>``, the form in which it is imported."""

    pulumi_type = "aws:autoscaling/tag:Tag"
    service = "autoscaling"
    props = {
        "autoscalingGroupName": string(required=True, replace=True),
        "tag": record(
            {
                "key": string(required=True, replace=True),
                "value": string(required=True),
                "propagateAtLaunch": boolean(required=True),
            },
            required=True,
        ),
    }

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        self._put(cloud, inputs)
        return f"{inputs['autoscalingGroupName']},{inputs['tag']['key']}", {}

    @staticmethod
    def _put(cloud: Cloud, inputs: Values) -> None:
        tag = inputs["tag"]
        whole = {
            "ResourceId": inputs["autoscalingGroupName"],
            "ResourceType": _GROUP,
            "Key": tag["key"],
            "Value": tag["value"],
            "PropagateAtLaunch": tag["propagateAtLaunch"],
        }
        cloud.call("autoscaling", "create_or_update_tags", Tags=[whole])

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        group, _, key = id_.partition(",")
        wanted = [{"Name": "auto-scaling-group", "Values": [group]}, {"Name": "key", "Values": [key]}]
        for page in cloud.client("autoscaling").get_paginator("describe_tags").paginate(Filters=wanted):
            for found in page["Tags"]:
                if found["ResourceId"] == group and found["Key"] == key:
                    return {
                        "AutoscalingGroupName": group,
                        "Tag": {k: found[k] for k in ("Key", "Value", "PropagateAtLaunch")},
                    }
        return None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._put(cloud, new)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        group, _, key = id_.partition(",")
        cloud.call("autoscaling", "delete_tags", Tags=[{"ResourceId": group, "ResourceType": _GROUP, "Key": key}])


RESOURCES = (Tag,)
