"""AWS Network Firewall: rule groups, policies, firewalls and their logging, all of it recorded (moto has fragments)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ringfence.local.aws_server.recorded.kinds import Kind, Table, operations, tag_form, tagging
from ringfence.local.aws_server.recorded.store import Context, Handler, Record, hex_id, new_uuid, now
from ringfence.local.aws_server.wire import ApiError


def _named(context: Context, given: dict[str, Any], noun: str, prefix: str) -> dict[str, Any]:
    """The members that every kind of the service has."""
    arn = context.arn("network-firewall", f"{noun}/{given[f'{prefix}Name']}")
    return {
        "EncryptionConfiguration": {"Type": "AWS_OWNED_KMS_KEY"},
        **given,
        f"{prefix}Arn": arn,
        f"{prefix}Id": new_uuid(),
        "UpdateToken": new_uuid(),
        "LastModifiedTime": now(),
    }


def _build_rule_group(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    sources = [name for name in ("RuleGroup", "FirewallRuleGroup", "IpsRuleGroup", "Rules") if name in given]
    if len(sources) != 1:
        raise ApiError("InvalidRequestException", "Exactly one of RuleGroup and Rules must be given.")
    noun = "stateless-rulegroup" if given["Type"] == "STATELESS" else "stateful-rulegroup"
    made = _named(context, given, noun, "RuleGroup")
    if "Rules" in made:
        made["RuleGroup"] = {"RulesSource": {"RulesString": made.pop("Rules")}}
    return {**made, "RuleGroupStatus": "ACTIVE", "ConsumedCapacity": 0}


def _build_policy(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    _check_references(context, given["FirewallPolicy"])
    return {**_named(context, given, "firewall-policy", "FirewallPolicy"), "FirewallPolicyStatus": "ACTIVE"}


def _references(policy: Mapping[str, Any]) -> list[str]:
    """ARNs of the rule groups that a policy uses."""
    members = ("StatelessRuleGroupReferences", "StatefulRuleGroupReferences")
    return [reference["ResourceArn"] for member in members for reference in policy.get(member, [])]


def _check_references(context: Context, policy: Mapping[str, Any]) -> None:
    known = {record.attributes["RuleGroupArn"] for record in context.records(RULE_GROUP.name).values()}
    # Groups that AWS manages have `aws-managed` in place of the account.
    missing = [arn for arn in _references(policy) if arn not in known and ":aws-managed:" not in arn]
    if missing:
        raise ApiError("InvalidRequestException", f"No such rule group: {', '.join(missing)}.")


def _build_firewall(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    _policy(context, given["FirewallPolicyArn"])
    _check_subnets(context, given.get("VpcId", ""), given.get("SubnetMappings", []))
    defaults = dict.fromkeys(("DeleteProtection", "SubnetChangeProtection", "FirewallPolicyChangeProtection"), False)
    return {**defaults, **_named(context, given, "firewall", "Firewall"), "Endpoints": {}}


def _policy(context: Context, arn: str) -> None:
    if all(r.attributes["FirewallPolicyArn"] != arn for r in context.records(POLICY.name).values()):
        raise ApiError("InvalidRequestException", f"No such firewall policy: {arn}.")


def _check_subnets(context: Context, vpc: str, mappings: list[dict[str, Any]]) -> None:
    subnets = _subnets(context)
    for mapping in mappings:
        subnet = subnets.get(mapping["SubnetId"])
        if subnet is None or (vpc and subnet.vpc_id != vpc):
            raise ApiError("InvalidRequestException", f"Subnet {mapping['SubnetId']} is not one of {vpc or 'the VPC'}.")


def _ec2(context: Context) -> Any:
    from moto.ec2.models import ec2_backends

    return ec2_backends[context.account][context.region]


def _subnets(context: Context) -> dict[str, Any]:
    return {subnet.id: subnet for zone in _ec2(context).subnets.values() for subnet in zone.values()}


def _endpoint(context: Context, record: Record, subnet: Any) -> str:
    """The firewall's endpoint in a subnet, made when first asked for, where routes can lead to it."""
    from moto.ec2.models.vpcs import VPCEndPoint

    endpoints: dict[str, str] = record.attributes["Endpoints"]
    if subnet.id not in endpoints:
        backend, made = _ec2(context), f"vpce-{hex_id(17)}"
        service = f"com.amazonaws.vpce.{context.region}.vpce-svc-{hex_id(17)}"
        tags = {"AWSNetworkFirewallManaged": "true", "Firewall": record.attributes["FirewallArn"]}
        backend.vpc_end_points[made] = VPCEndPoint(
            backend, made, subnet.vpc_id, service, "GatewayLoadBalancer", None, [], [subnet.id], tags=tags
        )
        endpoints[subnet.id] = made
    return endpoints[subnet.id]


def _remove_endpoints(context: Context, record: Record, subnets: Iterable[str]) -> None:
    for subnet in subnets:
        _ec2(context).vpc_end_points.pop(record.attributes["Endpoints"].pop(subnet, ""), None)


def _after_firewall_delete(context: Context, record: Record) -> None:
    _remove_endpoints(context, record, list(record.attributes["Endpoints"]))


def _group_view(context: Context, record: Record) -> dict[str, Any]:
    policies = context.records(POLICY.name).values()
    arn = record.attributes["RuleGroupArn"]
    shown = _summary(record) | {
        "NumberOfAssociations": sum(arn in _references(policy.attributes["FirewallPolicy"]) for policy in policies)
    }
    return {"RuleGroupResponse": shown, "Name": record.attributes["RuleGroupName"], "Arn": arn}


def _policy_view(context: Context, record: Record) -> dict[str, Any]:
    arn = record.attributes["FirewallPolicyArn"]
    users = [r for r in context.records(FIREWALL.name).values() if r.attributes["FirewallPolicyArn"] == arn]
    shown = _summary(record) | {"NumberOfAssociations": len(users)}
    return {"FirewallPolicyResponse": shown, "Name": record.attributes["FirewallPolicyName"], "Arn": arn}


def _firewall_view(context: Context, record: Record) -> dict[str, Any]:
    subnets = _subnets(context)
    states: dict[str, Any] = {}
    for mapping in record.attributes.get("SubnetMappings", []):
        subnet = subnets.get(mapping["SubnetId"])
        if subnet is not None:
            attachment = {"SubnetId": subnet.id, "EndpointId": _endpoint(context, record, subnet), "Status": "READY"}
            states[subnet.availability_zone] = {"Attachment": attachment, "Config": {}}
    status = {"Status": "READY", "ConfigurationSyncStateSummary": "IN_SYNC", "SyncStates": states}
    return {"Firewall": _summary(record), "FirewallStatus": status}


def _summary(record: Record) -> dict[str, Any]:
    return {**record.attributes, "Tags": tag_form([], record.tags)}


def _unused(
    kind: str, uses: Callable[[Record, str], bool], arn: str, noun: str
) -> Callable[[Context, Record | None], None]:
    """Refuses to delete what another record still uses."""

    def check(context: Context, record: Record | None) -> None:
        own = record.attributes[arn] if record else ""
        if any(uses(other, own) for other in context.records(kind).values()):
            raise ApiError("InvalidOperationException", f"{own} is in use by a {noun}.")

    return check


def _token(_context: Context, record: Record | None) -> None:
    given = _context.params.get("UpdateToken")
    if record and given is not None and given != record.attributes["UpdateToken"]:
        raise ApiError("InvalidTokenException", "The update token is not the current one; describe the resource again.")


def _check_policy_update(context: Context, record: Record | None) -> None:
    _token(context, record)
    _check_references(context, context.params["FirewallPolicy"])


def _check_firewall_delete(_context: Context, record: Record | None) -> None:
    if record and record.attributes["DeleteProtection"]:
        raise ApiError("InvalidOperationException", "The firewall has delete protection enabled; disable it first.")
    if record and record.attributes.get("LoggingConfiguration", {}).get("LogDestinationConfigs"):
        raise ApiError("InvalidOperationException", "The firewall still has a logging configuration; remove it first.")


def _renewing(kind: Kind) -> Handler:
    """The kind's update, which also gives a new update token."""
    plain = operations(kind)[kind.update]

    def update(context: Context) -> Mapping[str, Any] | object:
        if context.params.get("DryRun"):
            return kind.reply(context, kind.find(context)[1])
        if "Rules" in context.params:
            context.params["RuleGroup"] = {"RulesSource": {"RulesString": context.params.pop("Rules")}}
        plain(context)
        _, record = kind.find(context)
        record.attributes.update(UpdateToken=new_uuid(), LastModifiedTime=now())
        return kind.reply(context, record)

    return update


def _firewall_update(*members: str, protection: str = "") -> Handler:
    """An operation that sets members of a firewall, unless the named protection is on."""

    def update(context: Context) -> dict[str, Any]:
        _, record = FIREWALL.find(context)
        _token(context, record)
        if protection and record.attributes.get(protection):
            raise ApiError("InvalidOperationException", f"{protection} is enabled; disable it first.")
        if "FirewallPolicyArn" in members:
            _policy(context, context.params["FirewallPolicyArn"])
        record.attributes.update({m: context.params[m] for m in members if m in context.params})
        record.attributes["UpdateToken"] = new_uuid()
        return dict(record.attributes)

    return update


def _associate_subnets(context: Context) -> dict[str, Any]:
    _, record = FIREWALL.find(context)
    _token(context, record)
    if record.attributes["SubnetChangeProtection"]:
        raise ApiError("InvalidOperationException", "SubnetChangeProtection is enabled; disable it first.")
    _check_subnets(context, record.attributes.get("VpcId", ""), context.params["SubnetMappings"])
    new = {m["SubnetId"]: m for m in [*record.attributes.get("SubnetMappings", []), *context.params["SubnetMappings"]]}
    record.attributes.update(SubnetMappings=list(new.values()), UpdateToken=new_uuid())
    return dict(record.attributes)


def _disassociate_subnets(context: Context) -> dict[str, Any]:
    _, record = FIREWALL.find(context)
    _token(context, record)
    if record.attributes["SubnetChangeProtection"]:
        raise ApiError("InvalidOperationException", "SubnetChangeProtection is enabled; disable it first.")
    gone = set(context.params["SubnetIds"])
    kept = [m for m in record.attributes.get("SubnetMappings", []) if m["SubnetId"] not in gone]
    record.attributes.update(SubnetMappings=kept, UpdateToken=new_uuid())
    _remove_endpoints(context, record, gone)
    return dict(record.attributes)


def _logging(context: Context) -> dict[str, Any]:
    _, record = FIREWALL.find(context)
    for member in ("LoggingConfiguration", "EnableMonitoringDashboard"):
        if member in context.params:
            record.attributes[member] = context.params[member]
    return {"LoggingConfiguration": {"LogDestinationConfigs": []}, **record.attributes}


def _in_policy(policy: Record, arn: str) -> bool:
    return arn in _references(policy.attributes["FirewallPolicy"])


def _in_firewall(firewall: Record, arn: str) -> bool:
    return bool(firewall.attributes["FirewallPolicyArn"] == arn)


RULE_GROUP = Kind(
    service="network-firewall",
    name="ruleGroup",
    identity={"RuleGroupName": "RuleGroupName", "RuleGroupArn": "RuleGroupArn", "Type": "Type"},
    key=("RuleGroupName", "Type"),
    arn="RuleGroupArn",
    create="CreateRuleGroup",
    describe="DescribeRuleGroup",
    list="ListRuleGroups",
    update="UpdateRuleGroup",
    delete="DeleteRuleGroup",
    listing="RuleGroups",
    filters={"Type": "Type"},
    tags="Tags",
    omit=frozenset({"DryRun", "UpdateToken", "AnalyzeRuleGroup"}),
    build=_build_rule_group,
    exists="InvalidRequestException",
    check_update=_token,
    check_delete=_unused("firewallPolicy", _in_policy, "RuleGroupArn", "firewall policy"),
    view=_group_view,
)
POLICY = Kind(
    service="network-firewall",
    name="firewallPolicy",
    identity={"FirewallPolicyName": "FirewallPolicyName", "FirewallPolicyArn": "FirewallPolicyArn"},
    key=("FirewallPolicyName",),
    arn="FirewallPolicyArn",
    create="CreateFirewallPolicy",
    describe="DescribeFirewallPolicy",
    list="ListFirewallPolicies",
    update="UpdateFirewallPolicy",
    delete="DeleteFirewallPolicy",
    listing="FirewallPolicies",
    tags="Tags",
    omit=frozenset({"DryRun", "UpdateToken"}),
    build=_build_policy,
    exists="InvalidRequestException",
    check_update=_check_policy_update,
    check_delete=_unused("firewall", _in_firewall, "FirewallPolicyArn", "firewall"),
    view=_policy_view,
)
FIREWALL = Kind(
    service="network-firewall",
    name="firewall",
    identity={"FirewallName": "FirewallName", "FirewallArn": "FirewallArn"},
    key=("FirewallName",),
    arn="FirewallArn",
    create="CreateFirewall",
    describe="DescribeFirewall",
    list="ListFirewalls",
    delete="DeleteFirewall",
    listing="Firewalls",
    tags="Tags",
    omit=frozenset({"UpdateToken"}),
    build=_build_firewall,
    exists="InvalidRequestException",
    check_delete=_check_firewall_delete,
    after_delete=_after_firewall_delete,
    view=_firewall_view,
)
KINDS = (RULE_GROUP, POLICY, FIREWALL)
TABLE: Table = {
    **{name: handler for kind in KINDS for name, handler in operations(kind).items()},
    **tagging(KINDS, "ResourceArn", "Tags", "TagKeys"),
    "UpdateRuleGroup": _renewing(RULE_GROUP),
    "UpdateFirewallPolicy": _renewing(POLICY),
    "UpdateFirewallDeleteProtection": _firewall_update("DeleteProtection"),
    "UpdateFirewallPolicyChangeProtection": _firewall_update("FirewallPolicyChangeProtection"),
    "UpdateSubnetChangeProtection": _firewall_update("SubnetChangeProtection"),
    "UpdateFirewallDescription": _firewall_update("Description"),
    "UpdateFirewallEncryptionConfiguration": _firewall_update("EncryptionConfiguration"),
    "AssociateFirewallPolicy": _firewall_update("FirewallPolicyArn", protection="FirewallPolicyChangeProtection"),
    "AssociateSubnets": _associate_subnets,
    "DisassociateSubnets": _disassociate_subnets,
    "DescribeLoggingConfiguration": _logging,
    "UpdateLoggingConfiguration": _logging,
}
