"""Trust of EKS Pod Identity: one Kubernetes service account of one cluster, and nothing else, becomes a role."""

from __future__ import annotations

from components.iam_documents import document, statement
from ringfence.names import Names


def cluster_arn(names: Names, cluster_name: str) -> str:
    """ARN of an EKS cluster of this account and region."""
    return names.arn("eks", f"cluster/{cluster_name}")


def pod_identity_trust(names: Names, cluster_name: str, namespace: str, service_account: str) -> str:
    """The trust policy of a role for `namespace`/`service_account` of the cluster.

    EKS sets the tags itself from the pod's token; without the conditions any association of any cluster in the account
    could hand out the role (docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html).
    """
    return document(
        statement(
            "Allow",
            ["sts:AssumeRole", "sts:TagSession"],
            None,
            {
                "StringEquals": {
                    "aws:SourceAccount": names.account_id,
                    "aws:RequestTag/kubernetes-namespace": namespace,
                    "aws:RequestTag/kubernetes-service-account": service_account,
                },
                "ArnEquals": {"aws:SourceArn": cluster_arn(names, cluster_name)},
            },
            principals={"Service": "pods.eks.amazonaws.com"},
        )
    )
