"""X-Ray groups, sampling rules and the encryption setting. Traces aren't accepted: there is nothing that would show them."""

from __future__ import annotations

from typing import Any

from ringfence.local.aws_server.recorded.kinds import Kind, Table, operations, tag_map, tagging
from ringfence.local.aws_server.recorded.store import Context, Record, hex_id, now
from ringfence.local.aws_server.wire import ApiError


def _build_group(context: Context, given: dict[str, Any]) -> dict[str, Any]:
    arn = context.arn("xray", f"group/{given['GroupName']}/{hex_id(32).upper()}")
    defaults = {
        "FilterExpression": "",
        "InsightsConfiguration": {"InsightsEnabled": False, "NotificationsEnabled": False},
    }
    return {**defaults, **given, "GroupARN": arn}


def _built(_context: Context, given: dict[str, Any]) -> dict[str, Any]:
    return given


GROUP = Kind(
    service="xray",
    name="group",
    identity={"GroupName": "GroupName", "GroupARN": "GroupARN"},
    key=("GroupName",),
    arn="GroupARN",
    create="CreateGroup",
    describe="GetGroup",
    list="GetGroups",
    update="UpdateGroup",
    delete="DeleteGroup",
    answer="Group",
    listing="Groups",
    tags="Tags",
    build=_build_group,
    missing="InvalidRequestException",
    exists="InvalidRequestException",
)
RULE = Kind(
    service="xray",
    name="samplingRule",
    identity={"RuleName": "RuleName", "RuleARN": "RuleARN"},
    key=("RuleName",),
    arn="RuleARN",
    tags="Tags",
    build=_built,
    missing="InvalidRequestException",
    exists="InvalidRequestException",
)


def _rule_record(record: Record) -> dict[str, Any]:
    attributes = record.attributes
    return {"SamplingRule": attributes, "CreatedAt": attributes["CreatedAt"], "ModifiedAt": attributes["ModifiedAt"]}


def _create_rule(context: Context) -> dict[str, Any]:
    given = context.params["SamplingRule"]
    if not given.get("RuleName"):
        raise ApiError("InvalidRequestException", "SamplingRule.RuleName must be given.")
    arn = context.arn("xray", f"sampling-rule/{given['RuleName']}")
    made = {"Attributes": {}, **given, "RuleARN": arn, "CreatedAt": now(), "ModifiedAt": now()}
    return {"SamplingRuleRecord": _rule_record(RULE.add(context, made, tag_map(context.params.get("Tags"))))}


def _find_rule(context: Context, named: dict[str, Any]) -> tuple[str, ...]:
    for key, record in context.records(RULE.name).items():
        if record.attributes["RuleName"] == named.get("RuleName") or record.attributes["RuleARN"] == named.get(
            "RuleARN"
        ):
            return key
    raise ApiError("InvalidRequestException", "No such sampling rule.")


def _update_rule(context: Context) -> dict[str, Any]:
    given = context.params["SamplingRuleUpdate"]
    record = context.records(RULE.name)[_find_rule(context, given)]
    record.attributes.update({name: value for name, value in given.items() if name not in ("RuleName", "RuleARN")})
    record.attributes["ModifiedAt"] = now()
    return {"SamplingRuleRecord": _rule_record(record)}


def _delete_rule(context: Context) -> dict[str, Any]:
    return {"SamplingRuleRecord": _rule_record(context.records(RULE.name).pop(_find_rule(context, context.params)))}


def _list_rules(context: Context) -> dict[str, Any]:
    return {"SamplingRuleRecords": [_rule_record(record) for record in context.records(RULE.name).values()]}


def _encryption(context: Context) -> dict[str, Any]:
    settings = context.records("encryptionConfig")
    if "Type" in context.params:
        if context.params["Type"] == "KMS" and not context.params.get("KeyId"):
            raise ApiError("InvalidRequestException", "KeyId must be given with the type KMS.")
        settings.clear()
        if context.params["Type"] == "KMS":
            settings[("config",)] = Record({"Status": "ACTIVE", **context.params})
    found = settings.get(("config",), Record({"Status": "ACTIVE", "Type": "NONE"}))
    return {"EncryptionConfig": found.attributes}


TABLE: Table = {
    **operations(GROUP),
    **tagging((GROUP, RULE), "ResourceARN", "Tags", "TagKeys"),
    "CreateSamplingRule": _create_rule,
    "GetSamplingRules": _list_rules,
    "UpdateSamplingRule": _update_rule,
    "DeleteSamplingRule": _delete_rule,
    "GetEncryptionConfig": _encryption,
    "PutEncryptionConfig": _encryption,
}
