"""What an egress proxy's instance may do in AWS: fetch its own files, write its own log, say how it is, nothing else."""

from __future__ import annotations

from components.egress_user_data import LOG_STREAM, health_namespace
from components.iam_documents import document, statement
from ringfence.artifacts import ARTIFACTS
from ringfence.names import Names


def instance_trust() -> str:
    """EC2 instances only."""
    return document(statement("Allow", "sts:AssumeRole", None, principals={"Service": "ec2.amazonaws.com"}))


def instance_permissions(names: Names) -> str:
    """Read Envoy and the configuration in the artifact bucket; put decisions into the proxy's log group, and its health into
    a namespace of its own: PutMetricData knows no resources
    (docs.aws.amazon.com/service-authorization/latest/reference/list_amazoncloudwatch.html)."""
    bucket = names.bucket_arn(ARTIFACTS)
    group = names.arn("logs", f"log-group:{names.log_group(LOG_STREAM)}")
    return document(
        statement("Allow", "s3:GetObject", [f"{bucket}/egress/*", f"{bucket}/envoy/*"], sid="FetchProxyAndRules"),
        statement(
            "Allow", ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"], [group, f"{group}:*"],
            sid="WriteDecisions",
        ),
        statement(
            "Allow", "cloudwatch:PutMetricData", "*",
            {"StringEquals": {"cloudwatch:namespace": health_namespace(names)}}, sid="SayHowItIs",
        ),
    )  # fmt: skip
