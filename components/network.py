"""The environment's VPC: three tiers of subnets in each zone, and the controls on what leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

from components.dns_firewall import DnsFirewall, DnsFirewallArgs, environment_domains
from components.endpoints import Endpoints, EndpointsArgs
from components.existing_vpc import ExistingVpc, checked_public_subnets, checked_sandbox_subnets
from components.network_controls import closed_default_security_group, flow_log, sandbox_acl
from components.network_firewall import NetworkFirewall, NetworkFirewallArgs
from components.network_plan import ZonePlan, plan
from ringfence.errors import InputError, Problem
from ringfence.names import Names

_ANYWHERE = "0.0.0.0/0"
# The kubernetes.io role tags tell EKS where internal load balancers may go; no tier is meant for public ones.
_TIER_TAGS = {"public": {}, "system": {"kubernetes.io/role/internal-elb": "1"}, "sandbox": {}}


@dataclass(frozen=True)
class NetworkArgs:
    """zones: Availability Zones, letters a to h. dns_allowed_domains: names that resolve besides those of AWS.

    flow_log_group_arn, dns_log_group_arn and (by name) firewall_log_group: where flow logs, DNS queries and firewall alerts
    go. nat: how the system subnets get out; with ``instance`` by `Network.leave_by`.
    nat_gateways: one for all (in the zone named first), or one each. interface_endpoints: services such as ``sts``.
    image_buckets: other accounts' buckets that images' layers are read from.
    existing: use this VPC instead of making one; then only the controls are made.
    """

    names: Names
    zones: tuple[str, ...]
    dns_allowed_domains: tuple[str, ...]
    flow_log_group_arn: pulumi.Input[str]
    dns_log_group_arn: pulumi.Input[str]
    vpc_cidr: str = "10.42.0.0/16"
    nat: Literal["instance", "gateway"] = "instance"
    nat_gateways: Literal["single", "per-zone"] = "single"
    interface_endpoints: tuple[str, ...] = ()
    image_buckets: tuple[str, ...] = ()
    network_firewall: bool = False
    firewall_log_group: pulumi.Input[str] | None = None
    existing: ExistingVpc | None = None


def _check(args: NetworkArgs) -> None:
    problems = []
    if args.network_firewall and args.firewall_log_group is None:
        remedy = "pass firewall_log_group"
        problems.append(
            Problem("network", "firewall_log_group", "is missing for the network firewall's alerts", remedy)
        )
    if args.existing is not None:
        if args.network_firewall:
            remedy = "switch networkFirewall off, or let this program make the VPC"
            problems.append(Problem("network", "network_firewall", "needs routes of a VPC that is not ours", remedy))
        if args.nat == "gateway":
            remedy = "set nat to instance; the existing VPC's own routes stay as they are"
            problems.append(Problem("network", "nat", "a NAT gateway is not made in an existing VPC", remedy))
        for key in ExistingVpc.__dataclass_fields__:
            value = getattr(args.existing, key)
            if isinstance(value, Mapping) and set(value) != set(args.zones):
                found = f"names zones {sorted(value)} instead of {sorted(args.zones)}"
                problems.append(Problem("network", f"existing.{key}", found, "give one id for each zone"))
    if problems:
        raise InputError(problems)


class Network(pulumi.ComponentResource):
    """Where everything runs.

    Makes: a VPC; in each zone a public subnet (nothing but the way out), a system subnet (private) and a sandbox subnet
    with **no default route**; S3 gateway endpoint, interface endpoints, flow logs, closed default security group, NACL of
    the sandbox subnets, DNS Firewall; on request NAT gateways and Network Firewall. With `existing`, only the controls:
    endpoints, flow logs, DNS Firewall and on request the NACL; its sandbox subnets' route tables are looked up and a way out
    is refused, and so are public subnets with another table than the one that was named; its default security group is
    left alone, since others may use it.
    Protects against: a sandbox with a way to the internet other than the proxy; data carried out by DNS or to somebody
    else's bucket; instances that get a public address or an open security group by default; traffic nobody recorded.
    Trust zone: infrastructure under the control side; holds whatever runs in a sandbox.

    Outputs: vpc_id; vpc_cidr; public_subnet_ids, system_subnet_ids, sandbox_subnet_ids, system_route_table_ids,
    sandbox_route_table_ids (zone → id); system_cidrs, sandbox_cidrs (zone → CIDR, known at preview; of an existing VPC one
    entry, its whole range); proxy_addresses (zone → address reserved for the egress proxy; empty for an existing VPC);
    internet (what public addresses need before they are made, and after they are gone: to depend on);
    dns_firewall_rule_group_id; s3_endpoint_id; s3_prefix_list_id; endpoints_security_group_id (None without interface
    endpoints).
    """

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Network", name, None, opts)
        _check(args)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self)
        if args.existing is None:
            self._build(plan(args.vpc_cidr, args.zones, args.names.region))
        else:
            self._adopt(args.existing)
        flow_log(name, args.names, self.vpc_id, args.flow_log_group_arn, self)
        dns = DnsFirewall(
            f"{name}-dns",
            DnsFirewallArgs(args.names, self.vpc_id, args.dns_allowed_domains, args.dns_log_group_arn),
            self._child,
        )
        endpoints = Endpoints(
            f"{name}-endpoints",
            EndpointsArgs(
                args.names,
                self.vpc_id,
                self.vpc_cidr,
                self._s3_route_tables(),
                args.interface_endpoints,
                self.system_subnet_ids,
                self._dynamodb_route_tables(),
                args.image_buckets,
            ),
            self._child,
        )
        self.dns_firewall_rule_group_id: pulumi.Output[str] = dns.rule_group_id
        self.s3_endpoint_id: pulumi.Output[str] = endpoints.s3_endpoint_id
        self.s3_prefix_list_id: pulumi.Output[str] = endpoints.s3_prefix_list_id
        self.endpoints_security_group_id: pulumi.Output[str] | None = endpoints.security_group_id
        self.register_outputs({})

    def _adopt(self, existing: ExistingVpc) -> None:
        self.vpc_id: pulumi.Output[str] = pulumi.Output.from_input(existing.vpc_id)
        self.vpc_cidr: str = existing.vpc_cidr
        self.internet: tuple[pulumi.Resource, ...] = ()
        for key in ("system_subnet_ids", "system_route_table_ids", "sandbox_route_table_ids"):
            ids = getattr(existing, key)
            setattr(self, key, {zone: pulumi.Output.from_input(ids[zone]) for zone in sorted(ids)})
        self.sandbox_subnet_ids = checked_sandbox_subnets(existing, self)
        self.public_subnet_ids = checked_public_subnets(existing, self)
        if existing.sandbox_acl:
            sandbox_acl(self._name, self._args.names, self.vpc_id, self.vpc_cidr, self.sandbox_subnet_ids, self)
        # The subnets' own ranges are not known here, and nothing is looked up; the VPC's holds them all.
        self.system_cidrs: dict[str, str] = {"vpc": existing.vpc_cidr}
        self.sandbox_cidrs: dict[str, str] = {"vpc": existing.vpc_cidr}
        self.proxy_addresses: dict[str, str] = {}
        # Zones may share a table, and an endpoint can be put into a table once.
        tables = {table: zone for zone, table in sorted(existing.public_route_table_ids.items(), reverse=True)}
        self._public_tables: dict[str, pulumi.Output[str]] = {
            f"public-{zone}": pulumi.Output.from_input(table) for table, zone in tables.items()
        }

    def _build(self, zones: dict[str, ZonePlan]) -> None:
        names = self._args.names
        vpc = aws.ec2.Vpc(
            f"{self._name}-vpc",
            cidr_block=self._args.vpc_cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=names.tags("vpc"),
            opts=self._child,
        )
        self.vpc_id = vpc.id
        self.vpc_cidr = self._args.vpc_cidr
        self.system_cidrs = {zone: parts.system for zone, parts in zones.items()}
        self.sandbox_cidrs = {zone: parts.sandbox for zone, parts in zones.items()}
        self.proxy_addresses = {zone: parts.proxy_address for zone, parts in zones.items()}
        self.public_subnet_ids: dict[str, pulumi.Output[str]] = self._subnets(zones, "public")
        self.system_subnet_ids: dict[str, pulumi.Output[str]] = self._subnets(zones, "system")
        self.sandbox_subnet_ids: dict[str, pulumi.Output[str]] = self._subnets(zones, "sandbox")
        self.system_route_table_ids: dict[str, pulumi.Output[str]] = self._tables(zones, "system")
        self.sandbox_route_table_ids: dict[str, pulumi.Output[str]] = self._tables(zones, "sandbox")
        gateway = aws.ec2.InternetGateway(
            f"{self._name}-internet", vpc_id=vpc.id, tags=names.tags("internet"), opts=self._child
        )
        self.internet = (gateway,)
        self._ways_out(zones, gateway)
        closed_default_security_group(self._name, names, vpc.id, self)
        sandbox_acl(self._name, names, vpc.id, self.vpc_cidr, self.sandbox_subnet_ids, self)

    def _subnets(self, zones: dict[str, ZonePlan], tier: str) -> dict[str, pulumi.Output[str]]:
        return {
            zone: aws.ec2.Subnet(
                f"{self._name}-{tier}-{zone}",
                vpc_id=self.vpc_id,
                cidr_block=getattr(parts, tier),
                availability_zone=zone,
                # Not even public subnets: what needs an address there holds an Elastic IP of its own.
                map_public_ip_on_launch=False,
                tags=self._args.names.tags(f"{tier}-{zone}", **_TIER_TAGS.get(tier, {})),
                opts=self._child,
            ).id
            for zone, parts in zones.items()
        }

    def _table(self, key: str) -> pulumi.Output[str]:
        return aws.ec2.RouteTable(
            f"{self._name}-{key}", vpc_id=self.vpc_id, tags=self._args.names.tags(key), opts=self._child
        ).id

    def _attach(self, key: str, table: pulumi.Input[str], subnet: pulumi.Input[str]) -> None:
        aws.ec2.RouteTableAssociation(f"{self._name}-{key}", route_table_id=table, subnet_id=subnet, opts=self._child)

    def _tables(self, zones: dict[str, ZonePlan], tier: str) -> dict[str, pulumi.Output[str]]:
        tables = {zone: self._table(f"{tier}-{zone}") for zone in zones}
        subnets = getattr(self, f"{tier}_subnet_ids")
        for zone, table in tables.items():
            self._attach(f"{tier}-{zone}", table, subnets[zone])
        return tables

    def _default_route(self, key: str, table: pulumi.Input[str], **target: pulumi.Input[str]) -> None:
        aws.ec2.Route(
            f"{self._name}-{key}-default",
            route_table_id=table,
            destination_cidr_block=_ANYWHERE,
            opts=self._child,
            **target,
        )

    def _ways_out(self, zones: dict[str, ZonePlan], gateway: aws.ec2.InternetGateway) -> None:
        """Public subnets go to the internet gateway, or through the firewall; system subnets to NAT gateways if asked."""
        if self._args.network_firewall:
            self._public_tables = self._through_firewall(zones, gateway)
        else:
            table = self._table("public")
            self._default_route("public", table, gateway_id=gateway.id)
            for zone in zones:
                self._attach(f"public-{zone}", table, self.public_subnet_ids[zone])
            self._public_tables = {"public": table}
        if self._args.nat == "gateway":
            self._nat_gateways(list(zones))

    def _through_firewall(
        self, zones: dict[str, ZonePlan], gateway: aws.ec2.InternetGateway
    ) -> dict[str, pulumi.Output[str]]:
        """Each zone's public subnet leaves by the firewall endpoint of its zone, and answers come back the same way."""
        subnets = self._subnets(zones, "firewall")
        firewall = NetworkFirewall(
            f"{self._name}-firewall",
            NetworkFirewallArgs(
                self._args.names,
                self.vpc_id,
                subnets,
                (*self._args.dns_allowed_domains, *environment_domains(self._args.names)),
                self._args.firewall_log_group or "",
            ),
            self._child,
        )
        firewall_table, ingress_table = self._table("firewall"), self._table("internet-ingress")
        self._default_route("firewall", firewall_table, gateway_id=gateway.id)
        aws.ec2.RouteTableAssociation(
            f"{self._name}-internet-ingress", route_table_id=ingress_table, gateway_id=gateway.id, opts=self._child
        )
        tables = {}
        for zone, parts in zones.items():
            tables[f"public-{zone}"] = table = self._table(f"public-{zone}")
            self._attach(f"firewall-{zone}", firewall_table, subnets[zone])
            self._attach(f"public-{zone}", table, self.public_subnet_ids[zone])
            self._default_route(f"public-{zone}", table, vpc_endpoint_id=firewall.endpoint_ids[zone])
            aws.ec2.Route(
                f"{self._name}-internet-ingress-{zone}",
                route_table_id=ingress_table,
                destination_cidr_block=parts.public,
                vpc_endpoint_id=firewall.endpoint_ids[zone],
                opts=self._child,
            )
        return tables

    def _nat_gateways(self, zones: list[str]) -> None:
        names = self._args.names
        # An address is attached only where the VPC has an internet gateway, and the gateway goes only after all addresses.
        after = pulumi.ResourceOptions(parent=self, depends_on=list(self.internet))
        homes = zones if self._args.nat_gateways == "per-zone" else [self._args.zones[0]]
        gateways = {}
        for zone in homes:
            address = aws.ec2.Eip(f"{self._name}-nat-{zone}", domain="vpc", tags=names.tags(f"nat-{zone}"), opts=after)
            gateways[zone] = aws.ec2.NatGateway(
                f"{self._name}-nat-{zone}",
                subnet_id=self.public_subnet_ids[zone],
                allocation_id=address.id,
                tags=names.tags(f"nat-{zone}"),
                opts=after,
            )
        for zone in zones:
            gateway = gateways.get(zone, gateways[homes[0]])
            self._default_route(f"system-{zone}", self.system_route_table_ids[zone], nat_gateway_id=gateway.id)

    def leave_by(self, interfaces: Mapping[str, pulumi.Input[str]]) -> None:
        """Sends what the system subnets have for the internet to network interfaces: zone → id, all to the first's where a
        zone has none."""
        first = next(iter(interfaces.values()))
        for zone, table in self.system_route_table_ids.items():
            # Named like a NAT gateway's route: AWS has one default route in a table, which a switch changes in place.
            self._default_route(f"system-{zone}", table, network_interface_id=interfaces.get(zone, first))

    def _s3_route_tables(self) -> dict[str, pulumi.Input[str]]:
        """Every table, the public ones too: then what the proxies send to S3 falls under the endpoint's policy as well."""
        tiers = {"system": self.system_route_table_ids, "sandbox": self.sandbox_route_table_ids}
        tables = {f"{tier}-{zone}": table for tier, ids in tiers.items() for zone, table in ids.items()}
        return tables | self._public_tables

    def _dynamodb_route_tables(self) -> dict[str, pulumi.Input[str]]:
        """The proxies' own tables above all, through which sandboxes reach their tools' tables; nodes of sandboxes need no
        way there."""
        return {f"system-{zone}": table for zone, table in self.system_route_table_ids.items()} | self._public_tables
