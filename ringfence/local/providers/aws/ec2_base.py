"""What EC2's types have in common: tag specifications, and lists of described things of which the first is meant."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import Resource, Tagging, Values

TAGGING = Tagging(
    create="TagSpecifications",
    tag="create_tags",
    untag="delete_tags",
    parameter="Resources",
    keys_parameter="Tags",
    resource="id",
    many=True,
)


class Ec2Resource(Resource):
    """An EC2 type. kind: its resource type in tag specifications and in its ARN."""

    service = "ec2"
    kind: ClassVar[str] = ""
    tagging = TAGGING

    def create_tags(self, tags: Mapping[str, str]) -> Values:
        return {"TagSpecifications": [{"ResourceType": self.kind, "Tags": TAGGING.encode(tags)}]}

    def derived(self, cloud: Cloud, id_: str, state: Values) -> Values:
        found = super().derived(cloud, id_, state)
        if id_ and self.kind and not state.get("arn"):
            found["arn"] = f"arn:{cloud.partition}:ec2:{cloud.region}:{cloud.account}:{self.kind}/{id_}"
        return found


class Ec2Link(Ec2Resource):
    """An EC2 type without tags or ARN: something that ties two others together."""

    tagging = None


def first(cloud: Cloud, operation: str, member: str, **filters: str) -> Any:
    """The first described thing that matches all `filters` (names with ``_`` for ``-``, ``__`` for ``.``), or None."""
    wanted = [{"Name": name.replace("__", ".").replace("_", "-"), "Values": [value]} for name, value in filters.items()]
    return next(iter(cloud.call("ec2", operation, Filters=wanted)[member]), None)


def checksum(text: str) -> int:
    """The number that the official provider makes ids from."""
    return zlib.crc32(text.encode())
