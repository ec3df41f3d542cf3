"""SNS: topics, their policies and subscriptions."""

# ruff: noqa: RUF012 - class attributes declare a type and are never mutated

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.resource import AutoName, Resource, Tagging, Values
from ringfence.local.providers.aws.schema import Prop, Props, boolean, json_text, policy, string, tags


def attributes(props: Props, values: Values) -> dict[str, str]:
    """Properties as the service's attributes, which are all text."""
    shown = {}
    for name, prop in props.items():
        if prop.api and values.get(name) is not None:
            shown[prop.api] = _text(values[name])
    return shown


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def from_attributes(props: Props, shown: Mapping[str, str]) -> Values:
    """The properties that the attributes tell."""
    values: Values = {}
    for name, prop in props.items():
        if prop.api and shown.get(prop.api) not in (None, ""):
            values[name] = _value(prop, shown[prop.api])
    return values


def _value(prop: Prop, text: str) -> Any:
    if prop.kind == "boolean":
        return text.lower() == "true"
    return int(text) if prop.kind == "integer" else text


class Topic(Resource):
    """A topic. Its id is its ARN."""

    pulumi_type = "aws:sns/topic:Topic"
    service = "sns"
    props = {
        "name": string(api=None, replace=True),
        "displayName": string(api="DisplayName"),
        "kmsMasterKeyId": string(api="KmsMasterKeyId"),
        "policy": policy(api="Policy", computed=True),
        "deliveryPolicy": json_text(api="DeliveryPolicy"),
        "fifoTopic": boolean(api="FifoTopic", replace=True, default=False),
        "contentBasedDeduplication": boolean(api="ContentBasedDeduplication", default=False),
        "tracingConfig": string(api="TracingConfig", computed=True),
        "tags": tags(),
    }
    outputs = {"arn": "TopicArn", "owner": "Owner"}
    known = {"arn": "arn:{partition}:sns:{region}:{account}:{name}", "owner": "{account}"}
    auto_name = AutoName(limit=256)
    id_path = "TopicArn"
    create_operation = "create_topic"
    delete_operation = "delete_topic"
    keys = {"TopicArn": "id"}
    tagging = Tagging(listing=("list_tags_for_resource", "ResourceArn", "Tags"), resource="id")

    def request(self, inputs: Values) -> Values:
        # A topic that isn't FIFO must not say so.
        given = {name: value for name, value in inputs.items() if value is not False}
        found = attributes(self.props, given)
        return {"Name": inputs["name"], **({"Attributes": found} if found else {})}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        return cloud.call("sns", "get_topic_attributes", TopicArn=id_)["Attributes"]

    def state_of(self, described: Values) -> Values:
        state = from_attributes(self.props, described)
        if arn := described.get("TopicArn"):
            state |= {"arn": arn, "name": arn.rpartition(":")[2]}
        return state | ({"owner": described["Owner"]} if "Owner" in described else {})

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        for name in sorted(changed):
            value = _text(new[name]) if new.get(name) is not None else ""
            parameters = {"AttributeName": self.props[name].api, "AttributeValue": value}
            cloud.call("sns", "set_topic_attributes", TopicArn=id_, **parameters)


class TopicPolicy(Resource):
    """A topic's policy. Deleting puts the default one back, which lets the owner's account use the topic."""

    pulumi_type = "aws:sns/topicPolicy:TopicPolicy"
    service = "sns"
    props = {"arn": string(api="TopicArn", required=True, replace=True), "policy": policy(required=True)}
    known = {"owner": "{account}"}
    id_property = "arn"

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        self._set(cloud, inputs["arn"], inputs["policy"])
        return inputs["arn"], {}

    @staticmethod
    def _set(cloud: Cloud, arn: str, document: str) -> None:
        cloud.call("sns", "set_topic_attributes", TopicArn=arn, AttributeName="Policy", AttributeValue=document)

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        return cloud.call("sns", "get_topic_attributes", TopicArn=id_)["Attributes"]

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        self._set(cloud, id_, new["policy"])

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        actions = ("Subscribe", "SetTopicAttributes", "RemovePermission", "Publish", "ListSubscriptionsByTopic")
        actions += ("GetTopicAttributes", "DeleteTopic", "AddPermission")
        listed = ",".join(f'"SNS:{action}"' for action in actions)
        self._set(
            cloud,
            id_,
            '{"Version":"2008-10-17","Id":"__default_policy_ID","Statement":[{"Sid":"__default_statement_ID",'
            f'"Effect":"Allow","Principal":{{"AWS":"*"}},"Action":[{listed}],"Resource":"{id_}",'
            f'"Condition":{{"StringEquals":{{"AWS:SourceOwner":"{cloud.account}"}}}}}}]}}',
        )


class TopicSubscription(Resource):
    """A subscription. Its id is its ARN; one that waits for its confirmation has none yet."""

    pulumi_type = "aws:sns/topicSubscription:TopicSubscription"
    service = "sns"
    props = {
        "topic": string(api=None, required=True, replace=True),
        "protocol": string(api=None, required=True, replace=True),
        "endpoint": string(api=None, required=True, replace=True),
        "rawMessageDelivery": boolean(api="RawMessageDelivery", default=False),
        "filterPolicy": json_text(api="FilterPolicy"),
        "filterPolicyScope": string(api="FilterPolicyScope", computed=True),
        "deliveryPolicy": json_text(api="DeliveryPolicy"),
        "redrivePolicy": json_text(api="RedrivePolicy"),
        "subscriptionRoleArn": string(api="SubscriptionRoleArn"),
        "endpointAutoConfirms": boolean(api=None, default=False, write_only=True),
        "confirmationTimeoutInMinutes": Prop(kind="integer", api=None, default=1, write_only=True),
    }
    outputs = {"arn": "SubscriptionArn", "ownerId": "Owner"}
    id_path = "SubscriptionArn"
    create_operation = "subscribe"
    delete_operation = "unsubscribe"
    keys = {"SubscriptionArn": "id"}

    def request(self, inputs: Values) -> Values:
        found = attributes(self.props, {name: value for name, value in inputs.items() if value is not False})
        where = {"TopicArn": inputs["topic"], "Protocol": inputs["protocol"], "Endpoint": inputs["endpoint"]}
        return {**where, "ReturnSubscriptionArn": True, **({"Attributes": found} if found else {})}

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        return cloud.call("sns", "get_subscription_attributes", SubscriptionArn=id_)["Attributes"]

    def state_of(self, described: Values) -> Values:
        state = from_attributes(self.props, described)
        names = {"topic": "TopicArn", "protocol": "Protocol", "endpoint": "Endpoint"}
        names |= {"arn": "SubscriptionArn", "ownerId": "Owner"}
        state |= {name: described[member] for name, member in names.items() if member in described}
        if "PendingConfirmation" in described:
            state["pendingConfirmation"] = described["PendingConfirmation"] == "true"
        return state

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> None:
        for name in sorted(changed):
            if self.props[name].api:
                value = _text(new[name]) if new.get(name) is not None else ""
                parameters = {"AttributeName": self.props[name].api, "AttributeValue": value}
                cloud.call("sns", "set_subscription_attributes", SubscriptionArn=id_, **parameters)


RESOURCES = (Topic, TopicPolicy, TopicSubscription)
