"""`ringfence audit`, as people and pipelines call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ringfence.audit import TRAIL_FILE, Refusals, Trail
from ringfence.audit.commands import audit
from ringfence.invocation import Refusal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / TRAIL_FILE
    trail = Trail(path)
    trail.record("tool.called", user="ana", tool="web-fetch")
    for _ in range(5):
        Refusals(trail).record(Refusal("tool_not_allowed", "ticket-store", "no; ask"), user="eve", source="10.0.0.9")
    return path


def run(path: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(audit, [command, "--trail", str(path), *arguments])


def test_show_lists_the_last_records_and_filters(path: Path):
    lines = run(path, "show").output.splitlines()
    assert len(lines) == 7 and "tool.called" in lines[0] and "web-fetch" in lines[0]
    assert len(run(path, "show", "--limit", "2").output.splitlines()) == 2
    assert len(run(path, "show", "--user", "eve", "--kind", "access.").output.splitlines()) == 5
    (alert,) = run(path, "show", "--kind", "alert", "--json").output.splitlines()
    assert json.loads(alert)["class_uid"] == 2004


def test_what_a_sandbox_says_cannot_steer_the_terminal(path: Path):
    Trail(path).record("tool.called", detail="\x1b]0;owned\x07\nfaked line")
    output = run(path, "show").output
    assert "\x1b" not in output and "\x07" not in output and len(output.splitlines()) == 8


def test_verify_says_sound_or_not_by_its_exit_code(path: Path):
    assert run(path, "verify").exit_code == 0
    path.write_bytes(path.read_bytes().replace(b"ticket-store", b"ticket-score", 1))
    result = run(path, "verify")
    assert result.exit_code == 1 and "it was edited" in result.output and "NOT sound" in result.output
    said = json.loads(run(path, "verify", "--json").output)
    assert said["ok"] is False and said["problems"]


def test_clusters_are_listed_with_their_alert(path: Path):
    output = run(path, "refusals").output
    assert "5  eve from 10.0.0.9: ticket-store (tool_not_allowed)  ALERT" in output
    assert {row["count"] for row in json.loads(run(path, "refusals", "--json").output)} == {5}


def test_a_missing_trail_is_said_without_a_traceback(tmp_path: Path):
    result = run(tmp_path / "none.jsonl", "show")
    assert result.exit_code == 1 and "no audit trail" in str(result.exception)
