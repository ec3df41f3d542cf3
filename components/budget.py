"""A monthly AWS budget that tells people before the money is gone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

import pulumi
import pulumi_aws as aws

from components.encryption_key import encryption_key
from components.iam_documents import Statement, document, statement
from ringfence.errors import InputError, Problem
from ringfence.names import Names

_ADDRESS = re.compile(r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
# AWS Budgets evaluates about three times a day, so these are warnings; the hard stop is the model gateway's cap.
ACTUAL_THRESHOLDS_PERCENT = (50, 80, 100)
FORECAST_THRESHOLD_PERCENT = 100
# Who may send to the topic or be made to use its key: budgets and CloudWatch alarms of this account.
_SENDERS = ("budgets.amazonaws.com", "cloudwatch.amazonaws.com")


@dataclass(frozen=True)
class BudgetArgs:
    """monthly_limit_usd: US dollars a month, more than 0. emails: subscribers of the alert topic; each must confirm."""

    names: Names
    monthly_limit_usd: Decimal
    emails: tuple[str, ...] = ()


def _check(args: BudgetArgs) -> None:
    problems = []
    if not args.monthly_limit_usd > 0:
        message = f"is {args.monthly_limit_usd}"
        problems.append(Problem("budget", "monthly_limit_usd", message, "a number of US dollars above 0"))
    problems += [
        Problem("budget", "emails", f"{address!r} is not an e-mail address", "write name@example.com")
        for address in args.emails
        if not _ADDRESS.match(address)
    ]
    if problems:
        raise InputError(problems)


def _from_this_account(names: Names) -> dict[str, dict[str, str]]:
    return {"StringEquals": {"aws:SourceAccount": names.account_id}}


def key_use(names: Names) -> Statement:
    """SNS needs the sender, not itself, to be allowed the topic's key
    (docs.aws.amazon.com/sns/latest/dg/sns-key-management.html)."""
    return statement(
        "Allow",
        ["kms:Decrypt", "kms:GenerateDataKey*"],
        "*",
        _from_this_account(names),
        {"Service": _SENDERS},
        "SendersEncrypt",
    )


def topic_policy(names: Names, topic_arn: str) -> str:
    """AWS Budgets and CloudWatch alarms, acting for this account, may publish; nobody publishes in plain text."""
    return document(
        statement("Allow", "sns:Publish", topic_arn, _from_this_account(names), {"Service": _SENDERS}, "AlertsPublish"),
        statement("Deny", "sns:Publish", topic_arn, {"Bool": {"aws:SecureTransport": "false"}}, "*", "PlainText"),
    )


class Budget(pulumi.ComponentResource):
    """Warns at 50, 80 and 100 % of the month's limit, and when the forecast passes it.

    Makes: an encrypted SNS topic with a policy and a subscription per address; its KMS key and alias; the monthly
    budget with its notifications.
    Protects against: cost that nobody notices; alerts forged by another account (aws:SourceAccount).
    Trust zone: operator.

    Outputs: topic_arn (known at preview): alarms of the other components report there too.
    """

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Budget", name, None, opts)
        _check(args)
        names = args.names
        child = pulumi.ResourceOptions(parent=self)
        topic_name = names.name("alerts")
        self.topic_arn: str = names.arn("sns", topic_name)
        key = encryption_key(name, names, "alerts", "Encrypts alerts on their way through SNS", (key_use(names),), self)
        topic = aws.sns.Topic(
            f"{name}-topic", name=topic_name, kms_master_key_id=key.arn, tags=names.tags("alerts"), opts=child
        )
        policy = aws.sns.TopicPolicy(
            f"{name}-topic-policy", arn=topic.arn, policy=topic_policy(names, self.topic_arn), opts=child
        )
        for address in args.emails:
            aws.sns.TopicSubscription(
                f"{name}-{address}", topic=topic.arn, protocol="email", endpoint=address, opts=child
            )
        thresholds = [("ACTUAL", percent) for percent in ACTUAL_THRESHOLDS_PERCENT]
        thresholds.append(("FORECASTED", FORECAST_THRESHOLD_PERCENT))
        aws.budgets.Budget(
            f"{name}-month",
            name=names.name("month"),
            budget_type="COST",
            limit_amount=str(args.monthly_limit_usd),
            limit_unit="USD",
            time_unit="MONTHLY",
            notifications=[
                {
                    "notification_type": kind,
                    "comparison_operator": "GREATER_THAN",
                    "threshold": percent,
                    "threshold_type": "PERCENTAGE",
                    "subscriber_sns_topic_arns": [topic.arn],
                }
                for kind, percent in thresholds
            ],
            tags=names.tags("month"),
            # Budgets refuses a topic that it may not publish to.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        self.register_outputs({})
