"""Route 53 Resolver: DNS Firewall and query logs."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values
from ringfence.local.providers.aws.schema import integer, string, string_set, tags

_TAGGING = Tagging(listing=("list_tags_for_resource", "ResourceArn", "Tags"))


class _Named(Resource):
    """A type with a name, tags and an id that the service makes up; it wants a fresh request id with each creation."""

    service = "route53resolver"
    auto_name = AutoName(limit=64)
    id_path = "Id"
    tagging = _TAGGING

    def request(self, inputs: Values) -> Values:
        return super().request(inputs) | {"CreatorRequestId": inputs["name"]}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs) | {"CreatorRequestId": cloud.creation_digest()}
        if inputs.get("tags"):
            parameters |= self.create_tags(inputs["tags"])
        described = cloud.call(self.service, self.create_operation, **parameters)[self.create_member]
        return described["Id"], described


class ResolverFirewallDomainList(_Named):
    """A list of domains for DNS Firewall rules."""

    pulumi_type = "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList"
    props = {"name": string(replace=True), "domains": string_set(api=None), "tags": tags()}
    outputs = {"arn": "Arn"}
    create_operation = "create_firewall_domain_list"
    create_member = read_member = "FirewallDomainList"
    read_operation = "get_firewall_domain_list"
    delete_operation = "delete_firewall_domain_list"
    keys = {"FirewallDomainListId": "id"}

    def _put(self, cloud: Cloud, id_: str, operation: str, domains: list[str]) -> None:
        parameters = {"FirewallDomainListId": id_, "Operation": operation, "Domains": sorted(domains)}
        cloud.call("route53resolver", "update_firewall_domains", **parameters)

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("domains"):
            self._put(cloud, id_, "ADD", state["domains"])

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is None:
            return None
        pages = cloud.client("route53resolver").get_paginator("list_firewall_domains")
        found = [name for page in pages.paginate(FirewallDomainListId=id_) for name in page["Domains"]]
        declared = state.get("domains") or []
        # The service answers with the root's dot, which declared names may lack.
        same = {name.rstrip(".") for name in declared} == {name.rstrip(".") for name in found}
        return live | {"domains": declared if same else found}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        wanted = new.get("domains") or []
        if wanted:
            self._put(cloud, id_, "REPLACE", wanted)
        else:
            self._put(cloud, id_, "REMOVE", old["domains"])


class ResolverFirewallRuleGroup(_Named):
    """A group of DNS Firewall rules."""

    pulumi_type = "aws:route53/resolverFirewallRuleGroup:ResolverFirewallRuleGroup"
    props = {"name": string(replace=True), "tags": tags()}
    outputs = {"arn": "Arn", "ownerId": "OwnerId", "shareStatus": "ShareStatus"}
    create_operation = "create_firewall_rule_group"
    create_member = read_member = "FirewallRuleGroup"
    read_operation = "get_firewall_rule_group"
    delete_operation = "delete_firewall_rule_group"
    keys = {"FirewallRuleGroupId": "id"}


class ResolverFirewallRule(Resource):
    """A rule of a group. Its id is ``<group>:<domain list>``."""

    pulumi_type = "aws:route53/resolverFirewallRule:ResolverFirewallRule"
    service = "route53resolver"
    props = {
        "name": string(),
        "action": string(required=True),
        "priority": integer(required=True),
        "firewallRuleGroupId": string(required=True, replace=True),
        "firewallDomainListId": string(required=True, replace=True),
        "firewallDomainRedirectionAction": string(default="INSPECT_REDIRECTION_DOMAIN"),
        "blockResponse": string(),
        "blockOverrideDnsType": string(),
        "blockOverrideDomain": string(),
        "blockOverrideTtl": integer(),
        "qType": string(api="Qtype", replace=True),
    }
    auto_name = AutoName(limit=64)
    create_operation = "create_firewall_rule"
    create_member = "FirewallRule"
    update_operation = "update_firewall_rule"
    delete_operation = "delete_firewall_rule"

    def request(self, inputs: Values) -> Values:
        return super().request(inputs) | {"CreatorRequestId": inputs["name"]}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs) | {"CreatorRequestId": cloud.creation_digest()}
        cloud.call("route53resolver", "create_firewall_rule", **parameters)
        return f"{inputs['firewallRuleGroupId']}:{inputs['firewallDomainListId']}", {}

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        group, _, domains = id_.partition(":")
        where = {"FirewallRuleGroupId": group, "FirewallDomainListId": domains}
        return where | ({"Qtype": state["qType"]} if state.get("qType") else {})

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        where = self.parameters(cloud, id_, state)
        pages = cloud.client("route53resolver").get_paginator("list_firewall_rules")
        for page in pages.paginate(FirewallRuleGroupId=where["FirewallRuleGroupId"]):
            for rule in page["FirewallRules"]:
                if all(rule.get(name) == value for name, value in where.items()):
                    return rule
        return None


class ResolverFirewallRuleGroupAssociation(_Named):
    """A rule group that guards a VPC."""

    pulumi_type = "aws:route53/resolverFirewallRuleGroupAssociation:ResolverFirewallRuleGroupAssociation"
    props = {
        "name": string(),
        "firewallRuleGroupId": string(required=True, replace=True),
        "vpcId": string(required=True, replace=True),
        "priority": integer(required=True),
        "mutationProtection": string(default="DISABLED"),
        "tags": tags(),
    }
    outputs = {"arn": "Arn"}
    create_operation = "associate_firewall_rule_group"
    create_member = read_member = "FirewallRuleGroupAssociation"
    read_operation = "get_firewall_rule_group_association"
    update_operation = "update_firewall_rule_group_association"
    delete_operation = "disassociate_firewall_rule_group"
    keys = {"FirewallRuleGroupAssociationId": "id"}
    ready = ("Status", {"COMPLETE"}, {"DELETING"})

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("mutationProtection") == "ENABLED":
            where = {"FirewallRuleGroupAssociationId": id_, "MutationProtection": "DISABLED"}
            cloud.call("route53resolver", "update_firewall_rule_group_association", **where)
        super().delete(cloud, id_, state)


class ResolverFirewallConfig(Resource):
    """Whether a VPC's DNS goes on unfiltered when DNS Firewall fails. Deleting puts the default back: it doesn't."""

    pulumi_type = "aws:route53/resolverFirewallConfig:ResolverFirewallConfig"
    service = "route53resolver"
    props = {"resourceId": string(required=True, replace=True), "firewallFailOpen": string(computed=True)}
    outputs = {"ownerId": "OwnerId"}
    id_path = "Id"
    create_operation = "update_firewall_config"
    create_member = read_member = "FirewallConfig"
    read_operation = "get_firewall_config"

    def request(self, inputs: Values) -> Values:
        return {"FirewallFailOpen": "DISABLED", **super().request(inputs)}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        vpc = state.get("resourceId")
        if vpc:
            return cloud.call("route53resolver", "get_firewall_config", ResourceId=vpc)["FirewallConfig"]
        for page in cloud.client("route53resolver").get_paginator("list_firewall_configs").paginate():
            for found in page["FirewallConfigs"]:
                if found["Id"] == id_:
                    return found
        return None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        cloud.call("route53resolver", "update_firewall_config", **self.request(new))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        closed = {"ResourceId": state["resourceId"], "FirewallFailOpen": "DISABLED"}
        cloud.call("route53resolver", "update_firewall_config", **closed)


class ResolverQueryLogConfig(_Named):
    """Where the DNS queries of VPCs are logged."""

    pulumi_type = "aws:route53/resolverQueryLogConfig:ResolverQueryLogConfig"
    props = {"name": string(replace=True), "destinationArn": string(required=True, replace=True), "tags": tags()}
    outputs = {"arn": "Arn", "ownerId": "OwnerId", "shareStatus": "ShareStatus"}
    create_operation = "create_resolver_query_log_config"
    create_member = read_member = "ResolverQueryLogConfig"
    read_operation = "get_resolver_query_log_config"
    delete_operation = "delete_resolver_query_log_config"
    keys = {"ResolverQueryLogConfigId": "id"}


class ResolverQueryLogConfigAssociation(Resource):
    """A VPC whose DNS queries are logged."""

    pulumi_type = "aws:route53/resolverQueryLogConfigAssociation:ResolverQueryLogConfigAssociation"
    service = "route53resolver"
    props = {
        "resolverQueryLogConfigId": string(required=True, replace=True),
        "resourceId": string(required=True, replace=True),
    }
    id_path = "Id"
    create_operation = "associate_resolver_query_log_config"
    create_member = read_member = "ResolverQueryLogConfigAssociation"
    read_operation = "get_resolver_query_log_config_association"
    keys = {"ResolverQueryLogConfigAssociationId": "id"}
    ready = ("Status", {"ACTIVE"}, {"FAILED", "DELETING"})

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        parameters = self.request({name: state[name] for name in self.props})
        cloud.call("route53resolver", "disassociate_resolver_query_log_config", **parameters)


RESOURCES = (
    ResolverFirewallDomainList,
    ResolverFirewallRuleGroup,
    ResolverFirewallRule,
    ResolverFirewallRuleGroupAssociation,
    ResolverFirewallConfig,
    ResolverQueryLogConfig,
    ResolverQueryLogConfigAssociation,
)
