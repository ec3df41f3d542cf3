"""Every name, ARN and tag of an environment, derived from four facts; nothing else in the project makes one up.

Names are deterministic so that every IAM document is known at preview (an unknown document is not reviewable).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The project's own domain for Kubernetes labels and annotations, and for AWS tag keys.
LABEL_DOMAIN = "ringfence.dev"
# Every per-invocation namespace starts with this; admission policies and RBAC match on it.
SANDBOX_NAMESPACE_PREFIX = "sandbox-"
# Namespace of the control side: runner, broker, model gateway, collector.
SYSTEM_NAMESPACE = "ringfence-system"
VAULT_NAMESPACE = "ringfence-vault"
# Kubernetes service accounts that AWS roles are bound to by Pod Identity. The runner's pod holds the broker.
RUNNER_SERVICE_ACCOUNT = "runner"
COLLECTOR_SERVICE_ACCOUNT = "collector"
VAULT_SERVICE_ACCOUNT = "vault"
# RuntimeClass and containerd handler of the sandbox pool, and the pool's node label and taint key.
GVISOR_RUNTIME_CLASS = "gvisor"
GVISOR_HANDLER = "runsc"
SANDBOX_NODE_LABEL = f"{LABEL_DOMAIN}/sandbox"


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one environment.

    prefix: product prefix, e.g. ``ringfence``; environment: e.g. ``local``, ``dev``, ``prod``;
    account_id: 12 digits; region: e.g. ``us-east-1``; partition: ``aws``, ``aws-us-gov`` or ``aws-cn``.
    """

    prefix: str
    environment: str
    account_id: str
    region: str
    partition: str = "aws"

    @property
    def base(self) -> str:
        """``<prefix>-<environment>``, the start of every name."""
        return f"{self.prefix}-{self.environment}"

    def name(self, thing: str) -> str:
        """``<prefix>-<environment>-<thing>``."""
        return f"{self.base}-{thing}"

    def tool_role(self, tool: str) -> str:
        """Name of the IAM role of one catalog tool. IAM allows 64 characters."""
        return self.name(f"tool-{tool}")

    def bucket(self, purpose: str) -> str:
        """Globally unique bucket name. S3 allows 63 characters."""
        return f"{self.base}-{purpose}-{self.account_id}-{self.region}"

    def log_group(self, stream: str) -> str:
        """CloudWatch log group: ``/<prefix>/<environment>/<stream>``."""
        return f"/{self.prefix}/{self.environment}/{stream}"

    def key_alias(self, purpose: str) -> str:
        """KMS alias. Documents name keys by alias condition, since key ids are unknown until created."""
        return f"alias/{self.prefix}/{self.environment}/{purpose}"

    @property
    def registry(self) -> str:
        """Host of the account's own image registry."""
        suffix = ".cn" if self.partition == "aws-cn" else ""
        return f"{self.account_id}.dkr.ecr.{self.region}.amazonaws.com{suffix}"

    def repository(self, image: str) -> str:
        """Name of the repository of one image in that registry. ECR allows 256 characters."""
        return f"{self.base}/{image}"

    def arn(self, service: str, resource: str, *, region: str | None = None, account: str | None = None) -> str:
        """ARN in this environment's partition; pass ``region=""`` or ``account=""`` for global services and buckets."""
        region = self.region if region is None else region
        account = self.account_id if account is None else account
        return f"arn:{self.partition}:{service}:{region}:{account}:{resource}"

    def iam_arn(self, resource: str) -> str:
        """ARN of an IAM resource such as ``role/x`` or ``policy/x``."""
        return self.arn("iam", resource, region="")

    def aws_managed_policy_arn(self, path: str) -> str:
        """ARN of a policy that AWS manages, e.g. ``AmazonEKSWorkerNodePolicy``."""
        return self.arn("iam", f"policy/{path}", region="", account="aws")

    def bucket_arn(self, purpose: str) -> str:
        """ARN of this environment's bucket for `purpose`."""
        return self.arn("s3", self.bucket(purpose), region="", account="")

    def tags(self, thing: str = "", **extra: str) -> dict[str, str]:
        """Tags that every resource carries; `thing` also sets the Name tag."""
        tags = {f"{LABEL_DOMAIN}/environment": self.environment, f"{LABEL_DOMAIN}/managed-by": "pulumi"}
        if thing:
            tags["Name"] = self.name(thing)
        return tags | extra

    def labels(self, component: str, **extra: str) -> Mapping[str, str]:
        """Kubernetes recommended labels for one component of this environment."""
        return {
            "app.kubernetes.io/name": component,
            "app.kubernetes.io/part-of": self.prefix,
            "app.kubernetes.io/managed-by": "pulumi",
            f"{LABEL_DOMAIN}/environment": self.environment,
        } | extra
