"""What a sandbox says of itself in the audit trail: recorded, bounded, masked, marked as its word."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from ringfence.invocation import Refusal, Status
from ringfence.redaction import Redactor
from ringfence.runner import statements
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.statements import Statements
from tests.runner.control import GROUPS, Control
from tests.runner.kubelet import Kubelet

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzzSECRETKEY"


@dataclass(frozen=True)
class Said:
    type: str
    data: Mapping[str, Any]
    at: datetime = datetime(2026, 11, 28, 12, tzinfo=UTC)


@dataclass
class Desk:
    """Where the statements go."""

    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    broken: str = ""

    async def audit(self, kind: str, **fields: Any) -> None:
        if kind == self.broken:
            raise OSError("disk full")
        self.records.append((kind, fields))

    async def refuse(self, refusal: Refusal) -> None:
        if self.broken == "refusal":
            raise OSError("disk full")
        self.refusals.append(refusal)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.records]


def take(desk: Desk, *events: Said) -> Statements:
    made = Statements(Redactor(lambda: [SECRET]), desk.audit, desk.refuse)

    async def all_of_them() -> None:
        for event in events:
            await made.take(event)

    asyncio.run(all_of_them())
    return made


CALL = {"tool": "web-fetch", "outcome": "ok", "call_id": "c1", "arguments": ["url"], "seconds": 0.5, "characters": 20}


def signal(score: Any, tool: str = "web-fetch") -> Said:
    return Said("log", {"event": "injection_signal", "tool": tool, "score": score, "reasons": ["override"]})


def test_a_tool_call_is_recorded_with_names_of_arguments_and_marked_as_the_sandboxs_word():
    desk = Desk()
    take(desk, Said("tool_call", CALL))
    ((kind, fields),) = desk.records
    assert kind == "tool.called"
    assert (fields["tool"], fields["outcome"], fields["arguments"], fields["seconds"]) == (
        "web-fetch",
        "success",
        ["url"],
        0.5,
    )
    assert (fields["stated_by"], fields["trusted"]) == ("sandbox", False)


def test_a_failed_call_keeps_its_code():
    desk = Desk()
    take(desk, Said("tool_call", {**CALL, "outcome": "error", "code": "tool_timeout"}), Said("tool_call", {}))
    assert [(fields["outcome"], fields["code"]) for _, fields in desk.records] == [
        ("failure", "tool_timeout"),
        ("failure", "unnamed"),
    ]


def test_nothing_that_a_sandbox_says_carries_a_secret_into_the_record():
    desk = Desk()
    events = [
        Said("tool_call", {**CALL, "tool": SECRET, "call_id": SECRET, "arguments": [SECRET], "code": SECRET}),
        Said("log", {"event": "injection_signal", "tool": SECRET, "score": 0.9, "reasons": [SECRET]}),
        Said("refusal", {"tool": SECRET, "code": SECRET, "detail": SECRET}),
    ]
    take(desk, *events)
    assert len(desk.records) == 3 and len(desk.refusals) == 1
    assert SECRET not in str(desk.records) + str(desk.refusals)


@pytest.mark.parametrize(
    "data",
    [
        {"tool": ["x"] * 9, "seconds": "long", "characters": -1, "arguments": "url", "call_id": 7},
        {"tool": None, "seconds": float("nan"), "characters": 10**30, "arguments": {"a": 1}},
        {"tool": "x" * 10_000, "seconds": True, "arguments": ["y" * 10_000] * 1000},
    ],
    ids=["types", "numbers", "lengths"],
)
def test_whatever_a_hostile_sandbox_says_is_bounded(data: dict[str, Any]):
    desk = Desk()
    take(desk, Said("tool_call", data))
    fields = desk.records[0][1]
    assert len(str(fields)) < 3000
    assert fields["seconds"] is None


FLOODS = {
    "tool_call": (Said("tool_call", CALL), statements.MAX_TOOL_CALLS, "tool.called"),
    "injection_signal": (signal(0.1), statements.MAX_SIGNALS, "injection.signal"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_cut_and_the_cut_is_recorded_once(kind: str):
    event, most, name = FLOODS[kind]
    desk = Desk()
    take(desk, *[event] * (most + 50))
    assert desk.kinds().count(name) == most
    assert [fields["code"] for found, fields in desk.records if found == "sandbox.statements_cut"] == [kind]


def test_a_flood_of_refusals_is_cut_too():
    desk = Desk()
    take(desk, *[Said("refusal", {"code": "x"})] * (statements.MAX_REFUSALS + 50))
    assert len(desk.refusals) == statements.MAX_REFUSALS
    assert desk.kinds() == ["sandbox.statements_cut"]


def test_text_that_looks_like_an_instruction_raises_one_alert_and_weak_signals_none():
    desk = Desk()
    take(desk, signal(0.3))
    assert desk.kinds() == ["injection.signal"]
    take(desk, signal(0.6), signal(0.9), signal(1.0))
    assert desk.kinds().count("alert.injection") == 1
    assert desk.kinds().count("injection.signal") == 4


def test_a_score_that_can_not_be_read_is_an_alert():
    desk = Desk()
    take(desk, signal("low"))
    assert "alert.injection" in desk.kinds()


def test_an_agent_that_went_for_what_the_text_named_raises_a_second_alert():
    refusal = Said("refusal", {"tool": "email-notifier", "code": "argument_tainted", "detail": "from untrusted text"})
    before, after = Desk(), Desk()
    take(before, refusal, signal(0.9))
    take(after, signal(0.9), refusal, refusal)
    assert before.kinds().count("alert.injection") == 1
    alerts = [fields for kind, fields in after.records if kind == "alert.injection"]
    assert len(alerts) == 2
    assert (alerts[1]["tool"], alerts[1]["code"]) == ("email-notifier", "argument_tainted")


@pytest.mark.parametrize("broken", ["tool.called", "injection.signal", "alert.injection", "refusal", ""])
def test_what_arrived_and_can_not_be_recorded_is_known(broken: str):
    desk = Desk(broken=broken)
    made = take(desk, Said("tool_call", CALL), signal(0.9), Said("refusal", {"code": "x"}))
    assert ("could not be recorded: disk full" in made.unrecorded) == bool(broken)


def test_other_events_are_not_recorded():
    desk = Desk()
    take(desk, Said("progress", {"message": "x"}), Said("log", {"event": "x"}), Said("model_call", {"model": "m"}))
    assert desk.records == []


def _says(container: Any) -> int:
    for event in (
        {"type": "tool_call", **CALL},
        {"type": "log", "event": "injection_signal", "tool": "web-fetch", "score": 0.9, "reasons": ["override"]},
    ):
        assert container.gateway("POST", "/v1/events", event).status_code == 202
    return container.answer("done")


@pytest.mark.cluster
@pytest.mark.parametrize("broken", [False, True])
def test_what_a_task_did_is_in_the_trail_or_the_task_fails(side: Control, cluster, monkeypatch, broken: bool):
    record = side.trail.record

    def unwritable(kind: str, *args: Any, **fields: Any) -> str:
        if broken and kind == "tool.called":
            raise OSError("disk full")
        return record(kind, *args, **fields)

    monkeypatch.setattr(side.trail, "record", unwritable)
    with Kubelet(cluster.configuration, _says), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", [], groups=GROUPS, model="scripted")
    assert result.status is (Status.FAILED if broken else Status.SUCCEEDED)
    assert ("what the sandbox did could not be recorded: disk full" in result.error) == broken
    if not broken:
        (called,), (alert,) = side.records("tool.called"), side.records("alert.injection")
        assert called["metadata"]["correlation_uid"] == result.invocation_id
        assert called["unmapped"]["stated_by"] == "sandbox"
        assert (alert["severity"], alert["class_name"]) == ("High", "Detection Finding")
