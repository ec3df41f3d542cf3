"""CloudWatch Logs beyond moto: data protection policies, KMS association, class and deletion protection of log groups."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import PASS, Context, Record
from ringfence.local.aws_server.wire import ApiError, Reply


def _group(context: Context, identifier: str) -> Any:
    """moto's log group by name or ARN; raises ResourceNotFoundException."""
    from moto.logs.models import logs_backends

    name = identifier.split(":log-group:", 1)[-1].removesuffix(":*")
    found = logs_backends[context.account][context.region].groups.get(name)
    if found is None:
        raise ApiError("ResourceNotFoundException", "The specified log group does not exist.")
    return found


def _named_group(context: Context) -> Any:
    params = context.params
    identifier = params.get("logGroupName") or params.get("logGroupIdentifier") or params.get("resourceIdentifier")
    if not identifier:
        raise ApiError("InvalidParameterException", "logGroupName or resourceIdentifier must be given.")
    return _group(context, identifier)


def _settings(context: Context, name: str) -> Record:
    """What is recorded about a log group besides moto's own."""
    return context.records("logGroupSettings").setdefault((name,), Record({}))


def _create_log_group(context: Context) -> object:
    from moto.logs.models import logs_backends

    name = context.params["logGroupName"]
    if name not in logs_backends[context.account][context.region].groups:
        context.records("logGroupSettings").pop((name,), None)
        kept = {k: v for k, v in context.params.items() if k in ("logGroupClass", "deletionProtectionEnabled")}
        if kept:
            _settings(context, name).attributes.update(kept)
    return PASS


def _delete_log_group(context: Context) -> object:
    name = context.params["logGroupName"]
    found = context.records("logGroupSettings").get((name,))
    if found and found.attributes.get("deletionProtectionEnabled"):
        raise ApiError("ValidationException", f"{name} has deletion protection enabled; disable it first.")
    context.records("logGroupSettings").pop((name,), None)
    context.records("dataProtectionPolicy").pop((name,), None)
    filters = _metric_filters(context)
    filters.metric_filters = [f for f in filters.metric_filters if f["logGroupName"] != name]
    return PASS


def _metric_filters(context: Context) -> Any:
    from moto.logs.models import logs_backends

    return logs_backends[context.account][context.region].filters


def _replace_filter(context: Context, reply: Reply) -> Reply:
    """A metric filter's name is unique in its group: the last one counts. moto keeps them all."""
    filters = _metric_filters(context)
    filters.metric_filters = list({(f["logGroupName"], f["filterName"]): f for f in filters.metric_filters}.values())
    return reply


def _put_policy(context: Context) -> dict[str, Any]:
    group = _named_group(context)
    if context.records("logGroupSettings").get((group.name,), Record({})).attributes.get("logGroupClass") not in (
        None,
        "STANDARD",
    ):
        raise ApiError("InvalidParameterException", "Data protection is only for log groups of class STANDARD.")
    text = context.params["policyDocument"]
    _check_policy(text)
    policy = {
        "logGroupIdentifier": context.params["logGroupIdentifier"],
        "policyDocument": text,
        "lastUpdatedTime": int(time.time() * 1000),
    }
    context.records("dataProtectionPolicy")[(group.name,)] = Record(policy)
    return policy


def _check_policy(text: str) -> None:
    """The form of a data protection policy. Source: the API reference of PutDataProtectionPolicy."""
    try:
        document = json.loads(text)
        statements = document["Statement"]
        operations = [statement["Operation"] for statement in statements]
        identifiers = [identifier for statement in statements for identifier in statement["DataIdentifier"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(
            "InvalidParameterException", f"policyDocument: not a data protection policy ({error})."
        ) from None
    complete = (
        len(operations) == 2 and any("Audit" in o for o in operations) and any("Deidentify" in o for o in operations)
    )
    if not complete or not identifiers or len(text) > 30_720:
        raise ApiError(
            "InvalidParameterException",
            "policyDocument: two statements are expected, one with Audit and one with Deidentify, each with at least one "
            "DataIdentifier, in at most 30,720 characters.",
        )


def _get_policy(context: Context) -> dict[str, Any]:
    found = context.records("dataProtectionPolicy").get((_named_group(context).name,))
    if found is None:
        raise ApiError("ResourceNotFoundException", "The log group has no data protection policy.")
    return found.attributes


def _delete_policy(context: Context) -> dict[str, Any]:
    if context.records("dataProtectionPolicy").pop((_named_group(context).name,), None) is None:
        raise ApiError("ResourceNotFoundException", "The log group has no data protection policy.")
    return {}


def _associate_key(context: Context) -> dict[str, Any]:
    _named_group(context).kms_key_id = context.params["kmsKeyId"]
    return {}


def _disassociate_key(context: Context) -> dict[str, Any]:
    _named_group(context).kms_key_id = None
    return {}


def _protect(context: Context) -> dict[str, Any]:
    enabled = context.params["deletionProtectionEnabled"]
    _settings(context, _named_group(context).name).attributes["deletionProtectionEnabled"] = enabled
    return {}


def _describe_groups(context: Context, reply: Reply) -> Reply:
    """Adds to moto's list what is recorded about each group."""
    answer = json.loads(reply.body)
    for group in answer["logGroups"]:
        key = (group["logGroupName"],)
        group.setdefault("logGroupClass", "STANDARD")
        group.setdefault("logGroupArn", group["arn"].removesuffix(":*"))
        if key in context.records("logGroupSettings"):
            group.update(context.records("logGroupSettings")[key].attributes)
        if key in context.records("dataProtectionPolicy"):
            group["dataProtectionStatus"] = "ACTIVATED"
    return replace(reply, body=json.dumps(answer).encode())


TABLE: Table = {
    "CreateLogGroup": _create_log_group,
    "DeleteLogGroup": _delete_log_group,
    "PutDataProtectionPolicy": _put_policy,
    "GetDataProtectionPolicy": _get_policy,
    "DeleteDataProtectionPolicy": _delete_policy,
    "AssociateKmsKey": _associate_key,
    "DisassociateKmsKey": _disassociate_key,
    "PutLogGroupDeletionProtection": _protect,
}
AMENDMENTS = {"DescribeLogGroups": _describe_groups, "PutMetricFilter": _replace_filter}
