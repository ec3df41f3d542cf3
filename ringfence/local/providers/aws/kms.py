"""KMS: keys and aliases."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values
from ringfence.local.providers.aws.schema import boolean, integer, policy, string, tags
from ringfence.local.providers.base import UNKNOWN, CheckFailure


class Key(Resource):
    """A customer managed key. Deleting schedules its deletion, after which it counts as gone."""

    pulumi_type = "aws:kms/key:Key"
    service = "kms"
    props = {
        "description": string(computed=True),
        "keyUsage": string(replace=True, default="ENCRYPT_DECRYPT"),
        "customerMasterKeySpec": string(api="KeySpec", replace=True, default="SYMMETRIC_DEFAULT"),
        "multiRegion": boolean(replace=True, default=False),
        "policy": policy(computed=True),
        "bypassPolicyLockoutSafetyCheck": boolean(default=False, write_only=True),
        "enableKeyRotation": boolean(api=None, default=False),
        "rotationPeriodInDays": integer(api=None, computed=True),
        "isEnabled": boolean(api=None, default=True),
        "deletionWindowInDays": integer(api=None, write_only=True),
        "tags": tags(),
    }
    outputs = {"arn": "Arn", "keyId": "KeyId"}
    id_path = "KeyId"
    create_operation = "create_key"
    create_member = read_member = "KeyMetadata"
    read_operation = "describe_key"
    keys = {"KeyId": "id"}
    tagging = Tagging(
        key="TagKey",
        value="TagValue",
        listing=("list_resource_tags", "KeyId", "Tags"),
        parameter="KeyId",
        resource="id",
    )

    def problems(self, inputs: Values) -> list[CheckFailure]:
        window = inputs.get("deletionWindowInDays")
        if isinstance(window, int) and not 7 <= window <= 30:
            return [CheckFailure("deletionWindowInDays", f"is {window}; KMS takes 7 to 30 days")]
        return []

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._rotate(cloud, id_, state, only_on=True)
        if state.get("isEnabled") is False:
            cloud.call("kms", "disable_key", KeyId=id_)

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        described = super().describe(cloud, id_, state)
        if described is None or described["KeyState"] == "PendingDeletion":
            return None
        document = cloud.call("kms", "get_key_policy", KeyId=id_, PolicyName="default")["Policy"]
        return described | {"Policy": document}

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is not None:
            rotation = cloud.call("kms", "get_key_rotation_status", KeyId=id_)
            live["enableKeyRotation"] = rotation["KeyRotationEnabled"]
            if rotation["KeyRotationEnabled"] and rotation.get("RotationPeriodInDays"):
                live["rotationPeriodInDays"] = rotation["RotationPeriodInDays"]
        return live

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        return state | ({"isEnabled": described["Enabled"]} if "Enabled" in described else {})

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "isEnabled" in changed and new["isEnabled"]:
            cloud.call("kms", "enable_key", KeyId=id_)
        if changed & {"enableKeyRotation", "rotationPeriodInDays"}:
            self._rotate(cloud, id_, new, only_on=False)
        if "description" in changed:
            cloud.call("kms", "update_key_description", KeyId=id_, Description=new["description"])
        if "policy" in changed:
            lockout = new.get("bypassPolicyLockoutSafetyCheck", False)
            parameters = {"Policy": new["policy"], "BypassPolicyLockoutSafetyCheck": lockout}
            cloud.call("kms", "put_key_policy", KeyId=id_, PolicyName="default", **parameters)
        if "isEnabled" in changed and not new["isEnabled"]:
            cloud.call("kms", "disable_key", KeyId=id_)

    @staticmethod
    def _rotate(cloud: Cloud, id_: str, wanted: Values, *, only_on: bool) -> None:
        if wanted.get("enableKeyRotation"):
            period = wanted.get("rotationPeriodInDays")
            cloud.call("kms", "enable_key_rotation", KeyId=id_, **({"RotationPeriodInDays": period} if period else {}))
        elif not only_on:
            cloud.call("kms", "disable_key_rotation", KeyId=id_)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if self.describe(cloud, id_, state) is not None:
            window = state.get("deletionWindowInDays") or 30
            cloud.call("kms", "schedule_key_deletion", KeyId=id_, PendingWindowInDays=window)


class Alias(Resource):
    """A key's alias. The target may be declared by key id or by ARN."""

    pulumi_type = "aws:kms/alias:Alias"
    service = "kms"
    props = {
        "name": string(api="AliasName", replace=True),
        "targetKeyId": string(required=True),
    }
    outputs = {"arn": "AliasArn"}
    known = {
        "arn": "arn:{partition}:kms:{region}:{account}:{name}",
        "targetKeyArn": "arn:{partition}:kms:{region}:{account}:key/{keyId}",
    }
    auto_name = AutoName(limit=250)
    create_operation = "create_alias"
    update_operation = "update_alias"
    delete_operation = "delete_alias"
    keys = {"AliasName": "id"}

    def normalise(self, inputs: Values) -> Values:
        name = inputs["name"]
        if isinstance(name, str) and not name.startswith("alias/"):
            return inputs | {"name": f"alias/{name}"}
        return inputs

    def derived(self, cloud: Cloud, id_: str, state: Values) -> Values:
        target = state.get("targetKeyId")
        known = state if target in (None, UNKNOWN) else state | {"keyId": str(target).rpartition("/")[2]}
        return super().derived(cloud, id_, known)

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        for page in cloud.client("kms").get_paginator("list_aliases").paginate():
            for alias in page["Aliases"]:
                if alias["AliasName"] == id_:
                    declared = str(state.get("targetKeyId", ""))
                    if declared.rpartition("/")[2] == alias.get("TargetKeyId"):
                        return alias | {"TargetKeyId": declared}
                    return alias
        return None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        cloud.call("kms", "update_alias", AliasName=id_, TargetKeyId=new["targetKeyId"])
        return self.derived(cloud, id_, {"name": id_, "targetKeyId": new["targetKeyId"], "arn": old.get("arn")})


RESOURCES = (Key, Alias)
