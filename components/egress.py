"""The egress proxy: the only way out for sandboxes, on its own instances, so that it doesn't depend on what it guards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pulumi
import pulumi_aws as aws

from components.egress_access import instance_permissions, instance_trust
from components.egress_user_data import (
    BOOTSTRAP_KEY,
    LISTENERS_KEY,
    LISTENING_METRIC,
    ProxySpec,
    encoded,
    health_namespace,
    user_data,
)
from ringfence.artifacts import ARTIFACTS
from ringfence.catalog.model import EGRESS_PORT_FIRST, EGRESS_PORT_LAST
from ringfence.egress import envoy
from ringfence.egress.policy import EgressPolicy
from ringfence.egress.ports import NODE_PORT, private_zone
from ringfence.errors import InputError, Problem
from ringfence.names import Names

_ANYWHERE = "0.0.0.0/0"
# The standard image rather than the minimal one: it has the AWS CLI, with which the instance fetches Envoy and its rules.
DEFAULT_AMI = "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
_AMI = re.compile(r"^(ami-[0-9a-f]{8,17}|resolve:ssm:/[A-Za-z0-9/_.-]+)$")
_RECORD_TTL = 30


@dataclass(frozen=True)
class EgressArgs:
    """replicas: one proxy in the zone named first, or one in each. subnet_ids: public subnets by zone. policy: what may be
    reached. addresses: private address of each zone's proxy, inside its subnet; AWS chooses where none is given.

    nat: also forward the system subnets' HTTPS; then system_cidrs, by zone, are needed.
    ami: an id, or ``resolve:ssm:`` and a public parameter. internet: what public addresses need (`Network.internet`).
    depends_on: artifact bucket and log group.
    """

    names: Names
    zones: tuple[str, ...]
    vpc_id: pulumi.Input[str]
    vpc_cidr: str
    subnet_ids: Mapping[str, pulumi.Input[str]]
    policy: EgressPolicy
    replicas: Literal["single", "per-zone"] = "single"
    addresses: Mapping[str, str] = field(default_factory=dict)
    nat: bool = False
    system_cidrs: Mapping[str, str] = field(default_factory=dict)
    instance_type: str = "t4g.nano"
    architecture: str = "arm64"
    ami: str = DEFAULT_AMI
    disk_gib: int = 8
    internet: tuple[pulumi.Resource, ...] = ()
    depends_on: tuple[pulumi.Resource, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """The proxy as its clients see it. host is known at preview; tool_ports: first and last port of tools' listeners."""

    host: str
    node_port: int
    tool_ports: tuple[int, int]
    security_group_id: pulumi.Output[str]


def _check(args: EgressArgs) -> None:
    problems = []
    if not args.zones or set(args.zones) - set(args.subnet_ids):
        missing = sorted(set(args.zones) - set(args.subnet_ids)) or "every zone"
        problems.append(Problem("egress", "subnet_ids", f"no public subnet for {missing}", "give one for each zone"))
    if not _AMI.match(args.ami):
        problems.append(Problem("egress", "ami", f"{args.ami!r} is no image", "ami-… or resolve:ssm:/aws/service/…"))
    if args.nat and not args.system_cidrs:
        remedy = "pass system_cidrs, or switch nat off"
        problems.append(Problem("egress", "nat", "has no system subnets to forward", remedy))
    if problems:
        raise InputError(problems)


class Egress(pulumi.ComponentResource):
    """Envoy as an HTTP CONNECT proxy with a port for each tool; on request also the system subnets' NAT.

    Makes: per proxy a network interface with fixed private address, an Elastic IP on it, an instance and the alarms that
    recover or restart it; one launch template, security group, instance role; the proxy's configuration as objects in the
    artifact bucket; where the address isn't known beforehand, or there are several, a private name for them.
    Protects against: sandboxes that reach anything but their tools' domains; other ports, addresses instead of names,
    names that lead to private or link-local addresses, a TLS server name other than the one that was asked for, what
    isn't TLS; connections that nobody recorded; a proxy that stands or falls with the cluster.
    Does not see: what is inside TLS, and a second site behind a listed host's own front end (domain fronting, ECH).
    Trust zone: control side.

    An instance rather than an auto scaling group: its interface outlives it, so address and routes never move, and its
    role needs no EC2 permission to attach anything. Host failures are recovered by EC2, hung systems restarted by alarm.

    Outputs: endpoint (`Endpoint`); ports (tool → port, known at preview); private_addresses and public_addresses
    (zone → address); instance_ids and nat_interface_ids (zone → id; the latter empty without nat); security_group_id.
    """

    def __init__(self, name: str, args: EgressArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Egress", name, None, opts)
        _check(args)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        homes = args.zones if args.replicas == "per-zone" else args.zones[:1]
        spec = ProxySpec(args.names, args.vpc_cidr if args.nat else "", args.architecture)
        self.ports: dict[str, int] = args.policy.ports()
        configured = self._configuration()
        self.security_group_id: pulumi.Output[str] = self._security_group()
        template = self._template(spec, self._profile())
        interfaces = {zone: self._interface(zone) for zone in homes}
        self.private_addresses: dict[str, pulumi.Output[str]] = {z: i.private_ip for z, i in interfaces.items()}
        public = {zone: self._address(zone, interface) for zone, interface in interfaces.items()}
        self.public_addresses: dict[str, pulumi.Output[str]] = {zone: eip.public_ip for zone, eip in public.items()}
        instances = {
            zone: self._instance(zone, template, interfaces[zone], [public[zone], *configured]) for zone in homes
        }
        self.instance_ids: dict[str, pulumi.Output[str]] = {zone: item.id for zone, item in instances.items()}
        alarms = {zone: self._alarms(zone, instance) for zone, instance in instances.items()}
        self.nat_interface_ids: dict[str, pulumi.Output[str]] = {
            zone: interface.id for zone, interface in interfaces.items() if args.nat
        }
        host = self._host(homes, alarms)
        self.endpoint = Endpoint(host, NODE_PORT, (EGRESS_PORT_FIRST, EGRESS_PORT_LAST), self.security_group_id)
        self.register_outputs({})

    def _configuration(self) -> list[pulumi.Resource]:
        """Objects, not user data: a changed allow-list is fetched by running proxies and replaces none of them."""
        documents = {
            BOOTSTRAP_KEY: ("bootstrap", envoy.bootstrap()),
            LISTENERS_KEY: ("listeners", envoy.listeners(self._args.policy)),
        }
        return [
            aws.s3.BucketObjectv2(
                f"{self._name}-{part}",
                bucket=self._args.names.bucket(ARTIFACTS),
                key=key,
                content=envoy.text(document),
                content_type="application/json",
                tags=self._args.names.tags(),
                opts=pulumi.ResourceOptions(parent=self, depends_on=list(self._args.depends_on)),
            )
            for key, (part, document) in documents.items()
        ]

    def _security_group(self) -> pulumi.Output[str]:
        """Who may come in by a listener is said by rules of the pools that use it; here only NAT's clients are."""
        names = self._args.names
        group = aws.ec2.SecurityGroup(
            f"{self._name}-proxy",
            name=names.name("egress"),
            description="Egress proxies",
            vpc_id=self._args.vpc_id,
            tags=names.tags("egress"),
            opts=self._child,
        )
        # DNS is missing on purpose: traffic to the VPC's own resolver passes no security group.
        aws.vpc.SecurityGroupEgressRule(
            f"{self._name}-https-out",
            security_group_id=group.id,
            cidr_ipv4=_ANYWHERE,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            description="HTTPS to the internet",
            tags=names.tags(),
            opts=self._child,
        )
        for zone, cidr in self._args.system_cidrs.items() if self._args.nat else ():
            aws.vpc.SecurityGroupIngressRule(
                f"{self._name}-nat-{zone}",
                security_group_id=group.id,
                cidr_ipv4=cidr,
                ip_protocol="tcp",
                from_port=443,
                to_port=443,
                description="HTTPS to forward",
                tags=names.tags(),
                opts=self._child,
            )
        return group.id

    def _profile(self) -> aws.iam.InstanceProfile:
        names = self._args.names
        role = aws.iam.Role(
            f"{self._name}-role",
            name=names.name("egress"),
            description="Egress proxies: fetch their configuration, write their log",
            assume_role_policy=instance_trust(),
            tags=names.tags("egress"),
            opts=self._child,
        )
        policy = aws.iam.RolePolicy(
            f"{self._name}-policy", name="own", role=role.name, policy=instance_permissions(names), opts=self._child
        )
        return aws.iam.InstanceProfile(
            f"{self._name}-profile",
            name=names.name("egress"),
            role=role.name,
            tags=names.tags("egress"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )

    def _template(self, spec: ProxySpec, profile: aws.iam.InstanceProfile) -> aws.ec2.LaunchTemplate:
        """What an instance is made of. A template, since only it resolves an image by parameter: a new image is taken
        when something else replaces the instance, and never makes a plan by itself."""
        names = self._args.names
        disk = {
            "encrypted": "true",
            "volume_size": self._args.disk_gib,
            "volume_type": "gp3",
            "delete_on_termination": "true",
        }
        return aws.ec2.LaunchTemplate(
            f"{self._name}-template",
            name=names.name("egress"),
            description="Egress proxies",
            image_id=self._args.ami,
            instance_type=self._args.instance_type,
            user_data=encoded(user_data(spec)),
            update_default_version=True,
            iam_instance_profile={"name": profile.name},
            metadata_options={
                "http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1,
                "instance_metadata_tags": "disabled",
            },
            block_device_mappings=[{"device_name": "/dev/xvda", "ebs": disk}],
            # Unlimited would bill a busy proxy without a bound.
            credit_specification={"cpu_credits": "standard"},
            maintenance_options={"auto_recovery": "default"},
            tag_specifications=[
                {"resource_type": kind, "tags": names.tags("egress")} for kind in ("instance", "volume")
            ],
            tags=names.tags("egress"),
            opts=self._child,
        )  # fmt: skip

    def _interface(self, zone: str) -> aws.ec2.NetworkInterface:
        names = self._args.names
        address = self._args.addresses.get(zone)
        return aws.ec2.NetworkInterface(
            f"{self._name}-{zone}",
            subnet_id=self._args.subnet_ids[zone],
            private_ips=[address] if address else None,
            security_groups=[self.security_group_id],
            # A NAT forwards packets that are neither from nor to itself.
            source_dest_check=not self._args.nat,
            description=f"{names.name('egress')} in {zone}",
            tags=names.tags(f"egress-{zone}"),
            opts=self._child,
        )

    def _address(self, zone: str, interface: aws.ec2.NetworkInterface) -> aws.ec2.Eip:
        return aws.ec2.Eip(
            f"{self._name}-{zone}",
            domain="vpc",
            network_interface=interface.id,
            tags=self._args.names.tags(f"egress-{zone}"),
            # AWS attaches it only where there is an internet gateway, and lets no gateway go while it is attached.
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(self._args.internet)),
        )

    def _instance(
        self,
        zone: str,
        template: aws.ec2.LaunchTemplate,
        interface: aws.ec2.NetworkInterface,
        ready: list[pulumi.Resource],
    ) -> aws.ec2.Instance:
        return aws.ec2.Instance(
            f"{self._name}-{zone}",
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            primary_network_interface={"network_interface_id": interface.id},
            tags=self._args.names.tags(f"egress-{zone}"),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=ready,
                # The old instance must let go of the interface first.
                delete_before_replace=True,
                replace_on_changes=["launchTemplate"],
                # The interface says whether packets are checked. The official provider holds the instance's own default,
                # true, against what it reads from the interface, and would end the NAT with the next update
                # (github.com/hashicorp/terraform-provider-aws/issues/44768).
                ignore_changes=["sourceDestCheck"],
            ),
        )

    def _alarms(self, zone: str, instance: aws.ec2.Instance) -> aws.cloudwatch.MetricAlarm:
        """Recovers a failed host and restarts a hung system; returns the alarm on a proxy that takes no connections."""
        names = self._args.names

        def alarm(key: str, metric: str, periods: int, actions: list[str]) -> aws.cloudwatch.MetricAlarm:
            return aws.cloudwatch.MetricAlarm(
                f"{self._name}-{zone}-{key}",
                name=names.name(f"egress-{zone}-{key}"),
                alarm_description=f"Egress proxy of {zone}: {metric}",
                namespace="AWS/EC2",
                metric_name=metric,
                dimensions={"InstanceId": instance.id},
                statistic="Maximum",
                period=60,
                evaluation_periods=periods,
                threshold=1,
                comparison_operator="GreaterThanOrEqualToThreshold",
                treat_missing_data="missing",
                alarm_actions=actions,
                tags=names.tags(f"egress-{zone}-{key}"),
                opts=self._child,
            )

        # docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/UsingAlarmActions.html: two periods before recovery,
        # three before a restart, so that the two never race.
        action = f"arn:{names.partition}:automate:{names.region}:ec2"
        alarm("recover", "StatusCheckFailed_System", 2, [f"{action}:recover"])
        alarm("restart", "StatusCheckFailed_Instance", 3, [f"{action}:reboot"])
        return aws.cloudwatch.MetricAlarm(
            f"{self._name}-{zone}-down",
            name=names.name(f"egress-{zone}-down"),
            alarm_description=f"Egress proxy of {zone}: takes no connections, or is silent",
            namespace=health_namespace(names),
            metric_name=LISTENING_METRIC,
            dimensions={"InstanceId": instance.id},
            # Said about every minute and a half: once in three minutes is alive.
            statistic="Maximum",
            period=180,
            evaluation_periods=1,
            threshold=1,
            comparison_operator="LessThanThreshold",
            treat_missing_data="breaching",
            tags=names.tags(f"egress-{zone}-down"),
            opts=self._child,
        )

    def _host(self, homes: tuple[str, ...], alarms: Mapping[str, aws.cloudwatch.MetricAlarm]) -> str:
        """The reserved address of a single proxy, or a private name that answers with every healthy proxy."""
        names = self._args.names
        if len(homes) == 1 and homes[0] in self._args.addresses:
            return self._args.addresses[homes[0]]
        domain = private_zone(names)
        zone = aws.route53.Zone(
            f"{self._name}-names",
            name=domain,
            comment=f"Private names of {names.base}",
            vpcs=[{"vpc_id": self._args.vpc_id}],
            tags=names.tags("names"),
            opts=self._child,
        )
        host = f"egress.{domain}"
        for home in homes:
            check = aws.route53.HealthCheck(
                f"{self._name}-{home}",
                type="CLOUDWATCH_METRIC",
                cloudwatch_alarm_name=alarms[home].name,
                cloudwatch_alarm_region=names.region,
                # With no proxy healthy, Route 53 answers with all of them.
                insufficient_data_health_status="Unhealthy",
                tags=names.tags(f"egress-{home}"),
                opts=self._child,
            )
            aws.route53.Record(
                f"{self._name}-{home}",
                zone_id=zone.zone_id,
                name=host,
                type="A",
                ttl=_RECORD_TTL,
                records=[self.private_addresses[home]],
                set_identifier=home,
                multivalue_answer_routing_policy=True,
                health_check_id=check.id,
                opts=self._child,
            )
        return host
