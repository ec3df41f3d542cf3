"""EC2 routing: route tables, routes, associations, VPC endpoints."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from typing import ClassVar

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.ec2_base import TAGGING, Ec2Link, Ec2Resource, checksum, first
from ringfence.local.providers.aws.resource import Values, dig
from ringfence.local.providers.aws.schema import Props, boolean, policy, record_set, string, string_set, tags
from ringfence.local.providers.base import CheckFailure, ProviderError

_DESTINATIONS = ("destinationCidrBlock", "destinationIpv6CidrBlock", "destinationPrefixListId")
_TARGETS: Props = {
    "gatewayId": string(),
    "natGatewayId": string(),
    "networkInterfaceId": string(),
    "vpcEndpointId": string(),
    "transitGatewayId": string(),
    "vpcPeeringConnectionId": string(),
    "egressOnlyGatewayId": string(api="EgressOnlyInternetGatewayId"),
}
_INLINE_ROUTE: Props = {
    "cidrBlock": string(api="DestinationCidrBlock"),
    "ipv6CidrBlock": string(api="DestinationIpv6CidrBlock"),
    "destinationPrefixListId": string(),
    **_TARGETS,
}


class RouteTable(Ec2Resource):
    """A route table. Routes may be declared in it, or as resources of their own."""

    pulumi_type = "aws:ec2/routeTable:RouteTable"
    kind = "route-table"
    props = {
        "vpcId": string(required=True, replace=True),
        "routes": record_set(_INLINE_ROUTE, api=None, computed=True),
        "tags": tags(),
    }
    outputs = {"arn": "", "ownerId": "OwnerId"}
    id_path = "RouteTableId"
    create_operation = "create_route_table"
    create_member = "RouteTable"
    read_operation = "describe_route_tables"
    read_member = "RouteTables.0"
    keys = {"RouteTableIds": "id"}
    list_keys = ("RouteTableIds",)

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        for route in state.get("routes") or []:
            cloud.call("ec2", "create_route", RouteTableId=id_, **self.encode(_INLINE_ROUTE, route))

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        described = self.find(cloud, id_, state)
        if described is None:
            return None
        live = self.state_of(described)
        own = [route for route in described["Routes"] if route.get("Origin") == "CreateRoute"]
        live["routes"] = [self._shown(route) for route in own]
        live["tags"] = live["tagsAll"] = self.read_tags(cloud, id_, live, described)
        return live

    def _shown(self, route: Values) -> Values:
        seen = self.decode(_INLINE_ROUTE, route)
        if str(seen.get("gatewayId", "")).startswith("vpce-"):
            seen["vpcEndpointId"] = seen.pop("gatewayId")
        return seen

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "routes" not in changed:
            return
        wanted = {self._destination(route): route for route in new.get("routes") or []}
        present = {self._destination(route): route for route in old.get("routes") or []}
        for destination in present.keys() - wanted.keys():
            cloud.call("ec2", "delete_route", RouteTableId=id_, **dict([destination]))
        for destination, route in wanted.items():
            operation = "replace_route" if destination in present else "create_route"
            if route != present.get(destination):
                cloud.call("ec2", operation, RouteTableId=id_, **self.encode(_INLINE_ROUTE, route))

    def _destination(self, route: Values) -> tuple[str, str]:
        encoded = self.encode(_INLINE_ROUTE, route)
        return next((name, value) for name, value in encoded.items() if name.startswith("Destination"))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_route_table", RouteTableId=id_)


# Of a route, as the lookup shows it: property → the API's member.
_SHOWN = {
    "cidrBlock": "DestinationCidrBlock",
    "ipv6CidrBlock": "DestinationIpv6CidrBlock",
    "destinationPrefixListId": "DestinationPrefixListId",
    "carrierGatewayId": "CarrierGatewayId",
    "coreNetworkArn": "CoreNetworkArn",
    "egressOnlyGatewayId": "EgressOnlyInternetGatewayId",
    "gatewayId": "GatewayId",
    "instanceId": "InstanceId",
    "localGatewayId": "LocalGatewayId",
    "natGatewayId": "NatGatewayId",
    "networkInterfaceId": "NetworkInterfaceId",
    "odbNetworkArn": "OdbNetworkArn",
    "transitGatewayId": "TransitGatewayId",
    "vpcEndpointId": "VpcEndpointId",
    "vpcPeeringConnectionId": "VpcPeeringConnectionId",
}


def _looked_up_routes(routes: list[Values]) -> list[Values]:
    """The routes that the official provider's lookup shows: neither the VPC's own, nor gateway endpoints', nor those that a
    virtual private gateway propagates."""
    shown = []
    for route in routes:
        gateway = route.get("GatewayId") or ""
        endpoint = gateway.startswith("vpce-")
        if gateway == "local" or route.get("Origin") == "EnableVgwRoutePropagation":
            continue
        if endpoint and route.get("DestinationPrefixListId"):
            continue
        seen = {name: route.get(member) or "" for name, member in _SHOWN.items()}
        shown.append(seen | ({"gatewayId": "", "vpcEndpointId": gateway} if endpoint else {}))
    return shown


def look_up_route_table(cloud: Cloud, args: Values) -> Values:
    """The function `aws:ec2/getRouteTable:getRouteTable`, by table, subnet and VPC. Raises ProviderError unless one fits."""
    names = {"routeTableId": "route-table-id", "subnetId": "association.subnet-id", "vpcId": "vpc-id"}
    given = {name: value for name, value in args.items() if value is not None}
    if not given or not given.keys() <= names.keys():
        raise ProviderError(f"getRouteTable of the embedded aws provider takes {', '.join(names)}")
    filters = [{"Name": names[name], "Values": [value]} for name, value in given.items()]
    found = cloud.call("ec2", "describe_route_tables", Filters=filters)["RouteTables"]
    if len(found) != 1:
        raise ProviderError(f"{len(found)} route tables fit {given}: name one that is there")
    table = found[0]
    id_ = table["RouteTableId"]
    ties = [tie for tie in table.get("Associations", []) if tie.get("RouteTableId", id_) == id_]
    return {
        "id": id_,
        "arn": f"arn:{cloud.partition}:ec2:{cloud.region}:{cloud.account}:route-table/{id_}",
        "associations": [
            {
                "gatewayId": tie.get("GatewayId") or "",
                "main": bool(tie.get("Main")),
                "routeTableAssociationId": tie.get("RouteTableAssociationId") or "",
                "routeTableId": id_,
                "subnetId": tie.get("SubnetId") or "",
            }
            for tie in ties
        ],
        "gatewayId": "",
        "ownerId": table.get("OwnerId") or cloud.account,
        "region": cloud.region,
        "routeTableId": id_,
        "routes": _looked_up_routes(table["Routes"]),
        "subnetId": given.get("subnetId", ""),
        "tags": TAGGING.decode(table.get("Tags")),
        "vpcId": table["VpcId"],
    }


class Route(Ec2Link):
    """One route of a route table. Its id is made of the table and the destination."""

    pulumi_type = "aws:ec2/route:Route"
    props = {
        "routeTableId": string(required=True, replace=True),
        "destinationCidrBlock": string(replace=True),
        "destinationIpv6CidrBlock": string(replace=True),
        "destinationPrefixListId": string(replace=True),
        **_TARGETS,
    }
    outputs = {"origin": "Origin", "state": "State", "instanceId": "InstanceId"}
    create_operation = "create_route"

    def problems(self, inputs: Values) -> list[CheckFailure]:
        failures = []
        if sum(name in inputs for name in _DESTINATIONS) != 1:
            failures.append(CheckFailure("destinationCidrBlock", f"name exactly one of {', '.join(_DESTINATIONS)}"))
        if sum(name in inputs for name in _TARGETS) != 1:
            failures.append(CheckFailure("gatewayId", f"name exactly one of {', '.join(_TARGETS)}"))
        return failures

    def identify(self, inputs: Values, described: Values) -> str:
        destination = next(inputs[name] for name in _DESTINATIONS if name in inputs)
        return f"r-{inputs['routeTableId']}{checksum(destination)}"

    def _where(self, id_: str, state: Values) -> Values:
        """The table and the destination; an import names them as ``<table>_<destination>``."""
        if state.get("routeTableId"):
            name = next(name for name in _DESTINATIONS if state.get(name))
            return {"RouteTableId": state["routeTableId"], name[0].upper() + name[1:]: state[name]}
        table, _, destination = id_.partition("_")
        kind = "DestinationIpv6CidrBlock" if ":" in destination else "DestinationCidrBlock"
        return {"RouteTableId": table, kind: destination}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        where = self._where(id_, state)
        table = cloud.call("ec2", "describe_route_tables", RouteTableIds=[where["RouteTableId"]])["RouteTables"][0]
        for route in table["Routes"]:
            if all(route.get(name) == value for name, value in where.items() if name != "RouteTableId"):
                if str(route.get("GatewayId", "")).startswith("vpce-"):
                    route["VpcEndpointId"] = route.pop("GatewayId")
                return where | route
        return None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        cloud.call("ec2", "replace_route", **self.request(new))

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_route", **self._where(id_, state))


class RouteTableAssociation(Ec2Link):
    """Which route table a subnet or a gateway uses. Moving to another table changes the id that EC2 knows it by."""

    pulumi_type = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    props = {
        "routeTableId": string(required=True),
        "subnetId": string(replace=True),
        "gatewayId": string(replace=True),
    }
    id_path = "AssociationId"
    create_operation = "associate_route_table"

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if ("subnetId" in inputs) == ("gatewayId" in inputs):
            return [CheckFailure("subnetId", "name exactly one of subnetId and gatewayId")]
        return []

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        if state.get("subnetId"):
            table = first(cloud, "describe_route_tables", "RouteTables", association__subnet_id=state["subnetId"])
            tables = [table] if table else []
        else:
            # moto can't filter by gateway.
            pages = cloud.client("ec2").get_paginator("describe_route_tables").paginate()
            tables = [table for page in pages for table in page["RouteTables"]]
        target = state.get("subnetId") or state.get("gatewayId") or id_
        for found in (found for table in tables for found in table.get("Associations", [])):
            association = found["RouteTableAssociationId"]
            if target in (found.get("SubnetId"), found.get("GatewayId"), association):
                return found | {"AssociationId": association}
        return None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        present = self.describe(cloud, id_, old)
        association = present["AssociationId"] if present else id_
        parameters = {"AssociationId": association, "RouteTableId": new["routeTableId"]}
        cloud.call("ec2", "replace_route_table_association", **parameters)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        present = self.describe(cloud, id_, state)
        if present is not None:
            cloud.call("ec2", "disassociate_route_table", AssociationId=present["AssociationId"])


class VpcEndpoint(Ec2Resource):
    """A gateway or interface endpoint of a VPC. Tables, subnets and groups may also be associated by other resources."""

    pulumi_type = "aws:ec2/vpcEndpoint:VpcEndpoint"
    kind = "vpc-endpoint"
    props = {
        "vpcId": string(required=True, replace=True),
        "serviceName": string(required=True, replace=True),
        "vpcEndpointType": string(replace=True, default="Gateway"),
        "policy": policy(api="PolicyDocument", computed=True),
        "privateDnsEnabled": boolean(computed=True),
        "routeTableIds": string_set(computed=True),
        "subnetIds": string_set(computed=True),
        "securityGroupIds": string_set(computed=True),
        "ipAddressType": string(computed=True),
        "tags": tags(),
    }
    outputs = {
        "arn": "",
        "state": "State",
        "ownerId": "OwnerId",
        "requesterManaged": "RequesterManaged",
        "networkInterfaceIds": "NetworkInterfaceIds",
        "prefixListId": "PrefixListId",
        "cidrBlocks": "Cidrs",
    }
    id_path = "VpcEndpointId"
    create_operation = "create_vpc_endpoint"
    create_member = "VpcEndpoint"
    read_operation = "describe_vpc_endpoints"
    read_member = "VpcEndpoints.0"
    keys = {"VpcEndpointIds": "id"}
    list_keys = ("VpcEndpointIds",)
    ready = ("State", {"available", "Available"}, {"failed", "Failed", "rejected", "Rejected"})
    read_after_create = True
    _SETS: ClassVar = {
        "routeTableIds": "RouteTableIds",
        "subnetIds": "SubnetIds",
        "securityGroupIds": "SecurityGroupIds",
    }

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = super().describe(cloud, id_, state)
        if found is None or str(found["State"]).lower() == "deleted":
            return None
        if found.get("VpcEndpointType") == "Gateway":
            listed = first(cloud, "describe_prefix_lists", "PrefixLists", prefix_list_name=found["ServiceName"])
            found |= {"PrefixListId": dig(listed, "PrefixListId"), "Cidrs": dig(listed, "Cidrs")}
        return found

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        groups = described.get("Groups")
        return state | ({"securityGroupIds": [group["GroupId"] for group in groups]} if groups else {})

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        parameters: Values = {}
        for name, member in self._SETS.items():
            if name in changed:
                before, after = set(old.get(name) or []), set(new.get(name) or [])
                parameters |= {f"Add{member}": sorted(after - before), f"Remove{member}": sorted(before - after)}
        if "policy" in changed:
            parameters["PolicyDocument"] = new["policy"]
        if "privateDnsEnabled" in changed:
            parameters["PrivateDnsEnabled"] = new["privateDnsEnabled"]
        if "ipAddressType" in changed:
            parameters["IpAddressType"] = new["ipAddressType"]
        chosen = {name: value for name, value in parameters.items() if value != []}
        cloud.call("ec2", "modify_vpc_endpoint", VpcEndpointId=id_, **chosen)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_vpc_endpoints", VpcEndpointIds=[id_])


class _EndpointLink(Ec2Link):
    """Something that an endpoint is associated with. member: of the endpoint; property_: of this type."""

    member: ClassVar[str] = ""
    property_: ClassVar[str] = ""

    def _modify(self, cloud: Cloud, verb: str, state: Values) -> None:
        change = {f"{verb}{self.member}": [state[self.property_]]}
        cloud.call("ec2", "modify_vpc_endpoint", VpcEndpointId=state["vpcEndpointId"], **change)

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        self._modify(cloud, "Add", inputs)
        return f"a-{inputs['vpcEndpointId']}{checksum(inputs[self.property_])}", {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        if not state:
            endpoint, _, other = id_.partition("/")
            state = {"vpcEndpointId": endpoint, self.property_: other}
        parameters = {"VpcEndpointIds": [state["vpcEndpointId"]]}
        found = dig(cloud.call("ec2", "describe_vpc_endpoints", **parameters), "VpcEndpoints.0")
        if state[self.property_] not in ((found or {}).get(self.member) or []):
            return None
        shown = self.property_[0].upper() + self.property_[1:]
        return {"VpcEndpointId": state["vpcEndpointId"], shown: state[self.property_]}

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._modify(cloud, "Remove", state)


class VpcEndpointRouteTableAssociation(_EndpointLink):
    """A route table that reaches a gateway endpoint."""

    pulumi_type = "aws:ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation"
    member, property_ = "RouteTableIds", "routeTableId"
    props = {"vpcEndpointId": string(required=True, replace=True), "routeTableId": string(required=True, replace=True)}


class VpcEndpointSubnetAssociation(_EndpointLink):
    """A subnet that an interface endpoint has an interface in."""

    pulumi_type = "aws:ec2/vpcEndpointSubnetAssociation:VpcEndpointSubnetAssociation"
    member, property_ = "SubnetIds", "subnetId"
    props = {"vpcEndpointId": string(required=True, replace=True), "subnetId": string(required=True, replace=True)}


RESOURCES = (
    RouteTable,
    Route,
    RouteTableAssociation,
    VpcEndpoint,
    VpcEndpointRouteTableAssociation,
    VpcEndpointSubnetAssociation,
)
