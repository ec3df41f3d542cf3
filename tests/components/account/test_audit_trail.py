"""CloudTrail's bucket: this trail writes, nobody rewrites, nobody empties it before its time."""

from __future__ import annotations

import json

import pytest

from components.audit_trail import AuditTrail, AuditTrailArgs, key_uses, trail_arn
from components.encryption_key import key_policy
from ringfence.errors import InputError
from ringfence.iam.request import Principal

TRAIL = Principal("Service", "cloudtrail.amazonaws.com")
ADMIN = Principal("AWS", "arn:aws:sts::111122223333:assumed-role/admin/me")
BUCKET = "arn:aws:s3:::ringfence-test-audit-trail-111122223333-us-east-1"
RECORD = f"{BUCKET}/AWSLogs/111122223333/CloudTrail/us-east-1/2026/11/22/x.json.gz"
SECURE = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3"}
WRITE = SECURE | {
    "aws:SourceArn": "arn:aws:cloudtrail:us-east-1:111122223333:trail/ringfence-test-audit",
    "s3:x-amz-acl": "bucket-owner-full-control",
}


def _made(record, names, preview=False, **args):
    return record(lambda: AuditTrail("audit", AuditTrailArgs(names, **args)), preview=preview)


@pytest.fixture
def bucket_policy(record, names):
    return _made(record, names).one("aws:s3/bucketPolicy:BucketPolicy")["policy"]


def test_the_trail_records_every_region_and_proves_its_files(record, preview, names, unknown):
    trail = _made(record, names, preview).one("aws:cloudtrail/trail:Trail")
    assert trail["isMultiRegionTrail"] is True
    assert trail["includeGlobalServiceEvents"] is True
    assert trail["enableLogFileValidation"] is True
    assert trail["enableLogging"] is True
    assert trail["kmsKeyId"] == (unknown if preview else "arn:aws:mock:us-east-1:111122223333:audit-key")
    assert trail["s3BucketName"] == "ringfence-test-audit-trail-111122223333-us-east-1"
    assert trail.options.protect


def test_records_are_locked_versioned_encrypted_and_private(record, preview, names):
    recording = _made(record, names, preview)
    assert recording.one("aws:s3/bucket:Bucket")["objectLockEnabled"] is True
    lock = recording.one("aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration")
    assert lock["rule"]["defaultRetention"] == {"mode": "COMPLIANCE", "days": 365}
    versioning = recording.one("aws:s3/bucketVersioning:BucketVersioning")
    assert versioning["versioningConfiguration"] == {"status": "Enabled"}
    encryption = recording.one(
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    )["rules"][0]
    assert encryption["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "aws:kms"
    block = recording.one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
    assert all(
        block[key] is True
        for key in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    )
    ownership = recording.one("aws:s3/bucketOwnershipControls:BucketOwnershipControls")
    assert ownership["rule"]["objectOwnership"] == "BucketOwnerEnforced"
    assert recording.unparented() == []


def test_the_trail_waits_for_the_bucket_that_lets_it_write(record, names):
    trail = _made(record, names).one("aws:cloudtrail/trail:Trail")
    waited = "".join(trail.options.depends_on)
    assert "BucketPolicy::" in waited and "BucketObjectLockConfiguration::" in waited


def test_the_bucket_is_kept_unless_told_otherwise(record, names):
    kept = _made(record, names).one("aws:s3/bucket:Bucket")
    assert kept.options.protect and kept["forceDestroy"] is False
    loose = _made(record, names, keep=False, lock_mode="GOVERNANCE", lock_days=1)
    assert not loose.one("aws:s3/bucket:Bucket").options.protect
    assert loose.one("aws:s3/bucket:Bucket")["forceDestroy"] is True
    assert not loose.one("aws:cloudtrail/trail:Trail").options.protect


def test_the_trail_writes_its_records(resource_permits, bucket_policy):
    assert resource_permits(bucket_policy, TRAIL, "s3:PutObject", RECORD, WRITE)
    assert resource_permits(bucket_policy, TRAIL, "s3:GetBucketAcl", BUCKET, WRITE)


@pytest.mark.parametrize(
    "change",
    [
        {"aws:SourceArn": "arn:aws:cloudtrail:us-east-1:444455556666:trail/ringfence-test-audit"},
        {"aws:SourceArn": "arn:aws:cloudtrail:us-east-1:111122223333:trail/another"},
        {"s3:x-amz-acl": "public-read"},
        {"aws:SecureTransport": "false"},
        {"s3:TlsVersion": "1.1"},
    ],
    ids=str,
)
def test_another_trail_or_a_plain_connection_does_not(resource_permits, bucket_policy, change):
    assert not resource_permits(bucket_policy, TRAIL, "s3:PutObject", RECORD, WRITE | change)


def test_the_trail_writes_nowhere_but_under_its_account(resource_permits, bucket_policy):
    assert not resource_permits(bucket_policy, TRAIL, "s3:PutObject", f"{BUCKET}/AWSLogs/444455556666/x", WRITE)


@pytest.mark.parametrize(
    "action",
    [
        "s3:PutObject",
        "s3:PutObjectRetention",
        "s3:DeleteObjectVersion",
        "s3:BypassGovernanceRetention",
        "s3:PutObjectLegalHold",
    ],
)
def test_an_administrator_neither_writes_nor_destroys_records(identity_permits, bucket_policy, action):
    admin = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'
    denials = json.loads(bucket_policy)
    denials["Statement"] = [
        {k: v for k, v in s.items() if k != "Principal"} for s in denials["Statement"] if s["Effect"] == "Deny"
    ]
    context = SECURE | {"aws:PrincipalIsAWSService": "false"}
    assert identity_permits([admin], action, RECORD, context)
    assert not identity_permits([admin, json.dumps(denials)], action, RECORD, context)
    assert identity_permits([admin, json.dumps(denials)], "s3:GetObject", RECORD, context)


def test_cloudtrail_uses_the_key_for_this_trail_only(resource_permits, names):
    policy = key_policy(names, *key_uses(names))
    context = {
        "aws:SourceArn": trail_arn(names),
        "kms:EncryptionContext:aws:cloudtrail:arn": trail_arn(names),
    }
    assert resource_permits(policy, TRAIL, "kms:GenerateDataKey", context=context)
    other = context | {"aws:SourceArn": "arn:aws:cloudtrail:us-east-1:111122223333:trail/another"}
    assert not resource_permits(policy, TRAIL, "kms:GenerateDataKey", context=other)
    assert not resource_permits(policy, Principal("Service", "ec2.amazonaws.com"), "kms:Decrypt", context=context)


def test_the_bucket_policy_is_one_reviewed_document(bucket_policy, golden):
    golden("audit_trail_bucket_policy.json", json.dumps(json.loads(bucket_policy), indent=2) + "\n")


def test_access_to_sensitive_buckets_is_recorded_when_asked_for(record, names):
    plain = _made(record, names).one("aws:cloudtrail/trail:Trail")["advancedEventSelectors"]
    more = _made(record, names, data_event_buckets=("b", "a")).one("aws:cloudtrail/trail:Trail")
    assert len(plain) == 1
    data = more["advancedEventSelectors"][1]["fieldSelectors"]
    assert data[2] == {"field": "resources.ARN", "startsWiths": ["arn:aws:s3:::a/", "arn:aws:s3:::b/"]}


def test_every_impossible_retention_is_named(record, names):
    with pytest.raises(InputError) as caught:
        _made(record, names, lock_mode="NONE", lock_days=30, expire_days=10)
    assert [problem.key for problem in caught.value.problems] == ["lock_mode", "expire_days"]
