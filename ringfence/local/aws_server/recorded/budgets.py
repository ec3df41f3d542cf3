"""AWS Budgets beyond moto: changing a budget, the subscribers of its notifications, and tags."""

from __future__ import annotations

import re
from typing import Any

from ringfence.local.aws_server.recorded.kinds import Table, tag_map
from ringfence.local.aws_server.recorded.store import PASS, Context, Record
from ringfence.local.aws_server.wire import ApiError

_ARN = re.compile(r"arn:[^:]+:budgets::\d{12}:budget/(?P<name>.+)")


def _budget(context: Context, name: str) -> Any:
    """moto's budget; raises NotFoundException."""
    from moto.budgets.models import budgets_backends

    found = budgets_backends[context.account][context.partition].budgets[context.account].get(name)
    if found is None:
        raise ApiError("NotFoundException", f"Unable to get budget: {name} - the budget doesn't exist.")
    return found


def _notification(context: Context) -> Any:
    wanted = _plain(context.params["Notification"])
    for found in _budget(context, context.params["BudgetName"]).notifications:
        if _plain(found.details) == wanted:
            return found
    raise ApiError("NotFoundException", f"No such notification of {context.params['BudgetName']}.")


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    """A notification without its state, with the default unit of its threshold."""
    return {"ThresholdType": "PERCENTAGE", **{name: v for name, v in details.items() if name != "NotificationState"}}


def _update_budget(context: Context) -> dict[str, Any]:
    new = context.params["NewBudget"]
    found = _budget(context, new["BudgetName"])
    if "BudgetLimit" not in new and "PlannedBudgetLimits" not in new:
        raise ApiError(
            "InvalidParameterException", "Unable to update budget: BudgetLimit or PlannedBudgetLimits is needed."
        )
    kept = {name: found.budget[name] for name in ("TimePeriod", "CalculatedSpend") if name in found.budget}
    found.budget = {**kept, **new}
    return {}


def _update_notification(context: Context) -> dict[str, Any]:
    budget = _budget(context, context.params["BudgetName"])
    wanted = _plain(context.params["OldNotification"])
    for found in budget.notifications:
        if _plain(found.details) == wanted:
            found.details = context.params["NewNotification"]
            return {}
    raise ApiError("NotFoundException", "No such notification.")


def _describe_subscribers(context: Context) -> dict[str, Any]:
    return {"Subscribers": _notification(context).subscribers}


def _create_subscriber(context: Context) -> dict[str, Any]:
    found = _notification(context)
    if context.params["Subscriber"] in found.subscribers:
        raise ApiError("DuplicateRecordException", "The subscriber is there already.")
    found.subscribers = [*found.subscribers, context.params["Subscriber"]]
    return {}


def _delete_subscriber(context: Context) -> dict[str, Any]:
    found = _notification(context)
    if context.params["Subscriber"] not in found.subscribers:
        raise ApiError("NotFoundException", "No such subscriber.")
    found.subscribers = [s for s in found.subscribers if s != context.params["Subscriber"]]
    return {}


def _update_subscriber(context: Context) -> dict[str, Any]:
    found = _notification(context)
    old, new = context.params["OldSubscriber"], context.params["NewSubscriber"]
    if old not in found.subscribers:
        raise ApiError("NotFoundException", "No such subscriber.")
    found.subscribers = [new if s == old else s for s in found.subscribers]
    return {}


def _create_budget(context: Context) -> object:
    from moto.budgets.models import budgets_backends

    name = context.params["Budget"]["BudgetName"]
    if name not in budgets_backends[context.account][context.partition].budgets[context.account]:
        context.records("budgetTags")[(name,)] = Record({}, tag_map(context.params.get("ResourceTags")))
    return PASS


def _delete_budget(context: Context) -> object:
    context.records("budgetTags").pop((context.params["BudgetName"],), None)
    return PASS


def _tags(context: Context) -> dict[str, str]:
    match = _ARN.fullmatch(context.params["ResourceARN"])
    if match is None:
        raise ApiError("NotFoundException", "ResourceARN is not a budget's ARN.")
    _budget(context, match["name"])
    return context.records("budgetTags").setdefault((match["name"],), Record({})).tags


def _tag(context: Context) -> dict[str, Any]:
    _tags(context).update(tag_map(context.params["ResourceTags"]))
    return {}


def _untag(context: Context) -> dict[str, Any]:
    tags = _tags(context)
    for key in context.params["ResourceTagKeys"]:
        tags.pop(key, None)
    return {}


def _list_tags(context: Context) -> dict[str, Any]:
    return {"ResourceTags": [{"Key": key, "Value": value} for key, value in _tags(context).items()]}


TABLE: Table = {
    "CreateBudget": _create_budget,
    "UpdateBudget": _update_budget,
    "DeleteBudget": _delete_budget,
    "UpdateNotification": _update_notification,
    "DescribeSubscribersForNotification": _describe_subscribers,
    "CreateSubscriber": _create_subscriber,
    "DeleteSubscriber": _delete_subscriber,
    "UpdateSubscriber": _update_subscriber,
    "TagResource": _tag,
    "UntagResource": _untag,
    "ListTagsForResource": _list_tags,
}
