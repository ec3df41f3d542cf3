"""AWS Network Firewall: rule groups, policies, firewalls, logging."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values, dig
from ringfence.local.providers.aws.schema import (
    Props,
    boolean,
    integer,
    mapping,
    record,
    record_set,
    records,
    string,
    string_set,
    strings,
    tags,
)
from ringfence.local.providers.base import CheckFailure

_SERVICE = "network-firewall"


_HEADER: Props = {
    name: string(required=True)
    for name in ("protocol", "source", "sourcePort", "direction", "destination", "destinationPort")
}
_STATEFUL_RULE: Props = {
    "action": string(required=True),
    "header": record(_HEADER, required=True),
    "ruleOptions": records({"keyword": string(required=True), "settings": strings()}, required=True),
}
_RULE_GROUP: Props = {
    "rulesSource": record(
        {
            "rulesString": string(),
            "rulesSourceList": record(
                {
                    "generatedRulesType": string(required=True),
                    "targetTypes": string_set(required=True),
                    "targets": string_set(required=True),
                }
            ),
            "statefulRules": records(_STATEFUL_RULE),
        },
        required=True,
    ),
    "ruleVariables": record(
        {
            "ipSets": record_set(
                {
                    "key": string(required=True),
                    "ipSet": record({"definitions": string_set(required=True)}, required=True),
                },
                api=None,
            ),
            "portSets": record_set(
                {
                    "key": string(required=True),
                    "portSet": record({"definitions": string_set(required=True)}, required=True),
                },
                api=None,
            ),
        }
    ),
    "statefulRuleOptions": record({"ruleOrder": string(required=True)}),
}


class _Versioned(Resource):
    """A type whose changes name the version that they were made from."""

    service = _SERVICE
    id_path = "Arn"

    def token(self, cloud: Cloud, id_: str, state: Values) -> str:
        """The live version."""
        return cloud.call(self.service, self.read_operation, **self.parameters(cloud, id_, state))["UpdateToken"]


class RuleGroup(_Versioned):
    """A group of stateful rules. Its id is its ARN."""

    pulumi_type = "aws:networkfirewall/ruleGroup:RuleGroup"
    props = {
        "name": string(api="RuleGroupName", replace=True),
        "type": string(required=True, replace=True),
        "capacity": integer(required=True, replace=True),
        "description": string(),
        "rules": string(),
        "ruleGroup": record(_RULE_GROUP, computed=True),
        "tags": tags(),
    }
    outputs = {"arn": "RuleGroupArn", "updateToken": "UpdateToken"}
    known = {"arn": "arn:{partition}:network-firewall:{region}:{account}:stateful-rulegroup/{name}"}
    auto_name = AutoName(limit=128)
    id_path = "RuleGroupArn"
    create_operation = "create_rule_group"
    create_member = "RuleGroupResponse"
    read_operation = "describe_rule_group"
    delete_operation = "delete_rule_group"
    keys = {"RuleGroupArn": "id"}
    tagging = Tagging()

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if inputs["type"] == "STATELESS":
            return [CheckFailure("type", "is STATELESS; the embedded provider supports STATEFUL rule groups only")]
        if ("rules" in inputs) == ("ruleGroup" in inputs):
            return [CheckFailure("ruleGroup", "name exactly one of rules and ruleGroup")]
        return []

    def request(self, inputs: Values) -> Values:
        request = super().request(inputs)
        variables = dig(inputs, "ruleGroup.ruleVariables") or {}
        encoded: Values = {}
        for name, member, inner in (("ipSets", "IPSets", "ipSet"), ("portSets", "PortSets", "portSet")):
            if variables.get(name):
                encoded[member] = {one["key"]: {"Definition": one[inner]["definitions"]} for one in variables[name]}
        if encoded:
            request["RuleGroup"]["RuleVariables"] = encoded
        return request

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        answer = cloud.call(self.service, self.read_operation, **self.parameters(cloud, id_, state))
        return {**answer["RuleGroupResponse"], "RuleGroup": answer["RuleGroup"], "UpdateToken": answer["UpdateToken"]}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        found = dig(described, "RuleGroup.RuleVariables") or {}
        variables: Values = {}
        for name, member, inner in (("ipSets", "IPSets", "ipSet"), ("portSets", "PortSets", "portSet")):
            if found.get(member):
                sets = sorted(found[member].items())
                variables[name] = [{"key": key, inner: {"definitions": one["Definition"]}} for key, one in sets]
        if variables:
            state["ruleGroup"]["ruleVariables"] = variables
        if text := dig(described, "RuleGroup.RulesSource.RulesString"):
            state["rules"] = text
        return state

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        # The text is shown in both places; which one was declared is for the state to say.
        if live and state and "rules" not in state:
            live.pop("rules", None)
        return live

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        request = self.request(new)
        kept = {name: request[name] for name in ("RuleGroup", "Rules", "Type", "Description") if name in request}
        token = self.token(cloud, id_, old)
        answer = cloud.call(self.service, "update_rule_group", RuleGroupArn=id_, UpdateToken=token, **kept)
        return {"updateToken": answer["UpdateToken"]}


_POLICY: Props = {
    "statelessDefaultActions": string_set(required=True),
    "statelessFragmentDefaultActions": string_set(required=True),
    "statefulDefaultActions": string_set(),
    "statefulEngineOptions": record(
        {"ruleOrder": string(computed=True), "streamExceptionPolicy": string(computed=True)}
    ),
    "statefulRuleGroupReferences": record_set(
        {
            "resourceArn": string(required=True),
            "priority": integer(),
            "override": record({"action": string()}),
        }
    ),
    "statelessRuleGroupReferences": record_set(
        {"resourceArn": string(required=True), "priority": integer(required=True)}
    ),
}


class FirewallPolicy(_Versioned):
    """What a firewall does with which rule groups. Its id is its ARN."""

    pulumi_type = "aws:networkfirewall/firewallPolicy:FirewallPolicy"
    props = {
        "name": string(api="FirewallPolicyName", replace=True),
        "description": string(),
        "firewallPolicy": record(_POLICY, required=True),
        "tags": tags(),
    }
    outputs = {"arn": "FirewallPolicyArn", "updateToken": "UpdateToken"}
    known = {"arn": "arn:{partition}:network-firewall:{region}:{account}:firewall-policy/{name}"}
    auto_name = AutoName(limit=128)
    id_path = "FirewallPolicyArn"
    create_operation = "create_firewall_policy"
    create_member = "FirewallPolicyResponse"
    read_operation = "describe_firewall_policy"
    delete_operation = "delete_firewall_policy"
    keys = {"FirewallPolicyArn": "id"}
    tagging = Tagging()

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        answer = cloud.call(self.service, self.read_operation, FirewallPolicyArn=id_)
        parts = {"FirewallPolicy": answer["FirewallPolicy"], "UpdateToken": answer["UpdateToken"]}
        return {**answer["FirewallPolicyResponse"], **parts}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        request = self.request(new)
        kept = {name: request[name] for name in ("FirewallPolicy", "Description") if name in request}
        token = self.token(cloud, id_, old)
        answer = cloud.call(self.service, "update_firewall_policy", FirewallPolicyArn=id_, UpdateToken=token, **kept)
        return {"updateToken": answer["UpdateToken"]}


class Firewall(_Versioned):
    """A firewall with an endpoint in each of its subnets. Its id is its ARN."""

    pulumi_type = "aws:networkfirewall/firewall:Firewall"
    props = {
        "name": string(api="FirewallName", replace=True),
        "vpcId": string(required=True, replace=True),
        "firewallPolicyArn": string(required=True),
        "subnetMappings": record_set(
            {"subnetId": string(required=True), "ipAddressType": string(api="IPAddressType", default="IPV4")},
            required=True,
        ),
        "description": string(),
        "deleteProtection": boolean(default=False),
        "subnetChangeProtection": boolean(default=False),
        "firewallPolicyChangeProtection": boolean(default=False),
        "tags": tags(),
    }
    outputs = {"arn": "FirewallArn", "updateToken": "UpdateToken", "firewallStatuses": "Statuses"}
    known = {"arn": "arn:{partition}:network-firewall:{region}:{account}:firewall/{name}"}
    auto_name = AutoName(limit=128)
    id_path = "FirewallArn"
    create_operation = "create_firewall"
    create_member = "Firewall"
    read_operation = "describe_firewall"
    delete_operation = "delete_firewall"
    keys = {"FirewallArn": "id"}
    tagging = Tagging()
    ready = ("Status", {"READY"}, {"DELETING"})

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        answer = cloud.call(self.service, "describe_firewall", FirewallArn=id_)
        status = answer.get("FirewallStatus") or {}
        states = [
            {
                "availabilityZone": zone,
                "attachments": [
                    {"endpointId": dig(one, "Attachment.EndpointId"), "subnetId": dig(one, "Attachment.SubnetId")}
                ],
            }
            for zone, one in sorted((status.get("SyncStates") or {}).items())
        ]
        more = {"UpdateToken": answer.get("UpdateToken"), "Status": status.get("Status")}
        return {**answer["Firewall"], **more, "Statuses": [{"syncStates": states}]}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        self._switches(cloud, id_, new, changed, only_off=True)
        if "firewallPolicyArn" in changed:
            arn = new["firewallPolicyArn"]
            cloud.call(self.service, "associate_firewall_policy", FirewallArn=id_, FirewallPolicyArn=arn)
        if "subnetMappings" in changed:
            before = {one["subnetId"]: one for one in old.get("subnetMappings") or []}
            after = {one["subnetId"]: one for one in new["subnetMappings"]}
            fields = self.props["subnetMappings"].item
            added = (
                [self.encode(fields.fields or {}, after[name]) for name in after.keys() - before.keys()]
                if fields
                else []
            )
            if added:
                cloud.call(self.service, "associate_subnets", FirewallArn=id_, SubnetMappings=added)
            if removed := sorted(before.keys() - after.keys()):
                cloud.call(self.service, "disassociate_subnets", FirewallArn=id_, SubnetIds=removed)
        if "description" in changed:
            described = {"Description": new["description"]} if new.get("description") else {}
            cloud.call(self.service, "update_firewall_description", FirewallArn=id_, **described)
        self._switches(cloud, id_, new, changed, only_off=False)
        return self.state_of(self.wait(cloud, id_, new, self.describe(cloud, id_, new) or {}))

    def _switches(self, cloud: Cloud, id_: str, new: Values, changed: frozenset[str], *, only_off: bool) -> None:
        """Protections are taken off before other changes and put on after them."""
        for name, operation in (
            ("deleteProtection", "update_firewall_delete_protection"),
            ("subnetChangeProtection", "update_subnet_change_protection"),
            ("firewallPolicyChangeProtection", "update_firewall_policy_change_protection"),
        ):
            if name in changed and new[name] is not only_off:
                parameter = name[0].upper() + name[1:]
                cloud.call(self.service, operation, FirewallArn=id_, **{parameter: new[name]})


class LoggingConfiguration(Resource):
    """Where a firewall's alerts and flows are logged. Its id is the firewall's ARN."""

    pulumi_type = "aws:networkfirewall/loggingConfiguration:LoggingConfiguration"
    service = _SERVICE
    props = {
        "firewallArn": string(required=True, replace=True),
        "loggingConfiguration": record(
            {
                "logDestinationConfigs": record_set(
                    {
                        "logType": string(required=True),
                        "logDestinationType": string(required=True),
                        "logDestination": mapping(required=True),
                    },
                    required=True,
                )
            },
            required=True,
        ),
    }
    id_property = "firewallArn"
    create_operation = "update_logging_configuration"
    read_operation = "describe_logging_configuration"
    keys = {"FirewallArn": "id"}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        self._set(cloud, inputs["firewallArn"], [], self._configs(inputs))
        return inputs["firewallArn"], {}

    def _configs(self, values: Values) -> list[Values]:
        encoded = self.encode(self.props, values).get("LoggingConfiguration") or {}
        return encoded.get("LogDestinationConfigs", [])

    def _set(self, cloud: Cloud, arn: str, present: list[Any], wanted: list[Any]) -> None:
        # The service takes one destination more or one less in a call.
        current = list(present)
        for one in present:
            if one not in wanted:
                current.remove(one)
                self._put(cloud, arn, current)
        for one in wanted:
            if one not in current:
                current.append(one)
                self._put(cloud, arn, current)

    def _put(self, cloud: Cloud, arn: str, configs: list[Any]) -> None:
        configuration = {"LogDestinationConfigs": configs}
        parameters = {"FirewallArn": arn, "LoggingConfiguration": configuration}
        cloud.call(self.service, "update_logging_configuration", **parameters)

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        answer = cloud.call(self.service, self.read_operation, FirewallArn=id_)
        found = answer.get("LoggingConfiguration") or {}
        return {"FirewallArn": id_, "LoggingConfiguration": found} if found.get("LogDestinationConfigs") else None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._set(cloud, id_, self._configs(old), self._configs(new))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._set(cloud, id_, self._configs(state), [])


RESOURCES = (RuleGroup, FirewallPolicy, Firewall, LoggingConfiguration)
