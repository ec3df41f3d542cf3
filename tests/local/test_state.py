"""The home folder: passphrase, sticky ports, atomic files; stale locks of the engine."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
import threading

import psutil
import pytest

from ringfence.errors import RingfenceError
from ringfence.local import locks
from ringfence.local.state import PORT_NAMES, Home, read_json, write_atomic


@pytest.fixture
def home(tmp_path):
    return Home.of(tmp_path / "home")


def test_the_home_and_its_passphrase_are_for_the_owner_alone(home):
    previous = os.umask(0)
    try:
        path = home.passphrase()
    finally:
        os.umask(previous)
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text().strip()) >= 43


def test_the_passphrase_is_made_once_and_differs_between_homes(home, tmp_path):
    first = home.passphrase().read_text()
    assert home.passphrase().read_text() == first
    assert Home.of(tmp_path / "other").passphrase().read_text() != first


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_passphrase_that_others_can_read_is_refused(home, mode):
    path = home.passphrase()
    path.chmod(mode)
    with pytest.raises(RingfenceError, match="remedy: chmod 600"):
        home.passphrase()


def test_many_processes_at_once_agree_on_one_passphrase(home):
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(home.passphrase().read_text())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1


def test_ports_are_chosen_once_and_kept(home):
    ports = home.ports()
    assert set(ports) == set(PORT_NAMES)
    assert len(set(ports.values())) == len(ports)
    assert home.ports() == ports == home.kept_ports()


def test_a_port_that_somebody_else_took_is_chosen_again_and_the_others_stay(home):
    before = home.ports()
    with socket.create_server(("127.0.0.1", before["aws"])):
        after = home.ports()
        assert after["aws"] != before["aws"]
        assert {name: after[name] for name in PORT_NAMES if name != "aws"} == {
            name: before[name] for name in PORT_NAMES if name != "aws"
        }
    assert home.ports() == after


def test_a_port_on_which_the_own_service_listens_is_kept(home):
    before = home.ports()
    with socket.create_server(("127.0.0.1", before["aws"])):
        assert home.ports(lambda service, port: service == "aws") == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"aws": "x"}'])
def test_damaged_ports_are_chosen_again(home, content):
    home.ports()
    (home.root / "ports.json").write_text(content)
    assert set(home.ports()) == set(PORT_NAMES)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomic(path, '{"a": 1}')

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, '{"a": 2}')
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


# Locks of the engine


def lock(backend, pid, *, host=None, at=None, name="lock"):
    folder = backend / ".pulumi" / "locks" / "organization" / "p" / "s"
    folder.mkdir(parents=True, exist_ok=True)
    at = at or datetime.datetime.now(datetime.UTC)
    path = folder / f"{name}.json"
    content = {"pid": pid, "username": "u", "hostname": host or socket.gethostname(), "timestamp": at.isoformat()}
    path.write_text(json.dumps(content))
    path.with_name(path.name + ".attrs").write_text("{}")
    return path


@pytest.fixture
def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_lock_of_a_dead_process_is_removed(tmp_path, dead_pid):
    path = lock(tmp_path, dead_pid)
    assert locks.remove_stale(tmp_path) == [path]
    assert list(path.parent.iterdir()) == []


def test_the_lock_of_a_living_process_stays(tmp_path):
    path = lock(tmp_path, os.getpid())
    assert locks.remove_stale(tmp_path) == []
    assert path.exists()


def test_the_lock_of_another_host_stays(tmp_path, dead_pid):
    path = lock(tmp_path, dead_pid, host="elsewhere")
    assert locks.remove_stale(tmp_path) == []
    assert path.exists()


def test_a_lock_whose_process_number_was_given_to_a_later_process_is_removed(tmp_path):
    begun = datetime.datetime.fromtimestamp(psutil.Process().create_time(), datetime.UTC)
    path = lock(tmp_path, os.getpid(), at=begun - datetime.timedelta(hours=1))
    assert locks.remove_stale(tmp_path) == [path]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"pid": "x", "hostname": "HOST", "timestamp": "y"}'])
def test_a_lock_that_cannot_be_read_stays(tmp_path, content):
    path = lock(tmp_path, 1)
    path.write_text(content.replace("HOST", socket.gethostname()))
    assert locks.remove_stale(tmp_path) == []
    assert path.exists()
