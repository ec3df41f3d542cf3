"""What watches the account: trails, budgets, access analysers."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values, dig
from ringfence.local.providers.aws.schema import (
    Props,
    boolean,
    number,
    record_set,
    string,
    string_set,
    tags,
)

_SELECTOR: Props = {
    "name": string(),
    "fieldSelectors": record_set(
        {
            "field": string(required=True),
            "equals": string_set(),
            "notEquals": string_set(),
            "startsWiths": string_set(api="StartsWith"),
            "notStartsWiths": string_set(api="NotStartsWith"),
            "endsWiths": string_set(api="EndsWith"),
            "notEndsWiths": string_set(api="NotEndsWith"),
        },
        required=True,
    ),
}


class Trail(Resource):
    """A CloudTrail trail. Its id is its ARN, as in the official provider since version 6."""

    pulumi_type = "aws:cloudtrail/trail:Trail"
    service = "cloudtrail"
    props = {
        "name": string(replace=True),
        "s3BucketName": string(required=True),
        "s3KeyPrefix": string(),
        "snsTopicName": string(),
        "kmsKeyId": string(),
        "cloudWatchLogsGroupArn": string(api="CloudWatchLogsLogGroupArn"),
        "cloudWatchLogsRoleArn": string(),
        "includeGlobalServiceEvents": boolean(default=True),
        "isMultiRegionTrail": boolean(default=False),
        "isOrganizationTrail": boolean(default=False),
        "enableLogFileValidation": boolean(default=False),
        "enableLogging": boolean(api=None, default=True),
        "advancedEventSelectors": record_set(_SELECTOR, api=None),
        "tags": tags(),
    }
    outputs = {"arn": "TrailARN", "homeRegion": "HomeRegion"}
    known = {"arn": "arn:{partition}:cloudtrail:{region}:{account}:trail/{name}", "homeRegion": "{region}"}
    auto_name = AutoName(limit=128)
    id_path = "TrailARN"
    create_operation = "create_trail"
    read_operation = "get_trail"
    read_member = "Trail"
    delete_operation = "delete_trail"
    tagging = Tagging(
        create="TagsList",
        tag="add_tags",
        untag="remove_tags",
        parameter="ResourceId",
        tags_parameter="TagsList",
        keys_parameter="TagsList",
        resource="arn",
    )

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        return {"Name": id_.rpartition("/")[2]}

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        if state.get("advancedEventSelectors"):
            self._select(cloud, id_, state["advancedEventSelectors"])
        if state.get("enableLogging", True):
            cloud.call("cloudtrail", "start_logging", Name=id_)

    def _select(self, cloud: Cloud, id_: str, selectors: list[Values]) -> None:
        encoded = [self.encode(_SELECTOR, selector) for selector in selectors]
        cloud.call("cloudtrail", "put_event_selectors", TrailName=id_, AdvancedEventSelectors=encoded)

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        live = super().read(cloud, id_, state)
        if live is None:
            return None
        live["enableLogging"] = cloud.call("cloudtrail", "get_trail_status", Name=id_)["IsLogging"]
        answer = cloud.call("cloudtrail", "get_event_selectors", TrailName=id_)
        if answer.get("AdvancedEventSelectors"):
            live["advancedEventSelectors"] = [
                self.decode(_SELECTOR, selector) for selector in answer["AdvancedEventSelectors"]
            ]
        return live

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if "LogFileValidationEnabled" in described:
            state["enableLogFileValidation"] = described["LogFileValidationEnabled"]
        return state

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        answer = cloud.call("cloudtrail", "list_tags", ResourceIdList=[id_])
        return Tagging().decode(dig(answer, "ResourceTagList.0.TagsList"))

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        parameters = self.request(new)
        # What isn't sent stays as it was: emptying takes an empty text.
        for name in ("s3KeyPrefix", "snsTopicName", "kmsKeyId", "cloudWatchLogsGroupArn", "cloudWatchLogsRoleArn"):
            if name in changed and not new.get(name):
                parameters[str(self.props[name].member(name, self.case))] = ""
        if changed - {"enableLogging", "advancedEventSelectors"}:
            cloud.call("cloudtrail", "update_trail", **(parameters | {"Name": id_}))
        if "advancedEventSelectors" in changed:
            self._select(cloud, id_, new.get("advancedEventSelectors") or [])
        if "enableLogging" in changed:
            cloud.call("cloudtrail", "start_logging" if new["enableLogging"] else "stop_logging", Name=id_)


_NOTIFICATION: Props = {
    "comparisonOperator": string(required=True),
    "notificationType": string(required=True),
    "threshold": number(required=True),
    "thresholdType": string(required=True),
    "subscriberEmailAddresses": string_set(api=None),
    "subscriberSnsTopicArns": string_set(api=None),
}
_SUBSCRIBERS = {"subscriberEmailAddresses": "EMAIL", "subscriberSnsTopicArns": "SNS"}


class Budget(Resource):
    """A budget with its notifications. Its id is ``<account>:<name>``."""

    pulumi_type = "aws:budgets/budget:Budget"
    service = "budgets"
    props = {
        "name": string(api="BudgetName", replace=True),
        "budgetType": string(required=True, replace=True),
        "timeUnit": string(required=True),
        "limitAmount": string(api=None, computed=True),
        "limitUnit": string(api=None, computed=True),
        "costFilters": record_set({"name": string(required=True), "values": string_set(required=True)}, api=None),
        "notifications": record_set(_NOTIFICATION, api=None),
        "tags": tags(),
    }
    known = {"arn": "arn:{partition}:budgets::{account}:budget/{name}"}
    auto_name = AutoName(limit=100)
    create_operation = "create_budget"
    tagging = Tagging(
        create="ResourceTags",
        parameter="ResourceARN",
        tags_parameter="ResourceTags",
        keys_parameter="ResourceTagKeys",
        listing=("list_tags_for_resource", "ResourceARN", "ResourceTags"),
    )

    def _budget(self, inputs: Values) -> Values:
        budget = self.encode(self.props, inputs)
        if inputs.get("limitAmount"):
            budget["BudgetLimit"] = {"Amount": inputs["limitAmount"], "Unit": inputs.get("limitUnit", "USD")}
        if inputs.get("costFilters"):
            budget["CostFilters"] = {entry["name"]: entry["values"] for entry in inputs["costFilters"]}
        return budget

    def request(self, inputs: Values) -> Values:
        # The account is checked for its form only before the call fills in the real one.
        request: Values = {"AccountId": "0" * 12, "Budget": self._budget(inputs)}
        if inputs.get("notifications"):
            request["NotificationsWithSubscribers"] = [self._notification(one) for one in inputs["notifications"]]
        return request

    def _notification(self, notification: Values) -> Values:
        subscribers = [
            {"SubscriptionType": kind, "Address": address}
            for name, kind in _SUBSCRIBERS.items()
            for address in notification.get(name) or []
        ]
        return {"Notification": self.encode(_NOTIFICATION, notification), "Subscribers": subscribers}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        parameters = self.request(inputs) | {"AccountId": cloud.account}
        if inputs.get("tags"):
            parameters |= self.create_tags(inputs["tags"])
        cloud.call("budgets", "create_budget", **parameters)
        return f"{cloud.account}:{inputs['name']}", {}

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        account, _, name = id_.partition(":")
        return {"AccountId": account, "BudgetName": name}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        where = self.parameters(cloud, id_, state)
        budget = cloud.call("budgets", "describe_budget", **where)["Budget"]
        found = cloud.call("budgets", "describe_notifications_for_budget", **where).get("Notifications", [])
        return budget | {"Notifications": [self._shown(cloud, where, one) for one in found]}

    def _shown(self, cloud: Cloud, where: Values, notification: Values) -> Values:
        kept = {name: value for name, value in notification.items() if name != "NotificationState"}
        answer = cloud.call("budgets", "describe_subscribers_for_notification", **where, Notification=kept)
        shown = self.decode(_NOTIFICATION, kept)
        # AWS leaves the type out when it is the default.
        shown.setdefault("thresholdType", "PERCENTAGE")
        for name, kind in _SUBSCRIBERS.items():
            addresses = [one["Address"] for one in answer["Subscribers"] if one["SubscriptionType"] == kind]
            if addresses:
                shown[name] = addresses
        return shown

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        if limit := described.get("BudgetLimit"):
            state |= {"limitAmount": f"{float(limit['Amount']):g}", "limitUnit": limit["Unit"]}
        if filters := described.get("CostFilters"):
            state["costFilters"] = [{"name": name, "values": values} for name, values in filters.items()]
        if described.get("Notifications"):
            state["notifications"] = described["Notifications"]
        return state

    def normalise(self, inputs: Values) -> Values:
        amount = inputs.get("limitAmount")
        return inputs | {"limitAmount": f"{float(amount):g}"} if isinstance(amount, str) else inputs

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        where = self.parameters(cloud, id_, old)
        if changed - {"notifications"}:
            cloud.call("budgets", "update_budget", AccountId=where["AccountId"], NewBudget=self._budget(new))
        if "notifications" in changed:
            live = cloud.call("budgets", "describe_notifications_for_budget", **where).get("Notifications", [])
            for one in live:
                kept = {name: value for name, value in one.items() if name != "NotificationState"}
                cloud.call("budgets", "delete_notification", **where, Notification=kept)
            for one in new.get("notifications") or []:
                cloud.call("budgets", "create_notification", **where, **self._notification(one))

    delete_operation = "delete_budget"


class Analyzer(Resource):
    """An IAM Access Analyzer."""

    pulumi_type = "aws:accessanalyzer/analyzer:Analyzer"
    service = "accessanalyzer"
    case = "camel"
    props = {
        "analyzerName": string(required=True, replace=True),
        "type": string(replace=True, default="ACCOUNT"),
        "tags": tags(),
    }
    outputs = {"arn": "arn"}
    known = {"arn": "arn:{partition}:access-analyzer:{region}:{account}:analyzer/{analyzerName}"}
    id_property = "analyzerName"
    create_operation = "create_analyzer"
    read_operation = "get_analyzer"
    read_member = "analyzer"
    delete_operation = "delete_analyzer"
    keys = {"analyzerName": "id"}
    tagging = Tagging(
        create="tags",
        style="map",
        read="tags",
        parameter="resourceArn",
        tags_parameter="tags",
        keys_parameter="tagKeys",
    )

    def state_of(self, described: Values) -> Values:
        state = super().state_of(described)
        return state | ({"analyzerName": described["name"]} if "name" in described else {})


RESOURCES = (Trail, Budget, Analyzer)
