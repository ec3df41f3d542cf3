"""What the proxy decided, in the audit trail."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ringfence.audit import AuditError, Refusals, Trail
from ringfence.egress import decisions as module
from ringfence.egress.decisions import MOST_SINGLE, Decisions
from ringfence.invocation import Invocation, new_id

NOW = datetime.now(UTC)
ONE, TWO = (
    Invocation(new_id(), user, "prompt", ("fetch",), NOW, NOW + timedelta(seconds=60)) for user in ("ann", "bob")
)
KNOWN = {ONE.id: ONE, TWO.id: TWO}


class Book:
    """Decisions on a trail, and what stands in it."""

    def __init__(self, folder: Path):
        self.trail = Trail(folder / "trail.jsonl")
        self.decisions = Decisions(self.trail, Refusals(self.trail), KNOWN.get)

    def say(self, source: str = "", decision: str = "refused", **more: Any) -> None:
        line = {
            "decision": decision,
            "tool": "fetch",
            "host": "evil.example.org:443",
            "source": f"{source or '10.0.0.1'}:4711",
        }
        self.decisions.record(json.dumps(line | {"reason": "route_not_found"} | more).encode())

    def records(self, kind: str = "egress.refused") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.trail.path.read_text().splitlines()]
        return [record for record in found if record["metadata"]["event_code"] == kind]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_a_refusal_is_recorded_with_whose_it_was(book: Book):
    one, two = book.decisions.source(ONE.id), book.decisions.source(TWO.id)
    assert one != two and one.startswith("127.") and two.startswith("127.")
    book.say(one)
    book.say(two)
    book.say("127.0.0.1")
    first, second, stranger = book.records()
    assert (first["actor"]["user"]["name"], first["metadata"]["correlation_uid"]) == ("ann", ONE.id)
    assert (second["actor"]["user"]["name"], second["metadata"]["correlation_uid"]) == ("bob", TWO.id)
    assert stranger["actor"]["user"]["name"] == "" and "correlation_uid" not in stranger["metadata"]
    assert {record["status_code"] for record in book.records()} == {"host_not_listed"}


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("route_not_found", "host_not_listed"),
        ("rbac_access_denied_matched_policy[not_a_host_name]", "not_a_host_name"),
        ("rbac_access_denied_matched_policy[address_is_not_public]", "address_is_not_public"),
        ("http1.codec_error", "http1_codec_error"),
        (None, "unnamed"),
    ],
)
def test_the_reason_is_a_stable_code(book: Book, reason, code):
    book.say(reason=reason)
    assert book.records()[0]["status_code"] == code


def test_what_passed_and_what_failed_is_recorded_too(book: Book):
    source = book.decisions.source(ONE.id)
    book.say(source, "allowed", host="docs.example.com:443", bytes_to_tool=10)
    book.say(source, "failed", reason="no_healthy_upstream")
    (allowed,), (failed,) = book.records("egress.allowed"), book.records("egress.failed")
    assert allowed["status"] == "Success" and allowed["unmapped"]["bytes_to_tool"] == 10
    assert failed["status"] == "Failure" and failed["status_code"] == "no_healthy_upstream"


def test_a_flood_is_counted_and_another_invocation_is_still_written_down(book: Book):
    flood, other = book.decisions.source(ONE.id), book.decisions.source(TWO.id)
    for _ in range(MOST_SINGLE + 50):
        book.say(flood)
    book.say(other)
    assert len(book.records()) == MOST_SINGLE + 1
    book.decisions.settle()
    last = book.records()[-1]
    assert last["status_detail"] == "50 more refused connections of fetch through the egress proxy"
    assert last["metadata"]["correlation_uid"] == ONE.id
    book.decisions.settle()
    assert len(book.records()) == MOST_SINGLE + 2


def test_counts_are_written_while_the_flood_goes_on(book: Book, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0)
    for _ in range(MOST_SINGLE + 2):
        book.say()
    assert len(book.records()) == MOST_SINGLE + 2


def test_only_the_latest_invocations_are_remembered(book: Book, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_MOST_SOURCES", 3)
    first, *_, last = [book.decisions.source(ONE.id) for _ in range(5)]
    book.say(first)
    book.say(last)
    assert ["correlation_uid" in record["metadata"] for record in book.records()] == [False, True]


@pytest.mark.parametrize("line", [b"", b"no json", b"[]", b'{"decision": "maybe"}'])
def test_what_is_no_decision_is_an_error(book: Book, line: bytes):
    with pytest.raises(ValueError):
        book.decisions.record(line)


def test_what_can_not_be_recorded_is_an_error(book: Book, monkeypatch: pytest.MonkeyPatch):
    def fail(*words: Any, **named: Any) -> None:
        raise AuditError("the disk is full")

    monkeypatch.setattr(Trail, "record", fail)
    for decision in ("allowed", "refused", "failed"):
        with pytest.raises(AuditError):
            book.say(decision=decision)


def test_a_hosts_name_can_not_steer_whoever_reads_the_record(book: Book):
    book.say(host="\x1b[2J" + "x" * 5000)
    detail = book.records()[0]["status_detail"]
    assert "\x1b" not in detail and len(detail) < 600
