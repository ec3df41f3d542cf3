"""CloudTrail into a bucket that nobody can rewrite or empty before its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

from components.encryption_key import encryption_key
from components.iam_documents import Statement, statement
from components.private_bucket import PrivateBucket, PrivateBucketArgs
from ringfence.errors import InputError, Problem
from ringfence.names import Names

_CLOUDTRAIL = {"Service": "cloudtrail.amazonaws.com"}
_PURPOSE = "audit-trail"


@dataclass(frozen=True)
class AuditTrailArgs:
    """lock_mode: COMPLIANCE (nobody, root included, deletes before `lock_days` are over: this also blocks a destroy of
    the environment) or GOVERNANCE (who has s3:BypassGovernanceRetention may). keep: protect trail and bucket from
    destruction. expire_days: when records are deleted; None for never. data_event_buckets: names of buckets whose every
    object access is recorded; costs by the event.
    """

    names: Names
    lock_mode: Literal["COMPLIANCE", "GOVERNANCE"] = "COMPLIANCE"
    lock_days: int = 365
    expire_days: int | None = None
    keep: bool = True
    data_event_buckets: tuple[str, ...] = ()


def _check(args: AuditTrailArgs) -> None:
    problems = []
    if args.lock_mode not in ("COMPLIANCE", "GOVERNANCE"):
        problems.append(Problem("audit trail", "lock_mode", f"is {args.lock_mode!r}", "COMPLIANCE or GOVERNANCE"))
    if not 1 <= args.lock_days <= 36_500:
        problems.append(Problem("audit trail", "lock_days", f"is {args.lock_days}", "1 to 36500 days"))
    elif args.expire_days is not None and args.expire_days < args.lock_days:
        message = f"is {args.expire_days}, but records are locked for {args.lock_days} days"
        problems.append(Problem("audit trail", "expire_days", message, f"{args.lock_days} or more, or none for never"))
    if problems:
        raise InputError(problems)


def trail_arn(names: Names) -> str:
    """ARN of the environment's trail."""
    return names.arn("cloudtrail", f"trail/{names.name('audit')}")


def key_uses(names: Names) -> tuple[Statement, ...]:
    """CloudTrail encrypts records of this trail only
    (docs.aws.amazon.com/awscloudtrail/latest/userguide/create-kms-key-policy-for-cloudtrail.html)."""
    from_trail = {"StringEquals": {"aws:SourceArn": trail_arn(names)}}
    context = {
        "kms:EncryptionContext:aws:cloudtrail:arn": names.arn("cloudtrail", "trail/*", region="*"),
    }
    return (
        statement(
            "Allow", "kms:GenerateDataKey*", "*", {**from_trail, "StringLike": context}, _CLOUDTRAIL, "TrailEncrypts"
        ),
        statement("Allow", "kms:DescribeKey", "*", from_trail, _CLOUDTRAIL, "TrailFindsTheKey"),
    )


def bucket_statements(names: Names) -> tuple[Statement, ...]:
    """This trail writes records and finds the bucket; everybody else is refused writing and destroying."""
    arn = names.bucket_arn(_PURPOSE)
    records = f"{arn}/AWSLogs/{names.account_id}/*"
    from_trail = {"aws:SourceArn": trail_arn(names)}
    return (
        statement("Allow", "s3:GetBucketAcl", arn, {"StringEquals": from_trail}, _CLOUDTRAIL, "TrailFindsBucket"),
        statement(
            "Allow",
            "s3:PutObject",
            records,
            {"StringEquals": {**from_trail, "s3:x-amz-acl": "bucket-owner-full-control"}},
            _CLOUDTRAIL,
            "TrailWritesRecords",
        ),
        # An AWS service writes with its own service principal; every other writer is a person or a program.
        statement(
            "Deny",
            ["s3:PutObject", "s3:PutObjectAcl", "s3:PutObjectRetention", "s3:PutObjectLegalHold"],
            f"{arn}/*",
            {"BoolIfExists": {"aws:PrincipalIsAWSService": "false"}},
            "*",
            "NobodyElseWrites",
        ),
        statement(
            "Deny", ["s3:BypassGovernanceRetention", "s3:DeleteObjectVersion"], f"{arn}/*", None, "*", "RecordsStay"
        ),
    )


class AuditTrail(pulumi.ComponentResource):
    """The account's own record of every AWS call, in every region.

    Makes: a multi-region CloudTrail with log file validation; its KMS key and alias; a versioned bucket with Object Lock
    whose policy lets this trail alone write.
    Protects against: deleted or rewritten records (Object Lock, hourly signed digests), records of another trail or
    account slipped in (aws:SourceArn), reading without the key, calls in an unwatched region.
    Trust zone: operator; nothing in a sandbox or on the control side may touch it.

    Outputs: trail_arn, bucket (name), bucket_arn: known at preview; key_arn.
    """

    def __init__(self, name: str, args: AuditTrailArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:AuditTrail", name, None, opts)
        _check(args)
        names = args.names
        key = encryption_key(name, names, _PURPOSE, "Encrypts CloudTrail records", key_uses(names), self)
        store = PrivateBucket(
            f"{name}-bucket",
            PrivateBucketArgs(
                names,
                _PURPOSE,
                kms_key_arn=key.arn,
                statements=bucket_statements(names),
                object_lock=True,
                keep=args.keep,
                noncurrent_days=None,
                expire_days=args.expire_days,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        lock = aws.s3.BucketObjectLockConfiguration(
            f"{name}-lock",
            bucket=store.bucket,
            object_lock_enabled="Enabled",
            rule={"default_retention": {"mode": args.lock_mode, "days": args.lock_days}},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[store.versioning]),
        )
        aws.cloudtrail.Trail(
            f"{name}-trail",
            name=names.name("audit"),
            s3_bucket_name=store.bucket,
            kms_key_id=key.arn,
            is_multi_region_trail=True,
            include_global_service_events=True,
            enable_log_file_validation=True,
            enable_logging=True,
            advanced_event_selectors=_selectors(names, args.data_event_buckets),
            tags=names.tags("audit"),
            # CloudTrail checks that it can write when the trail is made.
            opts=pulumi.ResourceOptions(parent=self, protect=args.keep, depends_on=[store.ready, lock]),
        )
        self.trail_arn: str = trail_arn(names)
        self.bucket: str = store.bucket
        self.bucket_arn: str = store.arn
        self.key_arn: pulumi.Output[str] = key.arn
        self.register_outputs({})


def _selectors(names: Names, buckets: tuple[str, ...]) -> list[dict]:
    selectors: list[dict] = [
        {"name": "Management events", "field_selectors": [{"field": "eventCategory", "equals": ["Management"]}]}
    ]
    if buckets:
        prefixes = [names.arn("s3", f"{bucket}/", region="", account="") for bucket in sorted(buckets)]
        selectors.append(
            {
                "name": "Object access in sensitive buckets",
                "field_selectors": [
                    {"field": "eventCategory", "equals": ["Data"]},
                    {"field": "resources.type", "equals": ["AWS::S3::Object"]},
                    {"field": "resources.ARN", "starts_withs": prefixes},
                ],
            }
        )
    return selectors
