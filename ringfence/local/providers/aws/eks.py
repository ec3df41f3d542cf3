"""EKS: clusters, node groups, add-ons, access entries, pod identity."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values, dig
from ringfence.local.providers.aws.schema import (
    boolean,
    integer,
    json_text,
    mapping,
    policy,
    record,
    record_set,
    string,
    string_set,
    strings,
    tags,
)

_TAGGING = Tagging(
    create="tags",
    style="map",
    read="tags",
    parameter="resourceArn",
    tags_parameter="tags",
    keys_parameter="tagKeys",
)


class Cluster(Resource):
    """An EKS cluster."""

    pulumi_type = "aws:eks/cluster:Cluster"
    service = "eks"
    case = "camel"
    props = {
        "name": string(replace=True),
        "roleArn": string(required=True, replace=True),
        "version": string(computed=True),
        "vpcConfig": record(
            {
                "subnetIds": string_set(required=True),
                "securityGroupIds": string_set(),
                "endpointPrivateAccess": boolean(default=False),
                "endpointPublicAccess": boolean(default=True),
                "publicAccessCidrs": string_set(computed=True),
                "clusterSecurityGroupId": string(computed=True),
                "vpcId": string(computed=True),
            },
            api="resourcesVpcConfig",
            required=True,
        ),
        "kubernetesNetworkConfig": record(
            {
                "serviceIpv4Cidr": string(computed=True, replace=True),
                "serviceIpv6Cidr": string(computed=True),
                "ipFamily": string(computed=True, replace=True),
            },
            computed=True,
        ),
        "encryptionConfig": record(
            {
                "provider": record({"keyArn": string(required=True, replace=True)}, required=True),
                "resources": string_set(required=True, replace=True),
            },
            api=None,
        ),
        "enabledClusterLogTypes": string_set(api=None),
        "accessConfig": record(
            {
                "authenticationMode": string(computed=True),
                "bootstrapClusterCreatorAdminPermissions": boolean(computed=True, replace=True),
            },
            computed=True,
        ),
        "upgradePolicy": record({"supportType": string(computed=True)}, computed=True),
        "bootstrapSelfManagedAddons": boolean(replace=True, default=True, write_only=True),
        "deletionProtection": boolean(computed=True),
        "zonalShiftConfig": record({"enabled": boolean(computed=True)}, computed=True),
        "tags": tags(),
    }
    outputs = {
        "arn": "arn",
        "endpoint": "endpoint",
        "status": "status",
        "platformVersion": "platformVersion",
        "createdAt": "createdAt",
        "certificateAuthority": "certificateAuthority",
        "identities": "identities",
    }
    known = {"arn": "arn:{partition}:eks:{region}:{account}:cluster/{name}"}
    auto_name = AutoName(limit=100)
    create_operation = "create_cluster"
    create_member = read_member = "cluster"
    read_operation = "describe_cluster"
    delete_operation = "delete_cluster"
    keys = {"name": "id"}
    tagging = _TAGGING
    ready = ("status", {"ACTIVE"}, {"FAILED", "DELETING"})

    def request(self, inputs: Values) -> Values:
        request = super().request(inputs)
        if "encryptionConfig" in inputs:
            encryption = self.props["encryptionConfig"].fields or {}
            request["encryptionConfig"] = [self.encode(encryption, inputs["encryptionConfig"])]
        if inputs.get("enabledClusterLogTypes"):
            request["logging"] = self._logging(inputs["enabledClusterLogTypes"], [])
        return request

    @staticmethod
    def _logging(wanted: list[str], unwanted: list[str]) -> Values:
        groups = [{"types": sorted(wanted), "enabled": True}, {"types": sorted(unwanted), "enabled": False}]
        return {"clusterLogging": [group for group in groups if group["types"]]}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if encryption := dig(described, "encryptionConfig.0"):
            state["encryptionConfig"] = self.decode(self.props["encryptionConfig"].fields or {}, encryption)
        logging = dig(described, "logging.clusterLogging") or []
        if "logging" in described:
            state["enabledClusterLogTypes"] = [kind for one in logging if one.get("enabled") for kind in one["types"]]
        if issuer := dig(described, "identity.oidc.issuer"):
            state["identities"] = [{"oidcs": [{"issuer": issuer}]}]
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        if "version" in changed:
            self._change(cloud, id_, "update_cluster_version", version=new["version"])
        # EKS takes one kind of change in a call.
        if "vpcConfig" in changed:
            fields = self.props["vpcConfig"].fields or {}
            self._change_network(cloud, id_, old.get("vpcConfig") or {}, self.encode(fields, new["vpcConfig"]))
        for name, fields in (("accessConfig", {"authenticationMode"}), ("upgradePolicy", {"supportType"})):
            if name in changed:
                part = {key: value for key, value in new[name].items() if key in fields}
                self._change(cloud, id_, "update_cluster_config", **{name: part})
        for name in changed & {"deletionProtection", "zonalShiftConfig"}:
            self._change(cloud, id_, "update_cluster_config", **{name: new[name]})
        if "enabledClusterLogTypes" in changed:
            wanted = new.get("enabledClusterLogTypes") or []
            unwanted = set(old.get("enabledClusterLogTypes") or []) - set(wanted)
            self._change(cloud, id_, "update_cluster_config", logging=self._logging(wanted, sorted(unwanted)))
        if "encryptionConfig" in changed:
            encryption = self.encode(self.props["encryptionConfig"].fields or {}, new["encryptionConfig"])
            cloud.call("eks", "associate_encryption_config", clusterName=id_, encryptionConfig=[encryption])
        return self.state_of(self.wait(cloud, id_, new, self.describe(cloud, id_, new) or {}))

    def _change_network(self, cloud: Cloud, id_: str, old: Values, new: Values) -> None:
        access = ("endpointPrivateAccess", "endpointPublicAccess", "publicAccessCidrs")
        for names in (access, ("subnetIds", "securityGroupIds")):
            part = {name: new[name] for name in names if name in new}
            if any(old.get(name) != value for name, value in part.items()):
                self._change(cloud, id_, "update_cluster_config", resourcesVpcConfig=part)

    def _change(self, cloud: Cloud, id_: str, operation: str, **parameters: Any) -> None:
        cloud.call("eks", operation, name=id_, **parameters)
        self.wait(cloud, id_, {}, self.describe(cloud, id_, {}) or {})


class NodeGroup(Resource):
    """A managed node group. Its id is ``<cluster>:<node group>``."""

    pulumi_type = "aws:eks/nodeGroup:NodeGroup"
    service = "eks"
    case = "camel"
    props = {
        "clusterName": string(required=True, replace=True),
        "nodeGroupName": string(api="nodegroupName", replace=True),
        "nodeRoleArn": string(api="nodeRole", required=True, replace=True),
        "subnetIds": string_set(api="subnets", required=True, replace=True),
        "scalingConfig": record(
            {
                "minSize": integer(required=True),
                "maxSize": integer(required=True),
                "desiredSize": integer(required=True),
            },
            required=True,
        ),
        "updateConfig": record(
            {"maxUnavailable": integer(computed=True), "maxUnavailablePercentage": integer(computed=True)},
            computed=True,
        ),
        "amiType": string(computed=True, replace=True),
        "capacityType": string(computed=True, replace=True),
        "diskSize": integer(computed=True, replace=True),
        "instanceTypes": strings(computed=True, replace=True),
        "launchTemplate": record(
            {
                "id": string(computed=True, replace=True),
                "name": string(computed=True, replace=True),
                "version": string(required=True),
            }
        ),
        "version": string(computed=True),
        "releaseVersion": string(computed=True),
        "forceUpdateVersion": boolean(api=None, write_only=True),
        "labels": mapping(),
        "taints": record_set(
            {"key": string(required=True), "value": string(), "effect": string(required=True)},
        ),
        "tags": tags(),
    }
    outputs = {"arn": "nodegroupArn", "status": "status", "resources": "resources"}
    auto_name = AutoName("nodeGroupName", 63)
    create_operation = "create_nodegroup"
    create_member = read_member = "nodegroup"
    read_operation = "describe_nodegroup"
    delete_operation = "delete_nodegroup"
    tagging = _TAGGING
    ready = ("status", {"ACTIVE"}, {"CREATE_FAILED", "DELETING", "DELETE_FAILED"})

    def identify(self, inputs: Values, described: Values) -> str:
        return f"{inputs['clusterName']}:{inputs['nodeGroupName']}"

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        cluster, _, name = id_.partition(":")
        return {"clusterName": cluster, "nodegroupName": name}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if found := dig(described, "resources"):
            groups = [{"name": one["name"]} for one in found.get("autoScalingGroups", [])]
            state["resources"] = [{"autoscalingGroups": groups}]
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        where = self.parameters(cloud, id_, old)
        config: Values = {
            name: new[name] for name in ("scalingConfig", "updateConfig") if name in changed and name in new
        }
        if "labels" in changed:
            config["labels"] = self._labels(old.get("labels") or {}, new.get("labels") or {})
        if "taints" in changed:
            before, after = old.get("taints") or [], new.get("taints") or []
            kept = {(taint["key"], taint["effect"]) for taint in after}
            removed = [taint for taint in before if (taint["key"], taint["effect"]) not in kept]
            config["taints"] = {"addOrUpdateTaints": after, "removeTaints": removed}
        if config:
            cloud.call("eks", "update_nodegroup_config", **where, **config)
        if changed & {"version", "releaseVersion", "launchTemplate"}:
            version = {name: new[name] for name in ("version", "releaseVersion", "launchTemplate") if name in changed}
            force = {"force": True} if new.get("forceUpdateVersion") else {}
            cloud.call("eks", "update_nodegroup_version", **where, **version, **force)
        self.wait(cloud, id_, new, self.describe(cloud, id_, new) or {})

    @staticmethod
    def _labels(old: dict[str, str], new: dict[str, str]) -> Values:
        changes = {name: value for name, value in new.items() if old.get(name) != value}
        removed = sorted(old.keys() - new.keys())
        return {"addOrUpdateLabels": changes, "removeLabels": removed}


class Addon(Resource):
    """An add-on. Its id is ``<cluster>:<add-on>``."""

    pulumi_type = "aws:eks/addon:Addon"
    service = "eks"
    case = "camel"
    props = {
        "clusterName": string(required=True, replace=True),
        "addonName": string(required=True, replace=True),
        "addonVersion": string(computed=True),
        "configurationValues": json_text(computed=True),
        "serviceAccountRoleArn": string(),
        "podIdentityAssociations": record_set(
            {"roleArn": string(required=True), "serviceAccount": string(required=True)}
        ),
        "resolveConflictsOnCreate": string(api="resolveConflicts", write_only=True),
        "resolveConflictsOnUpdate": string(api=None, write_only=True),
        "preserve": boolean(api=None, write_only=True),
        "tags": tags(),
    }
    outputs = {"arn": "addonArn", "createdAt": "createdAt", "modifiedAt": "modifiedAt"}
    create_operation = "create_addon"
    create_member = read_member = "addon"
    read_operation = "describe_addon"
    tagging = _TAGGING
    ready = ("status", {"ACTIVE", "DEGRADED"}, {"CREATE_FAILED", "DELETING", "DELETE_FAILED"})

    def identify(self, inputs: Values, described: Values) -> str:
        return f"{inputs['clusterName']}:{inputs['addonName']}"

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        cluster, _, name = id_.partition(":")
        return {"clusterName": cluster, "addonName": name}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = super().describe(cloud, id_, state)
        if found is None:
            return None
        cluster = id_.partition(":")[0]
        pods = []
        for arn in found.get("podIdentityAssociations") or []:
            parameters = {"clusterName": cluster, "associationId": arn.rpartition("/")[2]}
            pod = cloud.call("eks", "describe_pod_identity_association", **parameters)["association"]
            pods.append({"roleArn": pod["roleArn"], "serviceAccount": pod["serviceAccount"]})
        return {**found, "podIdentityAssociations": pods}

    def state_of(self, described: Values) -> Values:
        pods = described.get("podIdentityAssociations") or []
        # The creating call answers with ARNs, which say nothing of what was declared.
        plain = (
            described if all(isinstance(pod, dict) for pod in pods) else described | {"podIdentityAssociations": None}
        )
        return super().state_of(plain)

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        names = ("addonVersion", "configurationValues", "serviceAccountRoleArn")
        parameters = {name: new[name] for name in names if name in new}
        parameters["podIdentityAssociations"] = new.get("podIdentityAssociations", [])
        if new.get("resolveConflictsOnUpdate"):
            parameters["resolveConflicts"] = new["resolveConflictsOnUpdate"]
        cloud.call("eks", "update_addon", **self.parameters(cloud, id_, old), **parameters)
        self.wait(cloud, id_, new, self.describe(cloud, id_, new) or {})

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        preserve = {"preserve": True} if state.get("preserve") else {}
        cloud.call("eks", "delete_addon", **self.parameters(cloud, id_, state), **preserve)


class AccessEntry(Resource):
    """An IAM principal that may use the cluster. Its id is ``<cluster>:<principal ARN>``."""

    pulumi_type = "aws:eks/accessEntry:AccessEntry"
    service = "eks"
    case = "camel"
    props = {
        "clusterName": string(required=True, replace=True),
        "principalArn": string(required=True, replace=True),
        "kubernetesGroups": string_set(computed=True),
        "type": string(replace=True, default="STANDARD"),
        "userName": string(api="username", computed=True),
        "tags": tags(),
    }
    outputs = {"accessEntryArn": "accessEntryArn", "createdAt": "createdAt", "modifiedAt": "modifiedAt"}
    create_operation = "create_access_entry"
    create_member = read_member = "accessEntry"
    read_operation = "describe_access_entry"
    delete_operation = "delete_access_entry"
    tagging = Tagging(
        create="tags",
        style="map",
        read="tags",
        parameter="resourceArn",
        tags_parameter="tags",
        keys_parameter="tagKeys",
        resource="accessEntryArn",
    )
    delete_before_replace = True

    def identify(self, inputs: Values, described: Values) -> str:
        return f"{inputs['clusterName']}:{inputs['principalArn']}"

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        cluster, _, principal = id_.partition(":")
        return {"clusterName": cluster, "principalArn": principal}

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        members = {"kubernetesGroups": "kubernetesGroups", "userName": "username"}
        parameters = {member: new[name] for name, member in members.items() if name in changed}
        cloud.call("eks", "update_access_entry", **self.parameters(cloud, id_, old), **parameters)


class AccessPolicyAssociation(Resource):
    """What an access entry may do. Its id is ``<cluster>#<principal ARN>#<policy ARN>``."""

    pulumi_type = "aws:eks/accessPolicyAssociation:AccessPolicyAssociation"
    service = "eks"
    case = "camel"
    props = {
        "clusterName": string(required=True, replace=True),
        "principalArn": string(required=True, replace=True),
        "policyArn": string(required=True, replace=True),
        "accessScope": record(
            {"type": string(required=True, replace=True), "namespaces": string_set(replace=True)}, required=True
        ),
    }
    outputs = {"associatedAt": "associatedAt", "modifiedAt": "modifiedAt"}
    create_operation = "associate_access_policy"
    create_member = "associatedAccessPolicy"
    delete_operation = "disassociate_access_policy"
    delete_before_replace = True

    def identify(self, inputs: Values, described: Values) -> str:
        return "#".join(inputs[name] for name in ("clusterName", "principalArn", "policyArn"))

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        return dict(zip(("clusterName", "principalArn", "policyArn"), id_.split("#"), strict=True))

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        where = self.parameters(cloud, id_, state)
        entry = {name: where[name] for name in ("clusterName", "principalArn")}
        found = cloud.call("eks", "list_associated_access_policies", **entry)["associatedAccessPolicies"]
        return next(({**where, **one} for one in found if one["policyArn"] == where["policyArn"]), None)


class PodIdentityAssociation(Resource):
    """The role that a service account's pods get."""

    pulumi_type = "aws:eks/podIdentityAssociation:PodIdentityAssociation"
    service = "eks"
    case = "camel"
    props = {
        "clusterName": string(required=True, replace=True),
        "namespace": string(required=True, replace=True),
        "serviceAccount": string(required=True, replace=True),
        "roleArn": string(required=True),
        "targetRoleArn": string(),
        "disableSessionTags": boolean(computed=True),
        "policy": policy(),
        "tags": tags(),
    }
    outputs = {
        "associationArn": "associationArn",
        "associationId": "associationId",
        "externalId": "externalId",
    }
    id_path = "associationId"
    create_operation = "create_pod_identity_association"
    create_member = read_member = "association"
    read_operation = "describe_pod_identity_association"
    update_operation = "update_pod_identity_association"
    delete_operation = "delete_pod_identity_association"
    tagging = Tagging(
        create="tags",
        style="map",
        read="tags",
        parameter="resourceArn",
        tags_parameter="tags",
        keys_parameter="tagKeys",
        resource="associationArn",
    )
    delete_before_replace = True

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        if state.get("clusterName"):
            return {"clusterName": state["clusterName"], "associationId": id_}
        cluster, _, association = id_.partition(",")
        return {"clusterName": cluster, "associationId": association}


RESOURCES = (Cluster, NodeGroup, Addon, AccessEntry, AccessPolicyAssociation, PodIdentityAssociation)
