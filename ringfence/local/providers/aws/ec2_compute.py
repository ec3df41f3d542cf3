"""EC2 computing: network interfaces, launch templates, instances."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

import base64
from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.ec2_base import TAGGING, Ec2Link, Ec2Resource
from ringfence.local.providers.aws.resource import AutoName, Values, dig
from ringfence.local.providers.aws.schema import (
    Props,
    boolean,
    integer,
    mapping,
    record,
    records,
    string,
    string_set,
    strings,
    tags,
    text_boolean,
)
from ringfence.local.providers.base import CheckFailure

# EC2's own list of tag specifications: resource type and tags.
_TAG_SPECIFICATION: Props = {
    "resourceType": string(required=True),
    "tags": mapping(pairs=("Key", "Value")),
}
_METADATA: Props = {
    "httpEndpoint": string(computed=True),
    "httpTokens": string(computed=True),
    "httpPutResponseHopLimit": integer(computed=True),
    "httpProtocolIpv6": string(computed=True),
    "instanceMetadataTags": string(computed=True),
}
_EBS: Props = {
    "volumeSize": integer(),
    "volumeType": string(),
    "encrypted": text_boolean(),
    "deleteOnTermination": text_boolean(),
    "iops": integer(),
    "throughput": integer(),
    "kmsKeyId": string(),
    "snapshotId": string(),
}
_TEMPLATE: Props = {
    "imageId": string(),
    "instanceType": string(),
    "keyName": string(),
    "userData": string(),
    "ebsOptimized": text_boolean(),
    "disableApiTermination": boolean(),
    "disableApiStop": boolean(),
    "instanceInitiatedShutdownBehavior": string(),
    "vpcSecurityGroupIds": string_set(api="SecurityGroupIds"),
    "iamInstanceProfile": record({"arn": string(), "name": string()}),
    "metadataOptions": record(_METADATA),
    "monitoring": record({"enabled": boolean()}),
    "creditSpecification": record({"cpuCredits": string()}),
    "maintenanceOptions": record({"autoRecovery": string()}),
    "placement": record({"tenancy": string(), "availabilityZone": string(), "groupName": string()}),
    "instanceMarketOptions": record({"marketType": string()}),
    "privateDnsNameOptions": record(
        {
            "hostnameType": string(),
            "enableResourceNameDnsARecord": boolean(),
            "enableResourceNameDnsAaaaRecord": boolean(api="EnableResourceNameDnsAAAARecord"),
        }
    ),
    "blockDeviceMappings": records(
        {"deviceName": string(), "noDevice": string(), "virtualName": string(), "ebs": record(_EBS)}
    ),
    "networkInterfaces": records(
        {
            "deviceIndex": integer(),
            "networkInterfaceId": string(),
            "subnetId": string(),
            "associatePublicIpAddress": text_boolean(),
            "deleteOnTermination": text_boolean(),
            "securityGroups": string_set(api="Groups"),
            "description": string(),
        }
    ),
    "tagSpecifications": records(_TAG_SPECIFICATION),
}


class LaunchTemplate(Ec2Resource):
    """A launch template. A change makes a new version, and the default one when `updateDefaultVersion` is set."""

    pulumi_type = "aws:ec2/launchTemplate:LaunchTemplate"
    kind = "launch-template"
    props = {
        "name": string(api="LaunchTemplateName", replace=True),
        "description": string(api="VersionDescription"),
        "defaultVersion": integer(api=None, computed=True),
        "updateDefaultVersion": boolean(api=None, default=False, write_only=True),
        "tags": tags(),
        **_TEMPLATE,
    }
    outputs = {"arn": "", "latestVersion": "LatestVersionNumber"}
    auto_name = AutoName(limit=128)
    id_path = "LaunchTemplateId"
    create_operation = "create_launch_template"
    create_member = "LaunchTemplate"
    delete_operation = "delete_launch_template"
    keys = {"LaunchTemplateId": "id"}

    def _data(self, inputs: Values) -> Values:
        return self.encode(_TEMPLATE, {name: value for name, value in inputs.items() if name in _TEMPLATE})

    def request(self, inputs: Values) -> Values:
        request: Values = {"LaunchTemplateName": inputs["name"], "LaunchTemplateData": self._data(inputs)}
        return request | ({"VersionDescription": inputs["description"]} if inputs.get("description") else {})

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = dig(cloud.call("ec2", "describe_launch_templates", LaunchTemplateIds=[id_]), "LaunchTemplates.0")
        if found is None:
            return None
        parameters = {"LaunchTemplateId": id_, "Versions": ["$Latest"]}
        answer = cloud.call("ec2", "describe_launch_template_versions", **parameters)
        latest = answer["LaunchTemplateVersions"][0]
        return found | latest["LaunchTemplateData"] | {"VersionDescription": latest.get("VersionDescription")}

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if "DefaultVersionNumber" in described:
            state["defaultVersion"] = described["DefaultVersionNumber"]
        # moto shows the template's own tags among those of what it launches.
        launched = [one for one in state.pop("tagSpecifications", []) if one["resourceType"] != self.kind]
        if launched:
            state["tagSpecifications"] = launched
        return state

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        # moto goes on showing the tags that a template was made with.
        filters = [{"Name": "resource-id", "Values": [id_]}]
        return TAGGING.decode(cloud.call("ec2", "describe_tags", Filters=filters)["Tags"])

    def renewed(self, inputs: Values, changed: frozenset[str]) -> frozenset[str]:
        """As the official provider says it: whoever uses the version then shows in the same preview."""
        version = changed - {"name", "description", "defaultVersion", "updateDefaultVersion"}
        default = changed - {"name", "description"} and inputs.get("updateDefaultVersion")
        return frozenset({"latestVersion"} if version else ()) | ({"defaultVersion"} if default else frozenset())

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        outputs: Values = {}
        if changed & {*_TEMPLATE, "description"}:
            parameters = {"LaunchTemplateId": id_, "LaunchTemplateData": self._data(new)}
            if new.get("description"):
                parameters["VersionDescription"] = new["description"]
            answer = cloud.call("ec2", "create_launch_template_version", **parameters)
            outputs["latestVersion"] = answer["LaunchTemplateVersion"]["VersionNumber"]
        default = new.get("defaultVersion")
        if new.get("updateDefaultVersion"):
            default = outputs.get("latestVersion") or old["latestVersion"]
        if default and default != old.get("defaultVersion"):
            cloud.call("ec2", "modify_launch_template", LaunchTemplateId=id_, DefaultVersion=str(default))
            outputs["defaultVersion"] = default
        return outputs


class NetworkInterface(Ec2Resource):
    """A network interface."""

    pulumi_type = "aws:ec2/networkInterface:NetworkInterface"
    kind = "network-interface"
    props = {
        "subnetId": string(required=True, replace=True),
        "description": string(),
        "privateIps": string_set(api=None, replace=True, computed=True),
        "privateIp": string(api=None, replace=True, computed=True),
        "securityGroups": string_set(api="Groups", computed=True),
        "sourceDestCheck": boolean(api=None, default=True),
        "tags": tags(),
    }
    outputs = {
        "arn": "",
        "macAddress": "MacAddress",
        "ownerId": "OwnerId",
        "privateDnsName": "PrivateDnsName",
    }
    id_path = "NetworkInterfaceId"
    create_operation = "create_network_interface"
    create_member = "NetworkInterface"
    read_operation = "describe_network_interfaces"
    read_member = "NetworkInterfaces.0"
    keys = {"NetworkInterfaceIds": "id"}
    list_keys = ("NetworkInterfaceIds",)

    def request(self, inputs: Values) -> Values:
        request = super().request(inputs)
        addresses = inputs.get("privateIps") or []
        if len(addresses) == 1 or "privateIp" in inputs:
            request["PrivateIpAddress"] = inputs.get("privateIp") or addresses[0]
        elif addresses:
            pairs = enumerate(addresses)
            request["PrivateIpAddresses"] = [{"PrivateIpAddress": one, "Primary": index == 0} for index, one in pairs]
        return request

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("sourceDestCheck") is False:
            self._source_check(cloud, id_, False)

    @staticmethod
    def _source_check(cloud: Cloud, id_: str, wanted: bool) -> None:
        parameters = {"NetworkInterfaceId": id_, "SourceDestCheck": {"Value": wanted}}
        cloud.call("ec2", "modify_network_interface_attribute", **parameters)

    def state_of(self, described: Values) -> Values:
        state = super().state_of({name: value for name, value in described.items() if name != "Groups"})
        if described:
            state["securityGroups"] = [group["GroupId"] for group in described.get("Groups", [])]
            state["privateIps"] = [one["PrivateIpAddress"] for one in described.get("PrivateIpAddresses", [])]
            state["privateIp"] = described.get("PrivateIpAddress")
            state["sourceDestCheck"] = described.get("SourceDestCheck", True)
        return {name: value for name, value in state.items() if value is not None}

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        return super().read_tags(cloud, id_, state, {"Tags": described.get("TagSet")})

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "sourceDestCheck" in changed:
            self._source_check(cloud, id_, new["sourceDestCheck"])
        for name, parameters in (
            ("description", {"Description": {"Value": new.get("description") or ""}}),
            ("securityGroups", {"Groups": new.get("securityGroups") or []}),
        ):
            if name in changed:
                cloud.call("ec2", "modify_network_interface_attribute", NetworkInterfaceId=id_, **parameters)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "delete_network_interface", NetworkInterfaceId=id_)


class NetworkInterfaceAttachment(Ec2Link):
    """The attachment of a network interface to an instance."""

    pulumi_type = "aws:ec2/networkInterfaceAttachment:NetworkInterfaceAttachment"
    props = {
        "instanceId": string(required=True, replace=True),
        "networkInterfaceId": string(required=True, replace=True),
        "deviceIndex": integer(required=True, replace=True),
    }
    outputs = {"attachmentId": "AttachmentId", "status": "Status"}
    id_path = "AttachmentId"
    create_operation = "attach_network_interface"
    delete_before_replace = True

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        filters = [{"Name": "attachment.attachment-id", "Values": [id_]}]
        found = dig(cloud.call("ec2", "describe_network_interfaces", Filters=filters), "NetworkInterfaces.0")
        attachment = dig(found, "Attachment")
        if not attachment or attachment.get("AttachmentId") != id_:
            return None
        return {**attachment, "NetworkInterfaceId": found["NetworkInterfaceId"]}

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ec2", "detach_network_interface", AttachmentId=id_, Force=True)


def _user_data(inputs: Values) -> str:
    """The declared user data as plain text: boto3 encodes it."""
    encoded = inputs.get("userDataBase64")
    return base64.b64decode(encoded).decode() if encoded else inputs.get("userData") or ""


class Instance(Ec2Resource):
    """An instance, from properties of its own or from a launch template."""

    pulumi_type = "aws:ec2/instance:Instance"
    kind = "instance"
    props = {
        "ami": string(api="ImageId", replace=True, computed=True),
        "instanceType": string(computed=True),
        "subnetId": string(replace=True, computed=True),
        "availabilityZone": string(api=None, replace=True, computed=True),
        "privateIp": string(api="PrivateIpAddress", replace=True, computed=True),
        "associatePublicIpAddress": boolean(api=None, replace=True, computed=True),
        "vpcSecurityGroupIds": string_set(api="SecurityGroupIds", computed=True),
        "iamInstanceProfile": string(api=None, computed=True),
        "keyName": string(replace=True, computed=True),
        "launchTemplate": record(
            {
                "id": string(api="LaunchTemplateId", replace=True, computed=True),
                "name": string(api="LaunchTemplateName", replace=True, computed=True),
                "version": string(computed=True),
            },
            write_only=True,
        ),
        "primaryNetworkInterface": record(
            {"networkInterfaceId": string(required=True, replace=True), "deleteOnTermination": boolean(computed=True)},
            api=None,
            computed=True,
        ),
        "sourceDestCheck": boolean(api=None, computed=True),
        "monitoring": boolean(api=None, computed=True),
        "ebsOptimized": boolean(computed=True, replace=True),
        "disableApiTermination": boolean(computed=True),
        "disableApiStop": boolean(computed=True),
        "maintenanceOptions": record({"autoRecovery": string(computed=True)}, computed=True),
        "metadataOptions": record(_METADATA, computed=True),
        "rootBlockDevice": record(
            {
                "volumeSize": integer(computed=True),
                "volumeType": string(computed=True),
                "encrypted": boolean(computed=True),
                "kmsKeyId": string(computed=True),
                "deleteOnTermination": boolean(computed=True),
            },
            api=None,
            write_only=True,
            computed=True,
        ),
        "userData": string(api=None, write_only=True),
        "userDataBase64": string(api=None, write_only=True),
        "forceDestroy": boolean(api=None, default=False, write_only=True),
        "secondaryPrivateIps": strings(api=None, computed=True),
        "volumeTags": mapping(api=None, write_only=True),
        "tags": tags(),
    }
    outputs = {
        "arn": "",
        "instanceState": "State.Name",
        "primaryNetworkInterfaceId": "NetworkInterfaces.0.NetworkInterfaceId",
        "privateDns": "PrivateDnsName",
        "publicDns": "PublicDnsName",
        "publicIp": "PublicIpAddress",
    }
    id_path = "InstanceId"
    create_operation = "run_instances"
    create_member = "Instances.0"
    read_operation = "describe_instances"
    read_member = "Reservations.0.Instances.0"
    keys = {"InstanceIds": "id"}
    list_keys = ("InstanceIds",)
    ready = ("State.Name", {"running", "stopped"}, {"terminated", "shutting-down"})

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if "launchTemplate" not in inputs and not {"ami", "instanceType"} <= set(inputs):
            return [CheckFailure("ami", "ami and instanceType are required without a launchTemplate")]
        if "userData" in inputs and "userDataBase64" in inputs:
            return [CheckFailure("userData", "is given beside userDataBase64; give one of them")]
        if "sourceDestCheck" in inputs and "primaryNetworkInterface" in inputs:
            return [CheckFailure("sourceDestCheck", "is given beside primaryNetworkInterface; set it on the interface")]
        return []

    def compared(self, inputs: Values) -> Values:
        # As the official provider does, also where the check is the interface's: an interface that forwards then looks
        # like drift (github.com/hashicorp/terraform-provider-aws/issues/44768).
        return {"sourceDestCheck": True} | inputs

    def request(self, inputs: Values) -> Values:
        request = super().request(inputs) | {"MinCount": 1, "MaxCount": 1}
        profile = inputs.get("iamInstanceProfile")
        if profile:
            request["IamInstanceProfile"] = {"Name": profile}
        if "monitoring" in inputs:
            request["Monitoring"] = {"Enabled": inputs["monitoring"]}
        if user_data := _user_data(inputs):
            request["UserData"] = user_data
        if inputs.get("availabilityZone"):
            request["Placement"] = {"AvailabilityZone": inputs["availabilityZone"]}
        return self._interfaces(inputs, self._root_device(inputs, request))

    @staticmethod
    def _interfaces(inputs: Values, request: Values) -> Values:
        primary = inputs.get("primaryNetworkInterface")
        if primary:
            interface = {"DeviceIndex": 0, "NetworkInterfaceId": primary["networkInterfaceId"]}
            return request | {"NetworkInterfaces": [interface]}
        if "associatePublicIpAddress" in inputs:
            moved = {"SubnetId": "SubnetId", "SecurityGroupIds": "Groups", "PrivateIpAddress": "PrivateIpAddress"}
            interface = {new: request.pop(old) for old, new in moved.items() if old in request}
            interface |= {"DeviceIndex": 0, "AssociatePublicIpAddress": inputs["associatePublicIpAddress"]}
            return request | {"NetworkInterfaces": [interface]}
        return request

    @staticmethod
    def _root_device(inputs: Values, request: Values) -> Values:
        device = inputs.get("rootBlockDevice")
        if device:
            ebs: Values = {"DeleteOnTermination": True}
            ebs |= {name[0].upper() + name[1:]: value for name, value in device.items() if value is not None}
            return request | {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": ebs}]}
        return request

    def create_tags(self, tags: Any) -> Values:
        encoded = self.tagging.encode(tags)
        return {"TagSpecifications": [{"ResourceType": "instance", "Tags": encoded}]}

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("sourceDestCheck") is False:
            self._attribute(cloud, id_, "sourceDestCheck", False)

    @staticmethod
    def _attribute(cloud: Cloud, id_: str, name: str, value: Any) -> None:
        parameters = {name[0].upper() + name[1:]: {"Value": value}}
        cloud.call("ec2", "modify_instance_attribute", InstanceId=id_, **parameters)

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = super().describe(cloud, id_, state)
        return None if found is None or dig(found, "State.Name") in ("terminated", "shutting-down") else found

    def state_of(self, described: Values) -> Values:
        known = {name: value for name, value in described.items() if name not in ("SecurityGroupIds", "Monitoring")}
        state = super().state_of(known)
        if not described:
            return state
        if groups := described.get("SecurityGroups"):
            state["vpcSecurityGroupIds"] = [group["GroupId"] for group in groups]
        if profile := dig(described, "IamInstanceProfile.Arn"):
            state["iamInstanceProfile"] = profile.rpartition("/")[2]
        state["availabilityZone"] = dig(described, "Placement.AvailabilityZone")
        state["monitoring"] = dig(described, "Monitoring.State") in ("enabled", "pending")
        state["sourceDestCheck"] = described.get("SourceDestCheck", True)
        if interface := dig(described, "NetworkInterfaces.0.NetworkInterfaceId"):
            state["primaryNetworkInterface"] = {"networkInterfaceId": interface}
        return {name: value for name, value in state.items() if value is not None}

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is not None:
            answer = cloud.call("ec2", "describe_instance_attribute", InstanceId=id_, Attribute="disableApiTermination")
            live["disableApiTermination"] = bool(dig(answer, "DisableApiTermination.Value"))
        return live

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "metadataOptions" in changed:
            options = self.encode(_METADATA, new["metadataOptions"])
            cloud.call("ec2", "modify_instance_metadata_options", InstanceId=id_, **options)
        if "vpcSecurityGroupIds" in changed:
            cloud.call("ec2", "modify_instance_attribute", InstanceId=id_, Groups=new["vpcSecurityGroupIds"])
        for name in changed & {"sourceDestCheck", "disableApiTermination", "disableApiStop"}:
            self._attribute(cloud, id_, name, new[name])
        if "maintenanceOptions" in changed:
            recovery = new["maintenanceOptions"].get("autoRecovery", "default")
            cloud.call("ec2", "modify_instance_maintenance_options", InstanceId=id_, AutoRecovery=recovery)
        if changed & {"instanceType", "userData", "userDataBase64"}:
            self._stopped_update(cloud, id_, new, changed)

    def _stopped_update(self, cloud: Cloud, id_: str, new: Values, changed: frozenset[str]) -> None:
        """What EC2 changes on a stopped instance only."""
        cloud.call("ec2", "stop_instances", InstanceIds=[id_])
        if "instanceType" in changed:
            self._attribute(cloud, id_, "instanceType", new["instanceType"])
        if changed & {"userData", "userDataBase64"}:
            self._attribute(cloud, id_, "userData", _user_data(new))
        cloud.call("ec2", "start_instances", InstanceIds=[id_])

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("disableApiTermination") and state.get("forceDestroy"):
            self._attribute(cloud, id_, "disableApiTermination", False)
        cloud.call("ec2", "terminate_instances", InstanceIds=[id_])


RESOURCES = (LaunchTemplate, NetworkInterface, NetworkInterfaceAttachment, Instance)
