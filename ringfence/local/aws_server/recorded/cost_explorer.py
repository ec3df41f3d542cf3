"""Cost Explorer's anomaly monitors and subscriptions."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Kind, Table, change, operations, tag_map, tagging
from ringfence.local.aws_server.recorded.store import Context, Handler, iso_now, new_uuid
from ringfence.local.aws_server.wire import ApiError


def _built(_context: Context, given: dict[str, Any]) -> dict[str, Any]:
    return given


MONITOR = Kind(
    service="ce",
    name="anomalyMonitor",
    identity={"MonitorArn": "MonitorArn"},
    arn="MonitorArn",
    delete="DeleteAnomalyMonitor",
    tags="",
    build=_built,
    stamps=("CreationDate", "LastUpdatedDate"),
    clock=iso_now,
    missing="UnknownMonitorException",
)
SUBSCRIPTION = Kind(
    service="ce",
    name="anomalySubscription",
    identity={"SubscriptionArn": "SubscriptionArn"},
    arn="SubscriptionArn",
    delete="DeleteAnomalySubscription",
    tags="",
    build=_built,
    missing="UnknownSubscriptionException",
)


def _create_monitor(context: Context) -> dict[str, Any]:
    arn = f"arn:{context.partition}:ce::{context.account}:anomalymonitor/{new_uuid()}"
    given = {**context.params["AnomalyMonitor"], "MonitorArn": arn, "DimensionalValueCount": 0}
    MONITOR.add(context, given, tag_map(context.params.get("ResourceTags")))
    return {"MonitorArn": arn}


def _create_subscription(context: Context) -> dict[str, Any]:
    given = context.params["AnomalySubscription"]
    _check_monitors(context, given)
    if "Threshold" not in given and "ThresholdExpression" not in given:
        raise ApiError("ValidationException", "ThresholdExpression must be given.")
    arn = f"arn:{context.partition}:ce::{context.account}:anomalysubscription/{new_uuid()}"
    made = {**given, "SubscriptionArn": arn, "AccountId": context.account}
    SUBSCRIPTION.add(context, made, tag_map(context.params.get("ResourceTags")))
    return {"SubscriptionArn": arn}


def _check_monitors(context: Context, given: dict[str, Any]) -> None:
    known = {record.attributes["MonitorArn"] for record in context.records(MONITOR.name).values()}
    missing = [arn for arn in given.get("MonitorArnList", []) if arn not in known]
    if missing:
        raise ApiError("UnknownMonitorException", f"No such monitor: {', '.join(missing)}.")


def _listing(kind: Kind, arns: str, arn: str, output: str) -> Handler:
    """Get…s: all, or those whose ARNs are given; an unknown ARN is an error."""

    def listing(context: Context) -> dict[str, Any]:
        found = {r.attributes[arn]: r.attributes for r in context.records(kind.name).values()}
        wanted = context.params.get(arns) or list(found)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise ApiError(kind.missing, f"No such {kind.name}: {', '.join(missing)}.")
        shown = [found[name] for name in wanted]
        monitor = context.params.get("MonitorArn")
        return {output: [item for item in shown if not monitor or monitor in item.get("MonitorArnList", [monitor])]}

    return listing


def _update(kind: Kind, arn: str) -> Handler:
    def update(context: Context) -> dict[str, Any]:
        _check_monitors(context, context.params)
        _, record = kind.find(context)
        change(kind, record, context.params)
        return {arn: record.attributes[arn]}

    return update


TABLE: Table = {
    **operations(MONITOR),
    **operations(SUBSCRIPTION),
    **tagging((MONITOR, SUBSCRIPTION), "ResourceArn", "ResourceTags", "ResourceTagKeys"),
    "CreateAnomalyMonitor": _create_monitor,
    "GetAnomalyMonitors": _listing(MONITOR, "MonitorArnList", "MonitorArn", "AnomalyMonitors"),
    "UpdateAnomalyMonitor": _update(MONITOR, "MonitorArn"),
    "CreateAnomalySubscription": _create_subscription,
    "GetAnomalySubscriptions": _listing(SUBSCRIPTION, "SubscriptionArnList", "SubscriptionArn", "AnomalySubscriptions"),
    "UpdateAnomalySubscription": _update(SUBSCRIPTION, "SubscriptionArn"),
}
