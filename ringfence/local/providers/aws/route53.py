"""Route 53: hosted zones, records, health checks."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import Resource, Tagging, Values, dig
from ringfence.local.providers.aws.schema import Props, boolean, integer, record_set, records, string, string_set, tags
from ringfence.local.providers.base import CheckFailure

# Records that come with a zone and go with it.
_OWN_TYPES = ("NS", "SOA")


def _plain(name: str) -> str:
    """A domain name without the root's dot, as the official provider keeps it."""
    return name.removesuffix(".").replace("\\052", "*")


class Zone(Resource):
    """A hosted zone; a private one when it names VPCs."""

    pulumi_type = "aws:route53/zone:Zone"
    service = "route53"
    props = {
        "name": string(required=True, replace=True),
        "comment": string(api=None, default="Managed by Pulumi"),
        "forceDestroy": boolean(api=None, default=False, write_only=True),
        "vpcs": record_set(
            {"vpcId": string(api="VPCId", required=True), "vpcRegion": string(api="VPCRegion", computed=True)}, api=None
        ),
        "tags": tags(),
    }
    outputs = {"zoneId": "Id", "nameServers": "NameServers", "primaryNameServer": "NameServers.0"}
    id_path = "Id"
    create_operation = "create_hosted_zone"
    tagging = Tagging(create=None)

    def request(self, inputs: Values) -> Values:
        request: Values = {"Name": inputs["name"], "CallerReference": inputs["name"]}
        vpcs = inputs.get("vpcs") or []
        request["HostedZoneConfig"] = {
            "Comment": inputs.get("comment", "Managed by Pulumi"),
            "PrivateZone": bool(vpcs),
        }
        if vpcs:
            request["VPC"] = {"VPCId": vpcs[0]["vpcId"], "VPCRegion": vpcs[0].get("vpcRegion", "us-east-1")}
        return request

    def _vpc(self, cloud: Cloud, vpc: Values) -> Values:
        return {"VPCId": vpc["vpcId"], "VPCRegion": vpc.get("vpcRegion") or cloud.region}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs)
        if inputs.get("vpcs"):
            parameters["VPC"] = self._vpc(cloud, inputs["vpcs"][0])
        # Names may repeat among zones, so the reference is what makes a repeated call the same one.
        digest = cloud.creation_digest()
        answer = cloud.call("route53", "create_hosted_zone", **(parameters | {"CallerReference": digest}))
        described = self._shown(answer)
        return described["Id"], described

    @staticmethod
    def _shown(answer: Values) -> Values:
        zone = answer["HostedZone"]
        servers = sorted(dig(answer, "DelegationSet.NameServers") or [])
        return {**zone, "Id": zone["Id"].rpartition("/")[2], "NameServers": servers, "VPCs": answer.get("VPCs")}

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        for vpc in (state.get("vpcs") or [])[1:]:
            cloud.call("route53", "associate_vpc_with_hosted_zone", HostedZoneId=id_, VPC=self._vpc(cloud, vpc))

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        return self._shown(cloud.call("route53", "get_hosted_zone", Id=id_))

    def derived(self, cloud: Cloud, id_: str, state: Values) -> Values:
        return {"arn": f"arn:{cloud.partition}:route53:::hostedzone/{id_}"} if id_ else {}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if "name" in state:
            state["name"] = _plain(state["name"])
        if "Config" in described:
            state["comment"] = described["Config"].get("Comment", "")
        if described.get("VPCs"):
            state["vpcs"] = [{"vpcId": one["VPCId"], "vpcRegion": one["VPCRegion"]} for one in described["VPCs"]]
        return state

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        declared = state.get("vpcs") or []
        # Regions that aren't declared are this one.
        if live and {one["vpcId"] for one in declared} == {one["vpcId"] for one in live.get("vpcs", [])}:
            live["vpcs"] = declared
        return live

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        answer = cloud.call("route53", "list_tags_for_resource", ResourceType="hostedzone", ResourceId=id_)
        return Tagging().decode(dig(answer, "ResourceTagSet.Tags"))

    def update_tags(self, cloud: Cloud, id_: str, state: Values, old: Any, new: Any) -> None:
        _change_tags(cloud, "hostedzone", id_, old, new)

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "comment" in changed:
            cloud.call("route53", "update_hosted_zone_comment", Id=id_, Comment=new.get("comment", ""))
        if "vpcs" in changed:
            before = {one["vpcId"]: one for one in old.get("vpcs") or []}
            after = {one["vpcId"]: one for one in new.get("vpcs") or []}
            for name in after.keys() - before.keys():
                vpc = self._vpc(cloud, after[name])
                cloud.call("route53", "associate_vpc_with_hosted_zone", HostedZoneId=id_, VPC=vpc)
            for name in before.keys() - after.keys():
                vpc = self._vpc(cloud, before[name])
                cloud.call("route53", "disassociate_vpc_from_hosted_zone", HostedZoneId=id_, VPC=vpc)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("forceDestroy"):
            for page in cloud.client("route53").get_paginator("list_resource_record_sets").paginate(HostedZoneId=id_):
                for one in page["ResourceRecordSets"]:
                    if one["Type"] not in _OWN_TYPES or _plain(one["Name"]) != state.get("name"):
                        _change(cloud, id_, "DELETE", one)
        cloud.call("route53", "delete_hosted_zone", Id=id_)


def _change_tags(cloud: Cloud, kind: str, id_: str, old: dict[str, str], new: dict[str, str]) -> None:
    added = Tagging().encode({name: value for name, value in new.items() if old.get(name) != value})
    parameters = {"AddTags": added, "RemoveTagKeys": sorted(set(old) - set(new))}
    chosen = {name: value for name, value in parameters.items() if value}
    cloud.call("route53", "change_tags_for_resource", ResourceType=kind, ResourceId=id_, **chosen)


def _change(cloud: Cloud, zone: str, action: str, record_set_: Values) -> None:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": record_set_}]}
    cloud.call("route53", "change_resource_record_sets", HostedZoneId=zone, ChangeBatch=batch)


_ALIAS: Props = {
    "name": string(api="DNSName", required=True),
    "zoneId": string(api="HostedZoneId", required=True),
    "evaluateTargetHealth": boolean(required=True),
}


class Record(Resource):
    """A record set. Its id is ``<zone>_<name>_<type>`` and, where there is one, ``_<set identifier>``."""

    pulumi_type = "aws:route53/record:Record"
    service = "route53"
    props = {
        "zoneId": string(api=None, required=True, replace=True),
        "name": string(required=True, replace=True),
        "type": string(required=True, replace=True),
        "ttl": integer(api="TTL"),
        "records": string_set(api=None),
        "aliases": records(_ALIAS, api=None),
        "setIdentifier": string(replace=True),
        "multivalueAnswerRoutingPolicy": boolean(api="MultiValueAnswer", default=False),
        "healthCheckId": string(),
        "allowOverwrite": boolean(api=None, default=False, write_only=True),
    }
    known = {"fqdn": "{name}"}

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if ("records" in inputs) == ("aliases" in inputs):
            return [CheckFailure("records", "name exactly one of records and aliases")]
        if "records" in inputs and "ttl" not in inputs:
            return [CheckFailure("ttl", "is required with records; add it in seconds")]
        return []

    def _set(self, inputs: Values) -> Values:
        given = {name: value for name, value in inputs.items() if value is not False}
        encoded = self.encode(self.props, given)
        encoded = {name: value for name, value in encoded.items() if value is not False}
        if inputs.get("records"):
            encoded["ResourceRecords"] = [{"Value": value} for value in sorted(inputs["records"])]
        if inputs.get("aliases"):
            encoded["AliasTarget"] = self.encode(_ALIAS, inputs["aliases"][0])
        return encoded

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        action = "UPSERT" if inputs.get("allowOverwrite") else "CREATE"
        _change(cloud, inputs["zoneId"], action, self._set(inputs))
        parts = [inputs["zoneId"], inputs["name"], inputs["type"], inputs.get("setIdentifier")]
        return "_".join(part for part in parts if part), {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        zone, name, kind, *rest = id_.split("_") if not state else [state["zoneId"], state["name"], state["type"]]
        identifier = state.get("setIdentifier") or (rest[0] if rest else None)
        pages = cloud.client("route53").get_paginator("list_resource_record_sets")
        for page in pages.paginate(HostedZoneId=zone):
            for one in page["ResourceRecordSets"]:
                found = (_plain(one["Name"]), one["Type"], one.get("SetIdentifier"))
                if found == (_plain(name), kind, identifier):
                    return {**one, "ZoneId": zone}
        return None

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if described:
            state |= {"zoneId": described["ZoneId"], "name": _plain(state["name"])}
        if described.get("ResourceRecords"):
            state["records"] = [one["Value"] for one in described["ResourceRecords"]]
        if described.get("AliasTarget"):
            alias = self.decode(_ALIAS, described["AliasTarget"])
            state["aliases"] = [alias | {"name": _plain(alias["name"])}]
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        _change(cloud, new["zoneId"], "UPSERT", self._set(new))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        live = self.describe(cloud, id_, state)
        if live is not None:
            _change(cloud, live.pop("ZoneId"), "DELETE", live)


_ALARM = ("cloudwatchAlarmName", "cloudwatchAlarmRegion")


class HealthCheck(Resource):
    """A health check of an address or of an alarm, which takes records out of answers."""

    pulumi_type = "aws:route53/healthCheck:HealthCheck"
    service = "route53"
    props = {
        "type": string(required=True, replace=True),
        "fqdn": string(api="FullyQualifiedDomainName"),
        "ipAddress": string(api="IPAddress"),
        "port": integer(computed=True),
        "resourcePath": string(),
        "searchString": string(),
        "requestInterval": integer(replace=True, computed=True),
        "failureThreshold": integer(computed=True),
        "measureLatency": boolean(replace=True, default=False),
        "invertHealthcheck": boolean(api="Inverted", default=False),
        "disabled": boolean(default=False),
        "enableSni": boolean(api="EnableSNI", computed=True),
        # moto keeps none of these three.
        "cloudwatchAlarmName": string(api=None, write_only=True),
        "cloudwatchAlarmRegion": string(api=None, write_only=True),
        "insufficientDataHealthStatus": string(computed=True, write_only=True),
        "tags": tags(),
    }
    id_path = "Id"
    create_operation = "create_health_check"
    create_member = read_member = "HealthCheck"
    read_operation = "get_health_check"
    delete_operation = "delete_health_check"
    keys = {"HealthCheckId": "id"}
    tagging = Tagging(create=None)

    def _config(self, inputs: Values) -> Values:
        # The service refuses switches that the type of check doesn't have, so those that are off aren't sent.
        config = self.encode(self.props, {name: value for name, value in inputs.items() if value is not False})
        config = {name: value for name, value in config.items() if value is not False}
        if inputs.get("cloudwatchAlarmName"):
            config["AlarmIdentifier"] = {
                "Region": inputs["cloudwatchAlarmRegion"],
                "Name": inputs["cloudwatchAlarmName"],
            }
        return config

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if inputs["type"] == "CLOUDWATCH_METRIC" and not set(_ALARM) <= set(inputs):
            return [CheckFailure("cloudwatchAlarmName", f"{' and '.join(_ALARM)} are required for CLOUDWATCH_METRIC")]
        return []

    def request(self, inputs: Values) -> Values:
        return {"CallerReference": "checked", "HealthCheckConfig": self._config(inputs)}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs) | {"CallerReference": cloud.creation_digest()}
        described = cloud.call("route53", "create_health_check", **parameters)["HealthCheck"]
        return described["Id"], described

    def derived(self, cloud: Cloud, id_: str, state: Values) -> Values:
        return {"arn": f"arn:{cloud.partition}:route53:::healthcheck/{id_}"} if id_ else {}

    def state_of(self, described: Values) -> Values:
        return super().state_of(described.get("HealthCheckConfig") or {})

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        answer = cloud.call("route53", "list_tags_for_resource", ResourceType="healthcheck", ResourceId=id_)
        return Tagging().decode(dig(answer, "ResourceTagSet.Tags"))

    def update_tags(self, cloud: Cloud, id_: str, state: Values, old: Any, new: Any) -> None:
        _change_tags(cloud, "healthcheck", id_, old, new)

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        fixed = ("Type", "RequestInterval", "MeasureLatency")
        config = {name: value for name, value in self._config(new).items() if name not in fixed}
        switches = {"Inverted": new["invertHealthcheck"], "Disabled": new["disabled"]}
        cloud.call("route53", "update_health_check", HealthCheckId=id_, **(config | switches))


RESOURCES = (Zone, Record, HealthCheck)
