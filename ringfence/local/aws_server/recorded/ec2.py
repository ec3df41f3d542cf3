"""EC2 beyond moto: VPC Block Public Access."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Kind, Table, operations
from ringfence.local.aws_server.recorded.store import Context, Record, hex_id, now
from ringfence.local.aws_server.wire import ApiError


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
    return {**given, "ExclusionId": f"vpcbpa-exclude-{hex_id(17)}", "ResourceArn": arn, "State": "create-complete", "Tags": tags}


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
TABLE: Table = {
    **operations(EXCLUSION),
    "DescribeVpcBlockPublicAccessOptions": _options,
    "ModifyVpcBlockPublicAccessOptions": _modify_options,
}
