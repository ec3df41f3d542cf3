"""EC2 network ACLs, their entries and their association with subnets."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.ec2_base import Ec2Link, Ec2Resource, first
from ringfence.local.providers.aws.resource import Values
from ringfence.local.providers.aws.schema import Props, boolean, integer, record_set, string, string_set, tags
from ringfence.local.providers.base import CheckFailure, NotFound

_PROTOCOLS = {"tcp": "6", "udp": "17", "icmp": "1", "icmpv6": "58", "all": "-1"}
_NAMES = {number: name for name, number in _PROTOCOLS.items() if name != "all"}
# The entry that every ACL ends with and nobody can change.
_LAST = 32767
_ENTRY: Props = {
    "ruleNo": integer(required=True),
    "action": string(required=True),
    "protocol": string(required=True),
    "fromPort": integer(required=True),
    "toPort": integer(required=True),
    "cidrBlock": string(),
    "ipv6CidrBlock": string(),
    "icmpType": integer(default=0),
    "icmpCode": integer(default=0),
}


def _protocol(name: str) -> str:
    """One spelling for a protocol: its name, or its number where it has none here; -1 for all."""
    return _NAMES.get(name, "-1" if name == "all" else name)


def _request(entry: Values, egress: bool) -> Values:
    """An inline entry as EC2 takes it."""
    protocol = _PROTOCOLS.get(entry["protocol"], entry["protocol"])
    request: Values = {
        "RuleNumber": entry["ruleNo"],
        "RuleAction": entry["action"],
        "Protocol": protocol,
        "Egress": egress,
    }
    for name, member in (("cidrBlock", "CidrBlock"), ("ipv6CidrBlock", "Ipv6CidrBlock")):
        if entry.get(name):
            request[member] = entry[name]
    if protocol in ("6", "17"):
        request["PortRange"] = {"From": entry.get("fromPort", 0), "To": entry.get("toPort", 0)}
    elif protocol in ("1", "58"):
        request["IcmpTypeCode"] = {"Type": entry.get("icmpType", 0), "Code": entry.get("icmpCode", 0)}
    return request


def _shown(entry: Values) -> Values:
    """EC2's entry as an inline one."""
    ports, icmp = entry.get("PortRange") or {}, entry.get("IcmpTypeCode") or {}
    shown = {
        "ruleNo": entry["RuleNumber"],
        "action": entry["RuleAction"],
        "protocol": _protocol(str(entry["Protocol"])),
        "fromPort": ports.get("From", 0),
        "toPort": ports.get("To", 0),
        "cidrBlock": entry.get("CidrBlock"),
        "ipv6CidrBlock": entry.get("Ipv6CidrBlock"),
        "icmpType": icmp.get("Type", 0),
        "icmpCode": icmp.get("Code", 0),
    }
    return {name: value for name, value in shown.items() if value is not None}


class _Acl(Ec2Resource):
    """What an ACL and a VPC's default one share: inline entries and subnets."""

    kind = "network-acl"
    outputs = {"arn": "", "ownerId": "OwnerId"}
    id_path = "NetworkAclId"
    read_operation = "describe_network_acls"
    read_member = "NetworkAcls.0"
    keys = {"NetworkAclIds": "id"}
    list_keys = ("NetworkAclIds",)

    def normalise(self, inputs: Values) -> Values:
        changed = dict(inputs)
        for direction in ("ingress", "egress"):
            entries = inputs.get(direction)
            if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
                changed[direction] = [
                    {**entry, "protocol": _protocol(entry["protocol"])} if isinstance(entry["protocol"], str) else entry
                    for entry in entries
                ]
        return changed

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if "Entries" in described:
            own = [entry for entry in described["Entries"] if entry["RuleNumber"] < _LAST]
            state["ingress"] = [_shown(entry) for entry in own if not entry["Egress"]]
            state["egress"] = [_shown(entry) for entry in own if entry["Egress"]]
            state["subnetIds"] = [found["SubnetId"] for found in described["Associations"]]
        return state

    def set_entries(self, cloud: Cloud, id_: str, present: Values, wanted: Values) -> None:
        """Bring the entries of both directions from `present` to `wanted`."""
        for direction in ("ingress", "egress"):
            old = {entry["ruleNo"]: entry for entry in present.get(direction) or []}
            new = {entry["ruleNo"]: entry for entry in wanted.get(direction) or []}
            egress = direction == "egress"
            for number in old.keys() - new.keys():
                cloud.call("ec2", "delete_network_acl_entry", NetworkAclId=id_, RuleNumber=number, Egress=egress)
            for number, entry in new.items():
                request = _request(entry, egress)
                if number not in old:
                    cloud.call("ec2", "create_network_acl_entry", NetworkAclId=id_, **request)
                elif _request(old[number], egress) != request:
                    cloud.call("ec2", "replace_network_acl_entry", NetworkAclId=id_, **request)

    def set_subnets(self, cloud: Cloud, id_: str, present: list[str], wanted: list[str]) -> None:
        """Associate what is wanted; give what is no longer wanted back to the VPC's default ACL."""
        for subnet in sorted(set(wanted) - set(present)):
            move(cloud, subnet, id_)
        for subnet in sorted(set(present) - set(wanted)):
            move_to_default(cloud, subnet)

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        parts = changed & {"ingress", "egress"}
        self.set_entries(cloud, id_, *({name: values.get(name) for name in parts} for values in (old, new)))
        if "subnetIds" in changed:
            self.set_subnets(cloud, id_, old.get("subnetIds") or [], new.get("subnetIds") or [])


def _association(cloud: Cloud, subnet: str) -> Values | None:
    """The ACL and the association id of a subnet's association, or None when the subnet is gone."""
    acl = first(cloud, "describe_network_acls", "NetworkAcls", association__subnet_id=subnet)
    for found in (acl or {}).get("Associations", []):
        if found["SubnetId"] == subnet:
            return {**found, "VpcId": acl["VpcId"]}
    return None


def move(cloud: Cloud, subnet: str, acl: str) -> str:
    """Give `subnet` another ACL; the new association's id. Raises NotFound when the subnet is gone."""
    present = _association(cloud, subnet)
    if present is None:
        raise NotFound(f"subnet {subnet} has no network ACL: it isn't there any more")
    parameters = {"AssociationId": present["NetworkAclAssociationId"], "NetworkAclId": acl}
    return cloud.call("ec2", "replace_network_acl_association", **parameters)["NewAssociationId"]


def move_to_default(cloud: Cloud, subnet: str) -> None:
    """Give `subnet` back to its VPC's default ACL; a subnet that is gone needs none."""
    present = _association(cloud, subnet)
    if present is not None:
        default = first(cloud, "describe_network_acls", "NetworkAcls", vpc_id=present["VpcId"], default="true")
        if default["NetworkAclId"] != present["NetworkAclId"]:
            move(cloud, subnet, default["NetworkAclId"])


class NetworkAcl(_Acl):
    """A network ACL."""

    pulumi_type = "aws:ec2/networkAcl:NetworkAcl"
    props = {
        "vpcId": string(required=True, replace=True),
        "ingress": record_set(_ENTRY, api=None, computed=True),
        "egress": record_set(_ENTRY, api=None, computed=True),
        "subnetIds": string_set(api=None, computed=True),
        "tags": tags(),
    }
    create_operation = "create_network_acl"
    create_member = "NetworkAcl"

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self.set_entries(cloud, id_, {}, state)
        self.set_subnets(cloud, id_, [], state.get("subnetIds") or [])

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        live = self.describe(cloud, id_, state)
        for found in (live or {}).get("Associations", []):
            move_to_default(cloud, found["SubnetId"])
        cloud.call("ec2", "delete_network_acl", NetworkAclId=id_)


class DefaultNetworkAcl(_Acl):
    """A VPC's default network ACL, taken over: entries that aren't declared are removed. It goes with its VPC."""

    pulumi_type = "aws:ec2/defaultNetworkAcl:DefaultNetworkAcl"
    props = {
        "defaultNetworkAclId": string(api="NetworkAclId", required=True, replace=True),
        "ingress": record_set(_ENTRY, api=None),
        "egress": record_set(_ENTRY, api=None),
        "subnetIds": string_set(api=None, computed=True),
        "tags": tags(),
    }
    outputs = {**_Acl.outputs, "vpcId": "VpcId"}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        found = self.describe(cloud, inputs["defaultNetworkAclId"], {})
        if found is None:
            raise NotFound(f"{self.pulumi_type}: {inputs['defaultNetworkAclId']} isn't there")
        return found["NetworkAclId"], {"NetworkAclId": found["NetworkAclId"], "VpcId": found["VpcId"]}

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        live = self.describe(cloud, id_, state) or {}
        self.set_entries(cloud, id_, self.state_of(live), state)
        self.set_subnets(cloud, id_, [], state.get("subnetIds") or [])
        present = self.read_tags(cloud, id_, state, live)
        if present != (state.get("tags") or {}):
            self.update_tags(cloud, id_, state, present, state.get("tags") or {})

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        """Nothing: the ACL is part of its VPC."""


class NetworkAclRule(Ec2Link):
    """One entry of a network ACL. Its id is ``<acl>:<number>:<protocol>:<egress>``, the form in which it is imported."""

    pulumi_type = "aws:ec2/networkAclRule:NetworkAclRule"
    props = {
        "networkAclId": string(required=True, replace=True),
        "ruleNumber": integer(required=True, replace=True),
        "egress": boolean(replace=True, default=False),
        "protocol": string(required=True, replace=True),
        "ruleAction": string(required=True, replace=True),
        "cidrBlock": string(replace=True),
        "ipv6CidrBlock": string(replace=True),
        "fromPort": integer(replace=True, default=0),
        "toPort": integer(replace=True, default=0),
        "icmpType": integer(replace=True, default=0),
        "icmpCode": integer(replace=True, default=0),
    }
    delete_before_replace = True

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if ("cidrBlock" in inputs) == ("ipv6CidrBlock" in inputs):
            return [CheckFailure("cidrBlock", "name exactly one of cidrBlock and ipv6CidrBlock")]
        return []

    def normalise(self, inputs: Values) -> Values:
        protocol = inputs["protocol"]
        return inputs | {"protocol": _protocol(protocol)} if isinstance(protocol, str) else inputs

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        entry = inputs | {"ruleNo": inputs["ruleNumber"], "action": inputs["ruleAction"]}
        egress = bool(inputs.get("egress", False))
        cloud.call("ec2", "create_network_acl_entry", NetworkAclId=inputs["networkAclId"], **_request(entry, egress))
        return f"{inputs['networkAclId']}:{inputs['ruleNumber']}:{inputs['protocol']}:{str(egress).lower()}", {}

    @staticmethod
    def _where(id_: str) -> tuple[str, int, bool]:
        acl, number, _, egress = id_.split(":")
        return acl, int(number), egress == "true"

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        acl, number, egress = self._where(id_)
        found = cloud.call("ec2", "describe_network_acls", NetworkAclIds=[acl])["NetworkAcls"][0]
        for entry in found["Entries"]:
            if entry["RuleNumber"] == number and entry["Egress"] == egress:
                return {**entry, "NetworkAclId": acl}
        return None

    def state_of(self, described: Values) -> Values:
        if not described:
            return {}
        shown = _shown(described)
        renamed = {"ruleNumber": shown.pop("ruleNo"), "ruleAction": shown.pop("action")}
        return {"networkAclId": described["NetworkAclId"], "egress": described["Egress"], **renamed, **shown}

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        acl, number, egress = self._where(id_)
        if self.find(cloud, id_, state) is not None:
            cloud.call("ec2", "delete_network_acl_entry", NetworkAclId=acl, RuleNumber=number, Egress=egress)


class NetworkAclAssociation(Ec2Link):
    """Which network ACL a subnet uses. Deleting gives the subnet back to the VPC's default ACL."""

    pulumi_type = "aws:ec2/networkAclAssociation:NetworkAclAssociation"
    props = {"networkAclId": string(required=True, replace=True), "subnetId": string(required=True, replace=True)}
    delete_before_replace = True

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        return move(cloud, inputs["subnetId"], inputs["networkAclId"]), {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        acl = first(cloud, "describe_network_acls", "NetworkAcls", association__association_id=id_)
        for found in (acl or {}).get("Associations", []):
            if found["NetworkAclAssociationId"] == id_:
                return found
        return None

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if self.describe(cloud, id_, state) is not None:
            move_to_default(cloud, state["subnetId"])


RESOURCES = (NetworkAcl, DefaultNetworkAcl, NetworkAclRule, NetworkAclAssociation)
