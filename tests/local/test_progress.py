"""Progress of the set-up."""

from __future__ import annotations

import threading

import pytest

from ringfence.local.toolchain.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (60, "1m00s"), (80, "1m20s"), (3661, "61m01s")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_running_tasks_give_a_sign_of_life_until_they_end():
    lines: list[str] = []
    beaten = threading.Event()

    def report(line: str) -> None:
        lines.append(line)
        beaten.set()

    with Progress(2, report, heartbeat_s=0.01) as progress:
        task = progress.begin("pulumi engine")
        task.phase = "compiling"
        assert beaten.wait(10)
        progress.end(task)
    assert lines[0].startswith("[1/2] pulumi engine: compiling, ")


def test_a_task_that_has_ended_is_silent():
    lines: list[str] = []
    silent = threading.Event()
    with Progress(1, lines.append, heartbeat_s=0.01) as progress:
        task = progress.begin("etcd")
        task.phase = "compiling"
        progress.end(task)
        silent.wait(0.1)
    assert lines == []
