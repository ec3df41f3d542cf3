"""VPC endpoints: AWS services reached inside the VPC, for this account's own principals and resources only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws

from components.iam_documents import document, statement
from ringfence.names import Names


@dataclass(frozen=True)
class EndpointsArgs:
    """route_table_ids: key → table that routes to the S3 gateway endpoint. interface_services: e.g. ``("sts", "logs")``.

    interface_subnet_ids: zone → subnet of the interface endpoints. dynamodb_route_table_ids: as route_table_ids, for
    DynamoDB's. image_buckets: other accounts' buckets that images' layers are read from (`image_sources`).
    """

    names: Names
    vpc_id: pulumi.Input[str]
    vpc_cidr: str
    route_table_ids: Mapping[str, pulumi.Input[str]]
    interface_services: tuple[str, ...]
    interface_subnet_ids: Mapping[str, pulumi.Input[str]]
    dynamodb_route_table_ids: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    image_buckets: tuple[str, ...] = ()


def s3_endpoint_policy(names: Names, image_buckets: tuple[str, ...] = ()) -> str:
    """This account's principals on this account's buckets, reading two buckets of AWS's own that nodes need, and reading
    those that registries send nodes to: with addresses that the registry signed, or with no signature at all.

    Amazon ECR hands out pre-signed addresses in its layer bucket, signed by ECR and not by the node, so that statement
    can't name the account (docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html, "Minimum Amazon S3 bucket
    permissions"). Amazon Linux's packages are read without credentials
    (docs.aws.amazon.com/linux/al2023/ug/managing-repos-os-updates.html names the host al2023-repos-<region>-de612dc2).
    """
    account = {"aws:PrincipalAccount": names.account_id, "aws:ResourceAccount": names.account_id}
    buckets = (f"prod-{names.region}-starport-layer-bucket", f"al2023-repos-{names.region}-de612dc2")
    objects = [names.arn("s3", f"{bucket}/*", region="", account="") for bucket in buckets]
    statements = [
        statement("Allow", "s3:*", "*", {"StringEquals": account}, "*", "OwnAccountOnly"),
        statement("Allow", "s3:GetObject", objects, None, "*", "ReadImageLayersAndPackages"),
    ]
    if image_buckets:
        layers = [names.arn("s3", f"{bucket}/*", region="", account="") for bucket in image_buckets]
        statements.append(statement("Allow", "s3:GetObject", layers, None, "*", "ReadRegistriesLayers"))
    return document(*statements)


def dynamodb_endpoint_policy(names: Names) -> str:
    """This account's principals on this account's tables: whoever brings keys of another account is refused by AWS."""
    account = {"aws:PrincipalAccount": names.account_id, "aws:ResourceAccount": names.account_id}
    return document(statement("Allow", "dynamodb:*", "*", {"StringEquals": account}, "*", "OwnAccountOnly"))


def interface_endpoint_policy(names: Names) -> str:
    """Any action of the service, for this account's principals on this account's resources.

    `aws:ResourceAccount` is absent from requests that name no resource (sts:GetCallerIdentity), hence IfExists; images of
    EKS's own add-ons live in AWS's registries, which is why ECR's pull actions are not held to this account.
    """
    return document(
        statement(
            "Allow",
            "*",
            "*",
            {
                "StringEquals": {"aws:PrincipalAccount": names.account_id},
                "StringEqualsIfExists": {"aws:ResourceAccount": names.account_id},
            },
            "*",
            "OwnAccountOnly",
        ),
        statement(
            "Allow",
            ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
            "*",
            {"StringEquals": {"aws:PrincipalAccount": names.account_id}},
            "*",
            "PullImagesOfAddons",
        ),
    )


class Endpoints(pulumi.ComponentResource):
    """Ways to AWS services that don't leave the VPC.

    Makes: the gateway endpoints of S3 and DynamoDB (free) and their places in route tables; per listed service an interface
    endpoint with private DNS in every zone; their security group, open to the VPC on 443 only.
    Protects against: an allow-list of hosts that reaches everybody's buckets and tables; stolen credentials of another
    account used from inside; AWS calls over the internet.
    Trust zone: control side.

    Outputs: s3_endpoint_id; s3_prefix_list_id; interface_endpoint_ids (service → id); security_group_id (None without
    interface endpoints).
    """

    def __init__(self, name: str, args: EndpointsArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Endpoints", name, None, opts)
        names = args.names
        s3 = self._gateway(name, args, "s3", s3_endpoint_policy(names, args.image_buckets), args.route_table_ids)
        self._gateway(name, args, "dynamodb", dynamodb_endpoint_policy(names), args.dynamodb_route_table_ids)
        self.s3_endpoint_id: pulumi.Output[str] = s3.id
        self.s3_prefix_list_id: pulumi.Output[str] = s3.prefix_list_id
        self.security_group_id: pulumi.Output[str] | None = None
        self.interface_endpoint_ids: dict[str, pulumi.Output[str]] = {}
        if args.interface_services:
            self.security_group_id = self._security_group(name, args)
            self.interface_endpoint_ids = {s: self._interface(name, args, s) for s in args.interface_services}
        self.register_outputs({})

    def _gateway(
        self, name: str, args: EndpointsArgs, service: str, policy: str, tables: Mapping[str, pulumi.Input[str]]
    ) -> aws.ec2.VpcEndpoint:
        child = pulumi.ResourceOptions(parent=self)
        endpoint = aws.ec2.VpcEndpoint(
            f"{name}-{service}",
            vpc_id=args.vpc_id,
            service_name=f"com.amazonaws.{args.names.region}.{service}",
            vpc_endpoint_type="Gateway",
            policy=policy,
            tags=args.names.tags(service),
            opts=child,
        )
        for key, table in tables.items():
            aws.ec2.VpcEndpointRouteTableAssociation(
                f"{name}-{service}-{key}", vpc_endpoint_id=endpoint.id, route_table_id=table, opts=child
            )
        return endpoint

    def _security_group(self, name: str, args: EndpointsArgs) -> pulumi.Output[str]:
        group = aws.ec2.SecurityGroup(
            f"{name}-interface",
            name=args.names.name("endpoints"),
            description="Interface endpoints: HTTPS from inside the VPC",
            vpc_id=args.vpc_id,
            tags=args.names.tags("endpoints"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-interface-https",
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            cidr_ipv4=args.vpc_cidr,
            description="HTTPS from the VPC",
            tags=args.names.tags(),
            opts=pulumi.ResourceOptions(parent=self),
        )
        return group.id

    def _interface(self, name: str, args: EndpointsArgs, service: str) -> pulumi.Output[str]:
        child = pulumi.ResourceOptions(parent=self)
        key = service.replace(".", "-")
        endpoint = aws.ec2.VpcEndpoint(
            f"{name}-{key}",
            vpc_id=args.vpc_id,
            service_name=f"com.amazonaws.{args.names.region}.{service}",
            vpc_endpoint_type="Interface",
            private_dns_enabled=True,
            security_group_ids=[self.security_group_id],
            policy=interface_endpoint_policy(args.names),
            tags=args.names.tags(key),
            # Subnets are associated one by one below, so that a new zone changes no other zone's endpoint.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["subnetIds"]),
        )
        for zone, subnet in args.interface_subnet_ids.items():
            aws.ec2.VpcEndpointSubnetAssociation(
                f"{name}-{key}-{zone}", vpc_endpoint_id=endpoint.id, subnet_id=subnet, opts=child
            )
        return endpoint.id
