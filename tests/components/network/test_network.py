"""The network component, registered under mocks: tiers, routes, walls, and what an existing VPC gets."""

from __future__ import annotations

import dataclasses
import json

import pytest

from components.dns_firewall import query_log_resource_policy
from components.endpoints import dynamodb_endpoint_policy, interface_endpoint_policy, s3_endpoint_policy
from components.network import ExistingVpc, Network, NetworkArgs
from components.network_controls import flow_log_permissions, flow_log_trust
from ringfence.errors import InputError
from ringfence.iam.document import parse
from ringfence.iam.evaluate import authorize
from ringfence.iam.model import Permissions
from ringfence.iam.request import Principal, Request
from ringfence.names import Names

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
ZONES = ("us-east-1a", "us-east-1b")
ARGS = NetworkArgs(
    NAMES,
    ZONES,
    ("api.example.com", "*.docs.example.com"),
    flow_log_group_arn="arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/test/vpc-flow",
    dns_log_group_arn="arn:aws:logs:us-east-1:111122223333:log-group:/ringfence/test/dns",
)
EXISTING = ExistingVpc(
    "vpc-0123456789abcdef0",
    "10.9.0.0/16",
    public_subnet_ids={zone: f"subnet-public{zone[-1]}" for zone in ZONES},
    system_subnet_ids={zone: f"subnet-system{zone[-1]}" for zone in ZONES},
    sandbox_subnet_ids={zone: f"subnet-sandbox{zone[-1]}" for zone in ZONES},
    system_route_table_ids={zone: f"rtb-system{zone[-1]}" for zone in ZONES},
    sandbox_route_table_ids={zone: f"rtb-sandbox{zone[-1]}" for zone in ZONES},
    public_route_table_ids=dict.fromkeys(ZONES, "rtb-public"),
)
ROUTE = dict.fromkeys(
    ("cidrBlock", "ipv6CidrBlock", "destinationPrefixListId", "gatewayId", "natGatewayId", "egressOnlyGatewayId",
     "transitGatewayId", "carrierGatewayId", "coreNetworkArn", "instanceId", "localGatewayId", "networkInterfaceId",
     "odbNetworkArn", "vpcEndpointId", "vpcPeeringConnectionId"), ""
)  # fmt: skip


def _looked_up(*routes, **changes):
    """The subnets' tables as AWS would show them: with these routes, tied to the zone's sandbox subnet or, the public one,
    to every public subnet."""

    def call(token, arguments):
        assert token == "aws:ec2/getRouteTable:getRouteTable"
        table = arguments["routeTableId"]
        public = [f"subnet-public{zone[-1]}" for zone in ZONES]
        ties = [
            {
                "subnetId": subnet,
                "routeTableId": table,
                "main": False,
                "gatewayId": "",
                "routeTableAssociationId": "rtbassoc-1",
            }
            for subnet in (public if table == "rtb-public" else [f"subnet-sandbox{table[-1]}"])
        ]
        return {"id": table, "routeTableId": table, "vpcId": EXISTING.vpc_id, "routes": [ROUTE | r for r in routes],
                "associations": ties, "arn": "", "gatewayId": "", "ownerId": "", "region": "us-east-1", "subnetId": "",
                "tags": {}} | changes  # fmt: skip

    return call


def _network(**changes):
    return lambda: Network("net", dataclasses.replace(ARGS, **changes))


def _firewall_outputs(type_, name, inputs):
    if type_ != "aws:networkfirewall/firewall:Firewall":
        return {}
    states = [
        {
            "availabilityZone": zone,
            "attachments": [{"endpointId": f"vpce-{zone[-1]}", "subnetId": "s", "status": "READY"}],
        }
        for zone in ZONES
    ]
    return {"firewallStatuses": [{"syncStates": states}]}


def _routes(recording):
    return {
        r.name: {k: v for k, v in r.inputs.items() if k != "routeTableId"}
        for r in recording.of_type("aws:ec2/route:Route")
    }


@pytest.mark.parametrize(
    "changes", [{}, {"nat": "gateway"}, {"network_firewall": True, "firewall_log_group": "/x/proxy"}]
)
def test_a_sandbox_subnet_has_no_default_route(record, preview, changes):
    recording = record(_network(**changes), preview=preview, computed=_firewall_outputs)
    sandbox = {f"net-sandbox-{zone}" for zone in ZONES}
    attached = {r.name: r for r in recording.of_type("aws:ec2/routeTableAssociation:RouteTableAssociation")}
    assert sandbox <= set(attached)
    routed = [r.name for r in recording.of_type("aws:ec2/route:Route")]
    assert not [name for name in routed if "sandbox" in name]
    assert any("public" in name for name in routed)  # the control: other tiers do have one
    if not preview:
        tables = {attached[name]["routeTableId"] for name in sandbox}
        assert tables == {f"net-sandbox-{zone}-id" for zone in ZONES}
        assert not tables & {r["routeTableId"] for r in recording.of_type("aws:ec2/route:Route")}
    assert all("routes" not in r.inputs for r in recording.of_type("aws:ec2/routeTable:RouteTable"))


def test_no_subnet_gives_out_public_addresses(record):
    subnets = record(_network()).of_type("aws:ec2/subnet:Subnet")
    assert len(subnets) == 6 and all(r["mapPublicIpOnLaunch"] is False for r in subnets)


def test_everything_hangs_on_the_component_and_carries_tags(record, preview):
    recording = record(_network(interface_endpoints=("sts", "ecr.api"), nat="gateway"), preview=preview)
    assert recording.unparented() == []
    untagged = {
        r.type for r in recording.resources if r.custom and "ringfence.dev/environment" not in r.inputs.get("tags", {})
    }
    assert untagged == {
        "aws:cloudwatch/logResourcePolicy:LogResourcePolicy",
        "aws:ec2/networkAclAssociation:NetworkAclAssociation",
        "aws:ec2/route:Route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation",
        "aws:ec2/vpcEndpointSubnetAssociation:VpcEndpointSubnetAssociation",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:route53/resolverFirewallConfig:ResolverFirewallConfig",
        "aws:route53/resolverFirewallRule:ResolverFirewallRule",
        "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation",
    }


def test_adding_a_zone_changes_no_resource_of_the_others(record):
    before = record(_network(interface_endpoints=("sts",), nat="gateway"))
    after = record(
        _network(zones=("us-east-1b", "us-east-1c", "us-east-1a"), interface_endpoints=("sts",), nat="gateway")
    )
    known = {r.urn: r for r in after.resources}
    # The shared NAT gateway stands in the zone named first.
    same = [
        r for r in before.resources if "nat-us-east" not in r.name and not r.name.startswith("net-system-us-east-1")
    ]
    assert [r.name for r in same if known[r.urn].inputs != r.inputs] == []
    kept = record(_network(zones=(*ZONES, "us-east-1c"), interface_endpoints=("sts",), nat="gateway"))
    known = {r.urn: r for r in kept.resources}
    assert [r.name for r in before.resources if known[r.urn].inputs != r.inputs] == []


def test_the_default_security_group_is_closed(record):
    group = record(_network()).one("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup")
    assert group["ingress"] == [] and group["egress"] == []


def test_the_sandbox_acl_lets_only_https_out_and_only_answers_in(record):
    recording = record(_network())
    acl = recording.one("aws:ec2/networkAcl:NetworkAcl")
    beyond = {"egress": [(443, 443, "tcp")], "ingress": [(1024, 65535, "tcp")]}
    for direction, expected in beyond.items():
        outside = [r for r in acl[direction] if r["cidrBlock"] != "10.42.0.0/16"]
        assert [(r["fromPort"], r["toPort"], r["protocol"]) for r in outside] == expected
        assert all(r["action"] == "allow" for r in acl[direction])
    associations = recording.of_type("aws:ec2/networkAclAssociation:NetworkAclAssociation")
    assert {r["subnetId"] for r in associations} == {f"net-sandbox-{zone}-id" for zone in ZONES}


def test_dns_firewall_allows_the_list_and_then_blocks_everything(record):
    recording = record(_network())
    lists = {r.name: r for r in recording.of_type("aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList")}
    rules = {r["action"]: r for r in recording.of_type("aws:route53/resolverFirewallRule:ResolverFirewallRule")}
    assert set(rules) == {"ALLOW", "BLOCK"} and rules["ALLOW"]["priority"] < rules["BLOCK"]["priority"]
    assert lists["net-dns-block-domains"]["domains"] == ["*"]
    assert rules["BLOCK"]["firewallDomainListId"] == "net-dns-block-domains-id"
    assert rules["BLOCK"]["blockResponse"] == "NXDOMAIN"
    allowed = lists["net-dns-allow-domains"]["domains"]
    assert {"api.example.com", "*.docs.example.com", "*.amazonaws.com", "*.ec2.internal"} <= set(allowed)
    assert "*" not in allowed
    config = recording.one("aws:route53/resolverFirewallConfig:ResolverFirewallConfig")
    assert config["firewallFailOpen"] == "DISABLED"
    association = recording.one("aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation")
    assert association["vpcId"] == "net-vpc-id" and association["firewallRuleGroupId"] == "net-dns-rules-id"
    assert (
        recording.one("aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig")["destinationArn"]
        == ARGS.dns_log_group_arn
    )


@pytest.mark.parametrize("domain", ["*", "*.", "."])
def test_a_dns_allow_list_that_allows_everything_is_refused(record, domain):
    with pytest.raises(InputError, match="allows every name"):
        record(_network(dns_allowed_domains=(domain,)))


def test_all_traffic_is_recorded(record):
    flow_log = record(_network()).one("aws:ec2/flowLog:FlowLog")
    assert flow_log["trafficType"] == "ALL" and flow_log["logDestination"] == ARGS.flow_log_group_arn


def _gateways(recording):
    """Service → (policy, route tables) of the gateway endpoints."""
    endpoints = {r["serviceName"].rpartition(".")[2]: r for r in recording.of_type("aws:ec2/vpcEndpoint:VpcEndpoint")}
    tables = recording.of_type("aws:ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation")
    attached = [(r["vpcEndpointId"], r["routeTableId"]) for r in tables]
    assert len(attached) == len(set(attached))
    return {
        service: (made["policy"], {table for endpoint, table in attached if endpoint == f"net-endpoints-{service}-id"})
        for service, made in endpoints.items()
    }


@pytest.mark.parametrize("changes", [{}, {"network_firewall": True, "firewall_log_group": "/x/proxy"}])
def test_whatever_proxies_send_to_s3_and_dynamodb_falls_under_the_accounts_policies(record, changes):
    gateways = _gateways(record(_network(**changes), computed=_firewall_outputs))
    proxies = {f"net-public-{zone}-id" for zone in ZONES} if changes else {"net-public-id"}
    system, sandbox = ({f"net-{tier}-{zone}-id" for zone in ZONES} for tier in ("system", "sandbox"))
    assert gateways == {
        "s3": (s3_endpoint_policy(NAMES), proxies | system | sandbox),
        "dynamodb": (dynamodb_endpoint_policy(NAMES), proxies | system),
    }


def test_an_existing_vpcs_proxies_fall_under_them_too(record):
    gateways = _gateways(record(_network(existing=EXISTING), called=_looked_up()))
    system, sandbox = ({f"rtb-{tier}{zone[-1]}" for zone in ZONES} for tier in ("system", "sandbox"))
    assert {service: tables for service, (_, tables) in gateways.items()} == {
        "s3": {"rtb-public"} | system | sandbox, "dynamodb": {"rtb-public"} | system
    }  # fmt: skip


def _permits(policy: str, principal: Principal, action: str, resource: str, owner: str) -> bool:
    """Whether the endpoint lets a request on a resource of `owner` through, whose caller holds every permission."""
    everything = parse('{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}')
    context = dict(principal.context()) | {"aws:ResourceAccount": (owner,)}
    request = Request(action, resource, context, principal)
    return authorize(
        Permissions((everything,)), request, resource_policy=parse(policy), resource_policy_required=True
    ).allowed


@pytest.mark.parametrize(
    ("principal", "owner", "allowed"),
    [
        (Principal("AWS", "arn:aws:iam::111122223333:role/tool"), "111122223333", True),
        (Principal("AWS", "arn:aws:iam::111122223333:role/tool"), "999988887777", False),
        (Principal("AWS", "arn:aws:iam::999988887777:role/attacker"), "999988887777", False),
        (Principal("Anonymous"), "999988887777", False),
    ],
)
def test_an_attackers_own_keys_bucket_and_table_are_refused_at_the_gateway_endpoints(principal, owner, allowed):
    """The exfiltration that the proxy's list of hosts alone would leave open."""
    table = f"arn:aws:dynamodb:us-east-1:{owner}:table/any"
    assert _permits(s3_endpoint_policy(NAMES), principal, "s3:PutObject", "arn:aws:s3:::any/x", owner) is allowed
    assert _permits(dynamodb_endpoint_policy(NAMES), principal, "dynamodb:PutItem", table, owner) is allowed


def test_the_s3_endpoint_reaches_no_other_account_and_writes_nowhere_else():
    own, foreign = json.loads(s3_endpoint_policy(NAMES))["Statement"]
    assert own["Condition"]["StringEquals"] == {
        "aws:PrincipalAccount": ["111122223333"], "aws:ResourceAccount": ["111122223333"]
    }  # fmt: skip
    assert foreign["Action"] == ["s3:GetObject"]
    assert foreign["Resource"] == [
        "arn:aws:s3:::al2023-repos-us-east-1-de612dc2/*", "arn:aws:s3:::prod-us-east-1-starport-layer-bucket/*"
    ]  # fmt: skip


def test_interface_endpoints_have_private_names_and_take_https_from_the_vpc_only(record, preview):
    recording = record(_network(interface_endpoints=("sts", "ecr.api")), preview=preview)
    endpoints = [r for r in recording.of_type("aws:ec2/vpcEndpoint:VpcEndpoint") if r["vpcEndpointType"] == "Interface"]
    assert [r["serviceName"] for r in endpoints] == ["com.amazonaws.us-east-1.ecr.api", "com.amazonaws.us-east-1.sts"]
    assert all(r["privateDnsEnabled"] and r["policy"] == interface_endpoint_policy(NAMES) for r in endpoints)
    rule = recording.one("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    assert (rule["cidrIpv4"], rule["fromPort"], rule["toPort"]) == ("10.42.0.0/16", 443, 443)
    associations = recording.of_type("aws:ec2/vpcEndpointSubnetAssociation:VpcEndpointSubnetAssociation")
    assert len(associations) == 4


def test_one_nat_gateway_serves_all_zones_or_each_its_own(record):
    single = _routes(record(_network(nat="gateway")))
    assert {single[f"net-system-{zone}-default"]["natGatewayId"] for zone in ZONES} == {"net-nat-us-east-1a-id"}
    each = _routes(record(_network(nat="gateway", nat_gateways="per-zone")))
    for zone in ZONES:
        assert each[f"net-system-{zone}-default"]["natGatewayId"] == f"net-nat-{zone}-id"


def test_with_a_nat_instance_the_system_default_route_is_left_to_the_proxy(record):
    recording = record(_network())
    assert list(_routes(recording)) == ["net-public-default"]
    assert recording.of_type("aws:ec2/natGateway:NatGateway") == []


def test_a_switch_from_nat_instance_to_gateway_changes_the_same_routes_in_place(record):
    """Another route resource would be made before the old one is deleted, which AWS refuses: one default route a table."""

    def by_instances():
        network = _network()()
        network.leave_by({"us-east-1a": "eni-a"})

    def urns(recording):
        return {r.urn for r in recording.of_type("aws:ec2/route:Route")}

    instances, gateways = record(by_instances), record(_network(nat="gateway"))
    routes = _routes(instances)
    assert {routes[f"net-system-{zone}-default"]["networkInterfaceId"] for zone in ZONES} == {"eni-a"}
    assert urns(instances) == urns(gateways)


def test_each_zone_leaves_by_its_own_interface_where_it_has_one(record):
    def program():
        _network()().leave_by({"us-east-1a": "eni-a", "us-east-1b": "eni-b"})

    routes = _routes(record(program))
    assert [routes[f"net-system-{zone}-default"]["networkInterfaceId"] for zone in ZONES] == ["eni-a", "eni-b"]


def test_the_network_firewall_stands_between_public_subnets_and_the_internet(record):
    recording = record(_network(network_firewall=True, firewall_log_group="/x/proxy"), computed=_firewall_outputs)
    routes = _routes(recording)
    for zone in ZONES:
        assert routes[f"net-public-{zone}-default"]["vpcEndpointId"] == f"vpce-{zone[-1]}"
        assert routes[f"net-internet-ingress-{zone}"]["vpcEndpointId"] == f"vpce-{zone[-1]}"
    to_internet = [name for name, route in routes.items() if "gatewayId" in route]
    assert to_internet == ["net-firewall-default"]
    policy = recording.one("aws:networkfirewall/firewallPolicy:FirewallPolicy")["firewallPolicy"]
    assert policy["statefulEngineOptions"] == {"ruleOrder": "STRICT_ORDER", "streamExceptionPolicy": "DROP"}
    assert "aws:drop_established" in policy["statefulDefaultActions"]
    rules = recording.one("aws:networkfirewall/ruleGroup:RuleGroup")["ruleGroup"]["rulesSource"]["rulesSourceList"]
    assert rules["generatedRulesType"] == "ALLOWLIST" and rules["targetTypes"] == ["TLS_SNI"]
    assert {"api.example.com", ".docs.example.com", ".amazonaws.com"} <= set(rules["targets"])


def test_an_existing_vpc_gets_the_controls_and_nothing_else(record, preview):
    recording = record(lambda: _network(existing=EXISTING)().sandbox_subnet_ids, preview=preview, called=_looked_up())
    made = {r.type.rpartition(":")[2] for r in recording.resources if r.custom}
    assert not made & {"Vpc", "Subnet", "RouteTable", "Route", "InternetGateway", "NetworkAcl", "DefaultSecurityGroup"}
    assert {"FlowLog", "VpcEndpoint", "ResolverFirewallRuleGroupAssociation", "ResolverFirewallConfig"} <= made
    assert recording.one("aws:ec2/flowLog:FlowLog")["vpcId"] == "vpc-0123456789abcdef0"
    assert recording.outputs == {"us-east-1a": "subnet-sandboxa", "us-east-1b": "subnet-sandboxb"}


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ({"cidrBlock": "0.0.0.0/0", "natGatewayId": "nat-1"}, "0.0.0.0/0 to the internet by nat-1"),
        ({"cidrBlock": "0.0.0.0/0", "gatewayId": "igw-1"}, "0.0.0.0/0 to the internet by igw-1"),
        ({"ipv6CidrBlock": "::/0", "egressOnlyGatewayId": "eigw-1"}, "::/0 to the internet by eigw-1"),
        ({"cidrBlock": "0.0.0.0/0", "transitGatewayId": "tgw-1"}, "0.0.0.0/0, which is a default route"),
        ({"cidrBlock": "0.0.0.0/0", "networkInterfaceId": "eni-1"}, "0.0.0.0/0, which is a default route"),
        ({"ipv6CidrBlock": "::/0", "transitGatewayId": "tgw-1"}, "::/0, which is a default route"),
        ({"cidrBlock": "128.0.0.0/1", "transitGatewayId": "tgw-1"}, "128.0.0.0/1, which is a default route"),
        ({"cidrBlock": "198.51.100.0/24", "natGatewayId": "nat-1"}, "198.51.100.0/24 to the internet by nat-1"),
        ({"destinationPrefixListId": "pl-1", "gatewayId": "igw-1"}, "pl-1 to the internet by igw-1"),
    ],
)
def test_a_way_out_of_an_existing_sandbox_subnet_is_refused(record, preview, route, said):
    with pytest.raises(InputError) as caught:
        record(_network(existing=EXISTING), preview=preview, called=_looked_up(route))
    problems = caught.value.problems
    assert [problem.key for problem in problems] == [f"existing.sandbox_route_table_ids.{zone}" for zone in ZONES]
    assert problems[0].message == f"rtb-sandboxa leads {said}" and "only way out" in problems[0].remedy


def test_private_routes_of_an_existing_sandbox_subnet_are_accepted(record):
    peers = (
        {"cidrBlock": "10.0.0.0/8", "transitGatewayId": "tgw-1"},
        {"cidrBlock": "192.168.0.0/16", "vpcPeeringConnectionId": "pcx-1"},
    )
    outputs = record(lambda: _network(existing=EXISTING)().sandbox_subnet_ids, called=_looked_up(*peers)).outputs
    assert set(outputs) == set(ZONES)


def test_a_table_that_is_not_the_sandbox_subnets_own_is_refused(record):
    with pytest.raises(InputError) as caught:
        record(_network(existing=EXISTING), called=_looked_up(associations=[], vpcId="vpc-other"))
    said = [problem.message for problem in caught.value.problems][:2]
    # Both tiers' tables are wrong, and either may be looked up first.
    assert said in [
        [f"rtb-{tier} is of vpc-other", f"rtb-{tier} is not the table of subnet-{subnet}"]
        for tier, subnet in (("sandboxa", "sandboxa"), ("public", "publica"))
    ]


def test_proxies_are_put_into_no_subnet_that_passes_by_the_gateway_endpoints(record, preview):
    """Else S3's and DynamoDB's hosts, which tools may reach, would be every account's."""
    other = dataclasses.replace(EXISTING, public_route_table_ids={"us-east-1a": "rtb-public", "us-east-1b": "rtb-b"})
    with pytest.raises(InputError) as caught:
        record(lambda: _network(existing=other)().public_subnet_ids, preview=preview, called=_looked_up())
    (problem,) = caught.value.problems
    assert problem.key == "existing.public_route_table_ids.us-east-1b"
    assert problem.message == "rtb-b is not the table of subnet-publicb"
    kept = record(lambda: _network(existing=EXISTING)().public_subnet_ids, preview=preview, called=_looked_up()).outputs
    assert kept == {"us-east-1a": "subnet-publica", "us-east-1b": "subnet-publicb"}


def test_an_existing_vpcs_sandbox_subnets_get_the_acl_only_when_asked(record):
    recording = record(_network(existing=dataclasses.replace(EXISTING, sandbox_acl=True)), called=_looked_up())
    associations = recording.of_type("aws:ec2/networkAclAssociation:NetworkAclAssociation")
    assert {r["subnetId"] for r in associations} == {"subnet-sandboxa", "subnet-sandboxb"}
    inside = [r["cidrBlock"] for r in recording.one("aws:ec2/networkAcl:NetworkAcl")["egress"]]
    assert inside == ["10.9.0.0/16", "0.0.0.0/0"]


@pytest.mark.parametrize("firewall", [{}, {"network_firewall": True, "firewall_log_group": "/x/proxy"}])
def test_public_addresses_come_after_the_internet_gateway_and_go_before_it(record, preview, firewall):
    program = _network(nat="gateway", nat_gateways="per-zone", **firewall)
    recording = record(program, preview=preview, computed=_firewall_outputs)
    gateway = recording.one("aws:ec2/internetGateway:InternetGateway")
    waiting = [*recording.of_type("aws:ec2/eip:Eip"), *recording.of_type("aws:ec2/natGateway:NatGateway")]
    assert len(waiting) == 4 and all(gateway.urn in r.options.depends_on for r in waiting)


def test_what_an_existing_vpc_cannot_have_is_reported_at_once(record):
    partial = dataclasses.replace(EXISTING, sandbox_subnet_ids={"us-east-1a": "subnet-x"})
    with pytest.raises(InputError) as caught:
        record(_network(existing=partial, network_firewall=True, nat="gateway"))
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["firewall_log_group", "network_firewall", "nat", "existing.sandbox_subnet_ids"]
    assert all(problem.remedy for problem in caught.value.problems)


def test_the_documents_are_the_reviewed_ones(golden):
    documents = {
        "flow-log-permissions": flow_log_permissions(NAMES),
        "flow-log-trust": flow_log_trust(NAMES),
        "interface-endpoint": interface_endpoint_policy(NAMES),
        "query-log": query_log_resource_policy(NAMES),
        "dynamodb-endpoint": dynamodb_endpoint_policy(NAMES),
        "s3-endpoint": s3_endpoint_policy(NAMES),
    }
    for name, text in documents.items():
        golden(f"network/{name}.json", json.dumps(json.loads(text), indent=2) + "\n")
