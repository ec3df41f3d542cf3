"""The monthly budget and its alert topic."""

from __future__ import annotations

from decimal import Decimal

import pytest

from components.budget import Budget, BudgetArgs, key_use, topic_policy
from components.encryption_key import key_policy
from ringfence.errors import InputError
from ringfence.iam.request import Principal

BUDGETS = Principal("Service", "budgets.amazonaws.com")
TOPIC = "arn:aws:sns:us-east-1:111122223333:ringfence-test-alerts"
OURS = {"aws:SourceAccount": "111122223333", "aws:SecureTransport": "true"}


def _made(record, names, preview=False, **args):
    defaults = {"monthly_limit_usd": Decimal("150"), "emails": ("ops@example.com",)}
    return record(lambda: Budget("budget", BudgetArgs(names, **(defaults | args))), preview=preview)


def test_people_are_told_at_50_80_and_100_percent_and_when_the_forecast_passes_the_limit(record, preview, names):
    recording = _made(record, names, preview)
    budget = recording.one("aws:budgets/budget:Budget")
    told = [(n["notificationType"], n["threshold"]) for n in budget["notifications"]]
    assert told == [("ACTUAL", 50), ("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100)]
    assert {n["thresholdType"] for n in budget["notifications"]} == {"PERCENTAGE"}
    assert (budget["limitAmount"], budget["limitUnit"], budget["timeUnit"]) == ("150", "USD", "MONTHLY")
    assert recording.one("aws:sns/topicSubscription:TopicSubscription")["endpoint"] == "ops@example.com"
    assert recording.unparented() == []


def test_every_notification_goes_to_the_encrypted_topic(record, names):
    recording = _made(record, names)
    topic = recording.one("aws:sns/topic:Topic")
    assert topic["kmsMasterKeyId"] == "arn:aws:mock:us-east-1:111122223333:budget-key"
    arns = {tuple(n["subscriberSnsTopicArns"]) for n in recording.one("aws:budgets/budget:Budget")["notifications"]}
    assert arns == {("arn:aws:mock:us-east-1:111122223333:budget-topic",)}


@pytest.mark.parametrize("service", ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"])
def test_alerts_of_this_account_reach_the_topic_and_its_key(resource_permits, names, service):
    sender = Principal("Service", service)
    assert resource_permits(topic_policy(names, TOPIC), sender, "sns:Publish", TOPIC, OURS)
    assert resource_permits(key_policy(names, key_use(names)), sender, "kms:GenerateDataKey", context=OURS)


def test_alerts_of_another_account_do_not(resource_permits, names):
    theirs = OURS | {"aws:SourceAccount": "444455556666"}
    assert not resource_permits(topic_policy(names, TOPIC), BUDGETS, "sns:Publish", TOPIC, theirs)
    assert not resource_permits(key_policy(names, key_use(names)), BUDGETS, "kms:Decrypt", context=theirs)


def test_nobody_publishes_in_plain_text(resource_permits, names):
    plain = OURS | {"aws:SecureTransport": "false"}
    assert not resource_permits(topic_policy(names, TOPIC), BUDGETS, "sns:Publish", TOPIC, plain)


def test_the_budget_waits_for_the_topics_policy(record, names):
    budget = _made(record, names).one("aws:budgets/budget:Budget")
    assert any("TopicPolicy::" in urn for urn in budget.options.depends_on)


def test_every_bad_input_is_named(record, names):
    with pytest.raises(InputError) as caught:
        _made(record, names, monthly_limit_usd=Decimal("0"), emails=("nobody", "ops@example.com"))
    assert [problem.key for problem in caught.value.problems] == ["monthly_limit_usd", "emails"]


def test_adding_an_address_adds_one_subscription(record, names):
    one = {r.urn for r in _made(record, names).resources}
    two = {r.urn for r in _made(record, names, emails=("a@example.com", "ops@example.com")).resources}
    assert one < two and len(two - one) == 1
