"""Route 53 Resolver DNS Firewall, and the query-log deletions that moto lacks."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Kind, Table, operations, tagging
from ringfence.local.aws_server.recorded.store import Context, Record, hex_id, iso_now
from ringfence.local.aws_server.wire import ApiError

# DNS Firewall limits. Source: Route 53 developer guide, "Quotas on Route 53 Resolver DNS Firewall" (domains per list).
MAX_DOMAINS_PER_LIST = 100_000


def _build_domain_list(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    return _identified(context, given, "rslvr-fdl", "firewall-domain-list") | {"Domains": []}


def _build_rule_group(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    extra = {"OwnerId": context.account, "ShareStatus": "NOT_SHARED"}
    return _identified(context, given, "rslvr-frg", "firewall-rule-group") | extra


def _build_association(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    RULE_GROUP.find(context)
    _vpc(context, given["VpcId"])
    _free_priority(context, given["VpcId"], given["Priority"], None)
    base = _identified(context, given, "rslvr-frgassoc", "firewall-rule-group-association")
    return {"MutationProtection": "DISABLED", **base}


def _identified(context: Context, given: dict[str, Any], prefix: str, noun: str) -> dict[str, Any]:
    identifier = f"{prefix}-{hex_id(16)}"
    arn = context.arn("route53resolver", f"{noun}/{identifier}")
    return {**given, "Id": identifier, "Arn": arn, "Status": "COMPLETE", "StatusMessage": ""}


def _vpc(context: Context, vpc_id: str) -> None:
    from moto.ec2.models import ec2_backends

    if vpc_id not in ec2_backends[context.account][context.region].vpcs:
        raise ApiError("ResourceNotFoundException", f"The VPC {vpc_id} does not exist.", ResourceType="VPC")


def _free_priority(context: Context, vpc: str, priority: int, own: Record | None) -> None:
    for record in context.records(ASSOCIATION.name).values():
        if record is not own and (record.attributes["VpcId"], record.attributes["Priority"]) == (vpc, priority):
            raise ApiError("ValidationException", f"Priority {priority} is taken by another association of {vpc}.")


def _domains_of(_context: Context, record: Record) -> dict[str, Any]:
    return {"DomainCount": len(record.attributes["Domains"])}


def _rules_of(context: Context, record: Record) -> dict[str, Any]:
    return {"RuleCount": len(_rules(context, record.attributes["Id"]))}


def _rules(context: Context, group: str) -> list[Record]:
    return [r for r in context.records(RULE.name).values() if r.attributes["FirewallRuleGroupId"] == group]


def _list_in_use(context: Context, record: Record | None) -> None:
    used = [r for r in context.records(RULE.name).values() if record and _list_id(r) == record.attributes["Id"]]
    if used:
        raise ApiError(
            "ConflictException", f"{_id(record)} is used by a rule of {used[0].attributes['FirewallRuleGroupId']}."
        )


def _list_id(record: Record) -> str:
    return str(record.attributes.get("FirewallDomainListId", ""))


def _id(record: Record | None) -> str:
    return str(record.attributes["Id"]) if record else ""


def _group_in_use(context: Context, record: Record | None) -> None:
    for other in context.records(ASSOCIATION.name).values():
        if other.attributes["FirewallRuleGroupId"] == _id(record):
            raise ApiError("ConflictException", f"{_id(record)} is associated with {other.attributes['VpcId']}.")
    if _rules(context, _id(record)):
        raise ApiError("ConflictException", f"{_id(record)} still has rules; delete them first.")


def _mutable(_context: Context, record: Record | None) -> None:
    if record and record.attributes["MutationProtection"] == "ENABLED":
        raise ApiError("ConflictException", f"{_id(record)} has mutation protection enabled; disable it first.")


def _check_association_update(context: Context, record: Record | None) -> None:
    if record and "Priority" in context.params:
        _free_priority(context, record.attributes["VpcId"], context.params["Priority"], record)


def _build_rule(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    RULE_GROUP.find(context)
    _check_rule(context, given, None)
    if given.get("FirewallDomainListId"):
        DOMAIN_LIST.find(context)
    elif given.get("DnsThreatProtection"):
        given["FirewallThreatProtectionId"] = f"rslvr-ftp-{hex_id(16)}"
    else:
        raise ApiError("ValidationException", "FirewallDomainListId or DnsThreatProtection must be given.")
    return {"FirewallDomainRedirectionAction": "INSPECT_REDIRECTION_DOMAIN", **given}


def _check_rule(context: Context, rule: dict[str, Any], own: Record | None) -> None:
    """The service's rules about a rule's members. Source: the API reference of CreateFirewallRule."""
    if rule["Action"] == "BLOCK" and "BlockResponse" not in rule:
        raise ApiError("ValidationException", "BlockResponse must be given with the action BLOCK.")
    if rule["Action"] != "BLOCK" and "BlockResponse" in rule:
        raise ApiError("ValidationException", f"BlockResponse can't be given with the action {rule['Action']}.")
    if rule.get("BlockResponse") == "OVERRIDE" and not rule.get("BlockOverrideDomain"):
        raise ApiError("ValidationException", "BlockOverrideDomain must be given with the block response OVERRIDE.")
    for record in _rules(context, rule["FirewallRuleGroupId"]):
        if record is not own and record.attributes["Priority"] == rule["Priority"]:
            raise ApiError("ValidationException", f"Priority {rule['Priority']} is taken by another rule of the group.")


def _update_rule(context: Context) -> dict[str, Any]:
    _, record = RULE.find(context)
    new = {**record.attributes, **context.params}
    if new["Action"] != "BLOCK" and "BlockResponse" not in context.params:
        new = {name: value for name, value in new.items() if not name.startswith("Block")}
    _check_rule(context, new, record)
    record.attributes = {**new, "ModificationTime": iso_now()}
    return RULE.reply(context, record)


def _update_domains(context: Context) -> dict[str, Any]:
    _, record = DOMAIN_LIST.find(context)
    given = [domain.rstrip(".").lower() + "." for domain in context.params["Domains"]]
    current: list[str] = record.attributes["Domains"]
    operation = context.params["Operation"]
    if operation == "REPLACE":
        domains = list(dict.fromkeys(given))
    elif operation == "ADD":
        domains = list(dict.fromkeys([*current, *given]))
    else:
        unknown = sorted(set(given) - set(current))
        if unknown:
            raise ApiError("ValidationException", f"Not in the list: {', '.join(unknown)}.")
        domains = [domain for domain in current if domain not in set(given)]
    if len(domains) > MAX_DOMAINS_PER_LIST:
        raise ApiError("LimitExceededException", f"A list holds at most {MAX_DOMAINS_PER_LIST} domains.")
    record.attributes.update(Domains=domains, ModificationTime=iso_now())
    return DOMAIN_LIST.reply(context, record)


def _list_domains(context: Context) -> dict[str, Any]:
    return {"Domains": DOMAIN_LIST.find(context)[1].attributes["Domains"]}


def _config(context: Context, kind: str, identifier: str, default: dict[str, Any]) -> Record:
    """The one configuration that each VPC has, made when first asked for."""
    resource = context.params["ResourceId"]
    _vpc(context, resource)
    records = context.records(kind)
    if (resource,) not in records:
        base = {"Id": f"{identifier}-{hex_id(16)}", "ResourceId": resource, "OwnerId": context.account}
        records[(resource,)] = Record(base | default)
    return records[(resource,)]


def _firewall_config(context: Context) -> dict[str, Any]:
    record = _config(context, "firewallConfig", "rslvr-fc", {"FirewallFailOpen": "DISABLED"})
    if "FirewallFailOpen" in context.params:
        record.attributes["FirewallFailOpen"] = context.params["FirewallFailOpen"]
    return {"FirewallConfig": record.attributes}


def _list_firewall_configs(context: Context) -> dict[str, Any]:
    return {"FirewallConfigs": [record.attributes for record in context.records("firewallConfig").values()]}


def _resolver_config(context: Context) -> dict[str, Any]:
    record = _config(context, "resolverConfig", "rslvr-rc", {"AutodefinedReverse": "ENABLED"})
    if "AutodefinedReverseFlag" in context.params:
        chosen = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}
        flag = context.params["AutodefinedReverseFlag"]
        record.attributes["AutodefinedReverse"] = chosen.get(flag, flag)
    return {"ResolverConfig": record.attributes}


def _backend(context: Context) -> Any:
    from moto.route53resolver.models import route53resolver_backends

    return route53resolver_backends[context.account][context.region]


def _delete_query_log_config(context: Context) -> dict[str, Any]:
    backend = _backend(context)
    identifier = context.params["ResolverQueryLogConfigId"]
    found = backend.get_resolver_query_log_config(identifier)
    if any(
        a.resolver_query_log_config_id == identifier for a in backend.resolver_query_log_config_associations.values()
    ):
        raise ApiError("InvalidRequestException", f"{identifier} is associated with a VPC; disassociate it first.")
    del backend.resolver_query_log_configs[identifier]
    backend.tagger.delete_all_tags_for_resource(found.arn)
    return {"ResolverQueryLogConfig": {**found.description(), "Status": "DELETING"}}


def _disassociate_query_log_config(context: Context) -> dict[str, Any]:
    backend = _backend(context)
    wanted = (context.params["ResolverQueryLogConfigId"], context.params["ResourceId"])
    config = backend.get_resolver_query_log_config(wanted[0])
    for key, found in list(backend.resolver_query_log_config_associations.items()):
        if (found.resolver_query_log_config_id, found.resource_id) == wanted:
            del backend.resolver_query_log_config_associations[key]
            config.association_count = max(0, config.association_count - 1)
            return {"ResolverQueryLogConfigAssociation": {**found.description(), "Status": "DELETING"}}
    raise ApiError("ResourceNotFoundException", f"{wanted[0]} is not associated with {wanted[1]}.")


def _query_log_tags(context: Context, arn: str) -> dict[str, str] | None:
    """moto takes a query log configuration's tags when it is made, but finds only endpoints and rules by ARN."""
    backend = _backend(context)
    if all(config.arn != arn for config in backend.resolver_query_log_configs.values()):
        return None
    tags: dict[str, str] = backend.tagger.tags.setdefault(arn, {})
    return tags


_STAMPS = ("CreationTime", "ModificationTime")


DOMAIN_LIST = Kind(
    service="route53resolver",
    name="firewallDomainList",
    identity={"FirewallDomainListId": "Id"},
    arn="Arn",
    create="CreateFirewallDomainList",
    describe="GetFirewallDomainList",
    list="ListFirewallDomainLists",
    delete="DeleteFirewallDomainList",
    answer="FirewallDomainList",
    listing="FirewallDomainLists",
    tags="Tags",
    build=_build_domain_list,
    stamps=_STAMPS,
    clock=iso_now,
    check_delete=_list_in_use,
    view=_domains_of,
)
RULE_GROUP = Kind(
    service="route53resolver",
    name="firewallRuleGroup",
    identity={"FirewallRuleGroupId": "Id"},
    arn="Arn",
    create="CreateFirewallRuleGroup",
    describe="GetFirewallRuleGroup",
    list="ListFirewallRuleGroups",
    delete="DeleteFirewallRuleGroup",
    answer="FirewallRuleGroup",
    listing="FirewallRuleGroups",
    tags="Tags",
    build=_build_rule_group,
    stamps=_STAMPS,
    clock=iso_now,
    check_delete=_group_in_use,
    view=_rules_of,
)
RULE = Kind(
    service="route53resolver",
    name="firewallRule",
    identity={
        "FirewallRuleGroupId": "FirewallRuleGroupId",
        "FirewallDomainListId": "FirewallDomainListId",
        "FirewallThreatProtectionId": "FirewallThreatProtectionId",
        "Qtype": "Qtype",
    },
    create="CreateFirewallRule",
    list="ListFirewallRules",
    delete="DeleteFirewallRule",
    answer="FirewallRule",
    listing="FirewallRules",
    filters={"FirewallRuleGroupId": "FirewallRuleGroupId", "Priority": "Priority", "Action": "Action"},
    tags="",
    build=_build_rule,
    stamps=_STAMPS,
    clock=iso_now,
    exists="ConflictException",
)
ASSOCIATION = Kind(
    service="route53resolver",
    name="firewallRuleGroupAssociation",
    identity={"FirewallRuleGroupAssociationId": "Id"},
    key=("FirewallRuleGroupId", "VpcId"),
    arn="Arn",
    create="AssociateFirewallRuleGroup",
    describe="GetFirewallRuleGroupAssociation",
    list="ListFirewallRuleGroupAssociations",
    update="UpdateFirewallRuleGroupAssociation",
    delete="DisassociateFirewallRuleGroup",
    answer="FirewallRuleGroupAssociation",
    listing="FirewallRuleGroupAssociations",
    filters={name: name for name in ("FirewallRuleGroupId", "VpcId", "Priority", "Status")},
    tags="Tags",
    build=_build_association,
    stamps=_STAMPS,
    clock=iso_now,
    exists="ConflictException",
    check_update=_check_association_update,
    check_delete=_mutable,
)
KINDS = (DOMAIN_LIST, RULE_GROUP, RULE, ASSOCIATION)
TABLE: Table = {
    **{name: handler for kind in KINDS for name, handler in operations(kind).items()},
    **tagging(KINDS, "ResourceArn", "Tags", "TagKeys", _query_log_tags),
    "UpdateFirewallRule": _update_rule,
    "UpdateFirewallDomains": _update_domains,
    "ListFirewallDomains": _list_domains,
    "GetFirewallConfig": _firewall_config,
    "UpdateFirewallConfig": _firewall_config,
    "ListFirewallConfigs": _list_firewall_configs,
    "GetResolverConfig": _resolver_config,
    "UpdateResolverConfig": _resolver_config,
    "DeleteResolverQueryLogConfig": _delete_query_log_config,
    "DisassociateResolverQueryLogConfig": _disassociate_query_log_config,
}
