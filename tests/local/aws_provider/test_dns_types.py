"""Every Route 53, DNS Firewall and Network Firewall type, through its whole life against the real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws_provider.documents import REGION, log_group, subnet, vpc
from tests.local.aws_provider.life_cycle import Case, Made, World, live


def zone(world: World, **more: Any) -> Made:
    """A hosted zone."""
    return world.make("aws:route53/zone:Zone", name=f"{world.name('zone')}.internal", **more)


def domains(world: World) -> Made:
    """A list of domains."""
    return world.make(
        "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList", name=world.name(), domains=["example.com."]
    )


def rule_group(world: World) -> Made:
    """A DNS Firewall rule group."""
    return world.make("aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup", name=world.name())


def query_log(world: World) -> Made:
    """A query log configuration."""
    return world.make(
        "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig",
        name=world.name(),
        destinationArn=log_group(world)["arn"],
    )


def _sni(*names: str) -> dict[str, Any]:
    source = {"generatedRulesType": "ALLOWLIST", "targetTypes": ["TLS_SNI"], "targets": list(names)}
    return {"rulesSource": {"rulesSourceList": source}, "statefulRuleOptions": {"ruleOrder": "STRICT_ORDER"}}


def firewall_rules(world: World) -> Made:
    """A Network Firewall rule group."""
    return world.make(
        "aws:networkfirewall/ruleGroup:RuleGroup",
        name=world.name("rules"),
        type="STATEFUL",
        capacity=100,
        ruleGroup=_sni(".example.com"),
    )


def _policy(world: World, *actions: str) -> dict[str, Any]:
    return {
        "statelessDefaultActions": ["aws:forward_to_sfe"],
        "statelessFragmentDefaultActions": ["aws:drop"],
        "statefulEngineOptions": {"ruleOrder": "STRICT_ORDER", "streamExceptionPolicy": "DROP"},
        "statefulDefaultActions": list(actions),
        "statefulRuleGroupReferences": [{"resourceArn": firewall_rules(world).id, "priority": 100}],
    }


def firewall_policy(world: World) -> Made:
    """A Network Firewall policy."""
    return world.make(
        "aws:networkfirewall/firewallPolicy:FirewallPolicy",
        name=world.name("policy"),
        firewallPolicy=_policy(world, "aws:drop_established"),
    )


def firewall(world: World) -> Made:
    """A firewall."""
    network = vpc(world)
    return world.make(
        "aws:networkfirewall/firewall:Firewall",
        name=world.name("firewall"),
        vpcId=network.id,
        firewallPolicyArn=firewall_policy(world).id,
        subnetMappings=[{"subnetId": subnet(world, network).id}],
    )


def _destination(kind: str, group: str) -> dict[str, Any]:
    return {"logType": kind, "logDestinationType": "CloudWatchLogs", "logDestination": {"logGroup": group}}


def _resolver(operation: str, **parameters: Any) -> Any:
    def act(world: World, made: Made) -> Any:
        given = {name: value(made) if callable(value) else value for name, value in parameters.items()}
        return getattr(world.client("route53resolver"), operation)(**given)

    return act


def _firewall(operation: str, **parameters: Any) -> Any:
    def act(world: World, made: Made) -> Any:
        given = {name: value(made) if callable(value) else value for name, value in parameters.items()}
        return getattr(world.client("network-firewall"), operation)(**given)

    return act


def _id(made: Made) -> str:
    return made.id


def _poison(world: World, made: Made) -> Any:
    record = {"Name": made["name"], "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.66"}]}
    batch = {"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]}
    return world.client("route53").change_resource_record_sets(HostedZoneId=made["zoneId"], ChangeBatch=batch)


def _widen_rules(world: World, made: Made) -> Any:
    client = world.client("network-firewall")
    answer = client.describe_rule_group(RuleGroupArn=made.id)
    group = answer["RuleGroup"]
    group["RulesSource"]["RulesSourceList"]["Targets"].append(".attacker.example")
    return client.update_rule_group(RuleGroupArn=made.id, RuleGroup=group, UpdateToken=answer["UpdateToken"])


def _loosen_policy(world: World, made: Made) -> Any:
    client = world.client("network-firewall")
    answer = client.describe_firewall_policy(FirewallPolicyArn=made.id)
    policy = answer["FirewallPolicy"] | {"StatelessDefaultActions": ["aws:pass"]}
    return client.update_firewall_policy(
        FirewallPolicyArn=made.id, FirewallPolicy=policy, UpdateToken=answer["UpdateToken"]
    )


CASES = [
    Case(
        "aws:route53/zone:Zone",
        lambda world: {
            "name": f"{world.name('zone')}.internal",
            "comment": "proxies",
            "vpcs": [{"vpcId": vpc(world).id}],
            "tags": {"a": "b"},
        },
        update={"comment": "other", "tags": {"a": "c"}},
        replace={"name": "other.internal"},
        drift=lambda world, made: world.client("route53").update_hosted_zone_comment(Id=made.id, Comment="mine"),
        drifted="comment",
    ),
    Case(
        "aws:route53/record:Record",
        lambda world: {
            "zoneId": (made := zone(world)).id,
            "name": f"egress.{made['name']}",
            "type": "A",
            "ttl": 30,
            "records": ["10.0.0.10"],
        },
        update={"ttl": 60, "records": ["10.0.0.10", "10.0.1.10"]},
        replace={"type": "AAAA"},
        drift=_poison,
        drifted="records",
    ),
    Case(
        "aws:route53/record:Record",
        lambda world: {
            "zoneId": (made := zone(world)).id,
            "name": f"egress.{made['name']}",
            "type": "A",
            "ttl": 30,
            "records": ["10.0.0.10"],
            "setIdentifier": "a",
            "multivalueAnswerRoutingPolicy": True,
        },
        update={"records": ["10.0.0.11"]},
        replace={"setIdentifier": "b"},
    ),
    Case(
        "aws:route53/healthCheck:HealthCheck",
        lambda world: {
            "type": "CLOUDWATCH_METRIC",
            "cloudwatchAlarmName": "proxy-down",
            "cloudwatchAlarmRegion": REGION,
            "insufficientDataHealthStatus": "LastKnownStatus",
            "tags": {"a": "b"},
        },
        update={"cloudwatchAlarmName": "other", "invertHealthcheck": True, "tags": {"a": "c"}},
        replace={"type": "CALCULATED"},
        drift=lambda world, made: world.client("route53").delete_health_check(HealthCheckId=made.id),
        drifted="gone",
    ),
    Case(
        "aws:route53/healthCheck:HealthCheck",
        lambda world: {"type": "TCP", "ipAddress": "192.0.2.10", "port": 443, "failureThreshold": 2},
        update={"failureThreshold": 4, "disabled": True},
        replace={"requestInterval": 10},
        drift=lambda world, made: world.client("route53").update_health_check(HealthCheckId=made.id, Port=80),
        drifted="port",
    ),
    Case(
        "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList",
        lambda world: {"name": world.name(), "domains": ["example.com", "*.example.org"], "tags": {"a": "b"}},
        update={"domains": ["example.net"], "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=_resolver(
            "update_firewall_domains", FirewallDomainListId=_id, Operation="ADD", Domains=["attacker.example."]
        ),
        drifted="domains",
    ),
    Case(
        "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup",
        lambda world: {"name": world.name(), "tags": {"a": "b"}},
        update={"tags": {"a": "c", "d": "e"}},
        replace={"name": "other"},
        drift=_resolver("delete_firewall_rule_group", FirewallRuleGroupId=_id),
        drifted="gone",
    ),
    Case(
        "aws:route53/resolverFirewallRule:ResolverFirewallRule",
        lambda world: {
            "name": "block",
            "action": "BLOCK",
            "blockResponse": "NXDOMAIN",
            "priority": 200,
            "firewallDomainListId": domains(world).id,
            "firewallRuleGroupId": rule_group(world).id,
            "firewallDomainRedirectionAction": "TRUST_REDIRECTION_DOMAIN",
        },
        update={"priority": 300, "blockResponse": "NODATA"},
        replace={"firewallRuleGroupId": "rslvr-frg-0"},
        drift=_resolver(
            "update_firewall_rule",
            FirewallRuleGroupId=lambda made: made["firewallRuleGroupId"],
            FirewallDomainListId=lambda made: made["firewallDomainListId"],
            Action="ALLOW",
        ),
        drifted="action",
    ),
    Case(
        "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation",
        lambda world: {
            "name": world.name(),
            "firewallRuleGroupId": rule_group(world).id,
            "vpcId": vpc(world).id,
            "priority": 101,
            "mutationProtection": "ENABLED",
            "tags": {"a": "b"},
        },
        update={"mutationProtection": "DISABLED", "priority": 102, "tags": {"a": "c"}},
        replace={"vpcId": "vpc-00000000"},
        drift=_resolver(
            "update_firewall_rule_group_association", FirewallRuleGroupAssociationId=_id, MutationProtection="ENABLED"
        ),
        drifted="mutationProtection",
    ),
    Case(
        "aws:route53/resolverFirewallConfig:ResolverFirewallConfig",
        lambda world: {"resourceId": vpc(world).id, "firewallFailOpen": "DISABLED"},
        update={"firewallFailOpen": "ENABLED"},
        replace={"resourceId": "vpc-00000000"},
        drift=_resolver(
            "update_firewall_config", ResourceId=lambda made: made["resourceId"], FirewallFailOpen="DISABLED"
        ),
        drifted="firewallFailOpen",
        outlives=True,
    ),
    Case(
        "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig",
        lambda world: {"name": world.name(), "destinationArn": log_group(world)["arn"], "tags": {"a": "b"}},
        update={"tags": {"a": "c"}},
        replace={"name": "other"},
        drift=_resolver("delete_resolver_query_log_config", ResolverQueryLogConfigId=_id),
        drifted="gone",
    ),
    Case(
        "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation",
        lambda world: {"resolverQueryLogConfigId": query_log(world).id, "resourceId": vpc(world).id},
        replace={"resourceId": "vpc-00000000"},
        drift=_resolver(
            "disassociate_resolver_query_log_config",
            ResolverQueryLogConfigId=lambda made: made["resolverQueryLogConfigId"],
            ResourceId=lambda made: made["resourceId"],
        ),
        drifted="gone",
    ),
    Case(
        "aws:networkfirewall/ruleGroup:RuleGroup",
        lambda world: {
            "name": world.name("rules"),
            "type": "STATEFUL",
            "capacity": 100,
            "ruleGroup": _sni(".example.com", "example.org")
            | {"ruleVariables": {"ipSets": [{"key": "HOME_NET", "ipSet": {"definitions": ["10.0.0.0/16"]}}]}},
            "tags": {"a": "b"},
        },
        update={"ruleGroup": _sni(".example.com"), "tags": {"a": "c"}},
        replace={"capacity": 200},
        drift=_widen_rules,
        drifted="ruleGroup.rulesSource.rulesSourceList.targets",
    ),
    Case(
        "aws:networkfirewall/ruleGroup:RuleGroup",
        lambda world: {
            "name": world.name("rules"),
            "type": "STATEFUL",
            "capacity": 100,
            "rules": 'pass tls any any -> any any (tls.sni; content:"example.com"; sid:1;)',
        },
        update={"rules": 'pass tls any any -> any any (tls.sni; content:"example.org"; sid:1;)'},
        replace={"name": "other"},
    ),
    Case(
        "aws:networkfirewall/firewallPolicy:FirewallPolicy",
        lambda world: {
            "name": world.name("policy"),
            "firewallPolicy": _policy(world, "aws:drop_established", "aws:alert_established"),
            "tags": {"a": "b"},
        },
        update=lambda world: {"firewallPolicy": _policy(world, "aws:drop_strict"), "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=_loosen_policy,
        drifted="firewallPolicy.statelessDefaultActions",
    ),
    Case(
        "aws:networkfirewall/firewall:Firewall",
        lambda world: {
            "name": world.name("firewall"),
            "vpcId": (network := vpc(world)).id,
            "firewallPolicyArn": firewall_policy(world).id,
            "subnetMappings": [{"subnetId": subnet(world, network).id}],
            "subnetChangeProtection": True,
            "tags": {"a": "b"},
        },
        update=lambda world: {
            "firewallPolicyArn": firewall_policy(world).id,
            "subnetMappings": [
                {
                    "subnetId": subnet(
                        world, next(made for made in world.made if made.type.endswith(":Vpc")), "10.0.1.0/24", "b"
                    ).id
                }
            ],
            "subnetChangeProtection": False,
            "description": "egress",
            "tags": {"a": "c"},
        },
        replace={"vpcId": "vpc-00000000"},
        drift=_firewall("update_subnet_change_protection", FirewallArn=_id, SubnetChangeProtection=True),
        drifted="subnetChangeProtection",
    ),
    Case(
        "aws:networkfirewall/loggingConfiguration:LoggingConfiguration",
        lambda world: {
            "firewallArn": firewall(world).id,
            "loggingConfiguration": {"logDestinationConfigs": [_destination("ALERT", log_group(world).id)]},
        },
        update=lambda world: {
            "loggingConfiguration": {
                "logDestinationConfigs": [
                    _destination("ALERT", log_group(world).id),
                    _destination("FLOW", log_group(world).id),
                ]
            }
        },
        replace={"firewallArn": f"arn:aws:network-firewall:{REGION}:123456789012:firewall/other"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_name_or_firewall_resource_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


def test_a_firewall_tells_its_endpoint_in_each_zone(world: World) -> None:
    made = firewall(world)
    states = made["firewallStatuses"][0]["syncStates"]
    assert [state["availabilityZone"] for state in states] == [f"{REGION}a"]
    assert states[0]["attachments"][0]["endpointId"].startswith("vpce-")
