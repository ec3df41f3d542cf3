"""Rules of security groups whose source is another group or a prefix list: moto loses their descriptions."""

from __future__ import annotations

from itertools import chain
from typing import Any

from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import Context
from ringfence.local.aws_server.wire import Reply


def prepare() -> None:
    """Gives every rule one place for its description, whatever its source is.

    moto reads a description from the CIDR range alone. Rules of other sources have an empty range, so theirs is kept
    there too; the source itself stays without it, as a description is no part of what makes two rules the same.
    """
    from moto.ec2.models.security_groups import SecurityGroup, SecurityGroupBackend, SecurityGroupRule

    make, flatten = SecurityGroupRule.__init__, SecurityGroup._flattened_rules

    def describe(
        rule: Any,
        backend: Any,
        protocol: Any,
        group_id: Any,
        from_port: Any,
        to_port: Any,
        ip_range: Any,
        source_group: Any = None,
        prefix_list_id: Any = None,
        **others: Any,
    ) -> None:
        source = dict(source_group or {})
        description = source.pop("Description", None) or (prefix_list_id or {}).get("Description")
        kept = ip_range or ({"Description": description} if description else {})
        make(rule, backend, protocol, group_id, from_port, to_port, kept, source, prefix_list_id, **others)

    def show(group: Any, rules: list[Any]) -> list[Any]:
        views: list[Any] = flatten(group, rules)
        for view in views:
            own = [rule for rule in rules if _place(rule) == _place(view)]
            view.source_groups = [{**rule.source_group, **_note(rule)} for rule in own if rule.source_group]
            view.prefix_list_ids = [
                {"PrefixListId": rule.prefix_list_id, **_note(rule)} for rule in own if rule.prefix_list_id
            ]
        return views

    def redescribe(_backend: Any, wanted: Any, rule: Any) -> None:
        rule.ip_range = {name: value for name, value in rule.ip_range.items() if name != "Description"} | _note(wanted)

    SecurityGroupRule.__init__ = describe  # type: ignore[method-assign]
    SecurityGroup._flattened_rules = show  # type: ignore[method-assign]
    SecurityGroupBackend._sg_update_description = redescribe  # type: ignore[method-assign]


def _place(rule: Any) -> tuple[Any, ...]:
    """By what rules are shown together."""
    return rule.ip_protocol, rule.from_port, rule.to_port


def _note(rule: Any) -> dict[str, str]:
    return {"Description": rule.description} if rule.description else {}


def _modify_sources(context: Context, reply: Reply) -> Reply:
    """ModifySecurityGroupRules may name any kind of source; moto takes over IPv4 ranges only."""
    from moto.ec2.models import ec2_backends

    backend = ec2_backends[context.account][context.region]
    group = backend.get_security_group_by_name_or_id(context.params["GroupId"])
    wanted = {
        change["SecurityGroupRuleId"]: change["SecurityGroupRule"] for change in context.params["SecurityGroupRules"]
    }
    for rule in chain(group.ingress_rules, group.egress_rules):
        change = wanted.get(rule.id, {})
        if "CidrIpv6" in change:
            rule.ip_range["CidrIpv6"] = change["CidrIpv6"]
        if "PrefixListId" in change:
            rule.prefix_list_id = change["PrefixListId"]
        if "ReferencedGroupId" in change:
            rule.source_group = {**rule.source_group, "GroupId": change["ReferencedGroupId"]}
    return reply


TABLE: Table = {}
AMENDMENTS = {"ModifySecurityGroupRules": _modify_sources}
