"""DNS Firewall, Network Firewall and VPC Block Public Access, through boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError


@pytest.fixture(scope="module")
def resolver(aws: Any) -> Any:
    return aws.client("route53resolver")


@pytest.fixture(scope="module")
def firewall(aws: Any) -> Any:
    return aws.client("network-firewall")


def test_a_domain_list_holds_what_replace_add_and_remove_leave(resolver: Any) -> None:
    made = resolver.create_firewall_domain_list(CreatorRequestId="1", Name="allowed")["FirewallDomainList"]
    named = {"FirewallDomainListId": made["Id"]}
    resolver.update_firewall_domains(**named, Operation="REPLACE", Domains=["Example.com", "*.example.org."])
    resolver.update_firewall_domains(**named, Operation="ADD", Domains=["third.example"])
    resolver.update_firewall_domains(**named, Operation="REMOVE", Domains=["example.com"])
    assert resolver.list_firewall_domains(**named)["Domains"] == ["*.example.org.", "third.example."]
    assert resolver.get_firewall_domain_list(**named)["FirewallDomainList"]["DomainCount"] == 2
    assert made["Id"] in [item["Id"] for item in resolver.list_firewall_domain_lists()["FirewallDomainLists"]]
    resolver.delete_firewall_domain_list(**named)
    with pytest.raises(resolver.exceptions.ResourceNotFoundException):
        resolver.get_firewall_domain_list(**named)


def test_rules_and_associations_live_from_create_to_delete(resolver: Any, network: dict[str, Any]) -> None:
    domains = resolver.create_firewall_domain_list(CreatorRequestId="1", Name="all")["FirewallDomainList"]["Id"]
    group = resolver.create_firewall_rule_group(CreatorRequestId="1", Name="wall", Tags=[{"Key": "a", "Value": "1"}])[
        "FirewallRuleGroup"
    ]
    assert resolver.list_tags_for_resource(ResourceArn=group["Arn"])["Tags"] == [{"Key": "a", "Value": "1"}]
    rule = {"FirewallRuleGroupId": group["Id"], "FirewallDomainListId": domains}
    resolver.create_firewall_rule(
        **rule, CreatorRequestId="1", Priority=100, Action="BLOCK", BlockResponse="NODATA", Name="block"
    )
    with pytest.raises(resolver.exceptions.ConflictException):
        resolver.create_firewall_rule(**rule, CreatorRequestId="2", Priority=101, Action="ALLOW", Name="twice")
    resolver.update_firewall_rule(**rule, Action="ALLOW", Priority=50)
    shown = resolver.list_firewall_rules(FirewallRuleGroupId=group["Id"])["FirewallRules"]
    assert [(r["Action"], r["Priority"], "BlockResponse" in r) for r in shown] == [("ALLOW", 50, False)]
    made = resolver.associate_firewall_rule_group(
        CreatorRequestId="1", FirewallRuleGroupId=group["Id"], VpcId=network["vpc"], Priority=101, Name="on-vpc"
    )["FirewallRuleGroupAssociation"]
    with pytest.raises(resolver.exceptions.ConflictException):
        resolver.delete_firewall_rule_group(FirewallRuleGroupId=group["Id"])
    with pytest.raises(resolver.exceptions.ConflictException):
        resolver.delete_firewall_domain_list(FirewallDomainListId=domains)
    assert resolver.list_firewall_rule_group_associations(VpcId=network["vpc"])["FirewallRuleGroupAssociations"]
    resolver.update_firewall_rule_group_association(
        FirewallRuleGroupAssociationId=made["Id"], MutationProtection="ENABLED"
    )
    with pytest.raises(resolver.exceptions.ConflictException):
        resolver.disassociate_firewall_rule_group(FirewallRuleGroupAssociationId=made["Id"])
    resolver.update_firewall_rule_group_association(
        FirewallRuleGroupAssociationId=made["Id"], MutationProtection="DISABLED"
    )
    resolver.disassociate_firewall_rule_group(FirewallRuleGroupAssociationId=made["Id"])
    resolver.delete_firewall_rule(**rule)
    resolver.delete_firewall_rule_group(FirewallRuleGroupId=group["Id"])
    resolver.delete_firewall_domain_list(FirewallDomainListId=domains)


def test_a_block_rule_needs_its_response(resolver: Any) -> None:
    domains = resolver.create_firewall_domain_list(CreatorRequestId="1", Name="some")["FirewallDomainList"]["Id"]
    group = resolver.create_firewall_rule_group(CreatorRequestId="1", Name="strict")["FirewallRuleGroup"]["Id"]
    rule = {"FirewallRuleGroupId": group, "FirewallDomainListId": domains, "CreatorRequestId": "1", "Name": "x"}
    with pytest.raises(resolver.exceptions.ValidationException, match="BlockResponse"):
        resolver.create_firewall_rule(**rule, Priority=1, Action="BLOCK")
    resolver.create_firewall_rule(**rule, Priority=1, Action="BLOCK", BlockResponse="NXDOMAIN")


def test_the_firewall_of_a_vpc_fails_closed_unless_it_is_opened(resolver: Any, network: dict[str, Any]) -> None:
    vpc = network["vpc"]
    assert resolver.get_firewall_config(ResourceId=vpc)["FirewallConfig"]["FirewallFailOpen"] == "DISABLED"
    resolver.update_firewall_config(ResourceId=vpc, FirewallFailOpen="ENABLED")
    assert resolver.get_firewall_config(ResourceId=vpc)["FirewallConfig"]["FirewallFailOpen"] == "ENABLED"
    with pytest.raises(resolver.exceptions.ResourceNotFoundException):
        resolver.get_firewall_config(ResourceId="vpc-0000000000000000f")


def test_query_logging_can_be_taken_away_again(aws: Any, resolver: Any, network: dict[str, Any]) -> None:
    aws.client("logs").create_log_group(logGroupName="/dns")
    destination = "arn:aws:logs:us-east-1:123456789012:log-group:/dns"
    made = resolver.create_resolver_query_log_config(Name="dns", DestinationArn=destination, CreatorRequestId="1")
    config = made["ResolverQueryLogConfig"]["Id"]
    named = {"ResolverQueryLogConfigId": config, "ResourceId": network["vpc"]}
    resolver.associate_resolver_query_log_config(**named)
    with pytest.raises(resolver.exceptions.InvalidRequestException):
        resolver.delete_resolver_query_log_config(ResolverQueryLogConfigId=config)
    resolver.disassociate_resolver_query_log_config(**named)
    resolver.delete_resolver_query_log_config(ResolverQueryLogConfigId=config)
    with pytest.raises(resolver.exceptions.ResourceNotFoundException):
        resolver.get_resolver_query_log_config(ResolverQueryLogConfigId=config)


def test_a_missing_query_log_configuration_is_said_to_be_missing(resolver: Any, network: dict[str, Any]) -> None:
    named = {"ResolverQueryLogConfigId": "rslvr-qlc-0123456789abcdef0"}
    with pytest.raises(resolver.exceptions.ResourceNotFoundException, match="rslvr-qlc-0123456789abcdef0"):
        resolver.delete_resolver_query_log_config(**named)
    with pytest.raises(resolver.exceptions.ResourceNotFoundException):
        resolver.disassociate_resolver_query_log_config(**named, ResourceId=network["vpc"])


def test_the_tags_of_a_query_log_configuration_can_be_listed_and_changed(resolver: Any) -> None:
    made = resolver.create_resolver_query_log_config(
        Name="tagged",
        DestinationArn="arn:aws:logs:us-east-1:123456789012:log-group:dns",
        CreatorRequestId="tagged",
        Tags=[{"Key": "a", "Value": "1"}],
    )["ResolverQueryLogConfig"]
    named = {"ResourceArn": made["Arn"]}
    assert resolver.list_tags_for_resource(**named)["Tags"] == [{"Key": "a", "Value": "1"}]
    resolver.tag_resource(**named, Tags=[{"Key": "b", "Value": "2"}])
    resolver.untag_resource(**named, TagKeys=["a"])
    assert resolver.list_tags_for_resource(**named)["Tags"] == [{"Key": "b", "Value": "2"}]
    resolver.delete_resolver_query_log_config(ResolverQueryLogConfigId=made["Id"])
    with pytest.raises(resolver.exceptions.ResourceNotFoundException):
        resolver.list_tags_for_resource(**named)


def test_a_network_firewall_lives_from_create_to_delete(firewall: Any, network: dict[str, Any]) -> None:
    group = firewall.create_rule_group(
        RuleGroupName="domains",
        Type="STATEFUL",
        Capacity=100,
        RuleGroup={
            "RulesSource": {
                "RulesSourceList": {
                    "Targets": ["example.com"],
                    "TargetTypes": ["TLS_SNI"],
                    "GeneratedRulesType": "ALLOWLIST",
                }
            }
        },
    )["RuleGroupResponse"]["RuleGroupArn"]
    defaults = {
        "StatelessDefaultActions": ["aws:forward_to_sfe"],
        "StatelessFragmentDefaultActions": ["aws:forward_to_sfe"],
    }
    policy = firewall.create_firewall_policy(
        FirewallPolicyName="policy",
        FirewallPolicy={**defaults, "StatefulRuleGroupReferences": [{"ResourceArn": group}]},
    )["FirewallPolicyResponse"]["FirewallPolicyArn"]
    subnet = network["subnets"][0]
    firewall.create_firewall(
        FirewallName="wall", FirewallPolicyArn=policy, VpcId=network["vpc"], SubnetMappings=[{"SubnetId": subnet}]
    )
    shown = firewall.describe_firewall(FirewallName="wall")
    attachment = shown["FirewallStatus"]["SyncStates"]["us-east-1a"]["Attachment"]
    assert (attachment["SubnetId"], attachment["Status"]) == (subnet, "READY")
    again = firewall.describe_firewall(FirewallName="wall")["FirewallStatus"]["SyncStates"]["us-east-1a"]["Attachment"]
    assert again["EndpointId"] == attachment["EndpointId"]
    log = {"LogType": "ALERT", "LogDestinationType": "CloudWatchLogs", "LogDestination": {"logGroup": "/wall"}}
    firewall.update_logging_configuration(FirewallName="wall", LoggingConfiguration={"LogDestinationConfigs": [log]})
    configured = firewall.describe_logging_configuration(FirewallName="wall")["LoggingConfiguration"]
    assert configured["LogDestinationConfigs"] == [log]
    for call, arguments in (
        (firewall.delete_rule_group, {"RuleGroupArn": group}),
        (firewall.delete_firewall_policy, {"FirewallPolicyArn": policy}),
        (firewall.delete_firewall, {"FirewallName": "wall"}),
    ):
        with pytest.raises(firewall.exceptions.InvalidOperationException):
            call(**arguments)
    firewall.update_logging_configuration(FirewallName="wall", LoggingConfiguration={"LogDestinationConfigs": []})
    firewall.delete_firewall(FirewallName="wall")
    firewall.delete_firewall_policy(FirewallPolicyArn=policy)
    firewall.delete_rule_group(RuleGroupArn=group)
    assert firewall.list_firewalls()["Firewalls"] == []


def test_routes_lead_to_the_endpoints_of_a_firewall_which_go_with_it(
    aws: Any, firewall: Any, network: dict[str, Any]
) -> None:
    ec2 = aws.client("ec2")
    actions = {"StatelessDefaultActions": ["aws:drop"], "StatelessFragmentDefaultActions": ["aws:drop"]}
    policy = firewall.create_firewall_policy(FirewallPolicyName="routed", FirewallPolicy=actions)
    policy = policy["FirewallPolicyResponse"]["FirewallPolicyArn"]
    first, second = network["subnets"]
    made = {"FirewallName": "routed", "FirewallPolicyArn": policy, "VpcId": network["vpc"]}
    firewall.create_firewall(**made, SubnetMappings=[{"SubnetId": first}])
    firewall.associate_subnets(FirewallName="routed", SubnetMappings=[{"SubnetId": second}])
    states = firewall.describe_firewall(FirewallName="routed")["FirewallStatus"]["SyncStates"]
    endpoints = [states[f"us-east-1{zone}"]["Attachment"]["EndpointId"] for zone in "ab"]
    shown = ec2.describe_vpc_endpoints(VpcEndpointIds=endpoints)["VpcEndpoints"]
    assert {(e["VpcEndpointType"], e["VpcId"], e["State"]) for e in shown} == {
        ("GatewayLoadBalancer", network["vpc"], "available")
    }
    table = ec2.create_route_table(VpcId=network["vpc"])["RouteTable"]["RouteTableId"]
    route = {"RouteTableId": table, "DestinationCidrBlock": "0.0.0.0/0"}
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]

    def leads_to() -> str:
        routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        return next(r["GatewayId"] for r in routes if r["DestinationCidrBlock"] == "0.0.0.0/0")

    ec2.create_route(**route, VpcEndpointId=endpoints[0])
    assert leads_to() == endpoints[0]
    ec2.replace_route(**route, VpcEndpointId=endpoints[1])
    assert leads_to() == endpoints[1]
    ec2.replace_route(**route, GatewayId=gateway)
    assert leads_to() == gateway
    ec2.delete_route_table(RouteTableId=table)
    ec2.delete_internet_gateway(InternetGatewayId=gateway)
    firewall.disassociate_subnets(FirewallName="routed", SubnetIds=[first])
    left = {e["VpcEndpointId"] for e in ec2.describe_vpc_endpoints()["VpcEndpoints"]}
    assert left & set(endpoints) == {endpoints[1]}
    firewall.delete_firewall(FirewallName="routed")
    with pytest.raises(ClientError, match=r"InvalidVpcEndpointId\.NotFound"):
        ec2.create_route(**route, VpcEndpointId=endpoints[1])
    firewall.delete_firewall_policy(FirewallPolicyArn=policy)


def test_an_update_with_a_stale_token_is_refused(firewall: Any) -> None:
    defaults = {"StatelessDefaultActions": ["aws:drop"], "StatelessFragmentDefaultActions": ["aws:drop"]}
    firewall.create_firewall_policy(FirewallPolicyName="stale", FirewallPolicy=defaults)
    token = firewall.describe_firewall_policy(FirewallPolicyName="stale")["UpdateToken"]
    change = {**defaults, "StatelessDefaultActions": ["aws:pass"]}
    firewall.update_firewall_policy(FirewallPolicyName="stale", FirewallPolicy=change, UpdateToken=token)
    with pytest.raises(firewall.exceptions.InvalidTokenException):
        firewall.update_firewall_policy(FirewallPolicyName="stale", FirewallPolicy=defaults, UpdateToken=token)
    shown = firewall.describe_firewall_policy(FirewallPolicyName="stale")["FirewallPolicy"]
    assert shown["StatelessDefaultActions"] == ["aws:pass"]
    firewall.delete_firewall_policy(FirewallPolicyName="stale")


def test_a_policy_with_an_unknown_rule_group_is_refused(firewall: Any) -> None:
    missing = "arn:aws:network-firewall:us-east-1:123456789012:stateful-rulegroup/none"
    policy = {
        "StatelessDefaultActions": ["aws:drop"],
        "StatelessFragmentDefaultActions": ["aws:drop"],
        "StatefulRuleGroupReferences": [{"ResourceArn": missing}],
    }
    with pytest.raises(firewall.exceptions.InvalidRequestException, match="stateful-rulegroup/none"):
        firewall.create_firewall_policy(FirewallPolicyName="broken", FirewallPolicy=policy)


def test_vpc_block_public_access_is_kept_and_can_be_turned_off(aws: Any, network: dict[str, Any]) -> None:
    ec2 = aws.client("ec2")
    ec2.modify_vpc_block_public_access_options(InternetGatewayBlockMode="block-bidirectional")
    options = ec2.describe_vpc_block_public_access_options()["VpcBlockPublicAccessOptions"]
    assert options["InternetGatewayBlockMode"] == "block-bidirectional"
    made = ec2.create_vpc_block_public_access_exclusion(
        VpcId=network["vpc"], InternetGatewayExclusionMode="allow-egress"
    )
    exclusion = made["VpcBlockPublicAccessExclusion"]["ExclusionId"]
    listed = ec2.describe_vpc_block_public_access_exclusions()["VpcBlockPublicAccessExclusions"]
    assert [item["ExclusionId"] for item in listed] == [exclusion]
    ec2.delete_vpc_block_public_access_exclusion(ExclusionId=exclusion)
    ec2.modify_vpc_block_public_access_options(InternetGatewayBlockMode="off")
    options = ec2.describe_vpc_block_public_access_options()["VpcBlockPublicAccessOptions"]
    assert options["InternetGatewayBlockMode"] == "off"


def test_an_interface_made_by_name_outlives_its_instance_and_one_brought_along_does_not(
    aws: Any, network: dict[str, Any]
) -> None:
    ec2 = aws.client("ec2")
    subnet = network["subnets"][0]
    kept = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    launch = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1}
    fixed = ec2.run_instances(**launch, NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": kept}])[
        "Instances"
    ][0]
    own = ec2.run_instances(**launch, SubnetId=subnet)["Instances"][0]
    brought = own["NetworkInterfaces"][0]["NetworkInterfaceId"]
    ec2.terminate_instances(InstanceIds=[fixed["InstanceId"], own["InstanceId"]])
    found = {i["NetworkInterfaceId"]: i for i in ec2.describe_network_interfaces()["NetworkInterfaces"]}
    assert kept in found
    assert brought not in found
    assert found[kept]["Status"] == "available"
    ec2.delete_network_interface(NetworkInterfaceId=kept)


def test_a_deleted_nat_gateway_gives_its_address_back(aws: Any, network: dict[str, Any]) -> None:
    ec2 = aws.client("ec2")
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    made = ec2.create_nat_gateway(SubnetId=network["subnets"][0], AllocationId=address)["NatGateway"]
    interface = made["NatGatewayAddresses"][0]["NetworkInterfaceId"]
    ec2.delete_nat_gateway(NatGatewayId=made["NatGatewayId"])
    shown = ec2.describe_addresses(AllocationIds=[address])["Addresses"][0]
    assert "AssociationId" not in shown
    assert interface not in [i["NetworkInterfaceId"] for i in ec2.describe_network_interfaces()["NetworkInterfaces"]]
    ec2.release_address(AllocationId=address)


def test_private_dns_of_an_endpoint_can_be_switched(aws: Any, network: dict[str, Any]) -> None:
    ec2 = aws.client("ec2")
    made = ec2.create_vpc_endpoint(
        VpcId=network["vpc"],
        ServiceName="com.amazonaws.us-east-1.ecr.api",
        VpcEndpointType="Interface",
        SubnetIds=network["subnets"][:1],
        PrivateDnsEnabled=False,
    )["VpcEndpoint"]["VpcEndpointId"]
    ec2.modify_vpc_endpoint(VpcEndpointId=made, PrivateDnsEnabled=True)
    assert ec2.describe_vpc_endpoints(VpcEndpointIds=[made])["VpcEndpoints"][0]["PrivateDnsEnabled"] is True
    ec2.delete_vpc_endpoints(VpcEndpointIds=[made])


def test_a_missing_network_acl_entry_has_its_own_error(aws: Any, network: dict[str, Any]) -> None:
    ec2 = aws.client("ec2")
    acl = ec2.create_network_acl(VpcId=network["vpc"])["NetworkAcl"]["NetworkAclId"]
    entry = {"NetworkAclId": acl, "RuleNumber": 100, "Egress": False}
    with pytest.raises(ClientError, match=r"InvalidNetworkAclEntry\.NotFound"):
        ec2.delete_network_acl_entry(**entry)
    ec2.create_network_acl_entry(**entry, Protocol="-1", RuleAction="allow", CidrBlock="10.0.0.0/8")
    with pytest.raises(ClientError, match=r"InvalidNetworkAclEntry\.NotFound"):
        ec2.delete_network_acl_entry(**entry | {"Egress": True})
    ec2.delete_network_acl_entry(**entry)
    ec2.delete_network_acl(NetworkAclId=acl)
