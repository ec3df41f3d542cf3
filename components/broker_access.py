"""The broker's own AWS role: it may become each tool, end what it began, and keep its ledger; and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.iam_documents import MANAGED_POLICY_LIMIT, document, size_problems, statement
from components.pod_identity import pod_identity_trust
from components.tool_boundary import boundary_arn
from ringfence.broker.dynamodb_ledger import PARTITION_KEY, SORT_KEY, TIME_TO_LIVE, ledger_table
from ringfence.broker.secret_stores import secret_name
from ringfence.errors import InputError
from ringfence.iam.tool_documents import ASSUME_ACTIONS, broker_role_name
from ringfence.names import RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Names

# A role takes 10 managed policies by default, and one policy holds about 70 role ARNs. A tool's shard depends on its name
# alone, so that adding one changes one policy.
SHARDS = 8


@dataclass(frozen=True)
class BrokerAccessArgs:
    """tools: names of the catalog's tools. cluster_name, namespace, service_account: whose pods get the role.
    cluster_ready: what must exist before the service account can be bound to the role (the cluster)."""

    names: Names
    cluster_name: str
    tools: tuple[str, ...]
    namespace: str = SYSTEM_NAMESPACE
    service_account: str = RUNNER_SERVICE_ACCOUNT
    cluster_ready: tuple[pulumi.Resource, ...] = ()


def shard_of(tool: str) -> int:
    """The policy, 0 to SHARDS - 1, that names the tool's role."""
    return int.from_bytes(hashlib.sha256(tool.encode()).digest()[:8], "big") % SHARDS


def assume_documents(names: Names, tools: tuple[str, ...]) -> dict[int, str]:
    """Shard → policy document that allows to assume exactly its tools' roles. Raises InputError on overflow."""
    shards: dict[int, list[str]] = {}
    for tool in sorted(set(tools)):
        shards.setdefault(shard_of(tool), []).append(names.iam_arn(f"role/{names.tool_role(tool)}"))
    documents = {
        shard: document(statement("Allow", ASSUME_ACTIONS, roles, sid="BecomeTools"))
        for shard, roles in sorted(shards.items())
    }
    problems = [
        problem
        for shard, text in documents.items()
        for problem in size_problems(
            f"policy {policy_name(names, shard)}", "managed policy", [text], MANAGED_POLICY_LIMIT
        )
    ]
    if problems:
        raise InputError(problems)
    return documents


def policy_name(names: Names, shard: int) -> str:
    """Name of one shard's managed policy."""
    return names.name(f"broker-tools-{shard}")


def work_document(names: Names) -> str:
    """What the broker may do besides becoming tools: deny revoked credentials, keep its ledger, read tools' secrets and
    look into CloudTrail.

    Writing a tool role's policy gives the broker nothing: the condition asks for the tool's boundary, and that allows
    what the catalog grants the tool, which the broker may become anyway.
    """
    tools = names.iam_arn(f"role/{names.tool_role('*')}")
    bounded = {"ArnLike": {"iam:PermissionsBoundary": boundary_arn(names, "*")}}
    items = [f"dynamodb:{action}" for action in ("DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem")]
    return document(
        statement("Allow", "iam:PutRolePolicy", tools, bounded, sid="Revoke"),
        statement("Allow", items, names.arn("dynamodb", f"table/{ledger_table(names)}"), sid="Ledger"),
        statement(
            "Allow",
            "secretsmanager:GetSecretValue",
            names.arn("secretsmanager", f"secret:{secret_name(names, '*')}"),
            sid="ToolSecrets",
        ),
        statement("Allow", "cloudtrail:LookupEvents", "*", sid="Watch"),
    )


class BrokerAccess(pulumi.ComponentResource):
    """Lets the broker's pods, and only them, become the catalog's tools.

    Makes: the broker's role; up to eight managed policies that list the tool roles by ARN, and one for its own work,
    attached to it; the statement that it has no other policy; the Pod Identity association with the broker's service
    account; the table with its ledger.
    Protects against: another pod, namespace or cluster getting the broker's role (conditions on what EKS vouches for);
    the broker becoming anything but a declared tool; a tool outside of the catalog.
    Trust zone: control side.

    Outputs: role_name, role_arn, ledger_table (known at preview); role (to depend on).
    """

    def __init__(self, name: str, args: BrokerAccessArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:BrokerAccess", name, None, opts)
        names = args.names
        child = pulumi.ResourceOptions(parent=self)
        self.role_name: str = broker_role_name(names)
        self.role_arn: str = names.iam_arn(f"role/{self.role_name}")
        self.role = aws.iam.Role(
            f"{name}-role",
            name=self.role_name,
            description="The credential broker: becomes a tool's role for one invocation",
            assume_role_policy=pod_identity_trust(names, args.cluster_name, args.namespace, args.service_account),
            max_session_duration=3600,
            tags=names.tags("broker"),
            opts=child,
        )
        attached: list[pulumi.Input[str]] = []
        for shard, text in assume_documents(names, args.tools).items():
            policy = aws.iam.Policy(
                f"{name}-tools-{shard}",
                name=policy_name(names, shard),
                description="Tool roles that the broker may assume",
                policy=text,
                tags=names.tags(f"broker-tools-{shard}"),
                opts=child,
            )
            attachment = aws.iam.RolePolicyAttachment(
                f"{name}-tools-{shard}-attachment", role=self.role.name, policy_arn=policy.arn, opts=child
            )
            attached.append(attachment.policy_arn)
        attached.append(self._work(f"{name}-work", names, child))
        aws.iam.RolePolicyAttachmentsExclusive(
            f"{name}-no-other-managed", role_name=self.role.name, policy_arns=attached, opts=child
        )
        aws.iam.RolePoliciesExclusive(f"{name}-no-inline", role_name=self.role.name, policy_names=[], opts=child)
        aws.eks.PodIdentityAssociation(
            f"{name}-pod-identity",
            cluster_name=args.cluster_name,
            namespace=args.namespace,
            service_account=args.service_account,
            role_arn=self.role.arn,
            tags=names.tags("broker"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.cluster_ready)),
        )
        self.ledger_table: str = ledger_table(names)
        aws.dynamodb.Table(
            f"{name}-ledger",
            name=self.ledger_table,
            billing_mode="PAY_PER_REQUEST",
            hash_key=PARTITION_KEY,
            range_key=SORT_KEY,
            attributes=[{"name": PARTITION_KEY, "type": "S"}, {"name": SORT_KEY, "type": "S"}],
            ttl={"attribute_name": TIME_TO_LIVE, "enabled": True},
            point_in_time_recovery={"enabled": True},
            tags=names.tags("credentials"),
            opts=child,
        )
        self.register_outputs({})

    def _work(self, name: str, names: Names, child: pulumi.ResourceOptions) -> pulumi.Output[str]:
        """Makes and attaches the policy for the broker's own work; its ARN."""
        policy = aws.iam.Policy(
            name,
            name=names.name("broker-work"),
            description="The broker's own work: revoke, keep the ledger, read tools' secrets, watch",
            policy=work_document(names),
            tags=names.tags("broker-work"),
            opts=child,
        )
        return aws.iam.RolePolicyAttachment(
            f"{name}-attachment", role=self.role.name, policy_arn=policy.arn, opts=child
        ).policy_arn
