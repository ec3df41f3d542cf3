"""EKS clusters and node groups: moto's own, completed with the settings that moto drops and AWS reports back."""

from __future__ import annotations

from typing import Any

from moto.core.utils import camelcase_to_underscores

from ringfence.local.aws_server.recorded.eks import cluster, record_update
from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import Context
from ringfence.local.aws_server.wire import ApiError

# Settings of CreateCluster and UpdateClusterConfig that moto drops, and what AWS reports when they aren't given.
CLUSTER_SETTINGS: dict[str, Any] = {
    "accessConfig": {"authenticationMode": "CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": True},
    "computeConfig": None,
    "controlPlaneScalingConfig": None,
    "deletionProtection": False,
    "kubeApiServerConfig": None,
    "kubeControllerManagerConfig": None,
    "kubeSchedulerConfig": None,
    "storageConfig": None,
    "upgradePolicy": {"supportType": "EXTENDED"},
    "zonalShiftConfig": None,
}
_BACKEND_ARGUMENTS = (
    "name",
    "roleArn",
    "resourcesVpcConfig",
    "version",
    "kubernetesNetworkConfig",
    "logging",
    "clientRequestToken",
    "tags",
    "encryptionConfig",
    "remoteNetworkConfig",
)


def _backend(context: Context) -> Any:
    from moto.eks.models import eks_backends

    return eks_backends[context.account][context.region]


def _ec2(context: Context) -> Any:
    from moto.ec2.models import ec2_backends

    return ec2_backends[context.account][context.region]


def _create_cluster(context: Context) -> dict[str, Any]:
    params = context.params
    given = {camelcase_to_underscores(name): params[name] for name in _BACKEND_ARGUMENTS if name in params}
    network = {"serviceIpv4Cidr": "172.20.0.0/16", "ipFamily": "ipv4", **params.get("kubernetesNetworkConfig", {})}
    logging = params.get("logging") or {"clusterLogging": []}
    vpc_id = _vpc_of(context, params["resourcesVpcConfig"].get("subnetIds", []))
    made = _backend(context).create_cluster(**{**given, "kubernetes_network_config": network, "logging": logging})
    group = _ec2(context).create_security_group(
        f"eks-cluster-sg-{made.name}",
        "EKS created security group applied to ENI that is attached to EKS Control Plane master nodes, "
        "as well as any managed workloads.",
        vpc_id,
        {"kubernetes.io/cluster/" + made.name: "owned", "aws:eks:cluster-name": made.name},
    )
    made.resources_vpc_config = {
        "securityGroupIds": [],
        "endpointPublicAccess": True,
        "endpointPrivateAccess": False,
        "publicAccessCidrs": ["0.0.0.0/0"],
        **params["resourcesVpcConfig"],
        "vpcId": vpc_id,
        "clusterSecurityGroupId": group.id,
    }
    for name, default in CLUSTER_SETTINGS.items():
        value = params.get(name, default)
        if isinstance(default, dict):
            value = {**default, **value}
        setattr(made, camelcase_to_underscores(name), value)
    return {"cluster": made}


def _vpc_of(context: Context, subnets: list[str]) -> str:
    """The VPC of a cluster's subnets, as EKS checks them; raises InvalidParameterException."""
    known = {subnet.id: subnet for zones in _ec2(context).subnets.values() for subnet in zones.values()}
    missing = [subnet for subnet in subnets if subnet not in known]
    if missing or not subnets:
        raise ApiError("InvalidParameterException", f"The subnet ID '{', '.join(missing)}' does not exist.")
    vpcs = {known[subnet].vpc_id for subnet in subnets}
    zones = {known[subnet].availability_zone for subnet in subnets}
    if len(vpcs) > 1:
        raise ApiError("InvalidParameterException", "Subnets must belong to the same VPC.")
    if len(zones) < 2:
        raise ApiError("InvalidParameterException", "Subnets specified must be in at least two different AZs.")
    return str(vpcs.pop())


def _update_cluster_config(context: Context) -> dict[str, Any]:
    params = context.params
    made = cluster(context)
    if "resourcesVpcConfig" in params:
        made.resources_vpc_config = {**made.resources_vpc_config, **params["resourcesVpcConfig"]}
    if "kubernetesNetworkConfig" in params:
        made.kubernetes_network_config = {**made.kubernetes_network_config, **params["kubernetesNetworkConfig"]}
    if "logging" in params:
        made.logging = params["logging"]
    if "remoteNetworkConfig" in params:
        made.remote_network_config = params["remoteNetworkConfig"]
    for name in CLUSTER_SETTINGS:
        if name in params:
            attribute = camelcase_to_underscores(name)
            old, new = getattr(made, attribute), params[name]
            setattr(made, attribute, {**old, **new} if isinstance(old, dict) else new)
    return record_update(context, _update_type(params))


def _update_type(params: dict[str, Any]) -> str:
    """EKS's name for the kind of a configuration update."""
    if "accessConfig" in params:
        return "AccessConfigUpdate"
    if "logging" in params:
        return "LoggingUpdate"
    if "upgradePolicy" in params:
        return "UpgradePolicyUpdate"
    if "deletionProtection" in params:
        return "DeletionProtectionUpdate"
    if "zonalShiftConfig" in params:
        return "ZonalShiftConfigUpdate"
    vpc = params.get("resourcesVpcConfig", {})
    return "EndpointAccessUpdate" if any(name.startswith("endpoint") for name in vpc) else "VpcConfigUpdate"


def _update_cluster_version(context: Context) -> dict[str, Any]:
    made = cluster(context)
    wanted, current = context.params["version"], made.version
    if [int(part) for part in wanted.split(".")] <= [int(part) for part in current.split(".")]:
        raise ApiError(
            "InvalidParameterException", f"Unsupported Kubernetes minor version update from {current} to {wanted}."
        )
    made.version = wanted
    return record_update(context, "VersionUpdate")


def _delete_cluster(context: Context) -> dict[str, Any]:
    made = cluster(context)
    if getattr(made, "deletion_protection", False):
        raise ApiError(
            "InvalidRequestException", f"Cluster {made.name} has deletion protection enabled; disable it first."
        )
    _backend(context).delete_cluster(made.name)
    for kind in ("addon", "accessEntry", "accessPolicyAssociation", "podIdentityAssociation", "update"):
        records = context.records(kind)
        for key in [key for key in records if key[0] == made.name]:
            del records[key]
    _ec2(context).delete_security_group(group_id=made.resources_vpc_config["clusterSecurityGroupId"])
    return {"cluster": made}


def _create_nodegroup(context: Context) -> dict[str, Any]:
    params = context.params
    owner = cluster(context)
    skipped = ("updateConfig", "nodeRepairConfig", "warmPoolConfig")
    given = {camelcase_to_underscores(name): value for name, value in params.items() if name not in skipped}
    given["version"] = params.get("version") or owner.version
    given["scaling_config"] = {"minSize": 1, "maxSize": 2, "desiredSize": 2, **params.get("scalingConfig", {})}
    made = _backend(context).create_nodegroup(**given)
    made.update_config = params.get("updateConfig") or {"maxUnavailable": 1}
    made.node_repair_config = params.get("nodeRepairConfig")
    made.warm_pool_config = params.get("warmPoolConfig")
    made.remote_access = params.get("remoteAccess")
    made.resources = {"autoScalingGroups": made.resources["autoScalingGroups"]}
    if "launchTemplate" in params:
        made.disk_size = params.get("diskSize")
        made.launch_template.setdefault("version", "1")
    return {"nodegroup": made}


def _nodegroup(context: Context) -> Any:
    name = context.params["nodegroupName"]
    found = cluster(context).nodegroups.get(name)
    if found is None:
        raise ApiError("ResourceNotFoundException", f"No node group found for name: {name}.", nodegroupName=name)
    return found


def _delete_nodegroup(context: Context) -> dict[str, Any]:
    made = _nodegroup(context)
    _backend(context).delete_nodegroup(made.cluster_name, made.nodegroup_name)
    groups = {group["name"] for group in made.resources["autoScalingGroups"]}
    tags = context.records("tag", "autoscaling")
    for key in [key for key in tags if key[0] in groups]:
        del tags[key]
    return {"nodegroup": made}


def _update_nodegroup_config(context: Context) -> dict[str, Any]:
    made, params = _nodegroup(context), context.params
    _backend(context).update_nodegroup_config(
        made.cluster_name,
        made.nodegroup_name,
        labels=params.get("labels"),
        taints=params.get("taints"),
        scaling_config=params.get("scalingConfig"),
        update_config=params.get("updateConfig"),
        node_repair_config=params.get("nodeRepairConfig"),
    )
    return record_update(context, "ConfigUpdate", made.nodegroup_name)


def _update_nodegroup_version(context: Context) -> dict[str, Any]:
    made, params = _nodegroup(context), context.params
    made.version = params.get("version", made.version)
    made.release_version = params.get("releaseVersion", made.release_version)
    if "launchTemplate" in params:
        made.launch_template = {**(made.launch_template or {}), **params["launchTemplate"]}
    return record_update(context, "VersionUpdate", made.nodegroup_name)


TABLE: Table = {
    "CreateCluster": _create_cluster,
    "UpdateClusterConfig": _update_cluster_config,
    "UpdateClusterVersion": _update_cluster_version,
    "DeleteCluster": _delete_cluster,
    "CreateNodegroup": _create_nodegroup,
    "DeleteNodegroup": _delete_nodegroup,
    "UpdateNodegroupConfig": _update_nodegroup_config,
    "UpdateNodegroupVersion": _update_nodegroup_version,
}
