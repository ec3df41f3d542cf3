"""AWS Network Firewall between the public subnets and the internet gateway: a second, independent allow-list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from ringfence.names import Names

# Each listed domain counts as one rule or two (TLS and HTTP); capacity can't be changed later without a replacement.
_CAPACITY = 1000


@dataclass(frozen=True)
class NetworkFirewallArgs:
    """firewall_subnet_ids: zone → the /28 that takes the zone's firewall endpoint. alert_log_group: name of the
    CloudWatch log group that takes alerts."""

    names: Names
    vpc_id: pulumi.Input[str]
    firewall_subnet_ids: Mapping[str, pulumi.Input[str]]
    allowed_domains: tuple[str, ...]
    alert_log_group: pulumi.Input[str]
    deletion_protection: bool = False


def firewall_targets(domains: tuple[str, ...]) -> list[str]:
    """Domains in Network Firewall's form: ``.example.com`` stands for the domain and all below it."""
    return sorted({domain.removeprefix("*") for domain in domains})


class NetworkFirewall(pulumi.ComponentResource):
    """A stateful firewall for everything that leaves the VPC.

    Makes: a rule group that passes TLS to listed server names, a policy in strict order that drops every other
    established flow, the firewall with an endpoint per zone, alert logging.
    Protects against: a proxy or NAT host that was taken over sending data to unlisted names in plain TLS.
    Does not see: Resolver's DNS, and whether the address belongs to the server name (the proxy checks more).
    Trust zone: control side.

    Outputs: endpoint_ids (zone → VPC endpoint id, to route through); firewall_arn.
    """

    def __init__(self, name: str, args: NetworkFirewallArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:NetworkFirewall", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        names = args.names
        policy = self._policy(name, args)
        firewall = aws.networkfirewall.Firewall(
            name,
            name=names.name("egress"),
            vpc_id=args.vpc_id,
            firewall_policy_arn=policy.arn,
            subnet_mappings=[{"subnet_id": subnet} for subnet in args.firewall_subnet_ids.values()],
            delete_protection=args.deletion_protection,
            firewall_policy_change_protection=False,
            subnet_change_protection=False,
            tags=names.tags("network-firewall"),
            opts=child,
        )
        aws.networkfirewall.LoggingConfiguration(
            f"{name}-logging",
            firewall_arn=firewall.arn,
            logging_configuration={
                "log_destination_configs": [
                    {
                        "log_type": "ALERT",
                        "log_destination_type": "CloudWatchLogs",
                        "log_destination": {"logGroup": args.alert_log_group},
                    }
                ]
            },
            opts=child,
        )
        self.firewall_arn: pulumi.Output[str] = firewall.arn
        self.endpoint_ids: dict[str, pulumi.Output[str]] = {
            zone: firewall.firewall_statuses.apply(lambda statuses, zone=zone: _endpoint(statuses, zone))
            for zone in args.firewall_subnet_ids
        }
        self.register_outputs({})

    def _policy(self, name: str, args: NetworkFirewallArgs) -> aws.networkfirewall.FirewallPolicy:
        child = pulumi.ResourceOptions(parent=self)
        names = args.names
        allowed = aws.networkfirewall.RuleGroup(
            f"{name}-allowed",
            name=names.name("egress-allowed"),
            type="STATEFUL",
            capacity=_CAPACITY,
            rule_group={
                "stateful_rule_options": {"rule_order": "STRICT_ORDER"},
                "rules_source": {
                    "rules_source_list": {
                        "generated_rules_type": "ALLOWLIST",
                        "target_types": ["TLS_SNI"],
                        "targets": firewall_targets(args.allowed_domains),
                    }
                },
            },
            tags=names.tags("egress-allowed"),
            opts=child,
        )
        return aws.networkfirewall.FirewallPolicy(
            f"{name}-policy",
            name=names.name("egress"),
            firewall_policy={
                "stateless_default_actions": ["aws:forward_to_sfe"],
                "stateless_fragment_default_actions": ["aws:drop"],
                "stateful_engine_options": {"rule_order": "STRICT_ORDER", "stream_exception_policy": "DROP"},
                # Established, so that the TCP handshake before the ClientHello passes.
                "stateful_default_actions": ["aws:drop_established", "aws:alert_established"],
                "stateful_rule_group_references": [{"resource_arn": allowed.arn, "priority": 100}],
            },
            tags=names.tags("egress"),
            opts=child,
        )


def _endpoint(statuses: list, zone: str) -> str:
    """The endpoint id of a zone. Raises ValueError when AWS reports none there: without it the zone has no way out."""
    for state in statuses[0]["sync_states"] if statuses else []:
        if state["availability_zone"] == zone:
            return state["attachments"][0]["endpoint_id"]
    raise ValueError(f"the network firewall has no endpoint in {zone}")
