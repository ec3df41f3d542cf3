"""What the tools' documents name: ECR repositories, secrets, parameters, tables, queues."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values, dig
from ringfence.local.providers.aws.schema import (
    boolean,
    integer,
    json_text,
    policy,
    record,
    record_set,
    records,
    string,
    tags,
)
from ringfence.local.providers.aws.sns import attributes, from_attributes
from ringfence.local.providers.base import CheckFailure


class Repository(Resource):
    """An ECR repository."""

    pulumi_type = "aws:ecr/repository:Repository"
    service = "ecr"
    case = "camel"
    props = {
        "name": string(api="repositoryName", replace=True),
        "imageTagMutability": string(default="MUTABLE"),
        "imageScanningConfiguration": record({"scanOnPush": boolean(required=True)}, computed=True),
        "encryptionConfigurations": records(
            {"encryptionType": string(default="AES256"), "kmsKey": string(computed=True)},
            api=None,
            replace=True,
            computed=True,
        ),
        "forceDelete": boolean(api=None, default=False, write_only=True),
        "tags": tags(),
    }
    outputs = {"arn": "repositoryArn", "registryId": "registryId", "repositoryUrl": "repositoryUri"}
    known = {
        "arn": "arn:{partition}:ecr:{region}:{account}:repository/{name}",
        "registryId": "{account}",
        "repositoryUrl": "{account}.dkr.ecr.{region}.amazonaws.com/{name}",
    }
    auto_name = AutoName(limit=256)
    create_operation = "create_repository"
    create_member = "repository"
    read_operation = "describe_repositories"
    read_member = "repositories.0"
    delete_operation = "delete_repository"
    keys = {"repositoryNames": "id"}
    list_keys = ("repositoryNames",)
    tagging = Tagging(
        create="tags",
        listing=("list_tags_for_resource", "resourceArn", "tags"),
        parameter="resourceArn",
        tags_parameter="tags",
        keys_parameter="tagKeys",
    )

    def request(self, inputs: Values) -> Values:
        request = super().request(inputs)
        if inputs.get("encryptionConfigurations"):
            item = self.props["encryptionConfigurations"].item
            fields = (item.fields if item else None) or {}
            request["encryptionConfiguration"] = self.encode(fields, inputs["encryptionConfigurations"][0])
        return request

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if found := described.get("encryptionConfiguration"):
            item = self.props["encryptionConfigurations"].item
            state["encryptionConfigurations"] = [self.decode((item.fields if item else None) or {}, found)]
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if "imageTagMutability" in changed:
            parameters = {"repositoryName": id_, "imageTagMutability": new["imageTagMutability"]}
            cloud.call("ecr", "put_image_tag_mutability", **parameters)
        if "imageScanningConfiguration" in changed:
            parameters = {"repositoryName": id_, "imageScanningConfiguration": new["imageScanningConfiguration"]}
            cloud.call("ecr", "put_image_scanning_configuration", **parameters)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        cloud.call("ecr", "delete_repository", repositoryName=id_, force=bool(state.get("forceDelete")))


class LifecyclePolicy(Resource):
    """When a repository's images expire."""

    pulumi_type = "aws:ecr/lifecyclePolicy:LifecyclePolicy"
    service = "ecr"
    case = "camel"
    props = {
        "repository": string(api="repositoryName", required=True, replace=True),
        "policy": json_text(api="lifecyclePolicyText", required=True, replace=True),
    }
    known = {"registryId": "{account}"}
    id_property = "repository"
    create_operation = "put_lifecycle_policy"
    read_operation = "get_lifecycle_policy"
    delete_operation = "delete_lifecycle_policy"
    keys = {"repositoryName": "id"}
    delete_before_replace = True


class RepositoryPolicy(Resource):
    """Who may use a repository."""

    pulumi_type = "aws:ecr/repositoryPolicy:RepositoryPolicy"
    service = "ecr"
    case = "camel"
    props = {
        "repository": string(api="repositoryName", required=True, replace=True),
        "policy": policy(api="policyText", required=True),
    }
    known = {"registryId": "{account}"}
    id_property = "repository"
    create_operation = update_operation = "set_repository_policy"
    read_operation = "get_repository_policy"
    delete_operation = "delete_repository_policy"
    keys = {"repositoryName": "id"}


class Secret(Resource):
    """A secret without its value. Deleting waits `recoveryWindowInDays`, or not at all when that is 0."""

    pulumi_type = "aws:secretsmanager/secret:Secret"
    service = "secretsmanager"
    props = {
        "name": string(replace=True),
        "description": string(),
        "kmsKeyId": string(),
        "policy": policy(api=None, computed=True),
        "recoveryWindowInDays": integer(api=None, default=30, write_only=True),
        "tags": tags(),
    }
    outputs = {"arn": "ARN"}
    auto_name = AutoName(limit=512)
    id_path = "ARN"
    create_operation = "create_secret"
    read_operation = "describe_secret"
    delete_operation = "delete_secret"
    keys = {"SecretId": "id"}
    tagging = Tagging(parameter="SecretId", resource="id")

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("policy"):
            cloud.call("secretsmanager", "put_resource_policy", SecretId=id_, ResourcePolicy=state["policy"])

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = cloud.call("secretsmanager", "describe_secret", SecretId=id_)
        return None if found.get("DeletedDate") else found

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is not None:
            document = cloud.call("secretsmanager", "get_resource_policy", SecretId=id_).get("ResourcePolicy")
            live |= {"policy": document} if document else {}
        return live

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        if changed & {"description", "kmsKeyId"}:
            parameters = {"SecretId": id_, "Description": new.get("description") or ""}
            key = {"KmsKeyId": new["kmsKeyId"]} if new.get("kmsKeyId") else {}
            cloud.call("secretsmanager", "update_secret", **parameters, **key)
        if "policy" in changed:
            self.complete(cloud, id_, new)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        days = state.get("recoveryWindowInDays", 30)
        how = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
        if self.describe(cloud, id_, state) is not None:
            cloud.call("secretsmanager", "delete_secret", SecretId=id_, **how)


class SecretPolicy(Resource):
    """Who may use a secret. Its id is the secret's ARN."""

    pulumi_type = "aws:secretsmanager/secretPolicy:SecretPolicy"
    service = "secretsmanager"
    props = {
        "secretArn": string(api="SecretId", required=True, replace=True),
        "policy": policy(api="ResourcePolicy", required=True),
        "blockPublicPolicy": boolean(write_only=True),
    }
    id_property = "secretArn"
    create_operation = update_operation = "put_resource_policy"
    delete_operation = "delete_resource_policy"
    keys = {"SecretId": "id"}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = cloud.call("secretsmanager", "get_resource_policy", SecretId=id_)
        return {"SecretId": id_, **found} if found.get("ResourcePolicy") else None


class Parameter(Resource):
    """A Systems Manager parameter."""

    pulumi_type = "aws:ssm/parameter:Parameter"
    service = "ssm"
    props = {
        "name": string(replace=True),
        "type": string(required=True),
        "value": string(required=True, secret=True),
        "description": string(),
        "keyId": string(computed=True),
        "tier": string(computed=True),
        "allowedPattern": string(),
        "dataType": string(computed=True),
        "overwrite": boolean(write_only=True),
        "tags": tags(),
    }
    outputs = {"version": "Version", "arn": "ARN"}
    known = {"arn": "arn:{partition}:ssm:{region}:{account}:parameter/{path}"}
    auto_name = AutoName(limit=1011)
    create_operation = "put_parameter"
    read_operation = "get_parameter"
    delete_operation = "delete_parameter"
    keys = {"Name": "id"}
    tagging = Tagging(
        tag="add_tags_to_resource",
        untag="remove_tags_from_resource",
        parameter="ResourceId",
        resource="id",
    )

    def derived(self, cloud: Cloud, id_: str, state: Values) -> Values:
        name = state.get("name")
        return super().derived(cloud, id_, state | ({"path": name.lstrip("/")} if isinstance(name, str) else {}))

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = cloud.call("ssm", "get_parameter", Name=id_, WithDecryption=True)["Parameter"]
        filters = [{"Key": "Name", "Option": "Equals", "Values": [id_]}]
        more = dig(cloud.call("ssm", "describe_parameters", ParameterFilters=filters), "Parameters.0") or {}
        return {**more, **found}

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        answer = cloud.call("ssm", "list_tags_for_resource", ResourceType="Parameter", ResourceId=id_)
        return Tagging().decode(answer["TagList"])

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values:
        answer = cloud.call("ssm", "put_parameter", **(self.request(new) | {"Overwrite": True}))
        return {"version": answer["Version"]}

    def update_tags(self, cloud: Cloud, id_: str, state: Values, old: dict[str, str], new: dict[str, str]) -> None:
        where = {"ResourceType": "Parameter", "ResourceId": id_}
        if removed := sorted(set(old) - set(new)):
            cloud.call("ssm", "remove_tags_from_resource", **where, TagKeys=removed)
        if added := {name: value for name, value in new.items() if old.get(name) != value}:
            cloud.call("ssm", "add_tags_to_resource", **where, Tags=Tagging().encode(added))


class Table(Resource):
    """A DynamoDB table."""

    pulumi_type = "aws:dynamodb/table:Table"
    service = "dynamodb"
    props = {
        "name": string(api="TableName", replace=True),
        "hashKey": string(api=None, required=True, replace=True),
        "rangeKey": string(api=None, replace=True),
        "attributes": record_set(
            {"name": string(api="AttributeName", required=True), "type": string(api="AttributeType", required=True)},
            api="AttributeDefinitions",
            required=True,
        ),
        "billingMode": string(default="PROVISIONED"),
        "readCapacity": integer(api=None, computed=True),
        "writeCapacity": integer(api=None, computed=True),
        "serverSideEncryption": record(
            {"enabled": boolean(required=True, default=False), "kmsKeyArn": string()}, api=None
        ),
        "pointInTimeRecovery": record({"enabled": boolean(required=True, default=False)}, api=None),
        "ttl": record({"attributeName": string(), "enabled": boolean(default=False)}, api=None),
        "deletionProtectionEnabled": boolean(default=False),
        "tags": tags(),
    }
    outputs = {"arn": "TableArn"}
    known = {"arn": "arn:{partition}:dynamodb:{region}:{account}:table/{name}"}
    auto_name = AutoName(limit=255)
    create_operation = "create_table"
    create_member = "TableDescription"
    read_operation = "describe_table"
    read_member = "Table"
    delete_operation = "delete_table"
    keys = {"TableName": "id"}
    tagging = Tagging(listing=("list_tags_of_resource", "ResourceArn", "Tags"))
    ready = ("TableStatus", {"ACTIVE"}, {"DELETING"})

    def request(self, inputs: Values) -> Values:
        keys = [{"AttributeName": inputs["hashKey"], "KeyType": "HASH"}]
        if inputs.get("rangeKey"):
            keys.append({"AttributeName": inputs["rangeKey"], "KeyType": "RANGE"})
        request = super().request(inputs) | {"KeySchema": keys}
        return request | self._throughput(inputs) | self._encryption(inputs)

    @staticmethod
    def _throughput(inputs: Values) -> Values:
        if inputs.get("billingMode", "PROVISIONED") != "PROVISIONED":
            return {}
        read, write = inputs.get("readCapacity", 1), inputs.get("writeCapacity", 1)
        return {"ProvisionedThroughput": {"ReadCapacityUnits": read, "WriteCapacityUnits": write}}

    @staticmethod
    def _encryption(inputs: Values) -> Values:
        wanted = inputs.get("serverSideEncryption")
        if not wanted:
            return {}
        key = {"SSEType": "KMS", "KMSMasterKeyId": wanted["kmsKeyArn"]} if wanted.get("kmsKeyArn") else {}
        return {"SSESpecification": {"Enabled": wanted["enabled"], **key}}

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if dig(state, "pointInTimeRecovery.enabled"):
            self._recovery(cloud, id_, True)
        if dig(state, "ttl.enabled"):
            self._expiry(cloud, id_, state["ttl"])

    @staticmethod
    def _recovery(cloud: Cloud, id_: str, enabled: bool) -> None:
        wanted = {"PointInTimeRecoveryEnabled": enabled}
        cloud.call("dynamodb", "update_continuous_backups", TableName=id_, PointInTimeRecoverySpecification=wanted)

    @staticmethod
    def _expiry(cloud: Cloud, id_: str, ttl: Values) -> None:
        wanted = {"AttributeName": ttl["attributeName"], "Enabled": ttl.get("enabled", False)}
        cloud.call("dynamodb", "update_time_to_live", TableName=id_, TimeToLiveSpecification=wanted)

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        for key in described.get("KeySchema", []):
            state["hashKey" if key["KeyType"] == "HASH" else "rangeKey"] = key["AttributeName"]
        if described:
            state["billingMode"] = dig(described, "BillingModeSummary.BillingMode") or "PROVISIONED"
        throughput = described.get("ProvisionedThroughput") or {}
        state["readCapacity"] = throughput.get("ReadCapacityUnits", 0)
        state["writeCapacity"] = throughput.get("WriteCapacityUnits", 0)
        encryption = described.get("SSEDescription") or {}
        if encryption.get("Status") in ("ENABLED", "ENABLING", "UPDATING"):
            key = {"kmsKeyArn": encryption["KMSMasterKeyArn"]} if encryption.get("KMSMasterKeyArn") else {}
            state["serverSideEncryption"] = {"enabled": True, **key}
        return state

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is None:
            return None
        backups = cloud.call("dynamodb", "describe_continuous_backups", TableName=id_)
        status = dig(backups, "ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus")
        live["pointInTimeRecovery"] = {"enabled": status == "ENABLED"}
        ttl = cloud.call("dynamodb", "describe_time_to_live", TableName=id_)["TimeToLiveDescription"]
        if ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            live["ttl"] = {"enabled": True, "attributeName": ttl["AttributeName"]}
        return live

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        request: Values = {}
        if changed & {"billingMode", "readCapacity", "writeCapacity"}:
            request |= {"BillingMode": new["billingMode"], **self._throughput(new)}
        if "serverSideEncryption" in changed:
            request |= self._encryption(new) or {"SSESpecification": {"Enabled": False}}
        if "deletionProtectionEnabled" in changed:
            request["DeletionProtectionEnabled"] = new["deletionProtectionEnabled"]
        if request:
            cloud.call("dynamodb", "update_table", TableName=id_, **request)
        if "pointInTimeRecovery" in changed:
            self._recovery(cloud, id_, bool(dig(new, "pointInTimeRecovery.enabled")))
        if "ttl" in changed:
            self._expiry(cloud, id_, new.get("ttl") or {**(old.get("ttl") or {}), "enabled": False})


class Queue(Resource):
    """An SQS queue. Its id is its URL."""

    pulumi_type = "aws:sqs/queue:Queue"
    service = "sqs"
    props = {
        "name": string(api=None, replace=True),
        "visibilityTimeoutSeconds": integer(api="VisibilityTimeout", default=30),
        "messageRetentionSeconds": integer(api="MessageRetentionPeriod", default=345600),
        "maxMessageSize": integer(api="MaximumMessageSize", computed=True),
        "delaySeconds": integer(api="DelaySeconds", default=0),
        "receiveWaitTimeSeconds": integer(api="ReceiveMessageWaitTimeSeconds", default=0),
        "policy": policy(api="Policy", computed=True),
        "redrivePolicy": json_text(api="RedrivePolicy"),
        "kmsMasterKeyId": string(api="KmsMasterKeyId"),
        "sqsManagedSseEnabled": boolean(api="SqsManagedSseEnabled", computed=True),
        "tags": tags(),
    }
    outputs = {"arn": "QueueArn", "url": "QueueUrl"}
    known = {"arn": "arn:{partition}:sqs:{region}:{account}:{name}"}
    auto_name = AutoName(limit=80)
    id_path = "QueueUrl"
    create_operation = "create_queue"
    delete_operation = "delete_queue"
    keys = {"QueueUrl": "id"}
    tagging = Tagging(
        create="tags",
        style="map",
        listing=("list_queue_tags", "QueueUrl", "Tags"),
        tag="tag_queue",
        untag="untag_queue",
        parameter="QueueUrl",
        resource="id",
    )

    def problems(self, inputs: Values) -> list[CheckFailure]:
        if isinstance(inputs["name"], str) and inputs["name"].endswith(".fifo"):
            return [CheckFailure("name", "ends in .fifo; the embedded provider supports standard queues only")]
        return []

    def request(self, inputs: Values) -> Values:
        found = attributes(self.props, inputs)
        return {"QueueName": inputs["name"], **({"Attributes": found} if found else {})}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        found = cloud.call("sqs", "get_queue_attributes", QueueUrl=id_, AttributeNames=["All"])["Attributes"]
        return {**found, "QueueUrl": id_}

    def state_of(self, described: Values) -> Values:
        state = from_attributes(self.props, described)
        if "QueueUrl" in described:
            state |= {"url": described["QueueUrl"], "name": described["QueueUrl"].rpartition("/")[2]}
        return state | ({"arn": described["QueueArn"]} if "QueueArn" in described else {})

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        wanted = {name: new.get(name) for name in changed}
        emptied = {str(self.props[name].api): "" for name, value in wanted.items() if value is None}
        cloud.call("sqs", "set_queue_attributes", QueueUrl=id_, Attributes=attributes(self.props, wanted) | emptied)


class QueuePolicy(Resource):
    """Who may use a queue. Its id is the queue's URL."""

    pulumi_type = "aws:sqs/queuePolicy:QueuePolicy"
    service = "sqs"
    props = {"queueUrl": string(required=True, replace=True), "policy": policy(required=True)}
    id_property = "queueUrl"

    @staticmethod
    def _set(cloud: Cloud, url: str, document: str) -> None:
        cloud.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": document})

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        self._set(cloud, inputs["queueUrl"], inputs["policy"])
        return inputs["queueUrl"], {}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        answer = cloud.call("sqs", "get_queue_attributes", QueueUrl=id_, AttributeNames=["Policy"])
        document = dig(answer, "Attributes.Policy")
        return {"QueueUrl": id_, "Policy": document} if document else None

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._set(cloud, id_, new["policy"])

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        self._set(cloud, id_, "")


RESOURCES = (
    Repository,
    LifecyclePolicy,
    RepositoryPolicy,
    Secret,
    SecretPolicy,
    Parameter,
    Table,
    Queue,
    QueuePolicy,
)
