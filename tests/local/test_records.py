"""When a run's state may be written at its end only, and how one that never was is noticed. No engine runs here."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from ringfence.local import records
from ringfence.local.state import Home

NOW = {"aws": "boot-2", "kubernetes": "uid"}
BEFORE = {"aws": "boot-1", "kubernetes": "uid"}


def write_state(home: Home, stack: str, resources: int) -> None:
    path = home.backend / ".pulumi" / "stacks" / "trial" / f"{stack}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"checkpoint": {"latest": {"resources": [{"type": "a:b:C"}] * resources}}}))


def engine(home: Home, stack: str = "local") -> SimpleNamespace:
    held = dict(records.states(home)).get(f"trial/{stack}", {})
    return SimpleNamespace(home=home, project="trial", stack=stack, resources=lambda: list(held.get("resources") or []))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("RINGFENCE_KUBECONFIG", raising=False)
    return Home.of(tmp_path / "home")


def test_nothing_stands_in_a_new_home_and_with_an_empty_state(home):
    assert records.nothing_stands(home, NOW)
    write_state(home, "local", 0)
    assert records.nothing_stands(home, NOW)


def test_what_was_made_on_this_incarnation_stands_and_what_an_earlier_one_held_does_not(home):
    write_state(home, "local", 3)
    records.note_up(engine(home), NOW, 3)
    assert not records.nothing_stands(home, NOW)
    records.note_up(engine(home), BEFORE, 3)
    assert records.nothing_stands(home, NOW)


def test_what_never_came_to_its_end_is_taken_to_stand(home):
    write_state(home, "local", 3)
    assert not records.nothing_stands(home, NOW)


def test_a_second_stack_that_stands_counts_although_the_first_has_nothing(home):
    write_state(home, "local", 0)
    write_state(home, "other", 2)
    records.note_up(engine(home, "other"), NOW, 2)
    assert not records.nothing_stands(home, NOW)


def test_a_stack_stands_alone_when_no_other_one_has_anything(home):
    write_state(home, "local", 3)
    write_state(home, "other", 0)
    assert records.stands_alone(engine(home))
    write_state(home, "other", 1)
    assert not records.stands_alone(engine(home))


def test_a_stack_on_another_ones_cluster_does_not_stand_alone(home, monkeypatch):
    write_state(home, "local", 3)
    monkeypatch.setenv("RINGFENCE_KUBECONFIG", "/somebody/elses")
    assert not records.stands_alone(engine(home))


def test_another_ones_cluster_is_never_taken_for_this_homes_own(home, monkeypatch):
    assert records.nothing_stands(home, NOW)
    monkeypatch.setenv("RINGFENCE_KUBECONFIG", "/somebody/elses")
    assert not records.nothing_stands(home, NOW)


def test_each_stack_remembers_its_own_incarnation(home):
    write_state(home, "local", 1)
    write_state(home, "other", 1)
    records.note_up(engine(home), BEFORE, 1)
    records.note_up(engine(home, "other"), NOW, 1)
    assert records.memory_lost(engine(home), NOW)
    assert not records.memory_lost(engine(home, "other"), NOW)


def test_a_run_that_writes_its_state_leaves_no_mark(home):
    with records.unrecorded(engine(home)):
        assert records.left_unrecorded(home)
        write_state(home, "local", 1)
    assert not home.unrecorded.exists()


def test_a_run_that_ends_without_its_state_leaves_the_mark_also_when_an_older_state_is_there(home):
    write_state(home, "local", 1)
    with records.unrecorded(engine(home)) as on_event:
        on_event({"resourcePreEvent": {}})
    assert records.left_unrecorded(home)


def test_a_state_written_after_the_command_was_killed_counts_as_recorded(home):
    with records.unrecorded(engine(home)) as on_event:
        on_event({"resourcePreEvent": {}})
    assert records.left_unrecorded(home)
    write_state(home, "local", 1)
    assert not records.left_unrecorded(home)


def test_a_mark_that_cannot_be_read_means_unrecorded(home):
    home.unrecorded.write_text("")
    assert records.left_unrecorded(home)


def test_a_run_that_ended_before_its_first_step_leaves_no_mark(home):
    write_state(home, "local", 1)
    with records.unrecorded(engine(home)) as on_event:
        on_event({"diagnosticEvent": {"message": "the stack is locked"}})
    assert not home.unrecorded.exists()


def test_a_state_that_cannot_be_read_is_taken_to_stand(home):
    write_state(home, "local", 0)
    assert records.nothing_stands(home, NOW)
    (home.backend / ".pulumi" / "stacks" / "trial" / "local.json").write_text("{")
    assert not records.nothing_stands(home, NOW)
    assert not records.stands_alone(engine(home, "other"))
