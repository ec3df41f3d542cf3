"""EC2 security groups and their rules."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.ec2_base import Ec2Resource, first
from ringfence.local.providers.aws.resource import AutoName, Values
from ringfence.local.providers.aws.schema import Props, boolean, integer, record_set, string, string_set, tags
from ringfence.local.providers.base import UNKNOWN, CheckFailure, NotFound

_RULE: Props = {
    "protocol": string(required=True),
    "fromPort": integer(required=True),
    "toPort": integer(required=True),
    "cidrBlocks": string_set(),
    "ipv6CidrBlocks": string_set(),
    "prefixListIds": string_set(),
    "securityGroups": string_set(),
    "self": boolean(default=False),
    "description": string(),
}
# Property of an inline rule → (list member of an IP permission, member of its entries).
_SOURCES = {
    "cidrBlocks": ("IpRanges", "CidrIp"),
    "ipv6CidrBlocks": ("Ipv6Ranges", "CidrIpv6"),
    "prefixListIds": ("PrefixListIds", "PrefixListId"),
    "securityGroups": ("UserIdGroupPairs", "GroupId"),
}
# One rule with one source: protocol, from port, to port, kind of source, source, description.
Atom = tuple[str, int, int, str, str, str]


def _atoms_declared(rules: Iterable[Values], group: str) -> set[Atom]:
    """Inline rules, one source each."""
    atoms: set[Atom] = set()
    for rule in rules:
        start, end = (-1, -1) if rule["protocol"] == "-1" else (rule["fromPort"], rule["toPort"])
        base, note = (rule["protocol"], start, end), rule.get("description") or ""
        for name in _SOURCES:
            atoms |= {(*base, name, source, note) for source in rule.get(name) or []}
        if rule.get("self"):
            atoms.add((*base, "securityGroups", group, note))
    return atoms


def _atoms_live(permissions: Iterable[Values]) -> set[Atom]:
    """EC2's IP permissions, one source each."""
    atoms: set[Atom] = set()
    for permission in permissions:
        base = (permission["IpProtocol"], permission.get("FromPort", -1), permission.get("ToPort", -1))
        for name, (member, key) in _SOURCES.items():
            for entry in permission.get(member, []):
                atoms.add((*base, name, entry[key], entry.get("Description") or ""))
    return atoms


def _permission(atom: Atom) -> Values:
    protocol, start, end, name, source, note = atom
    member, key = _SOURCES[name]
    ports = {} if protocol == "-1" else {"FromPort": start, "ToPort": end}
    return {"IpProtocol": protocol, **ports, member: [{key: source, **({"Description": note} if note else {})}]}


def _rules(atoms: Iterable[Atom], group: str) -> list[Values]:
    """Inline rules for atoms: one for each protocol, port range and description."""
    grouped: dict[tuple[str, int, int, str], Values] = {}
    for protocol, start, end, name, source, note in sorted(atoms):
        ports = (
            {"fromPort": max(start, 0), "toPort": max(end, 0)}
            if protocol == "-1"
            else {"fromPort": start, "toPort": end}
        )
        rule = grouped.setdefault((protocol, start, end, note), {"protocol": protocol, **ports, "description": note})
        if name == "securityGroups" and source == group:
            rule["self"] = True
        else:
            rule.setdefault(name, []).append(source)
    return list(grouped.values())


class _Group(Ec2Resource):
    """What a security group and a VPC's default one share: inline rules."""

    kind = "security-group"
    outputs = {"arn": "SecurityGroupArn", "ownerId": "OwnerId"}
    id_path = "GroupId"
    read_operation = "describe_security_groups"
    read_member = "SecurityGroups.0"
    keys = {"GroupIds": "id"}
    list_keys = ("GroupIds",)
    _DIRECTIONS: ClassVar = {"ingress": "IpPermissions", "egress": "IpPermissionsEgress"}

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        described = self.find(cloud, id_, state)
        if described is None:
            return None
        live = self.state_of(described)
        for direction, member in self._DIRECTIONS.items():
            atoms = _atoms_live(described.get(member, []))
            declared = state.get(direction) or []
            live[direction] = declared if _atoms_declared(declared, id_) == atoms else _rules(atoms, id_)
        live["tags"] = live["tagsAll"] = self.read_tags(cloud, id_, live, described)
        return live

    def set_rules(self, cloud: Cloud, id_: str, direction: str, present: set[Atom], wanted: set[Atom]) -> None:
        """Bring the rules of one direction from `present` to `wanted`."""
        for verb, atoms in (("revoke", present - wanted), ("authorize", wanted - present)):
            if atoms:
                permissions = [_permission(atom) for atom in sorted(atoms)]
                cloud.call("ec2", f"{verb}_security_group_{direction}", GroupId=id_, IpPermissions=permissions)

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        for direction in self._DIRECTIONS:
            if direction in changed:
                present = _atoms_declared(old.get(direction) or [], id_)
                wanted = _atoms_declared(new.get(direction) or [], id_)
                self.set_rules(cloud, id_, direction, present, wanted)


class SecurityGroup(_Group):
    """A security group. Rules may be declared in it, or as resources of their own."""

    pulumi_type = "aws:ec2/securityGroup:SecurityGroup"
    props = {
        "name": string(api="GroupName", replace=True),
        "description": string(replace=True, default="Managed by Pulumi"),
        "vpcId": string(replace=True, computed=True),
        "ingress": record_set(_RULE, api=None, computed=True),
        "egress": record_set(_RULE, api=None, computed=True),
        "revokeRulesOnDelete": boolean(api=None, default=False, write_only=True),
        "tags": tags(),
    }
    auto_name = AutoName(limit=255)
    create_operation = "create_security_group"

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs)
        if inputs.get("tags"):
            parameters |= self.create_tags(inputs["tags"])
        answer = cloud.call("ec2", "create_security_group", **parameters)
        return answer["GroupId"], {"GroupId": answer["GroupId"]}

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        # EC2 gives a new group a rule that allows all egress; like the official provider, only what is declared stays.
        opened: Atom = ("-1", -1, -1, "cidrBlocks", "0.0.0.0/0", "")
        wanted = _atoms_declared(state.get("egress") or [], id_)
        self.set_rules(cloud, id_, "egress", {opened}, wanted)
        self.set_rules(cloud, id_, "ingress", set(), _atoms_declared(state.get("ingress") or [], id_))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_security_group", GroupId=id_)


class DefaultSecurityGroup(_Group):
    """A VPC's default security group, taken over: rules that aren't declared are removed. It goes with its VPC."""

    pulumi_type = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"
    props = {
        "vpcId": string(required=True, replace=True),
        "ingress": record_set(_RULE, api=None),
        "egress": record_set(_RULE, api=None),
        "revokeRulesOnDelete": boolean(api=None, default=False, write_only=True),
        "tags": tags(),
    }
    outputs = {**_Group.outputs, "name": "GroupName", "description": "Description"}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        group = first(cloud, "describe_security_groups", "SecurityGroups", vpc_id=inputs["vpcId"], group_name="default")
        if group is None:
            raise NotFound(f"{self.pulumi_type}: {inputs['vpcId']} has no default security group")
        return group["GroupId"], group

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        live = self.describe(cloud, id_, state) or {}
        for direction, member in self._DIRECTIONS.items():
            wanted = _atoms_declared(state.get(direction) or [], id_)
            self.set_rules(cloud, id_, direction, _atoms_live(live.get(member, [])), wanted)
        present = self.read_tags(cloud, id_, state, live)
        if present != (state.get("tags") or {}):
            self.update_tags(cloud, id_, state, present, state.get("tags") or {})

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        """Nothing: the group is part of its VPC."""


class _GroupRule(Ec2Resource):
    """One rule with one source."""

    kind = "security-group-rule"
    direction: ClassVar[str] = ""
    props = {
        "securityGroupId": string(api=None, required=True, replace=True),
        "ipProtocol": string(required=True),
        "fromPort": integer(),
        "toPort": integer(),
        "cidrIpv4": string(),
        "cidrIpv6": string(),
        "prefixListId": string(),
        "referencedSecurityGroupId": string(api=None),
        "description": string(),
        "tags": tags(),
    }
    outputs = {"arn": "SecurityGroupRuleArn", "securityGroupRuleId": "SecurityGroupRuleId"}
    id_path = "SecurityGroupRuleId"
    read_operation = "describe_security_group_rules"
    read_member = "SecurityGroupRules.0"
    keys = {"SecurityGroupRuleIds": "id"}
    list_keys = ("SecurityGroupRuleIds",)
    _SOURCES: ClassVar = ("cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId")

    def problems(self, inputs: Values) -> list[CheckFailure]:
        failures = []
        if sum(name in inputs for name in self._SOURCES) != 1:
            failures.append(CheckFailure("cidrIpv4", f"name exactly one of {', '.join(self._SOURCES)}"))
        if inputs["ipProtocol"] not in ("-1", UNKNOWN) and ("fromPort" not in inputs or "toPort" not in inputs):
            failures.append(CheckFailure("fromPort", "fromPort and toPort are required unless ipProtocol is -1"))
        return failures

    def _permission(self, inputs: Values) -> Values:
        names = {
            "cidrIpv4": "cidrBlocks",
            "cidrIpv6": "ipv6CidrBlocks",
            "prefixListId": "prefixListIds",
            "referencedSecurityGroupId": "securityGroups",
        }
        source = next(name for name in self._SOURCES if name in inputs)
        group = str(inputs[source]).rpartition("/")[2] if source == "referencedSecurityGroupId" else inputs[source]
        ports = (inputs.get("fromPort", -1), inputs.get("toPort", -1))
        return _permission((inputs["ipProtocol"], *ports, names[source], group, inputs.get("description") or ""))

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters: Values = {"GroupId": inputs["securityGroupId"], "IpPermissions": [self._permission(inputs)]}
        if inputs.get("tags"):
            parameters |= self.create_tags(inputs["tags"])
        answer = cloud.call("ec2", f"authorize_security_group_{self.direction}", **parameters)
        made = answer["SecurityGroupRules"][0]
        return made["SecurityGroupRuleId"], {}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if described.get("GroupId"):
            state["securityGroupId"] = described["GroupId"]
        if group := (described.get("ReferencedGroupInfo") or {}).get("GroupId"):
            state["referencedSecurityGroupId"] = group
        if state.get("ipProtocol") == "-1":
            state = {name: value for name, value in state.items() if name not in ("fromPort", "toPort")}
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        rule: Values = {
            "IpProtocol": new["ipProtocol"],
            "FromPort": new.get("fromPort", -1),
            "ToPort": new.get("toPort", -1),
        }
        for name in self._SOURCES[:3]:
            if name in new:
                rule[name[0].upper() + name[1:]] = new[name]
        if "referencedSecurityGroupId" in new:
            rule["ReferencedGroupId"] = new["referencedSecurityGroupId"]
        rule["Description"] = new.get("description") or ""
        changes = [{"SecurityGroupRuleId": id_, "SecurityGroupRule": rule}]
        cloud.call("ec2", "modify_security_group_rules", GroupId=new["securityGroupId"], SecurityGroupRules=changes)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        parameters: dict[str, Any] = {"GroupId": state["securityGroupId"], "SecurityGroupRuleIds": [id_]}
        cloud.call("ec2", f"revoke_security_group_{self.direction}", **parameters)


class SecurityGroupIngressRule(_GroupRule):
    """One rule for what may come in."""

    pulumi_type = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    direction = "ingress"


class SecurityGroupEgressRule(_GroupRule):
    """One rule for what may go out."""

    pulumi_type = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    direction = "egress"


RESOURCES = (SecurityGroup, DefaultSecurityGroup, SecurityGroupIngressRule, SecurityGroupEgressRule)
