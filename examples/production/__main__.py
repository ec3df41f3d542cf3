"""Production, with something of one's own beside it: an alarm on the environment's topic."""

from pathlib import Path

import pulumi
import pulumi_aws as aws

from ringfence.catalog import load as load_catalog
from ringfence.settings import load as load_settings
from stacks.environment import Environment

settings = load_settings(pulumi.runtime.config.CONFIG.get(), pulumi.get_stack())
environment = Environment(settings, load_catalog(Path(__file__).parent / settings.catalog_path))
environment.export()

aws.cloudwatch.MetricAlarm(
    "denied-api-calls",
    name=environment.names.name("denied-api-calls"),
    alarm_description="AWS refused calls of this account more often than usual",
    namespace="CloudTrailMetrics",
    metric_name="AccessDenied",
    statistic="Sum",
    period=300,
    evaluation_periods=1,
    threshold=25,
    comparison_operator="GreaterThanThreshold",
    treat_missing_data="notBreaching",
    alarm_actions=[environment.budget.topic_arn],
    tags=environment.names.tags("denied-api-calls"),
    opts=pulumi.ResourceOptions(provider=environment.aws_provider),
)
