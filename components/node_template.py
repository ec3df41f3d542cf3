"""Launch templates of nodes: instance metadata out of the containers' reach, encrypted disks, no way in."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from ringfence.names import Names


def node_launch_template(
    name: str,
    names: Names,
    thing: str,
    security_group_ids: Sequence[pulumi.Input[str]],
    disk_gib: int,
    parent: pulumi.Resource,
    user_data_base64: pulumi.Input[str] | None = None,
) -> aws.ec2.LaunchTemplate:
    """Makes the launch template of one pool. No key pair, no remote access, no image: EKS chooses its own AL2023."""
    return aws.ec2.LaunchTemplate(
        f"{name}-template",
        name=names.name(thing),
        update_default_version=True,
        # IMDSv2 with a hop limit of 1: an answer can't cross from the node into a pod's network namespace.
        metadata_options={
            "http_endpoint": "enabled",
            "http_tokens": "required",
            "http_put_response_hop_limit": 1,
            "instance_metadata_tags": "disabled",
        },
        block_device_mappings=[
            {
                "device_name": "/dev/xvda",  # AL2023's root volume
                "ebs": {
                    "volume_size": disk_gib,
                    "volume_type": "gp3",
                    "encrypted": "true",
                    "delete_on_termination": "true",
                },
            }
        ],
        vpc_security_group_ids=list(security_group_ids),
        user_data=user_data_base64,
        tag_specifications=[
            {"resource_type": kind, "tags": names.tags(thing)} for kind in ("instance", "volume", "network-interface")
        ],
        tags=names.tags(thing),
        opts=pulumi.ResourceOptions(parent=parent),
    )
