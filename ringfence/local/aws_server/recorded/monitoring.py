"""CloudWatch beyond moto: composite alarms and anomaly detectors."""

from __future__ import annotations

import json
from typing import Any

from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import Context, Record, new_uuid
from ringfence.local.aws_server.wire import ApiError

_SUPPRESSION = ("ActionsSuppressor", "ActionsSuppressorWaitPeriod", "ActionsSuppressorExtensionPeriod")


def _put_composite_alarm(context: Context) -> dict[str, Any]:
    """moto keeps and describes composite alarms, but has no call that makes one."""
    from moto.cloudwatch.models import cloudwatch_backends

    params = context.params
    alarm = cloudwatch_backends[context.account][context.region].put_metric_alarm(
        name=params["AlarmName"],
        namespace="",
        metric_name="",
        comparison_operator="",
        evaluation_periods=0,
        period=0,
        threshold=0.0,
        statistic="",
        description=params.get("AlarmDescription", ""),
        dimensions=[],
        alarm_actions=params.get("AlarmActions", []),
        ok_actions=params.get("OKActions", []),
        insufficient_data_actions=params.get("InsufficientDataActions", []),
        actions_enabled=params.get("ActionsEnabled", True),
        rule=params["AlarmRule"],
        tags=params.get("Tags"),
    )
    alarm.alarm_rule = params["AlarmRule"]
    for member in _SUPPRESSION:
        setattr(alarm, member, params.get(member))
    return {}


def _identity(params: dict[str, Any]) -> tuple[str, ...]:
    """What makes an anomaly detector unique: its metric, or its metric math."""
    if "MetricMathAnomalyDetector" in params:
        return ("math", json.dumps(params["MetricMathAnomalyDetector"], sort_keys=True))
    metric = params.get("SingleMetricAnomalyDetector") or params
    missing = [name for name in ("Namespace", "MetricName", "Stat") if not metric.get(name)]
    if missing:
        raise ApiError("MissingRequiredParameterException", f"{', '.join(missing)} must be given.")
    dimensions = sorted((d["Name"], d["Value"]) for d in metric.get("Dimensions", []))
    return ("metric", metric["Namespace"], metric["MetricName"], metric["Stat"], json.dumps(dimensions))


def _put_detector(context: Context) -> dict[str, Any]:
    params = context.params
    key = _identity(params)
    records = context.records("anomalyDetector")
    old = records.get(key)
    identifier = old.attributes["AnomalyDetectorId"] if old else new_uuid()
    shown = dict(params)
    if key[0] == "metric":
        metric = params.get("SingleMetricAnomalyDetector") or params
        flat = {name: metric[name] for name in ("Namespace", "MetricName", "Dimensions", "Stat") if name in metric}
        shown |= flat | {"SingleMetricAnomalyDetector": {"AccountId": context.account, **flat}}
    records[key] = Record({**shown, "AnomalyDetectorId": identifier, "StateValue": "PENDING_TRAINING"})
    return {"AnomalyDetectorId": identifier}


def _describe_detectors(context: Context) -> dict[str, Any]:
    params = context.params
    found = [record.attributes for record in context.records("anomalyDetector").values()]
    for member in ("Namespace", "MetricName", "Dimensions"):
        if member in params:
            found = [detector for detector in found if detector.get(member) == params[member]]
    if "AnomalyDetectorIds" in params:
        found = [detector for detector in found if detector["AnomalyDetectorId"] in params["AnomalyDetectorIds"]]
    return {"AnomalyDetectors": found}


def _delete_detector(context: Context) -> dict[str, Any]:
    records = context.records("anomalyDetector")
    wanted = context.params.get("AnomalyDetectorId")
    if wanted:
        key = next((key for key, record in records.items() if record.attributes["AnomalyDetectorId"] == wanted), ())
    else:
        key = _identity(context.params)
    if records.pop(key, None) is None:
        raise ApiError("ResourceNotFoundException", "No such anomaly detector.")
    return {}


TABLE: Table = {
    "PutCompositeAlarm": _put_composite_alarm,
    "PutAnomalyDetector": _put_detector,
    "DescribeAnomalyDetectors": _describe_detectors,
    "DeleteAnomalyDetector": _delete_detector,
}
