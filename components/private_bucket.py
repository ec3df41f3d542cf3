"""S3 buckets that are never public, always encrypted and reached over TLS only."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.iam_documents import Statement, document, statement
from ringfence.names import Names


@dataclass(frozen=True)
class PrivateBucketArgs:
    """purpose: names the bucket (`Names.bucket`). kms_key_arn: customer managed key; S3's own key (SSE-S3) when None.
    statements: further statements of the bucket policy. object_lock: can only be chosen when the bucket is made.
    keep: protect from destruction and refuse to delete a bucket that holds objects.
    noncurrent_days: days that overwritten versions are kept; expire_days: days that objects are kept, None for ever.
    """

    names: Names
    purpose: str
    kms_key_arn: pulumi.Input[str] | None = None
    statements: tuple[Statement, ...] = ()
    object_lock: bool = False
    keep: bool = True
    noncurrent_days: int | None = 90
    expire_days: int | None = None


def tls_only(names: Names, purpose: str) -> tuple[Statement, ...]:
    """The statements that refuse every request to the bucket that is not made over TLS 1.2 or newer."""
    arn = names.bucket_arn(purpose)
    everything = [arn, f"{arn}/*"]
    return (
        statement("Deny", "s3:*", everything, {"Bool": {"aws:SecureTransport": "false"}}, "*", "PlainText"),
        statement("Deny", "s3:*", everything, {"NumericLessThan": {"s3:TlsVersion": "1.2"}}, "*", "OldTls"),
    )


class PrivateBucket(pulumi.ComponentResource):
    """One versioned, encrypted, private bucket.

    Makes: bucket, versioning, default encryption, public access block, ownership controls (no ACLs), bucket policy,
    life cycle.
    Protects against: public objects, plain-text transport, objects owned by another account, silent overwriting.
    Trust zone: operator and control side.

    Outputs: bucket (name, known at preview), arn (known at preview), ready (the bucket policy: depend on it before
    writing to the bucket).
    """

    def __init__(self, name: str, args: PrivateBucketArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:PrivateBucket", name, None, opts)
        self.bucket: str = args.names.bucket(args.purpose)
        self.arn: str = args.names.bucket_arn(args.purpose)
        child = pulumi.ResourceOptions(parent=self)
        bucket = aws.s3.Bucket(
            name,
            bucket=self.bucket,
            object_lock_enabled=args.object_lock,
            force_destroy=not args.keep,
            tags=args.names.tags(args.purpose),
            opts=pulumi.ResourceOptions(parent=self, protect=args.keep),
        )
        self.versioning = aws.s3.BucketVersioning(
            f"{name}-versioning", bucket=bucket.bucket, versioning_configuration={"status": "Enabled"}, opts=child
        )
        customer_key = args.kms_key_arn is not None
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.bucket,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms" if customer_key else "AES256",
                        "kms_master_key_id": args.kms_key_arn,
                    },
                    "bucket_key_enabled": customer_key,
                }
            ],
            opts=child,
        )
        public_access = aws.s3.BucketPublicAccessBlock(
            f"{name}-public-access",
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.s3.BucketOwnershipControls(
            f"{name}-ownership", bucket=bucket.bucket, rule={"object_ownership": "BucketOwnerEnforced"}, opts=child
        )
        self._expire(name, args, bucket)
        # S3 refuses to set a bucket's policy and its public access block at the same moment.
        self.ready = aws.s3.BucketPolicy(
            f"{name}-policy",
            bucket=bucket.bucket,
            policy=document(*tls_only(args.names, args.purpose), *args.statements),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[public_access]),
        )
        self.register_outputs({})

    def _expire(self, name: str, args: PrivateBucketArgs, bucket: aws.s3.Bucket) -> None:
        rule: dict[str, object] = {
            "id": "expire",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
        }
        if args.noncurrent_days is not None:
            rule["noncurrent_version_expiration"] = {"noncurrent_days": args.noncurrent_days}
        if args.expire_days is not None:
            rule["expiration"] = {"days": args.expire_days}
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            bucket=bucket.bucket,
            rules=[rule],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.versioning]),
        )
