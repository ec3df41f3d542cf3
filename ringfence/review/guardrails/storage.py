"""Guardrails of what is stored: logs, queues, topics, buckets, and the audit trail above all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ringfence.review.facts import Unknown
from ringfence.review.guardrails.model import Guardrail, at, entries, is_set, is_true, name_tag
from ringfence.review.resource import Resource

_BUCKETS = ("aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2")
_PUBLIC_ACLS = frozenset({"public-read", "public-read-write", "authenticated-read", "website"})
_BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")


def _kms(*props: str, what: str):  # type: ignore[no-untyped-def]
    def check(resource: Resource) -> Iterator[str]:
        if not any(is_set(resource.get(prop)) for prop in props):
            yield f"{what} {resource.name} is not encrypted with a KMS key"

    return check


def _queue(resource: Resource) -> Iterator[str]:
    if not is_set(resource.get("kmsMasterKeyId")) and not is_true(resource.get("sqsManagedSseEnabled")):
        yield f"queue {resource.name} is not encrypted"


def _database(resource: Resource) -> Iterator[str]:
    if not is_true(resource.get("storageEncrypted")):
        yield f"database {resource.name} is not encrypted"


def _public_access_block(resource: Resource) -> Iterator[str]:
    off = [name for name in _BLOCKS if not is_true(resource.get(name))]
    if off:
        yield f"{resource.name} does not block public access fully ({', '.join(off)} not set)"


def _public_acl(resource: Resource) -> Iterator[str]:
    acl = resource.get("acl")
    if isinstance(acl, Unknown) or acl in _PUBLIC_ACLS:
        yield f"{resource.name} has the access list {acl if isinstance(acl, str) else 'unknown at preview'}"


def _trail(resource: Resource) -> Iterator[str]:
    if not is_true(resource.get("enableLogFileValidation")):
        yield f"trail {resource.name} does not sign its log files (enableLogFileValidation)"
    if resource.get("enableLogging") is False:
        yield f"trail {resource.name} is switched off (enableLogging)"
    if not is_true(resource.get("isMultiRegionTrail")):
        yield f"trail {resource.name} misses other regions (isMultiRegionTrail)"
    if not is_set(resource.get("kmsKeyId")):
        yield f"trail {resource.name} is not encrypted with a KMS key"


def is_audit_bucket(resource: Resource) -> bool:
    """Whether a bucket holds audit records, by what it is called."""
    return resource.type in _BUCKETS and "audit" in name_tag(resource)


def _audit_bucket(resource: Resource) -> Iterator[str]:
    if is_audit_bucket(resource) and not is_true(resource.get("objectLockEnabled")):
        yield f"audit bucket {resource.name} is not locked (objectLockEnabled)"


def _of_bucket(resources: Sequence[Resource], bucket: Resource, *types: str) -> list[Resource]:
    """Resources of these types that speak of a bucket, by link or by name."""
    name = bucket.get("bucket")
    return [
        other
        for other in resources
        if other.type in types
        and (
            any(linked.urn == bucket.urn for linked in other.links.get("bucket", ()))
            or (isinstance(name, str) and other.get("bucket") == name)
        )
    ]


def _bucket_encryption(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    for bucket in resources:
        if bucket.type not in _BUCKETS or is_set(bucket.get("serverSideEncryptionConfiguration")):
            continue
        rules = _of_bucket(
            resources,
            bucket,
            "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
            "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2",
        )
        if not rules:
            yield bucket, f"bucket {bucket.name} has no encryption of its own"
        elif is_audit_bucket(bucket) and not any(_uses_kms(rule) for rule in rules):
            yield bucket, f"audit bucket {bucket.name} is not encrypted with a KMS key"


def _uses_kms(resource: Resource) -> bool:
    defaults = [
        at(rule, "applyServerSideEncryptionByDefault", "sseAlgorithm") for rule in entries(resource.get("rules"))
    ]
    return any(isinstance(value, str) and value.startswith("aws:kms") for value in defaults)


def _bucket_private(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    for bucket in resources:
        if bucket.type in _BUCKETS and not _of_bucket(
            resources, bucket, "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
        ):
            yield bucket, f"bucket {bucket.name} has no public access block"


def _audit_retention(resources: Sequence[Resource]) -> Iterator[tuple[Resource, str]]:
    for bucket in resources:
        if not is_audit_bucket(bucket) or is_set(bucket.get("objectLockConfiguration")):
            continue
        locks = _of_bucket(
            resources,
            bucket,
            "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration",
            "aws:s3/bucketObjectLockConfigurationV2:BucketObjectLockConfigurationV2",
        )
        modes = [mode for lock in locks if is_set(mode := at(lock.get("rule"), "defaultRetention", "mode"))]
        if not modes:
            yield bucket, f"audit bucket {bucket.name} has no default retention, so its records can be deleted"
        # In compliance mode AWS refuses to delete a record before its time, whoever asks.
        if is_true(bucket.get("forceDestroy")) and "COMPLIANCE" not in modes:
            yield bucket, f"audit bucket {bucket.name} can be destroyed with its records (forceDestroy)"


_PUBLIC = "a public bucket is read by anybody who guesses its name"
_LOCK = "audit records that can be changed or deleted prove nothing"
_LEAK = "what agents wrote or were told can be read by whoever gets at the storage"

GUARDRAILS = (
    Guardrail(
        "log-group-encrypted",
        "encryption",
        _LEAK,
        "set kmsKeyId",
        ("aws:cloudwatch/logGroup:",),
        _kms("kmsKeyId", what="log group"),
    ),
    Guardrail(
        "topic-encrypted",
        "encryption",
        _LEAK,
        "set kmsMasterKeyId",
        ("aws:sns/topic:",),
        _kms("kmsMasterKeyId", what="topic"),
    ),
    Guardrail(
        "queue-encrypted",
        "encryption",
        _LEAK,
        "set kmsMasterKeyId, or sqsManagedSseEnabled to true",
        ("aws:sqs/queue:",),
        _queue,
    ),
    Guardrail(
        "database-encrypted",
        "encryption",
        _LEAK,
        "set storageEncrypted to true",
        ("aws:rds/instance:", "aws:rds/cluster:"),
        _database,
    ),
    Guardrail(
        "bucket-encrypted",
        "encryption",
        _LEAK,
        "add a BucketServerSideEncryptionConfiguration",
        ("aws:s3/",),
        stack_check=_bucket_encryption,
    ),
    Guardrail(
        "bucket-blocks-public-access",
        "storage",
        _PUBLIC,
        "set all four flags of the BucketPublicAccessBlock to true",
        ("aws:s3/bucketPublicAccessBlock:", "aws:s3/accountPublicAccessBlock:"),
        _public_access_block,
    ),
    Guardrail(
        "bucket-private",
        "storage",
        _PUBLIC,
        "add a BucketPublicAccessBlock",
        ("aws:s3/",),
        stack_check=_bucket_private,
    ),
    Guardrail(
        "bucket-acl-private",
        "storage",
        _PUBLIC,
        "take the access list out and grant by bucket policy",
        ("aws:s3/bucket:", "aws:s3/bucketV2:", "aws:s3/bucketAcl"),
        _public_acl,
    ),
    Guardrail(
        "audit-bucket-locked",
        "storage",
        _LOCK,
        "set objectLockEnabled to true",
        ("aws:s3/",),
        _audit_bucket,
    ),
    Guardrail(
        "audit-bucket-retention",
        "storage",
        _LOCK,
        "add a BucketObjectLockConfiguration with a default retention in compliance mode, and leave forceDestroy off",
        ("aws:s3/",),
        stack_check=_audit_retention,
    ),
    Guardrail(
        "trail-complete",
        "storage",
        _LOCK,
        "set enableLogFileValidation, isMultiRegionTrail and kmsKeyId, and leave enableLogging on",
        ("aws:cloudtrail/trail:",),
        _trail,
    ),
)
