"""The permissions boundary of a tool's role: its declared grants and no more, whatever policies the role is given."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.iam_documents import MANAGED_POLICY_LIMIT, Statement, check_size, document, statement
from components.log_protection import unmask_denial
from ringfence.catalog.model import Tool
from ringfence.iam.tool_documents import grant_statements
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
    """tool: whose role it is for. further_regions: regions besides the environment's own in which tools may call AWS."""

    names: Names
    tool: Tool
    further_regions: tuple[str, ...] = ()


def boundary_name(names: Names, tool: str) -> str:
    """Name of a tool's boundary policy."""
    return names.name(f"tool-boundary-{tool}")


def boundary_arn(names: Names, tool: str) -> str:
    """ARN of a tool's boundary policy, known before it is made; ``*`` for the pattern of all."""
    return names.iam_arn(f"policy/{boundary_name(names, tool)}")


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


def boundary_document(names: Names, tool: Tool, further_regions: tuple[str, ...] = ()) -> str:
    """The boundary as text. A boundary grants nothing: a role may do what its own policies and this both allow.

    It repeats the tool's grants, so that whoever may write policies of the role (the broker, to revoke) can give it
    nothing that the catalog doesn't; and it denies what no tool may do, whatever the catalog says.
    """
    regions = (names.region, *further_regions)
    return document(
        *grant_statements(tool, names),
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
    """One managed policy, set as the permissions boundary of one tool's role.

    Makes: the managed policy.
    Protects against: policies of the role that allow more than the catalog grants, whoever wrote them; a catalog entry
    that lets a tool escalate, hide, read masked logs, reach the environment's own buckets, logs, topics and secrets, act
    in another region, or act untraceably.
    Trust zone: operator.

    Outputs: arn (known at preview); policy (to depend on).
    """

    def __init__(self, name: str, args: ToolBoundaryArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:ToolBoundary", name, None, opts)
        policy_name = boundary_name(args.names, args.tool.name)
        text = boundary_document(args.names, args.tool, args.further_regions)
        check_size(f"policy {policy_name}", "managed policy", [text], MANAGED_POLICY_LIMIT)
        self.arn: str = boundary_arn(args.names, args.tool.name)
        self.policy = aws.iam.Policy(
            f"{name}-policy",
            name=policy_name,
            description=f"The most that tool {args.tool.name} may ever do",
            policy=text,
            tags=args.names.tags(f"tool-boundary-{args.tool.name}"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})
