"""EC2 networks: VPC, subnets, gateways, addresses, flow logs."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.ec2_base import Ec2Link, Ec2Resource, first
from ringfence.local.providers.aws.resource import Values, dig
from ringfence.local.providers.aws.schema import boolean, integer, string, tags
from ringfence.local.providers.base import CheckFailure


class Vpc(Ec2Resource):
    """A VPC."""

    pulumi_type = "aws:ec2/vpc:Vpc"
    kind = "vpc"
    props = {
        "cidrBlock": string(required=True, replace=True),
        "instanceTenancy": string(default="default"),
        "enableDnsSupport": boolean(api=None, default=True),
        "enableDnsHostnames": boolean(api=None, default=False),
        "tags": tags(),
    }
    outputs = {
        "arn": "",
        "ownerId": "OwnerId",
        "dhcpOptionsId": "DhcpOptionsId",
        "defaultNetworkAclId": "DefaultNetworkAclId",
        "defaultRouteTableId": "DefaultRouteTableId",
        "defaultSecurityGroupId": "DefaultSecurityGroupId",
        "mainRouteTableId": "DefaultRouteTableId",
    }
    id_path = "VpcId"
    create_operation = "create_vpc"
    create_member = "Vpc"
    read_operation = "describe_vpcs"
    read_member = "Vpcs.0"
    delete_operation = "delete_vpc"
    keys = {"VpcIds": "id"}
    list_keys = ("VpcIds",)
    read_after_create = True

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._attributes(cloud, id_, {"enableDnsSupport": True, "enableDnsHostnames": False}, state)

    @staticmethod
    def _attributes(cloud: Cloud, id_: str, old: Values, new: Values) -> None:
        # Host names need DNS support: on in this order, off in the other.
        names = ["enableDnsSupport", "enableDnsHostnames"]
        for name in names if new.get("enableDnsSupport") else reversed(names):
            if new.get(name) is not None and old.get(name) != new[name]:
                attribute = {name[0].upper() + name[1:]: {"Value": new[name]}}
                cloud.call("ec2", "modify_vpc_attribute", VpcId=id_, **attribute)

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is None:
            return None
        for name in ("enableDnsSupport", "enableDnsHostnames"):
            answer = cloud.call("ec2", "describe_vpc_attribute", VpcId=id_, Attribute=name)
            live[name] = answer[name[0].upper() + name[1:]]["Value"]
        acl = first(cloud, "describe_network_acls", "NetworkAcls", vpc_id=id_, default="true")
        group = first(cloud, "describe_security_groups", "SecurityGroups", vpc_id=id_, group_name="default")
        table = first(cloud, "describe_route_tables", "RouteTables", vpc_id=id_, association__main="true")
        live["defaultNetworkAclId"] = dig(acl, "NetworkAclId")
        live["defaultSecurityGroupId"] = dig(group, "GroupId")
        live["mainRouteTableId"] = live["defaultRouteTableId"] = dig(table, "RouteTableId")
        return live

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._attributes(cloud, id_, old, new)
        if "instanceTenancy" in changed:
            cloud.call("ec2", "modify_vpc_tenancy", VpcId=id_, InstanceTenancy=new["instanceTenancy"])

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_vpc", VpcId=id_)


class Subnet(Ec2Resource):
    """A subnet."""

    pulumi_type = "aws:ec2/subnet:Subnet"
    kind = "subnet"
    props = {
        "vpcId": string(required=True, replace=True),
        "cidrBlock": string(required=True, replace=True),
        "availabilityZone": string(replace=True, computed=True),
        "availabilityZoneId": string(replace=True, computed=True),
        "mapPublicIpOnLaunch": boolean(default=False),
        "assignIpv6AddressOnCreation": boolean(default=False),
        "tags": tags(),
    }
    outputs = {"arn": "SubnetArn", "ownerId": "OwnerId"}
    id_path = "SubnetId"
    create_operation = "create_subnet"
    create_member = "Subnet"
    read_operation = "describe_subnets"
    read_member = "Subnets.0"
    keys = {"SubnetIds": "id"}
    list_keys = ("SubnetIds",)

    def request(self, inputs: Values) -> Values:
        afterwards = ("MapPublicIpOnLaunch", "AssignIpv6AddressOnCreation")
        return {name: value for name, value in super().request(inputs).items() if name not in afterwards}

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._attributes(cloud, id_, {"mapPublicIpOnLaunch": False, "assignIpv6AddressOnCreation": False}, state)

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._attributes(cloud, id_, old, new)

    @staticmethod
    def _attributes(cloud: Cloud, id_: str, old: Values, new: Values) -> None:
        for name in ("mapPublicIpOnLaunch", "assignIpv6AddressOnCreation"):
            if new.get(name) is not None and old.get(name) != new[name]:
                attribute = {name[0].upper() + name[1:]: {"Value": new[name]}}
                cloud.call("ec2", "modify_subnet_attribute", SubnetId=id_, **attribute)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_subnet", SubnetId=id_)


class InternetGateway(Ec2Resource):
    """An internet gateway, attached to a VPC when one is declared."""

    pulumi_type = "aws:ec2/internetGateway:InternetGateway"
    kind = "internet-gateway"
    props = {"vpcId": string(api=None), "tags": tags()}
    outputs = {"arn": "", "ownerId": "OwnerId"}
    id_path = "InternetGatewayId"
    create_operation = "create_internet_gateway"
    create_member = "InternetGateway"
    read_operation = "describe_internet_gateways"
    read_member = "InternetGateways.0"
    keys = {"InternetGatewayIds": "id"}
    list_keys = ("InternetGatewayIds",)

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("vpcId"):
            cloud.call("ec2", "attach_internet_gateway", InternetGatewayId=id_, VpcId=state["vpcId"])

    def state_of(self, described: Values) -> Values:
        attached = dig(described, "Attachments.0.VpcId")
        return super().state_of(described) | ({"vpcId": attached} if attached else {})

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if old.get("vpcId"):
            cloud.call("ec2", "detach_internet_gateway", InternetGatewayId=id_, VpcId=old["vpcId"])
        self.complete(cloud, id_, new)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        live = self.describe(cloud, id_, state)
        for attachment in (live or {}).get("Attachments", []):
            cloud.call("ec2", "detach_internet_gateway", InternetGatewayId=id_, VpcId=attachment["VpcId"])
        cloud.call("ec2", "delete_internet_gateway", InternetGatewayId=id_)


class NatGateway(Ec2Resource):
    """A NAT gateway in one subnet."""

    pulumi_type = "aws:ec2/natGateway:NatGateway"
    kind = "natgateway"
    props = {
        "subnetId": string(required=True, replace=True),
        "allocationId": string(replace=True),
        "connectivityType": string(replace=True, default="public"),
        "privateIp": string(api="PrivateIpAddress", replace=True, computed=True),
        "tags": tags(),
    }
    outputs = {
        "publicIp": "NatGatewayAddresses.0.PublicIp",
        "networkInterfaceId": "NatGatewayAddresses.0.NetworkInterfaceId",
        "associationId": "NatGatewayAddresses.0.AssociationId",
    }
    id_path = "NatGatewayId"
    create_operation = "create_nat_gateway"
    create_member = "NatGateway"
    read_operation = "describe_nat_gateways"
    read_member = "NatGateways.0"
    keys = {"NatGatewayIds": "id"}
    list_keys = ("NatGatewayIds",)
    ready = ("State", {"available"}, {"failed", "deleted", "deleting"})

    def create_tags(self, tags: Any) -> Values:
        return {"TagSpecifications": [{"ResourceType": "natgateway", "Tags": self.tagging.encode(tags)}]}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = super().describe(cloud, id_, state)
        return None if found is None or found["State"] == "deleted" else found

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        address = dig(described, "NatGatewayAddresses.0") or {}
        for name, member in (("allocationId", "AllocationId"), ("privateIp", "PrivateIp")):
            if address.get(member):
                state[name] = address[member]
        return state

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_nat_gateway", NatGatewayId=id_)


class Eip(Ec2Resource):
    """An Elastic IP address, associated with an instance or a network interface when one is declared."""

    pulumi_type = "aws:ec2/eip:Eip"
    kind = "elastic-ip"
    props = {
        "domain": string(replace=True, default="vpc"),
        "instance": string(api=None, computed=True),
        "networkInterface": string(api=None, computed=True),
        "associateWithPrivateIp": string(api=None, write_only=True),
        "tags": tags(),
    }
    outputs = {
        "arn": "",
        "allocationId": "AllocationId",
        "publicIp": "PublicIp",
        "privateIp": "PrivateIpAddress",
        "associationId": "AssociationId",
    }
    id_path = "AllocationId"
    create_operation = "allocate_address"
    read_operation = "describe_addresses"
    read_member = "Addresses.0"
    keys = {"AllocationIds": "id"}
    list_keys = ("AllocationIds",)

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        target = {"InstanceId": state.get("instance"), "NetworkInterfaceId": state.get("networkInterface")}
        target |= {"PrivateIpAddress": state.get("associateWithPrivateIp")}
        chosen = {name: value for name, value in target.items() if value}
        if state.get("instance") or state.get("networkInterface"):
            answer = cloud.call("ec2", "associate_address", AllocationId=id_, AllowReassociation=True, **chosen)
            state["associationId"] = answer["AssociationId"]

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        for name, member in (("instance", "InstanceId"), ("networkInterface", "NetworkInterfaceId")):
            if described.get(member):
                state[name] = described[member]
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        if changed & {"instance", "networkInterface", "associateWithPrivateIp"}:
            _disassociate(cloud, self.describe(cloud, id_, old))
            self.complete(cloud, id_, new)
        return {name: new[name] for name in ("associationId",) if name in new}

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        _disassociate(cloud, self.describe(cloud, id_, state))
        cloud.call("ec2", "release_address", AllocationId=id_)


def _disassociate(cloud: Cloud, address: Values | None) -> None:
    if address and address.get("AssociationId"):
        cloud.call("ec2", "disassociate_address", AssociationId=address["AssociationId"])


class EipAssociation(Ec2Link):
    """The association of an Elastic IP address with an instance or a network interface."""

    pulumi_type = "aws:ec2/eipAssociation:EipAssociation"
    props = {
        "allocationId": string(required=True, replace=True),
        "instanceId": string(replace=True, computed=True),
        "networkInterfaceId": string(replace=True, computed=True),
        "privateIpAddress": string(replace=True, computed=True),
        "allowReassociation": boolean(replace=True, write_only=True),
    }
    outputs = {"publicIp": "PublicIp"}
    id_path = "AssociationId"
    create_operation = "associate_address"
    read_after_create = True

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        return first(cloud, "describe_addresses", "Addresses", association_id=id_)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "disassociate_address", AssociationId=id_)


class FlowLog(Ec2Resource):
    """A flow log of a VPC, a subnet or a network interface."""

    pulumi_type = "aws:ec2/flowLog:FlowLog"
    kind = "vpc-flow-log"
    props = {
        "vpcId": string(api=None, replace=True),
        "subnetId": string(api=None, replace=True),
        "eniId": string(api=None, replace=True),
        "trafficType": string(replace=True),
        "logDestinationType": string(replace=True, default="cloud-watch-logs"),
        "logDestination": string(replace=True),
        "iamRoleArn": string(api="DeliverLogsPermissionArn", replace=True),
        "maxAggregationInterval": integer(replace=True, default=600),
        "logFormat": string(replace=True, computed=True),
        "tags": tags(),
    }
    outputs = {"arn": ""}
    id_path = "FlowLogId"
    create_operation = "create_flow_logs"
    read_operation = "describe_flow_logs"
    read_member = "FlowLogs.0"
    keys = {"FlowLogIds": "id"}
    list_keys = ("FlowLogIds",)
    _SOURCES = {"vpcId": "VPC", "subnetId": "Subnet", "eniId": "NetworkInterface"}

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if sum(name in inputs for name in self._SOURCES) != 1:
            return [CheckFailure("vpcId", "name exactly one of vpcId, subnetId and eniId")]
        return []

    def request(self, inputs: Values) -> Values:
        source = next(name for name in self._SOURCES if name in inputs)
        return super().request(inputs) | {"ResourceIds": [inputs[source]], "ResourceType": self._SOURCES[source]}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs)
        if inputs.get("tags"):
            parameters |= self.create_tags(inputs["tags"])
        answer = cloud.call("ec2", "create_flow_logs", **parameters)
        if not answer.get("FlowLogIds"):
            from ringfence.local.providers.base import ProviderError

            refused = dig(answer, "Unsuccessful.0.Error") or {}
            raise ProviderError(f"{self.pulumi_type}: {refused.get('Code')}: {refused.get('Message')}")
        return answer["FlowLogIds"][0], {}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if source := described.get("ResourceId"):
            state[{"vpc": "vpcId", "subnet": "subnetId", "eni": "eniId"}[source.partition("-")[0]]] = source
        return state

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = super().describe(cloud, id_, state)
        if found and not found.get("LogDestination") and found.get("LogGroupName"):
            group = found["LogGroupName"]
            found["LogDestination"] = f"arn:{cloud.partition}:logs:{cloud.region}:{cloud.account}:log-group:{group}"
        return found

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_flow_logs", FlowLogIds=[id_])


RESOURCES = (Vpc, Subnet, InternetGateway, NatGateway, Eip, EipAssociation, FlowLog)
