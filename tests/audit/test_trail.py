"""The trail: whole records or none, every tampering found, nothing secret inside, many writers at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ringfence.audit import AuditError, Trail, verify
from ringfence.audit.events import KINDS, MAX_TEXT_CHARACTERS
from ringfence.audit.trail import head_file
from ringfence.invocation import Invocation
from ringfence.redaction import Redactor

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
INVOCATION = Invocation(
    "0123456789abcdef0123", "ana@example.com", "read it", ("s3-report-reader",), NOW, NOW + timedelta(seconds=300)
)
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "trail.jsonl"


def written(path: Path, count: int = 5) -> Trail:
    trail = Trail(path, clock=lambda: NOW)
    for index in range(count):
        trail.record("tool.called", INVOCATION, tool="s3-report-reader", index=index)
    return trail


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_says_who_what_for_which_invocation_in_ocsf_words(path: Path):
    uid = Trail(path, clock=lambda: NOW).record(
        "tool.refused", INVOCATION, tool="web-fetch", code="domain_not_allowed", detail="no", source="10.0.0.1", call=7
    )
    (record,) = records(path)
    assert record["class_uid"] == 6003 and record["category_uid"] == 6 and record["type_uid"] == 600399
    assert record["metadata"]["uid"] == uid and record["metadata"]["correlation_uid"] == INVOCATION.id
    assert record["metadata"]["event_code"] == "tool.refused"
    assert record["actor"]["user"]["name"] == "ana@example.com"
    assert record["resources"] == [{"type": "tool", "name": "web-fetch"}]
    assert (record["status"], record["status_code"], record["severity"]) == ("Failure", "domain_not_allowed", "Medium")
    assert record["src_endpoint"] == {"ip": "10.0.0.1"}
    assert record["time"] == int(NOW.timestamp() * 1000)
    assert record["unmapped"] == {"conversation": INVOCATION.id, "call": 7}


def test_the_first_record_of_an_invocation_holds_its_prompt_without_secrets(path: Path):
    prompt = f"use {SECRET} for it"
    invocation = Invocation(INVOCATION.id, "ana", prompt, (), INVOCATION.started, INVOCATION.deadline)
    trail = Trail(path, Redactor(lambda: [SECRET]))
    trail.record("invocation.started", invocation)
    trail.record("invocation.ended", invocation)
    first, second = records(path)
    assert first["unmapped"]["prompt"] == "use [redacted:value] for it"
    assert "prompt" not in second["unmapped"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_a_whole_event(path: Path, kind: str):
    Trail(path).record(kind, INVOCATION)
    (record,) = records(path)
    assert record["type_uid"] == record["class_uid"] * 100 + record["activity_id"]
    assert record["class_uid"] // 1000 == record["category_uid"]


@pytest.mark.parametrize("kind", ["", "tool", "Tool.called", "tool.called\n", "tool..called", "tool called"])
def test_a_malformed_kind_is_refused(path: Path, kind: str):
    with pytest.raises(ValueError, match="audit kind"):
        Trail(path).record(kind)


def test_a_sound_trail_verifies_and_the_file_is_its_owners_alone(path: Path):
    written(path)
    found = verify(path)
    assert found.ok and found.records == 5 and found.torn_bytes == 0
    assert path.stat().st_mode & 0o777 == 0o600


def edit(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b"s3-report-reader", b"s3-report-writer"), *lines[3:]]


TAMPERED = {
    "edited": edit,
    "deleted": lambda lines: lines[:2] + lines[3:],
    "first deleted": lambda lines: lines[1:],
    "reordered": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "doubled": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "cut off": lambda lines: lines[:3],
    "emptied": lambda lines: [],
    "replaced by noise": lambda lines: [*lines[:2], b"{}\n", *lines[3:]],
    "not JSON": lambda lines: [*lines[:2], b"\xff\xfe\n", *lines[3:]],
}


@pytest.mark.parametrize("how", TAMPERED)
def test_tampering_is_found(path: Path, how: str):
    written(path)
    assert verify(path).ok
    path.write_bytes(b"".join(TAMPERED[how](path.read_bytes().splitlines(keepends=True))))
    assert not verify(path).ok


def test_another_trail_in_its_place_is_found(path: Path, tmp_path: Path):
    written(path)
    other = tmp_path / "other" / "trail.jsonl"
    written(other, 9)
    path.write_bytes(other.read_bytes())
    assert verify(other).ok and not verify(path).ok


def test_a_missing_head_is_found(path: Path):
    written(path)
    head_file(path).unlink()
    assert not verify(path).ok


@pytest.mark.parametrize("keep", [1, 100, -1])
def test_a_torn_last_line_is_cut_off_recorded_and_the_chain_goes_on(path: Path, keep: int):
    written(path)
    whole = path.read_bytes()
    torn = whole.splitlines(keepends=True)[-1][:keep]
    path.write_bytes(whole + torn)
    assert verify(path).torn_bytes == len(torn)
    Trail(path).record("tool.called", INVOCATION)
    found = verify(path)
    assert found.ok and found.records == 7 and found.torn_bytes == 0
    assert records(path)[5]["metadata"]["event_code"] == "trail.mended"
    assert f"{len(torn)} bytes" in records(path)[5]["status_detail"]
    assert path.read_bytes().startswith(whole)


def test_a_torn_first_line_is_mended_too(path: Path):
    path.parent.mkdir()
    path.write_bytes(b'{"half":')
    Trail(path).record("tool.called", INVOCATION)
    assert verify(path).ok and len(records(path)) == 2


def test_nothing_is_added_to_a_trail_whose_end_was_edited(path: Path):
    written(path)
    path.write_bytes(path.read_bytes().replace(b'"index":4', b'"index":5'))
    before = path.read_bytes()
    with pytest.raises(AuditError, match="not sound"):
        Trail(path).record("tool.called", INVOCATION)
    assert path.read_bytes() == before


WRITER = """
import sys, pathlib
from ringfence.audit import Trail
trail = Trail(pathlib.Path(sys.argv[1]))
while True:
    uid = trail.record("tool.called", user="u", filler="x" * 4000)
    print(uid, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_no_record_that_it_was_told_of(path: Path):
    told = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told.append(process.stdout.readline().strip())
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
        process.wait()
    Trail(path).record("tool.called")
    assert verify(path).ok
    kept = {record["metadata"]["uid"] for record in records(path)}
    # A killed pipe may end in half an id.
    assert len(told) >= 3 and {uid for uid in told if len(uid) == 20} <= kept


def _write(path: str, count: int) -> None:
    trail = Trail(Path(path))
    for index in range(count):
        trail.record("tool.called", INVOCATION, index=index, writer=os.getpid())


def test_processes_and_threads_write_one_chain(path: Path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(str(path), 20)) for _ in range(3)]
    for process in processes:
        process.start()
    trail = Trail(path)
    with ThreadPoolExecutor(8) as pool:
        uids = list(pool.map(lambda index: trail.record("tool.called", INVOCATION, index=index), range(40)))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = verify(path)
    assert found.ok and found.records == 100
    assert len(set(uids)) == 40


@pytest.mark.parametrize("place", ["prompt", "detail", "user", "nested"])
def test_no_record_holds_a_secret(path: Path, place: str):
    trail = Trail(path, Redactor(lambda: [SECRET]))
    text = f"the key is {SECRET} and AKIA" + "IOSFODNN7EXAMPLE"
    fields = {"nested": {"list": [{"deep": text}]}} if place == "nested" else {place: text}
    trail.record("tool.called", INVOCATION, **fields)
    raw = path.read_text()
    assert SECRET not in raw and "AKIAIOSFODNN7EXAMPLE" not in raw
    assert "[redacted:value]" in raw and "[redacted:aws-access-key-id]" in raw
    assert verify(path).ok
    plain = path.with_name("plain.jsonl")
    Trail(plain, Redactor()).record("tool.called", INVOCATION, **fields)
    assert SECRET in plain.read_text()


def test_a_secret_across_the_place_where_a_long_text_is_cut_is_masked(path: Path):
    text = "x" * (MAX_TEXT_CHARACTERS - 10) + SECRET + "y" * 100
    Trail(path, Redactor(lambda: [SECRET])).record("tool.called", output=text)
    assert SECRET[:10] not in path.read_text()


def test_hostile_fields_are_bounded_and_never_break_the_chain(path: Path):
    trail = Trail(path)
    deep: object = "end"
    for _ in range(200):
        deep = {"in": [deep]}
    for value in (
        deep,
        "x" * 10_000_000,
        {str(i): i for i in range(10_000)},
        "\ud800\n\r\u2028\0",
        float("nan"),
        object(),
    ):
        trail.record("tool.called", INVOCATION, value=value)
    assert verify(path).ok
    assert path.stat().st_size < 200_000
    assert len(path.read_bytes().splitlines()) == 6


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_recorded(tmp_path: Path):
    (tmp_path / "trail.jsonl").mkdir()
    with pytest.raises(AuditError, match="can't be written"):
        Trail(tmp_path / "trail.jsonl").record("tool.called")
