"""Route 53 Resolver DNS Firewall: names on the list resolve, every other name is blocked and logged."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.iam_documents import document, statement
from ringfence.egress.ports import private_zone
from ringfence.errors import InputError, Problem
from ringfence.names import Names

# Rules run from the lowest number; gaps leave room for an operator's own deny rules in front.
_ALLOW_PRIORITY, _BLOCK_PRIORITY = 1000, 9000
# An association's priority must lie in 101–9900 (API reference, AssociateFirewallRuleGroup).
_ASSOCIATION_PRIORITY = 101


@dataclass(frozen=True)
class DnsFirewallArgs:
    """allowed_domains: ``api.example.com`` or ``*.example.com``, lower case. query_log_group_arn: CloudWatch log group."""

    names: Names
    vpc_id: pulumi.Input[str]
    allowed_domains: tuple[str, ...]
    query_log_group_arn: pulumi.Input[str]


def environment_domains(names: Names) -> tuple[str, ...]:
    """Names that the environment itself resolves: AWS's own services, the VPC's instances and its private zone.

    All AWS names, not one region's: IAM, ECR Public and the console's APIs have global names. Nobody but AWS answers for
    them, so a query for a made-up name under them tells an attacker nothing.
    """
    suffixes = {"aws-cn": ("amazonaws.com.cn",)}.get(names.partition, ())
    compute = "ec2.internal" if names.region == "us-east-1" else f"{names.region}.compute.internal"
    return (
        *(f"*.{suffix}" for suffix in ("amazonaws.com", "api.aws", *suffixes)),
        f"*.{compute}",
        f"*.{private_zone(names)}",
    )


def query_log_resource_policy(names: Names) -> str:
    """Lets the log delivery service write this account's query logs to this environment's group, and nothing else."""
    group = names.arn("logs", f"log-group:{names.log_group('dns')}:*")
    return document(
        statement(
            "Allow",
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            group,
            {
                "StringEquals": {"aws:SourceAccount": names.account_id},
                "ArnLike": {"aws:SourceArn": names.arn("logs", "*")},
            },
            {"Service": "delivery.logs.amazonaws.com"},
            "ResolverQueryLogs",
        )
    )


def _check(args: DnsFirewallArgs) -> None:
    problems = [
        Problem("network", "dns_allowed_domains", f"{domain!r} allows every name", "name the domains that are needed")
        for domain in args.allowed_domains
        if domain.strip("*.") == ""
    ]
    if problems:
        raise InputError(problems)


class DnsFirewall(pulumi.ComponentResource):
    """DNS as a control: an allow-list, then a block of everything else.

    Makes: two domain lists, a rule group with the allow and the block rule and its association with the VPC, the
    VPC's firewall configuration with fail-open off, query logging to CloudWatch with the log's resource policy.
    Protects against: data carried out in DNS queries through the VPC's resolver (which security groups, NACLs and route
    tables don't see); names of unlisted hosts resolving for anything in the VPC; an outage of the firewall opening it.
    Does not see: DNS over HTTPS, or addresses used without a name; routes and the proxy refuse those.
    Trust zone: control side.

    Outputs: rule_group_id; association_id.
    """

    def __init__(self, name: str, args: DnsFirewallArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:DnsFirewall", name, None, opts)
        _check(args)
        names = args.names
        child = pulumi.ResourceOptions(parent=self)
        group = aws.route53.ResolverFirewallRuleGroup(
            f"{name}-rules", name=names.name("dns"), tags=names.tags("dns"), opts=child
        )
        allowed = sorted({*args.allowed_domains, *environment_domains(names)})
        self._rule(name, names, group, "allow", allowed)
        self._rule(name, names, group, "block", ["*"])
        association = aws.route53.ResolverFirewallRuleGroupAssociation(
            f"{name}-association",
            name=names.name("dns"),
            firewall_rule_group_id=group.id,
            vpc_id=args.vpc_id,
            priority=_ASSOCIATION_PRIORITY,
            # ENABLED would make a `destroy` fail until somebody lifts it by hand.
            mutation_protection="DISABLED",
            tags=names.tags("dns"),
            opts=child,
        )
        aws.route53.ResolverFirewallConfig(
            f"{name}-config", resource_id=args.vpc_id, firewall_fail_open="DISABLED", opts=child
        )
        self._query_log(name, args)
        self.rule_group_id: pulumi.Output[str] = group.id
        self.association_id: pulumi.Output[str] = association.id
        self.register_outputs({})

    def _rule(
        self, name: str, names: Names, group: aws.route53.ResolverFirewallRuleGroup, action: str, domains: list[str]
    ) -> None:
        child = pulumi.ResourceOptions(parent=self)
        listed = aws.route53.ResolverFirewallDomainList(
            f"{name}-{action}-domains",
            name=names.name(f"dns-{action}"),
            domains=domains,
            tags=names.tags(f"dns-{action}"),
            opts=child,
        )
        aws.route53.ResolverFirewallRule(
            f"{name}-{action}",
            name=names.name(f"dns-{action}"),
            action=action.upper(),
            # NXDOMAIN rather than an empty answer: clients fail at once instead of trying other record types.
            block_response="NXDOMAIN" if action == "block" else None,
            priority=_ALLOW_PRIORITY if action == "allow" else _BLOCK_PRIORITY,
            firewall_domain_list_id=listed.id,
            firewall_rule_group_id=group.id,
            # A listed host behind a CDN is an alias of the CDN's names; only the name that was asked for is judged.
            firewall_domain_redirection_action="TRUST_REDIRECTION_DOMAIN" if action == "allow" else None,
            opts=child,
        )

    def _query_log(self, name: str, args: DnsFirewallArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)
        names = args.names
        policy = aws.cloudwatch.LogResourcePolicy(
            f"{name}-query-log-policy",
            policy_name=names.name("dns-query-log"),
            policy_document=query_log_resource_policy(names),
            opts=child,
        )
        config = aws.route53.ResolverQueryLogConfig(
            f"{name}-query-log",
            name=names.name("dns"),
            destination_arn=args.query_log_group_arn,
            tags=names.tags("dns"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        aws.route53.ResolverQueryLogConfigAssociation(
            f"{name}-query-log-association",
            resolver_query_log_config_id=config.id,
            resource_id=args.vpc_id,
            opts=child,
        )
