"""EC2 beyond moto: VPC Block Public Access, and what AWS does along with a call but moto forgets."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.instances import flag
from ringfence.local.aws_server.recorded.kinds import Kind, Table, operations
from ringfence.local.aws_server.recorded.store import PASS, Context, Record, hex_id, now
from ringfence.local.aws_server.wire import ApiError, Reply


def _options(context: Context) -> dict[str, Any]:
    default = {"InternetGatewayBlockMode": "off", "State": "default-state", "ExclusionsAllowed": "allowed"}
    found = context.records("vpcBlockPublicAccessOptions").get(("options",), Record(default))
    fixed = {"AwsAccountId": context.account, "AwsRegion": context.region, "ManagedBy": "account"}
    return {"VpcBlockPublicAccessOptions": fixed | found.attributes}


def _modify_options(context: Context) -> dict[str, Any]:
    mode = context.params["InternetGatewayBlockMode"]
    records = context.records("vpcBlockPublicAccessOptions")
    if mode == "off":
        records.pop(("options",), None)
    else:
        changed = {"State": "update-complete", "LastUpdateTimestamp": now(), "ExclusionsAllowed": "allowed"}
        records[("options",)] = Record({"InternetGatewayBlockMode": mode, **changed})
    return _options(context)


def _build_exclusion(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    targets = [(noun, given.get(member)) for noun, member in (("vpc", "VpcId"), ("subnet", "SubnetId"))]
    named = [(noun, identifier) for noun, identifier in targets if identifier]
    if len(named) != 1:
        raise ApiError("InvalidParameterCombination", "Exactly one of VpcId and SubnetId must be given.")
    noun, identifier = named[0]
    arn = context.arn("ec2", f"{noun}/{identifier}")
    specifications = given.pop("TagSpecifications", [])
    tags = [tag for specification in specifications for tag in specification.get("Tags", [])]
    return {
        **given,
        "ExclusionId": f"vpcbpa-exclude-{hex_id(17)}",
        "ResourceArn": arn,
        "State": "create-complete",
        "Tags": tags,
    }


EXCLUSION = Kind(
    service="ec2",
    name="vpcBlockPublicAccessExclusion",
    identity={"ExclusionId": "ExclusionId"},
    key=("ResourceArn",),
    create="CreateVpcBlockPublicAccessExclusion",
    list="DescribeVpcBlockPublicAccessExclusions",
    delete="DeleteVpcBlockPublicAccessExclusion",
    answer="VpcBlockPublicAccessExclusion",
    listing="VpcBlockPublicAccessExclusions",
    tags="",
    omit=frozenset({"DryRun"}),
    build=_build_exclusion,
    stamps=("CreationTimestamp", "LastUpdateTimestamp"),
    missing="InvalidVpcBlockPublicAccessExclusionId.NotFound",
    exists="VpcBlockPublicAccessExclusionAlreadyExists",
)


def _backend(context: Context) -> Any:
    from moto.ec2.models import ec2_backends

    return ec2_backends[context.account][context.region]


def _default_endpoint_type(context: Context, reply: Reply) -> Reply:
    """An endpoint made without a type is of type Gateway; moto leaves it empty and then can't delete it."""
    for endpoint in _backend(context).vpc_end_points.values():
        endpoint.vpc_endpoint_type = endpoint.vpc_endpoint_type or "Gateway"
    return reply


def _private_dns(context: Context, reply: Reply) -> Reply:
    """ModifyVpcEndpoint may switch private DNS names; moto leaves the member out."""
    if "PrivateDnsEnabled" in context.params:
        endpoint = _backend(context).vpc_end_points[context.params["VpcEndpointId"]]
        endpoint.private_dns_enabled = context.params["PrivateDnsEnabled"]
    return reply


def _route_to_endpoint(context: Context, reply: Reply) -> Reply:
    """ReplaceRoute may lead to an endpoint, or away from one; moto leaves the member as it was."""
    params = context.params
    given = {params.get(name) for name in ("DestinationCidrBlock", "DestinationIpv6CidrBlock")} - {None}
    for route in _backend(context).route_tables[params["RouteTableId"]].routes:
        if {route.destination_cidr_block, route.destination_ipv6_cidr_block} & given:
            route.vpc_endpoint_id = params.get("VpcEndpointId")
    return reply


def _delete_acl_entry(context: Context) -> object:
    """moto breaks on an entry that isn't there, where AWS has an error of its own."""
    params = context.params
    wanted = (str(params["RuleNumber"]), params["Egress"])
    acl = _backend(context).network_acls.get(params["NetworkAclId"])
    if acl is not None and all((str(e.rule_number), flag(e.egress)) != wanted for e in acl.network_acl_entries):
        direction = "outbound" if wanted[1] else "inbound"
        raise ApiError("InvalidNetworkAclEntry.NotFound", f"No {direction} entry {wanted[0]} in {acl.id}.")
    return PASS


def _remove_gateway_interfaces(context: Context, reply: Reply) -> Reply:
    """A deleted NAT gateway's interface goes, and its address is free again."""
    backend = _backend(context)
    for gateway in backend.nat_gateways.values():
        interface = gateway._eni
        if gateway.state == "deleted" and interface.id in backend.enis:
            for address in [a for a in backend.addresses if a.eni and a.eni.id == interface.id]:
                address.eni = None
                address.association_id = None
            del backend.enis[interface.id]
    return reply


def _remove_network_acls(context: Context, reply: Reply) -> Reply:
    """A deleted VPC's network ACLs go with it."""
    backend = _backend(context)
    for acl in [acl for acl in backend.network_acls.values() if acl.vpc_id not in backend.vpcs]:
        del backend.network_acls[acl.id]
    return reply


TABLE: Table = {
    **operations(EXCLUSION),
    "DescribeVpcBlockPublicAccessOptions": _options,
    "ModifyVpcBlockPublicAccessOptions": _modify_options,
    "DeleteNetworkAclEntry": _delete_acl_entry,
}
AMENDMENTS = {
    "CreateVpcEndpoint": _default_endpoint_type,
    "ModifyVpcEndpoint": _private_dns,
    "ReplaceRoute": _route_to_endpoint,
    "DeleteNatGateway": _remove_gateway_interfaces,
    "DeleteVpc": _remove_network_acls,
}
