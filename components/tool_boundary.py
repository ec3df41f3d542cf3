"""The permissions boundary of every tool role: what no tool may ever do, whatever its grants say."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.iam_documents import MANAGED_POLICY_LIMIT, Statement, check_size, document, statement
from components.log_protection import unmask_denial
from ringfence.names import Names

# Ways to more power: identities, other sessions, compute that carries a role, and resource policies.
_ESCALATION = (
    "account:*", "organizations:*", "iam:*", "sso:*", "sso-directory:*", "identitystore:*", "ram:*", "rolesanywhere:*",
    "sts:AssumeRole*", "sts:GetFederationToken", "sts:GetSessionToken", "eks:*", "eks-auth:*", "ssm:SendCommand",
    "ssm:StartSession", "ec2-instance-connect:*", "ec2:RunInstances", "lambda:AddPermission",
    "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration", "lambda:CreateFunction", "cloudformation:*",
    "kms:CancelKeyDeletion", "kms:CreateGrant", "kms:DeleteAlias", "kms:DisableKey", "kms:DisableKeyRotation",
    "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion", "kms:UpdateAlias", "s3:BypassGovernanceRetention",
    "s3:DeleteBucketPolicy", "s3:PutAccountPublicAccessBlock", "s3:PutBucketAcl", "s3:PutBucketPolicy",
    "s3:PutBucketPublicAccessBlock", "s3:PutObjectAcl", "s3:PutReplicationConfiguration",
    "secretsmanager:PutResourcePolicy", "sns:AddPermission", "sqs:AddPermission",
)  # fmt: skip
# Ways to stop being seen, or to stop the spending from being seen.
_EVASION = (
    "budgets:*", "cloudtrail:*", "config:*", "guardduty:*", "securityhub:*", "access-analyzer:*",
    "cloudwatch:DeleteAlarms", "cloudwatch:DisableAlarmActions", "logs:Delete*", "logs:Disassociate*",
    "logs:PutRetentionPolicy", "logs:PutResourcePolicy", "route53resolver:*", "network-firewall:*",
)  # fmt: skip


@dataclass(frozen=True)
class ToolBoundaryArgs:
    """further_regions: regions besides the environment's own in which tools may call AWS."""

    names: Names
    further_regions: tuple[str, ...] = ()


def boundary_name(names: Names) -> str:
    """Name of the environment's boundary policy."""
    return names.name("tool-boundary")


def boundary_arn(names: Names) -> str:
    """ARN of the environment's boundary policy, known before it is made."""
    return names.iam_arn(f"policy/{boundary_name(names)}")


def _own_things(names: Names) -> Statement:
    buckets = names.bucket_arn("*")
    return statement(
        "Deny",
        "*",
        [
            buckets,
            f"{buckets}/*",
            names.arn("logs", f"log-group:{names.log_group('*')}"),
            names.arn("logs", f"log-group:/aws/eks/{names.base}/*"),
            names.arn("sns", names.name("*")),
            names.arn("secretsmanager", f"secret:{names.base}*"),
        ],
        sid="OwnThings",
    )


def boundary_document(names: Names, further_regions: tuple[str, ...] = ()) -> str:
    """The boundary as text. A boundary grants nothing: a tool may do what its own policy and this both allow."""
    regions = (names.region, *further_regions)
    return document(
        statement("Allow", "*", "*", sid="CapOnly"),
        statement("Deny", _ESCALATION, "*", sid="Escalation"),
        statement("Deny", _EVASION, "*", sid="Evasion"),
        unmask_denial(),
        _own_things(names),
        # Also stops calls to global services from anywhere but us-east-1: their requests count as made there.
        statement("Deny", "*", "*", {"StringNotEquals": {"aws:RequestedRegion": regions}}, sid="OtherRegions"),
        # A session without a source identity can't be traced to an invocation.
        statement("Deny", "*", "*", {"Null": {"aws:SourceIdentity": "true"}}, sid="Untraceable"),
    )


class ToolBoundary(pulumi.ComponentResource):
    """One managed policy, set as the permissions boundary of every tool role.

    Makes: the managed policy.
    Protects against: a catalog entry, or a change behind Pulumi's back, that lets a tool escalate, hide, read masked
    logs, reach the environment's own buckets, logs, topics and secrets, act in another region, or act untraceably.
    Trust zone: operator.

    Outputs: arn (known at preview); policy (to depend on).
    """

    def __init__(self, name: str, args: ToolBoundaryArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:ToolBoundary", name, None, opts)
        policy_name = boundary_name(args.names)
        text = boundary_document(args.names, args.further_regions)
        check_size(f"policy {policy_name}", "managed policy", [text], MANAGED_POLICY_LIMIT)
        self.arn: str = boundary_arn(args.names)
        self.policy = aws.iam.Policy(
            f"{name}-policy",
            name=policy_name,
            description="The most that any tool of this environment may ever do",
            policy=text,
            tags=args.names.tags("tool-boundary"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
