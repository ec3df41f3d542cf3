"""Sessions that are not as the ledger has them, in every shape that CloudTrail's events come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from ringfence.broker import Anomaly, Broker, BrokerError, Credential, SqliteLedger, State, lookup, records
from ringfence.invocation import Invocation

Invoke = Callable[..., Invocation]


def use(credential: Credential, at: datetime, **values: Any) -> dict[str, Any]:
    """CloudTrail's record of a call with the credential."""
    role = credential.role_arn.rpartition("/")[2]
    made = {
        "eventTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "eventSource": "s3.amazonaws.com", "eventName": "GetObject",
        "sourceIPAddress": "10.42.7.9",
        "userIdentity": {
            "type": "AssumedRole",
            "arn": f"arn:aws:sts::123456789012:assumed-role/{role}/{credential.session_name}",
            "accessKeyId": credential.access_key_id,
            "sessionContext": {"sessionIssuer": {"arn": credential.role_arn}},
        },
    }  # fmt: skip
    return made | values


def assumption(credential: Credential, at: datetime, name: str, key: str = "ASIAX", **values: Any) -> dict[str, Any]:
    made = {
        "eventTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "eventSource": "sts.amazonaws.com", "eventName": "AssumeRole",
        "sourceIPAddress": "10.42.7.9",
        "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::123456789012:assumed-role/admin/eve"},
        "requestParameters": {"roleArn": credential.role_arn, "roleSessionName": name},
        "responseElements": {"credentials": {"accessKeyId": key}},
    }  # fmt: skip
    return made | values


def kinds(found: tuple[Anomaly, ...]) -> list[str]:
    return [anomaly.kind for anomaly in found]


@pytest.fixture
def credential(broker: Broker, invoke: Invoke) -> Credential:
    return broker.issue(invoke(), "reports")


def test_what_is_as_it_should_be_is_no_anomaly(broker: Broker, credential: Credential) -> None:
    good = [
        assumption(credential, credential.issued, credential.session_name, credential.access_key_id),
        *(use(credential, credential.issued + timedelta(seconds=seconds)) for seconds in (1, 100, 299)),
        use(credential, credential.issued, sourceIPAddress="10.42.7.200"),
        use(credential, credential.issued, sourceIPAddress="athena.amazonaws.com"),
    ]
    assert broker.anomalies(good) == ()


def test_a_session_that_the_ledger_does_not_know_is_one(broker: Broker, credential: Credential) -> None:
    foreign = use(credential, credential.issued)
    foreign["userIdentity"] = foreign["userIdentity"] | {"arn": f"{credential.role_arn}/made-by-hand"}
    stolen_key = use(credential, credential.issued)
    stolen_key["userIdentity"] = stolen_key["userIdentity"] | {"accessKeyId": "ASIAOTHER"}
    became = assumption(credential, credential.issued, "by-hand")
    twice = assumption(credential, credential.issued, credential.session_name, "ASIASECOND")
    for event in (foreign, stolen_key, became, twice):
        (found,) = broker.anomalies([event])
        assert found.kind == "unknown-session" and found.allowed and found.source == "10.42.7.9"
    denied = assumption(credential, credential.issued, "by-hand", errorCode="AccessDenied", responseElements=None)
    (found,) = broker.anomalies([denied])
    assert (found.kind, found.allowed) == ("refused-assumption", False)


def test_other_roles_are_none_of_the_broker_s_business(broker: Broker, credential: Credential) -> None:
    other = use(credential, credential.issued)
    other["userIdentity"] = other["userIdentity"] | {
        "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::1:role/x"}}
    }
    user = {**use(credential, credential.issued), "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::1:user/x"}}
    assert broker.anomalies([other, user]) == ()


def test_use_after_revoke_and_after_the_end_are_told_apart(
    cloud: Any, broker: Broker, credential: Credential, invoke: Invoke
) -> None:
    other = broker.issue(invoke(), "reports")
    cloud.clock.advance(20)
    broker.revoke(credential_id=credential.id)
    at = cloud.clock()
    # Before the change has reached all of AWS it is no sign of anything.
    assert broker.anomalies([use(credential, at), use(credential, at + timedelta(seconds=10))]) == ()
    (found,) = broker.anomalies([use(credential, at + timedelta(seconds=30), errorCode="AccessDenied")])
    assert (found.kind, found.allowed, found.invocation_id) == ("use-after-revoke", False, credential.invocation_id)
    late = other.expires + timedelta(seconds=60)
    assert kinds(broker.anomalies([use(other, late)])) == ["use-after-expiry"]
    # An entry that prune has closed is still known.
    cloud.clock.advance(600)
    broker.prune()
    assert kinds(broker.anomalies([use(other, late)])) == ["use-after-expiry"]


@pytest.mark.parametrize(
    ("first", "second"), [("10.42.7.9", "10.42.8.9"), ("10.42.7.9", "2001:db8::1"), ("2001:db8::1", "2001:db8:1::1")]
)
def test_use_from_two_networks_is_one_also_in_events_that_come_one_by_one(
    broker: Broker, credential: Credential, first: str, second: str
) -> None:
    assert broker.anomalies([use(credential, credential.issued, sourceIPAddress=first)]) == ()
    (found,) = broker.anomalies([use(credential, credential.issued, sourceIPAddress=second)])
    assert found.kind == "two-networks" and "was used from" in found.detail


@pytest.mark.parametrize("passes", ["one", "two"])
def test_two_networks_are_one_also_when_events_come_after_the_entry_was_closed(
    cloud: Any, broker: Broker, ledger: SqliteLedger, credential: Credential, passes: str
) -> None:
    """CloudTrail's events come minutes late: by then prune has closed what they speak of."""
    cloud.clock.advance(600)
    broker.prune()
    entry = ledger.get(credential.id)
    assert entry is not None and entry.state is State.LAPSED and not entry.network
    first, second = (
        use(credential, credential.issued, sourceIPAddress=address) for address in ("10.42.7.9", "203.0.113.5")
    )
    # Control: one network alone is none.
    assert broker.anomalies([first, first]) == ()
    found = broker.anomalies([first, second]) if passes == "one" else broker.anomalies([second])
    assert kinds(found) == ["two-networks"]


def test_two_networks_within_one_pass_are_told_without_the_ledger_s_help(
    broker: Broker, ledger: SqliteLedger, credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "note_network", lambda *_: "")
    events = [use(credential, credential.issued, sourceIPAddress=address) for address in ("10.42.7.9", "203.0.113.5")]
    assert kinds(broker.anomalies(events)) == ["two-networks"]


def test_each_session_s_kind_is_told_once(broker: Broker, credential: Credential) -> None:
    late = [use(credential, credential.expires + timedelta(seconds=60 + place)) for place in range(50)]
    assert kinds(broker.anomalies(late)) == ["use-after-expiry"]


def test_every_shape_of_events_is_read(broker: Broker, credential: Credential) -> None:
    event = use(credential, credential.expires + timedelta(seconds=60))
    shapes: list[Any] = [
        event,
        {"Records": [event]},
        {"detail-type": "AWS API Call via CloudTrail", "source": "aws.s3", "detail": event},
        {"Events": [{"EventId": "1", "CloudTrailEvent": json.dumps(event)}]},
        [json.dumps({"Records": [event]}).encode()],
    ]
    for shape in shapes:
        assert list(records(shape)) == [event]
        assert kinds(broker.anomalies([shape])) == ["use-after-expiry"]


@pytest.mark.parametrize(
    "junk", [None, 7, "no json", b"\xff", {}, {"Records": 3}, {"detail": None}, [[], {"eventName": 1}]]
)
def test_what_is_no_event_is_left_out(broker: Broker, junk: Any) -> None:
    assert list(records(junk)) == []
    assert broker.anomalies([junk]) == ()


@pytest.mark.parametrize(
    "broken",
    [
        {"eventTime": "yesterday"},
        {"sourceIPAddress": None},
        {"userIdentity": {"type": "AssumedRole", "sessionContext": "x"}},
        {"userIdentity": "x"},
        {"requestParameters": [], "eventName": "AssumeRole"},
    ],
)
def test_a_broken_event_breaks_nothing(broker: Broker, credential: Credential, broken: dict[str, Any]) -> None:
    assert broker.anomalies([use(credential, credential.issued) | broken]) == ()


class Pages:
    """CloudTrail as its client pages it."""

    def __init__(self, *pages: Any):
        self.pages = pages

    def get_paginator(self, name: str) -> Any:
        assert name == "lookup_events"
        return self

    def paginate(self, **asked: Any) -> Any:
        self.asked = asked
        yield from self.pages


def test_lookup_reads_every_page(credential: Credential) -> None:
    events = [use(credential, credential.issued + timedelta(seconds=place)) for place in range(5)]
    pages = Pages(*({"Events": [{"CloudTrailEvent": json.dumps(event)}]} for event in events))
    since, until = credential.issued, credential.expires
    assert list(lookup(pages, since, until)) == events
    assert pages.asked == {"StartTime": since, "EndTime": until}


def test_a_cloudtrail_that_can_t_be_asked_is_said(cloud: Any, credential: Credential) -> None:
    with pytest.raises(BrokerError, match="log files"):
        list(lookup(cloud.as_(credential, "cloudtrail"), credential.issued, credential.expires))
