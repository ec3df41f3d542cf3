"""Refused attempts: every one recorded, clustered, one alert for each cluster, also across processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ringfence.audit import Refusals, Trail, verify
from ringfence.invocation import Refusal

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOT_ALLOWED = Refusal("tool_not_allowed", "ticket-store", "no")


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(tmp_path: Path, clock: Clock) -> Refusals:
    return Refusals(Trail(tmp_path / "trail.jsonl", clock=clock), clock=clock)


def kinds(tmp_path: Path) -> list[str]:
    lines = (tmp_path / "trail.jsonl").read_text().splitlines()
    return [json.loads(line)["metadata"]["event_code"] for line in lines]


def test_every_attempt_is_recorded_and_the_fifth_alike_raises_one_alert(refusals: Refusals, tmp_path: Path):
    raised = [refusals.record(NOT_ALLOWED, user="eve", source="10.0.0.9")[1] for _ in range(9)]
    assert [index for index, alert in enumerate(raised) if alert] == [4]
    assert raised[4].count == 5 and raised[4].source == "10.0.0.9" and raised[4].audit_id
    assert kinds(tmp_path).count("access.refused") == 9
    assert kinds(tmp_path).count("alert.refusals") == 1
    assert verify(tmp_path / "trail.jsonl").ok


@pytest.mark.parametrize("differ", ["user", "tool", "code", "source"])
def test_attempts_that_differ_in_one_thing_are_different_clusters(refusals: Refusals, differ: str):
    for index in range(4):
        for value in ("a", "b"):
            what = {"user": "eve", "tool": "t", "code": "c", "source": "s"} | {differ: value}
            refusal = Refusal(what.pop("code"), what["tool"], "no")
            assert refusals.record(refusal, **what)[1] is None, index
    assert sorted(cluster.count for cluster in refusals.clusters() if cluster.tool != "*") == [4, 4]


def test_probing_of_many_tools_from_one_source_raises_an_alert_though_no_attempt_repeats(refusals: Refusals):
    raised = [
        refusals.record(Refusal("tool_unknown", f"tool-{index}", "no"), user="eve", source="10.0.0.9")[1]
        for index in range(20)
    ]
    assert [(index, alert.tool) for index, alert in enumerate(raised) if alert] == [(14, "*")]


def test_attempts_far_apart_raise_nothing(refusals: Refusals, clock: Clock):
    for _ in range(20):
        assert refusals.record(NOT_ALLOWED, user="ana")[1] is None
        clock.now += timedelta(seconds=301)


def test_a_cluster_that_ended_alerts_anew_when_it_comes_back(refusals: Refusals, clock: Clock):
    for _ in range(2):
        assert sum(refusals.record(NOT_ALLOWED, user="eve")[1] is not None for _ in range(6)) == 1
        clock.now += timedelta(seconds=301)
        assert refusals.clusters() == ()


def test_attempts_by_processes_one_after_the_other_add_up(tmp_path: Path, clock: Clock):
    raised = []
    for _ in range(5):
        one = Refusals(Trail(tmp_path / "trail.jsonl", clock=clock), clock=clock)
        raised.append(one.record(NOT_ALLOWED, user="eve")[1])
    assert [alert is not None for alert in raised] == [False] * 4 + [True]
