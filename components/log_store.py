"""Log groups: encrypted with the environment's own key, kept for as long as their class says, masked, never read in
the clear."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import pulumi
import pulumi_aws as aws

from components.encryption_key import encryption_key
from components.iam_documents import MANAGED_POLICY_LIMIT, Statement, check_size, document, statement
from components.log_protection import data_protection_policy, unmask_denial
from ringfence.errors import InputError, Problem
from ringfence.names import Names
from ringfence.settings.model import RETENTION_DAYS

AUDIT, APPLICATION, NETWORK = "audit", "application", "network"
# Every log stream of an environment and its retention class.
STREAMS = MappingProxyType(
    {
        "audit": AUDIT,  # Ringfence's own audit events
        "vault-audit": AUDIT,  # Vault's audit device
        "findings": AUDIT,  # what data protection found and masked
        "control": APPLICATION,  # runner, broker, model gateway
        "tools": APPLICATION,  # what runs in sandboxes
        "traces": APPLICATION,  # spans as structured events
        "metrics": APPLICATION,  # embedded metric format
        "proxy": NETWORK,  # each decision of the egress proxy
        "dns": NETWORK,  # Resolver queries and what DNS Firewall did with them
        "vpc-flow": NETWORK,  # flow logs
    }
)
# Findings name no value, and flow logs and Resolver logs hold addresses and names only; masking costs by the gigabyte.
UNMASKED_STREAMS = frozenset({"findings", "dns", "vpc-flow", "metrics"})


@dataclass(frozen=True)
class LogStoreArgs:
    """Retention by class, in days; only the periods that CloudWatch accepts. alarm_topic_arn: where to report that
    a credential reached a log; no alarm is made when None."""

    names: Names
    audit_days: int = 365
    application_days: int = 30
    network_days: int = 14
    alarm_topic_arn: pulumi.Input[str] | None = None


def cluster_log_group(names: Names) -> str:
    """EKS writes its control plane's logs to this group and no other; it is made before the cluster."""
    return f"/aws/eks/{names.base}/cluster"


def _retention(args: LogStoreArgs) -> dict[str, int]:
    days = {AUDIT: args.audit_days, APPLICATION: args.application_days, NETWORK: args.network_days}
    allowed = ", ".join(map(str, sorted(RETENTION_DAYS)))
    problems = [
        Problem("log store", f"{kind}_days", f"{value} is not a period that CloudWatch Logs keeps", f"one of {allowed}")
        for kind, value in days.items()
        if value not in RETENTION_DAYS
    ]
    if problems:
        raise InputError(problems)
    return days


def key_use(names: Names) -> Statement:
    """CloudWatch Logs may use the key for this environment's log groups only: the group's ARN is the encryption
    context (docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html)."""
    groups = (names.log_group("*"), cluster_log_group(names))
    return statement(
        "Allow",
        ["kms:Decrypt*", "kms:Describe*", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*"],
        "*",
        {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": [names.arn("logs", f"log-group:{g}") for g in groups]}},
        {"Service": f"logs.{names.region}.amazonaws.com"},
        "LogsEncryptThisEnvironmentsGroups",
    )


class LogStore(pulumi.ComponentResource):
    """Where every log of the environment goes.

    Makes: a KMS key and alias for logs; one log group per stream (`STREAMS`) with its class's retention; a data
    protection policy for each that may carry secrets, reporting to the `findings` group; a metric and alarm on findings;
    the managed policy that denies `logs:Unmask`, for operators' roles.
    Protects against: credentials readable in logs, logs read without the key, logs that are kept for ever or vanish,
    masks lifted afterwards.
    Trust zone: control side.

    Outputs: key_arn; group_names (stream → name, known at preview); group_arns (stream → ARN without ``:*``, known at
    preview); groups (stream → LogGroup, to depend on); cluster_log_group (name, known at preview); unmask_denial_arn
    (policy ARN, known at preview).
    """

    def __init__(self, name: str, args: LogStoreArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:LogStore", name, None, opts)
        names, days = args.names, _retention(args)
        child = pulumi.ResourceOptions(parent=self)
        key = encryption_key(
            name,
            names,
            "logs",
            "Encrypts the log groups of one Ringfence environment",
            (key_use(names),),
            self,
        )
        self.key_arn: pulumi.Output[str] = key.arn
        self.group_names: dict[str, str] = {stream: names.log_group(stream) for stream in STREAMS}
        self.group_arns: dict[str, str] = {
            stream: names.arn("logs", f"log-group:{group}") for stream, group in self.group_names.items()
        }
        self.groups: dict[str, aws.cloudwatch.LogGroup] = {
            stream: self._group(f"{name}-{stream}", group, days[STREAMS[stream]], args)
            for stream, group in self.group_names.items()
        }
        self.cluster_log_group: str = cluster_log_group(names)
        self.groups["cluster"] = self._group(f"{name}-cluster", self.cluster_log_group, days[AUDIT], args)
        for stream in sorted(set(STREAMS) - UNMASKED_STREAMS):
            aws.cloudwatch.LogDataProtectionPolicy(
                f"{name}-{stream}-protection",
                log_group_name=self.groups[stream].name,
                policy_document=data_protection_policy(names, self.group_names["findings"]),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[self.groups["findings"]]),
            )
        self._report_findings(name, args)
        policy_name = names.name("deny-unmask")
        self.unmask_denial_arn: str = names.iam_arn(f"policy/{policy_name}")
        text = document(unmask_denial())
        check_size(f"policy {policy_name}", "managed policy", [text], MANAGED_POLICY_LIMIT)
        aws.iam.Policy(
            f"{name}-deny-unmask",
            name=policy_name,
            description="Attach to every role of people and programs that may read logs",
            policy=text,
            tags=names.tags("deny-unmask"),
            opts=child,
        )
        self.register_outputs({})

    def _group(self, name: str, group: str, days: int, args: LogStoreArgs) -> aws.cloudwatch.LogGroup:
        return aws.cloudwatch.LogGroup(
            name,
            name=group,
            kms_key_id=self.key_arn,
            retention_in_days=days,
            # The Infrequent Access class costs half, but has neither metric filters nor data protection.
            log_group_class="STANDARD",
            tags=args.names.tags(),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _report_findings(self, name: str, args: LogStoreArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)
        metric = {"name": "MaskedFindings", "namespace": args.names.name("logs")}
        aws.cloudwatch.LogMetricFilter(
            f"{name}-findings-metric",
            name=args.names.name("masked-findings"),
            log_group_name=self.groups["findings"].name,
            pattern="",  # every event of the group is a finding
            metric_transformation={**metric, "value": "1"},
            opts=child,
        )
        if args.alarm_topic_arn is None:
            return
        aws.cloudwatch.MetricAlarm(
            f"{name}-findings-alarm",
            name=args.names.name("credential-in-logs"),
            alarm_description="A credential or account number reached a log group and was masked: find what logged it",
            namespace=metric["namespace"],
            metric_name=metric["name"],
            statistic="Sum",
            period=300,
            evaluation_periods=1,
            threshold=1,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[args.alarm_topic_arn],
            tags=args.names.tags("credential-in-logs"),
            opts=child,
        )
