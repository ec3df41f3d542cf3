"""The control side's SQLite files: turns for threads, whole transactions, errors of the caller's own kind."""

from __future__ import annotations

import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ringfence import sqlite_file
from ringfence.sqlite_file import SqliteFile


class Failed(Exception):
    """What the tests' files raise."""


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], SqliteFile]:
    def make() -> SqliteFile:
        file = SqliteFile(tmp_path / "made" / "here.sqlite", Failed)
        with file.connection() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY)")
        return file

    return make


def held(file: SqliteFile) -> list[int]:
    with file.connection() as connection:
        return [row[0] for row in connection.execute("SELECT id FROM entry ORDER BY id")]


def test_file_and_folder_are_the_owners_alone(opened, tmp_path: Path):
    opened()
    assert stat.S_IMODE((tmp_path / "made" / "here.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700


def test_on_a_slow_disk_no_thread_runs_out_of_patience(opened, monkeypatch):
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.1)
    file = opened()

    def write(number: int) -> None:
        with file.transaction() as connection:
            connection.execute("INSERT INTO entry VALUES (?)", (number,))
            time.sleep(0.02)

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(write, range(32)))
    assert held(file) == list(range(32))


def test_an_exception_undoes_the_transaction(opened):
    file = opened()
    with pytest.raises(ZeroDivisionError), file.transaction() as connection:
        connection.execute("INSERT INTO entry VALUES (1)")
        raise ZeroDivisionError
    with file.transaction() as connection:
        connection.execute("INSERT INTO entry VALUES (2)")
    assert held(file) == [2]


def test_a_commit_that_fails_leaves_a_file_that_works(opened):
    file = opened()
    with file.connection() as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("CREATE TABLE child (id INTEGER REFERENCES entry (id) DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(Failed, match="FOREIGN KEY"), file.transaction() as connection:
        connection.execute("INSERT INTO child VALUES (1)")
    with file.transaction() as connection:
        connection.execute("INSERT INTO entry VALUES (1)")
        connection.execute("INSERT INTO child VALUES (1)")
    assert held(file) == [1]


def test_another_process_is_waited_for(opened, tmp_path: Path, monkeypatch):
    file, began = opened(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(tmp_path / "made" / "here.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO entry VALUES (1)")
            began.set()
            time.sleep(0.3)
            other.execute("COMMIT")

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        assert began.wait(30)
        with file.transaction() as connection:
            # What the other one wrote is seen: the lock was taken before anything was read.
            assert connection.execute("SELECT count(*) FROM entry").fetchone() == (1,)
        holding.result()


def test_one_that_never_ends_is_an_error_of_the_callers_own_kind(opened, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.1)
    file = opened()
    with closing(sqlite3.connect(tmp_path / "made" / "here.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Failed, match="locked"), file.transaction():
            pass
        other.execute("ROLLBACK")
    with file.transaction() as connection:
        connection.execute("INSERT INTO entry VALUES (1)")
    assert held(file) == [1]


@pytest.mark.parametrize("what", ["a folder", "no database"])
def test_what_is_no_database_is_an_error_of_the_callers_own_kind(what: str, tmp_path: Path):
    path = tmp_path / "x.sqlite"
    if what == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"not a database" * 100)
    with pytest.raises(Failed):
        SqliteFile(path, Failed)


def test_a_closed_file_is_an_error_of_the_callers_own_kind(opened):
    file = opened()
    file.close()
    with pytest.raises(Failed, match="closed"), file.connection() as connection:
        connection.execute("SELECT 1")
