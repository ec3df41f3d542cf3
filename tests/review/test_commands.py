"""The commands from the outside: exit codes, and a branch's way from a changed tool to an approved grant."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the example catalog and nothing approved."""
    shutil.copytree(ROOT / "catalog", tmp_path / "catalog", ignore=shutil.ignore_patterns("*.lock.json"))
    (tmp_path / "stacks").mkdir()
    shutil.copy(ROOT / "stacks/Pulumi.local.yaml", tmp_path / "stacks")
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    return tmp_path


@pytest.fixture
def run(project: Path) -> Run:
    def call(
        *arguments: str, program: tuple[str, ...] = (sys.executable, "-m", "ringfence.cli")
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*program, *arguments], cwd=project, capture_output=True, text=True, check=False)

    return call


def commit(run: Run) -> None:
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("add", "-A"),
        ("-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "base"),
    ):
        assert run(*arguments, program=("git",)).returncode == 0


def test_a_wider_tool_is_found_approved_and_reviewed(project: Path, run: Run) -> None:
    assert run("grants", "check").returncode == 1  # there is no lockfile yet
    assert run("grants", "update", "--approver", "lead@example.com").returncode == 0
    assert run("grants", "check").returncode == 0
    commit(run)
    assert run("review", "--base", "main").returncode == 0
    tool = project / "catalog/tools/ticket-store.yaml"
    tool.write_text(
        tool.read_text().replace("[dynamodb:GetItem, dynamodb:Query]", "[dynamodb:GetItem, dynamodb:DeleteItem]")
    )
    found = run("grants", "check")
    assert found.returncode == 2
    assert "dynamodb:DeleteItem" in found.stdout
    assert run("grants", "update", "--approver", "other@example.com").returncode == 0
    assert run("grants", "check").returncode == 0
    reviewed = run("review", "--base", "main", "--format", "json")
    assert reviewed.returncode == 2
    (change,) = [item for item in json.loads(reviewed.stdout)["changes"] if item["needsReview"]]
    assert change["approvedBy"] == "other@example.com"
    assert change["file"] == "catalog/tools/ticket-store.yaml"
    assert change["witness"]["action"] == "dynamodb:DeleteItem"


def test_several_formats_go_into_a_folder(project: Path, run: Run) -> None:
    assert run("grants", "update", "--approver", "lead@example.com").returncode == 0
    commit(run)
    formats = ("--format", "markdown", "--format", "sarif", "--format", "html", "--format", "json")
    assert run("review", "--base", "main", *formats, "--out", "review").returncode == 0
    assert {path.name for path in (project / "review").iterdir()} == {
        "report.md",
        "report.sarif",
        "report.html",
        "report.json",
    }


def test_a_revision_without_a_lockfile_shows_everything_as_new(project: Path, run: Run) -> None:
    commit(run)
    assert run("grants", "update", "--approver", "lead@example.com").returncode == 0
    reviewed = run("review", "--base", "main", "--format", "json")
    assert reviewed.returncode == 2
    subjects = {item["subject"] for item in json.loads(reviewed.stdout)["changes"]}
    assert len(subjects) == len(list((project / "catalog/tools").iterdir()))


def test_a_branch_that_deletes_the_lockfile_is_refused(project: Path, run: Run) -> None:
    """A lockfile that is gone takes away no permission: a review must not read it as everything being removed."""
    run("grants", "update", "--approver", "lead@example.com")
    commit(run)
    (project / "catalog/grants.lock.json").unlink()
    for arguments in (("--base", "main"), ("--base", "main", "--format", "json", "--out", "report.json")):
        result = run("review", *arguments)
        assert result.returncode == 1
        assert "catalog/grants.lock.json: is missing" in result.stderr
        assert "remedy: restore it" in result.stderr
        assert "Traceback" not in result.stderr
    assert not (project / "report.json").exists()


def test_a_preview_is_reviewed_although_the_branch_deletes_the_lockfile(project: Path, run: Run) -> None:
    run("grants", "update", "--approver", "lead@example.com")
    commit(run)
    (project / "catalog/grants.lock.json").unlink()
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    state = {
        "type": "aws:iam/rolePolicy:RolePolicy",
        "inputs": {"name": "p", "role": "new", "policy": json.dumps(document)},
    }
    step = {"op": "create", "urn": "urn:pulumi:s::p::aws:iam/rolePolicy:RolePolicy::p", "newState": state}
    (project / "preview.json").write_text(json.dumps({"steps": [step]}))
    result = run("review", "--base", "main", "--preview", "preview.json")
    assert result.returncode == 2
    assert "role/new inline policy p" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("review", "--base", "no-such-branch"),
        ("review", "--base=--output=x"),
        ("drift",),
        ("drift", "--live", "--state", "x.json"),
        ("drift", "--state", "missing.json"),
        ("grants", "explain", "nobody"),
        ("grants", "check", "--lockfile", "missing.json"),
        ("audit-permissions", "--last-accessed", "missing.json"),
    ],
)
def test_bad_input_is_told_without_a_traceback(run: Run, arguments: tuple[str, ...]) -> None:
    run("grants", "update", "--approver", "lead@example.com")
    commit(run)
    result = run(*arguments)
    # 2 would be taken for a report to read.
    assert result.returncode == 1
    assert "remedy:" in result.stderr
    assert "Traceback" not in result.stderr


def test_explain_says_who_may_do_what(run: Run) -> None:
    run("grants", "update", "--approver", "lead@example.com")
    told = run("grants", "explain", "ticket-store").stdout
    for part in (
        "support-engineering@example.com",
        "lead@example.com",
        "dynamodb:Query",
        "sts:AssumeRole",
        "escalation",
    ):
        assert part in told


def test_the_audit_fails_on_an_overdue_review(project: Path, run: Run) -> None:
    run("grants", "update", "--approver", "lead@example.com")
    assert run("audit-permissions").returncode == 0
    path = project / "catalog/grants.lock.json"
    path.write_text(path.read_text().replace('"reviewDate": "2027-01-31"', '"reviewDate": "2020-01-31"'))
    result = run("audit-permissions")
    assert result.returncode == 2
    assert "overdue by" in result.stdout
