"""Every S3 and KMS type, through its whole life against the real server."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.local.aws_provider.documents import bucket, key, resource_policy
from tests.local.aws_provider.life_cycle import Case, Made, World, live


def _on_a_bucket(**more: Any) -> Any:
    return lambda world: {"bucket": bucket(world).id, **more}


def _s3(operation: str, **parameters: Any) -> Any:
    return lambda world, made: getattr(world.client("s3"), operation)(Bucket=made["bucket"], **parameters)


def _kms(operation: str, **parameters: Any) -> Any:
    return lambda world, made: getattr(world.client("kms"), operation)(KeyId=made.id, **parameters)


def _rule(id_: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "status": "Enabled", **more}


def _logged(world: World) -> dict[str, Any]:
    one, other = bucket(world), bucket(world, forceDestroy=True)
    world.make(
        "aws:s3/bucketPolicy:BucketPolicy",
        bucket=other.id,
        policy=resource_policy("s3:PutObject", f"arn:aws:s3:::{other.id}/*"),
    )
    world.client("s3").put_bucket_acl(Bucket=other.id, ACL="log-delivery-write")
    return {"bucket": one.id, "targetBucket": other.id, "targetPrefix": "a/"}


def _locked(world: World) -> dict[str, Any]:
    return {
        "bucket": bucket(world, objectLockEnabled=True).id,
        "rule": {"defaultRetention": {"mode": "COMPLIANCE", "days": 1}},
    }


def _point_elsewhere(world: World, made: Made) -> Any:
    return world.client("kms").update_alias(AliasName=made.id, TargetKeyId=key(world).id)


def _replace_object(world: World, made: Made) -> Any:
    return world.client("s3").put_object(Bucket=made["bucket"], Key=made["key"], Body=b"tampered")


CASES = [
    Case(
        "aws:kms/key:Key",
        lambda world: {
            "description": "logs",
            "policy": resource_policy("kms:*"),
            "enableKeyRotation": True,
            "deletionWindowInDays": 7,
            "tags": {"a": "b", "c": "d"},
        },
        update={
            "description": "other",
            "enableKeyRotation": False,
            "policy": resource_policy("kms:Decrypt"),
            "tags": {"a": "e"},
        },
        replace={"multiRegion": True},
        drift=_kms("put_key_policy", PolicyName="default", Policy=resource_policy("*")),
        drifted="policy",
    ),
    Case(
        "aws:kms/key:Key",
        lambda world: {"isEnabled": False},
        update={"isEnabled": True, "enableKeyRotation": True},
        drift=_kms("disable_key_rotation"),
        drifted="enableKeyRotation",
    ),
    Case(
        "aws:kms/alias:Alias",
        lambda world: {"name": f"alias/{world.name()}", "targetKeyId": key(world).id},
        update=lambda world: {"targetKeyId": key(world)["arn"]},
        replace={"name": "alias/other"},
        drift=_point_elsewhere,
        drifted="targetKeyId",
    ),
    Case(
        "aws:s3/bucket:Bucket",
        lambda world: {"bucket": world.name("bucket"), "forceDestroy": True, "tags": {"a": "b"}},
        update={"tags": {"a": "c"}, "forceDestroy": False},
        replace={"objectLockEnabled": True},
        drift=_s3("put_bucket_tagging", Tagging={"TagSet": [{"Key": "z", "Value": "y"}]}),
        drifted="tags.z",
    ),
    Case(
        "aws:s3/bucket:Bucket",
        lambda world: {"bucket": world.name("bucket"), "objectLockEnabled": True},
        update={"tags": {"a": "c"}},
        drift=_s3("delete_bucket"),
        drifted="gone",
    ),
    Case(
        "aws:s3/bucketVersioning:BucketVersioning",
        _on_a_bucket(versioningConfiguration={"status": "Enabled"}),
        update={"versioningConfiguration": {"status": "Suspended"}},
        replace={"bucket": "other-bucket"},
        drift=_s3("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"}),
        drifted="versioningConfiguration.status",
        outlives=True,
    ),
    Case(
        "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration",
        _locked,
        update={"rule": {"defaultRetention": {"mode": "GOVERNANCE", "years": 1}}},
        replace={"bucket": "other-bucket"},
        drift=_s3("put_object_lock_configuration", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}),
        drifted="rule.defaultRetention.mode",
        outlives=True,
    ),
    Case(
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
        lambda world: {
            "bucket": bucket(world).id,
            "rules": [
                {
                    "applyServerSideEncryptionByDefault": {
                        "sseAlgorithm": "aws:kms",
                        "kmsMasterKeyId": key(world)["arn"],
                    },
                    "bucketKeyEnabled": True,
                }
            ],
        },
        update={"rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]},
        replace={"bucket": "other-bucket"},
        drift=_s3(
            "put_bucket_encryption",
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
            },
        ),
        drifted="rules",
    ),
    Case(
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        _on_a_bucket(blockPublicAcls=True, blockPublicPolicy=True, ignorePublicAcls=True, restrictPublicBuckets=True),
        update={"blockPublicAcls": False},
        replace={"bucket": "other-bucket"},
        drift=_s3("put_public_access_block", PublicAccessBlockConfiguration={"IgnorePublicAcls": True}),
        drifted="blockPublicPolicy",
    ),
    Case(
        "aws:s3/bucketPolicy:BucketPolicy",
        _on_a_bucket(policy=resource_policy("s3:GetObject", "arn:aws:s3:::x/*")),
        update={"policy": resource_policy("s3:PutObject", "arn:aws:s3:::x/*")},
        replace={"bucket": "other-bucket"},
        drift=_s3("put_bucket_policy", Policy=resource_policy("s3:*", "arn:aws:s3:::x/*", "*")),
        drifted="policy",
    ),
    Case(
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls",
        _on_a_bucket(rule={"objectOwnership": "BucketOwnerEnforced"}),
        update={"rule": {"objectOwnership": "BucketOwnerPreferred"}},
        replace={"bucket": "other-bucket"},
        drift=_s3("put_bucket_ownership_controls", OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}),
        drifted="rule.objectOwnership",
    ),
    Case(
        "aws:s3/bucketLogging:BucketLogging",
        _logged,
        update={"targetPrefix": "b/"},
        replace={"bucket": "other-bucket"},
        drift=_s3("put_bucket_logging", BucketLoggingStatus={}),
        drifted="gone",
    ),
    Case(
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration",
        _on_a_bucket(
            rules=[
                _rule(
                    "archive",
                    filter={"prefix": "logs/"},
                    transitions=[{"days": 90, "storageClass": "GLACIER"}, {"days": 30, "storageClass": "STANDARD_IA"}],
                    expiration={"days": 400},
                    noncurrentVersionExpiration={"noncurrentDays": 30},
                    abortIncompleteMultipartUpload={"daysAfterInitiation": 7},
                ),
                _rule("all", expiration={"days": 500}),
            ]
        ),
        update={"rules": [_rule("all", expiration={"days": 300})]},
        replace={"bucket": "other-bucket"},
        drift=_s3("delete_bucket_lifecycle"),
        drifted="gone",
    ),
    Case(
        "aws:s3/bucketObjectv2:BucketObjectv2",
        lambda world: {
            "bucket": bucket(world).id,
            "key": "config/envoy.yaml",
            "content": "listeners: []",
            "contentType": "application/yaml",
            "tags": {"a": "b"},
        },
        update={"content": "listeners: [1]", "tags": {"a": "c"}},
        replace={"key": "other"},
        drift=_replace_object,
        drifted="content",
    ),
    Case(
        "aws:s3/bucketObjectv2:BucketObjectv2",
        lambda world: {
            "bucket": bucket(world).id,
            "key": "archive.tar",
            "contentBase64": base64.b64encode(b"\x00\x01").decode(),
            "serverSideEncryption": "aws:kms",
        },
        drift=lambda world, made: world.client("s3").delete_object(Bucket=made["bucket"], Key=made["key"]),
        drifted="gone",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_storage_resource_lives_drifts_and_dies(world: World, case: Case) -> None:
    live(world, case)


def test_a_bucket_is_emptied_only_when_that_is_declared(world: World) -> None:
    kept = bucket(world)
    world.client("s3").put_object(Bucket=kept.id, Key="a", Body=b"1")
    with pytest.raises(Exception, match="BucketNotEmpty"):
        world.delete(kept)
    kept.outputs["forceDestroy"] = True
    world.delete(kept)
    assert world.read(kept) is None


def test_a_bucket_with_object_lock_keeps_its_versioning_when_that_resource_goes(world: World) -> None:
    locked = bucket(world, objectLockEnabled=True)
    made = world.make(
        "aws:s3/bucketVersioning:BucketVersioning",
        bucket=locked.id,
        versioningConfiguration={"status": "Enabled"},
    )
    world.delete(made)


def test_a_bucket_name_that_s3_would_refuse_is_refused_at_preview(world: World) -> None:
    _, failures = world.backend.check("aws:s3/bucket:Bucket", "urn::b", {}, {"bucket": "Not_A_Bucket"}, b"0123")
    assert [failure.property for failure in failures] == ["bucket"]
