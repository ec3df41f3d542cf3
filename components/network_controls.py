"""Controls that a VPC of any make gets: flow logs; and those that only our own VPC gets: closed defaults, sandbox NACL."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from components.iam_documents import document, statement
from ringfence.names import Names

# What NetworkPolicy violations and scans are found by: the default fields plus direction, path and the kind of traffic.
_FLOW_LOG_FORMAT = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} "
    "${start} ${end} ${action} ${log-status} ${vpc-id} ${subnet-id} ${instance-id} ${tcp-flags} ${pkt-srcaddr} "
    "${pkt-dstaddr} ${flow-direction} ${traffic-path}"
)
_ANYWHERE = "0.0.0.0/0"


def flow_log_trust(names: Names) -> str:
    """Who may write flow logs: the service, for this account's flow logs only (confused deputy,
    docs.aws.amazon.com/vpc/latest/userguide/flow-logs-iam-role.html)."""
    conditions = {
        "StringEquals": {"aws:SourceAccount": names.account_id},
        "ArnLike": {"aws:SourceArn": names.arn("ec2", "vpc-flow-log/*")},
    }
    service = {"Service": "vpc-flow-logs.amazonaws.com"}
    return document(statement("Allow", "sts:AssumeRole", None, conditions, service))


def flow_log_permissions(names: Names) -> str:
    """Writing to the one log group; the service also lists groups before it starts."""
    group = names.arn("logs", f"log-group:{names.log_group('vpc-flow')}")
    return document(
        statement(
            "Allow", ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"], [group, f"{group}:*"]
        ),
        statement("Allow", "logs:DescribeLogGroups", names.arn("logs", "log-group:*")),
    )


def flow_log(
    name: str, names: Names, vpc_id: pulumi.Input[str], log_group_arn: pulumi.Input[str], parent: pulumi.Resource
) -> aws.ec2.FlowLog:
    """All traffic of the VPC, accepted and refused, to CloudWatch Logs by a role of its own."""
    child = pulumi.ResourceOptions(parent=parent)
    role = aws.iam.Role(
        f"{name}-flow-log-role",
        name=names.name("vpc-flow-log"),
        description="Writes the VPC's flow logs",
        assume_role_policy=flow_log_trust(names),
        tags=names.tags("vpc-flow-log"),
        opts=child,
    )
    policy = aws.iam.RolePolicy(
        f"{name}-flow-log-policy", name="write", role=role.name, policy=flow_log_permissions(names), opts=child
    )
    return aws.ec2.FlowLog(
        f"{name}-flow-log",
        vpc_id=vpc_id,
        traffic_type="ALL",
        log_destination_type="cloud-watch-logs",
        log_destination=log_group_arn,
        iam_role_arn=role.arn,
        max_aggregation_interval=60,
        log_format=_FLOW_LOG_FORMAT,
        tags=names.tags("vpc"),
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[policy]),
    )


def closed_default_security_group(
    name: str, names: Names, vpc_id: pulumi.Input[str], parent: pulumi.Resource
) -> aws.ec2.DefaultSecurityGroup:
    """The group that AWS gives to whatever names none, emptied: nothing in, nothing out."""
    return aws.ec2.DefaultSecurityGroup(
        f"{name}-default",
        vpc_id=vpc_id,
        ingress=[],
        egress=[],
        tags=names.tags("default-closed"),
        opts=pulumi.ResourceOptions(parent=parent),
    )


def _entry(number: int, protocol: str, cidr: str, ports: tuple[int, int]) -> dict[str, object]:
    first, last = ports
    return {
        "rule_no": number, "action": "allow", "protocol": protocol, "cidr_block": cidr, "from_port": first, "to_port": last
    }  # fmt: skip


def sandbox_acl(
    name: str,
    names: Names,
    vpc_id: pulumi.Input[str],
    vpc_cidr: str,
    subnet_ids: Mapping[str, pulumi.Input[str]],
    parent: pulumi.Resource,
) -> aws.ec2.NetworkAcl:
    """A second wall around the sandbox subnets, which a mistaken route or security group does not open.

    Inside the VPC everything passes (security groups and NetworkPolicy decide there). Outside of it only HTTPS may leave
    and only TCP to ephemeral ports may come back. That is for the S3 gateway endpoint, whose addresses are public: a
    network ACL takes no prefix list, and S3's ranges change too often to name. Which public addresses that means is
    decided by the route table, which knows S3's prefix list and no default route. So with a default route added by
    mistake sandboxes still can't resolve by a resolver outside, use QUIC, SSH or mail, or be reached on a server's port.
    """
    acl = aws.ec2.NetworkAcl(
        f"{name}-sandbox-acl",
        vpc_id=vpc_id,
        ingress=[
            _entry(100, "-1", vpc_cidr, (0, 0)),
            # Every node's and gVisor's ephemeral range lies in this one (RFC 6056, section 3.2).
            _entry(200, "tcp", _ANYWHERE, (1024, 65535)),
        ],
        egress=[
            _entry(100, "-1", vpc_cidr, (0, 0)),
            _entry(200, "tcp", _ANYWHERE, (443, 443)),
        ],
        tags=names.tags("sandbox"),
        opts=pulumi.ResourceOptions(parent=parent),
    )
    for zone, subnet in subnet_ids.items():
        aws.ec2.NetworkAclAssociation(
            f"{name}-sandbox-acl-{zone}",
            network_acl_id=acl.id,
            subnet_id=subnet,
            opts=pulumi.ResourceOptions(parent=parent),
        )
    return acl
