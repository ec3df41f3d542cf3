"""LookupEvents tells of sessions: who became a role, each authenticated call, allowed or not, and nobody else's."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.aws_server.test_authorization import Roles, allow, document

pytestmark = pytest.mark.filterwarnings("ignore:Exception.*does not match an error shape")


def told(client: Any, **asked: Any) -> list[dict[str, Any]]:
    pages = client.get_paginator("lookup_events").paginate(
        StartTime=datetime.now(UTC) - timedelta(seconds=60), EndTime=datetime.now(UTC), **asked
    )
    return [json.loads(event["CloudTrailEvent"]) for page in pages for event in page["Events"]]


def of(events: list[dict[str, Any]], arn: str) -> list[tuple[str, str | None]]:
    """Name and error of each call of a role's sessions, oldest first."""
    mine = [
        item
        for item in reversed(events)
        if item["userIdentity"].get("sessionContext", {}).get("sessionIssuer", {}).get("arn") == arn
    ]
    return [(item["eventName"], item.get("errorCode")) for item in mine]


def test_a_session_s_calls_are_told_and_how_each_ended(aws: Any) -> None:
    roles = Roles(aws)
    arn = roles.make(document(allow("s3:ListAllMyBuckets")))
    keys = roles.assume(arn)["Credentials"]
    s3 = roles.of("s3", keys)
    s3.list_buckets()
    with pytest.raises(ClientError):
        s3.create_bucket(Bucket="not-allowed")
    with pytest.raises(ClientError):
        roles.of("s3", keys, SecretAccessKey="wrong").list_buckets()
    events = told(aws.client("cloudtrail"))
    # A call that proves nobody's identity is nobody's.
    assert of(events, arn) == [("ListBuckets", None), ("CreateBucket", "AccessDenied")]
    (became,) = [item for item in events if (item.get("requestParameters") or {}).get("roleArn") == arn]
    assert became["responseElements"]["credentials"]["accessKeyId"] == keys["AccessKeyId"]
    assert became["requestParameters"]["roleSessionName"] == "session"
    (call,) = [item for item in events if item["eventName"] == "CreateBucket" and of([item], arn)]
    assert (call["eventSource"], call["sourceIPAddress"]) == ("s3.amazonaws.com", "127.0.0.1")
    assert call["userIdentity"]["accessKeyId"] == keys["AccessKeyId"]
    text = json.dumps(events)
    assert keys["SecretAccessKey"] not in text and keys["SessionToken"] not in text


def test_what_was_told_is_no_resource_that_is_left(aws: Any) -> None:
    roles = Roles(aws)
    arn = roles.make(document(allow("s3:ListAllMyBuckets")))
    roles.client("s3", arn).list_buckets()
    assert of(told(aws.client("cloudtrail")), arn)
    left = aws.own("inventory")["left"]
    assert arn.rsplit("/")[-1] in left["iam"]["Role"] and "event" not in left.get("cloudtrail", {})


def test_pages_of_any_size_hold_every_event_once(aws: Any) -> None:
    roles = Roles(aws)
    arn = roles.make(document(allow("s3:ListAllMyBuckets")))
    s3 = roles.client("s3", arn)
    for _ in range(12):
        s3.list_buckets()
    client = aws.client("cloudtrail")
    whole = told(client)
    small = told(client, PaginationConfig={"PageSize": 5})
    assert len(of(whole, arn)) == 12
    assert [item["eventID"] for item in whole] == [item["eventID"] for item in small]
    named = told(client, LookupAttributes=[{"AttributeKey": "EventName", "AttributeValue": "AssumeRole"}])
    assert named and {item["eventName"] for item in named} == {"AssumeRole"}
    with pytest.raises(ClientError, match="looks up by one of"):
        told(client, LookupAttributes=[{"AttributeKey": "ResourceName", "AttributeValue": "x"}])


def test_a_session_asks_only_when_its_role_may(aws: Any) -> None:
    roles = Roles(aws)
    assert told(roles.client("cloudtrail", roles.make(document(allow("cloudtrail:LookupEvents")))))
    with pytest.raises(ClientError, match="not authorized"):
        told(roles.client("cloudtrail", roles.make(document(allow("s3:ListAllMyBuckets")))))


def test_the_latest_events_alone_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from ringfence.local.aws_server.authorization import events
    from ringfence.local.aws_server.recorded.store import Store

    monkeypatch.setattr(events, "KEPT", 3)
    operation = SimpleNamespace(service_model=SimpleNamespace(signing_name="s3"))
    store = Store()
    for place in range(5):
        call = SimpleNamespace(
            account="1", region="r", operation=operation, name=f"Call{place}", service="s3", environ={}, request_id="q",
            header=lambda _: "", params={},
        )  # fmt: skip
        events.note(store, call, datetime.now(UTC), None)
    kept = store.shelf("1", "r", events.SERVICE, events.KIND).values()
    assert [record.attributes["event"]["eventName"] for record in kept] == ["Call2", "Call3", "Call4"]
