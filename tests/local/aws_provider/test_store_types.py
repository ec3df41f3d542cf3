"""Every ECR, Secrets Manager, Systems Manager, DynamoDB and SQS type, through its whole life against the real server."""

from __future__ import annotations

import json

import pytest

from tests.local.aws_provider.documents import key, resource_policy
from tests.local.aws_provider.life_cycle import Case, Made, World, live


def repository(world: World) -> Made:
    """An ECR repository."""
    return world.make("aws:ecr/repository:Repository", name=world.name("images"))


def secret(world: World) -> Made:
    """A secret."""
    return world.make("aws:secretsmanager/secret:Secret", name=world.name("secret"), recoveryWindowInDays=0)


def queue(world: World) -> Made:
    """A queue."""
    return world.make("aws:sqs/queue:Queue", name=world.name("queue"))


def _expiry(days: int) -> str:
    selection = {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
    return json.dumps({"rules": [{"rulePriority": 1, "selection": selection, "action": {"type": "expire"}}]})


CASES = [
    Case(
        "aws:ecr/repository:Repository",
        lambda world: {
            "name": world.name("images"),
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
            "encryptionConfigurations": [{"encryptionType": "KMS", "kmsKey": key(world)["arn"]}],
            "tags": {"a": "b"},
        },
        update={"imageScanningConfiguration": {"scanOnPush": False}, "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=lambda world, made: world.client("ecr").put_image_tag_mutability(
            repositoryName=made.id, imageTagMutability="MUTABLE"
        ),
        drifted="imageTagMutability",
    ),
    Case(
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        lambda world: {"repository": repository(world).id, "policy": _expiry(7)},
        replace={"policy": _expiry(8)},
        drift=lambda world, made: world.client("ecr").delete_lifecycle_policy(repositoryName=made.id),
        drifted="gone",
    ),
    Case(
        "aws:ecr/repositoryPolicy:RepositoryPolicy",
        lambda world: {"repository": repository(world).id, "policy": resource_policy("ecr:BatchGetImage")},
        update={"policy": resource_policy("ecr:GetDownloadUrlForLayer")},
        replace={"repository": "other"},
        drift=lambda world, made: world.client("ecr").set_repository_policy(
            repositoryName=made.id, policyText=resource_policy("ecr:*", principal="*")
        ),
        drifted="policy",
    ),
    Case(
        "aws:secretsmanager/secret:Secret",
        lambda world: {
            "name": world.name("secret"),
            "description": "a token",
            "kmsKeyId": key(world).id,
            "recoveryWindowInDays": 0,
            "tags": {"a": "b"},
        },
        update={"description": "another", "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=lambda world, made: world.client("secretsmanager").update_secret(SecretId=made.id, Description="mine"),
        drifted="description",
    ),
    Case(
        "aws:secretsmanager/secret:Secret",
        lambda world: {"name": world.name("secret"), "policy": resource_policy("secretsmanager:GetSecretValue")},
        update={"policy": resource_policy("secretsmanager:DescribeSecret")},
        drift=lambda world, made: world.client("secretsmanager").put_resource_policy(
            SecretId=made.id, ResourcePolicy=resource_policy("secretsmanager:*")
        ),
        drifted="policy",
    ),
    Case(
        "aws:secretsmanager/secretPolicy:SecretPolicy",
        lambda world: {"secretArn": secret(world).id, "policy": resource_policy("secretsmanager:GetSecretValue")},
        update={"policy": resource_policy("secretsmanager:DescribeSecret")},
        replace={"secretArn": "other"},
        drift=lambda world, made: world.client("secretsmanager").delete_resource_policy(SecretId=made.id),
        drifted="gone",
    ),
    Case(
        "aws:ssm/parameter:Parameter",
        lambda world: {
            "name": f"/ringfence/{world.name()}",
            "type": "SecureString",
            "value": "one",
            "description": "d",
            "tags": {"a": "b"},
        },
        update={"value": "two", "tags": {"a": "c"}},
        replace={"name": "/other"},
        drift=lambda world, made: world.client("ssm").put_parameter(
            Name=made.id, Value="three", Type="SecureString", Overwrite=True
        ),
        drifted="value",
    ),
    Case(
        "aws:dynamodb/table:Table",
        lambda world: {
            "name": world.name("tickets"),
            "hashKey": "id",
            "rangeKey": "at",
            "attributes": [{"name": "at", "type": "N"}, {"name": "id", "type": "S"}],
            "billingMode": "PAY_PER_REQUEST",
            "pointInTimeRecovery": {"enabled": True},
            "serverSideEncryption": {"enabled": True, "kmsKeyArn": key(world)["arn"]},
            "ttl": {"attributeName": "expires", "enabled": True},
            "tags": {"a": "b"},
        },
        update={"pointInTimeRecovery": {"enabled": False}, "tags": {"a": "c"}},
        replace={"hashKey": "at"},
        drift=lambda world, made: world.client("dynamodb").update_time_to_live(
            TableName=made.id, TimeToLiveSpecification={"AttributeName": "expires", "Enabled": False}
        ),
        drifted="ttl.enabled",
    ),
    Case(
        "aws:dynamodb/table:Table",
        lambda world: {
            "name": world.name("tickets"),
            "hashKey": "id",
            "attributes": [{"name": "id", "type": "S"}],
            "readCapacity": 5,
            "writeCapacity": 5,
        },
        update={"readCapacity": 6, "deletionProtectionEnabled": False, "tags": {"a": "b"}},
        drift=lambda world, made: world.client("dynamodb").delete_table(TableName=made.id),
        drifted="gone",
    ),
    Case(
        "aws:sqs/queue:Queue",
        lambda world: {
            "name": world.name("queue"),
            "visibilityTimeoutSeconds": 60,
            "kmsMasterKeyId": key(world).id,
            "tags": {"a": "b"},
        },
        update={"visibilityTimeoutSeconds": 90, "tags": {"a": "c"}},
        replace={"name": "other"},
        drift=lambda world, made: world.client("sqs").set_queue_attributes(
            QueueUrl=made.id, Attributes={"MessageRetentionPeriod": "60"}
        ),
        drifted="messageRetentionSeconds",
    ),
    Case(
        "aws:sqs/queuePolicy:QueuePolicy",
        lambda world: {"queueUrl": queue(world).id, "policy": resource_policy("sqs:SendMessage")},
        update={"policy": resource_policy("sqs:ReceiveMessage")},
        replace={"queueUrl": "other"},
        drift=lambda world, made: world.client("sqs").set_queue_attributes(
            QueueUrl=made.id, Attributes={"Policy": resource_policy("sqs:*", principal="*")}
        ),
        drifted="policy",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_store_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


def test_the_value_of_a_parameter_is_secret_and_never_in_a_refusal(world: World) -> None:
    assert "value" in world.backend.secret_outputs("aws:ssm/parameter:Parameter")
    declared = {"name": "/x", "type": "SecureString", "value": 12345}
    _, failures = world.backend.check("aws:ssm/parameter:Parameter", "urn::p", {}, declared, b"0123")
    assert [failure.property for failure in failures] == ["value"]
    assert "12345" not in failures[0].reason
