"""Supervised children: real processes, started, found, replaced and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ringfence.errors import RingfenceError
from ringfence.local.state import Home
from ringfence.local.supervise import Child

# Makes a file when it is up, then waits.
SERVER = "import pathlib,sys,time; pathlib.Path(sys.argv[1]).touch(); print('listening', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVER}"


@pytest.fixture
def home(tmp_path):
    return Home.of(tmp_path / "home")


@pytest.fixture
def server(home, tmp_path):
    """Makes a child and its readiness probe; everything is stopped at the end."""
    made = []

    def make(program=SERVER, name="server", flag="up"):
        path = tmp_path / flag
        child = Child(home, name, [sys.executable, "-c", program, str(path)])
        made.append(child)
        return child, path.exists

    yield make
    for child in made:
        child.stop(timeout_s=0.2)


def test_a_child_is_started_once_and_found_by_a_later_command(server, home):
    child, ready = server()
    assert child.pid() is None
    assert child.start(ready, 30) is True
    pid = child.pid()
    assert psutil.pid_exists(pid)
    again = Child(home, "server", child.argv)
    assert again.pid() == pid
    assert again.start(ready, 30) is False
    assert again.pid() == pid
    assert "listening" in child.log.read_text()


def test_a_child_leads_a_session_of_its_own(server):
    child, ready = server()
    child.start(ready, 30)
    assert os.getsid(child.pid()) == child.pid() != os.getsid(0)


def test_a_stopped_child_is_gone_and_stopping_again_does_nothing(server):
    child, ready = server()
    child.start(ready, 30)
    pid = child.pid()
    assert child.stop() is True
    assert child.pid() is None
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert child.stop() is False


def test_a_child_that_ignores_sigterm_is_killed(server):
    child, ready = server(STUBBORN)
    child.start(ready, 30)
    assert child.stop(timeout_s=0.3) is True
    assert child.pid() is None


def test_grandchildren_are_stopped_too(server, tmp_path):
    program = (
        "import pathlib,subprocess,sys,time; p=subprocess.Popen(['sleep','600']);"
        "pathlib.Path(sys.argv[1]).write_text(str(p.pid)); time.sleep(600)"
    )
    child, ready = server(program)
    child.start(lambda: ready() and (tmp_path / "up").read_text() != "", 30)
    grandchild = psutil.Process(int((tmp_path / "up").read_text()))
    child.stop()
    _, alive = psutil.wait_procs([grandchild], timeout=300)
    assert not alive


def test_what_a_dead_child_started_in_a_group_of_its_own_is_stopped_too(server, tmp_path):
    program = (
        "import pathlib,subprocess,sys,time; p=subprocess.Popen(['sleep','600'], start_new_session=True);"
        "pathlib.Path(sys.argv[1]).write_text(str(p.pid)); time.sleep(600)"
    )
    child, ready = server(program)
    child.start(lambda: ready() and (tmp_path / "up").read_text() != "", 30)
    orphan = psutil.Process(int((tmp_path / "up").read_text()))
    os.kill(child.pid(), signal.SIGKILL)
    psutil.wait_procs([psutil.Process(child.pid() or orphan.pid)], timeout=0.2)
    assert orphan.is_running()
    child.stop()
    _, alive = psutil.wait_procs([orphan], timeout=300)
    assert not alive


def test_a_child_that_ends_early_is_reported_with_the_end_of_its_log(server):
    child, _ = server("print('line one'); raise SystemExit('no such table: users')")
    with pytest.raises(RingfenceError, match=r"ended before it was ready(.|\n)*no such table: users"):
        child.start(lambda: False, 30)
    assert not child.record.exists()


def test_a_child_that_is_never_ready_is_stopped_and_reported(server):
    child, _ = server()
    with pytest.raises(RingfenceError, match="was not ready after"):
        child.start(lambda: False, 0.5)
    assert child.pid() is None


def test_an_answer_from_somebody_else_does_not_count_as_ready(server):
    child, _ = server("raise SystemExit('address in use')")

    def ready():
        while child.pid() is not None:
            time.sleep(0.05)
        return True

    with pytest.raises(RingfenceError, match="address in use"):
        child.start(ready, 30)


def test_a_child_with_other_arguments_is_replaced(server):
    first, ready = server()
    first.start(ready, 30)
    pid = first.pid()
    second, ready = server(flag="other")
    assert second.start(ready, 30) is True
    assert second.pid() != pid
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_record_of_a_number_that_now_belongs_to_another_process_is_not_believed(server, home):
    child, _ = server()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        home.run.mkdir()
        started = psutil.Process(bystander.pid).create_time() - 3600
        child.record.write_text(json.dumps({"pid": bystander.pid, "started": started, "argv": child.argv}))
        assert child.pid() is None
        assert child.stop() is False
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": -4, "started": 0}'])
def test_a_damaged_record_is_taken_as_none(server, home, content):
    child, _ = server()
    home.run.mkdir()
    child.record.write_text(content)
    assert child.pid() is None


def test_a_child_whose_record_was_lost_is_found_by_its_mark(server):
    child, ready = server()
    child.start(ready, 30)
    pid = child.pid()
    child.record.unlink()
    assert child.pid() == pid
    assert child.stop() is True
    assert child.pid() is None


def test_a_killed_child_is_started_again(server):
    child, ready = server()
    child.start(ready, 30)
    pid = child.pid()
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)], timeout=300)
    assert child.start(ready, 30) is True
    assert child.pid() != pid


def test_a_home_does_not_touch_the_children_of_another_home(server, tmp_path):
    child, ready = server()
    child.start(ready, 30)
    other = Child(Home.of(tmp_path / "other"), "server", child.argv)
    assert other.pid() is None
    assert other.stop() is False
    assert child.pid() is not None
