"""`make run`: the example task as a person runs it, on the environment that stands, in a real sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ringfence.errors import RingfenceError
from ringfence.invocation import Status
from ringfence.local.lifecycle import Embedded
from ringfence.runner.here import secure_agent_runner
from tests.environment.conftest import PROJECT, Standing, Start

pytestmark = [pytest.mark.engine, pytest.mark.sandbox]


TASK = str(PROJECT / "examples" / "tasks" / "monthly-report.yaml")


def run(standing: Standing | Embedded, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ringfence.cli", "run", "--json", "--project", str(PROJECT), *arguments]
    variables = {**os.environ, "RINGFENCE_HOME": str(standing.home.root)}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=variables, check=False)


def test_the_example_task_reads_its_report_and_is_refused_the_next_bucket(standing: Standing):
    done = run(standing, "--task", TASK)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["status"] == "succeeded" and "1250" in said["output"]
    assert said["usage"]["model_calls"] >= 2 and said["refused_in_sandbox"]
    # AWS's own refusal, of a credential that had just read what it may.
    assert "read s3://example-reports-" in said["probe"] and "AWS refuses them s3://example-payroll-" in said["probe"]
    assert "AccessDenied" in said["probe"]
    for line in ("credentials: gone", "sandbox: gone", "budget: gone"):
        assert line in done.stderr
    assert standing.client("sts").get_caller_identity()["Account"] in said["probe"]


@pytest.mark.e2e
def test_down_after_a_task_leaves_nothing_and_ends_without_an_error(start: Start):
    embedded = start()
    embedded.up()
    done = run(embedded, "--task", TASK)
    assert done.returncode == 0, done.stdout + done.stderr
    # Raises when anything is left.
    embedded.down()
    assert not embedded.engine().resources()


def test_a_scope_of_the_command_line_narrows_the_same_task(standing: Standing):
    options = ["--user", "ana@example.com", "--tools", "s3-report-reader", "--script"]
    options += [str(PROJECT / "examples" / "tasks" / "monthly-report.script.yaml")]
    whole, narrow = (
        run(standing, *options, *scope, "Summarise the latest published report.")
        for scope in ((), ("--scope", "s3-report-reader=s3:ListBucket"))
    )
    assert "1250" in json.loads(whole.stdout)["output"], whole.stderr
    assert "1250" not in narrow.stdout, narrow.stdout + narrow.stderr
    beyond = run(standing, *options, "--scope", "s3-report-reader=s3:PutObject", "Summarise it.")
    assert beyond.returncode == 2 and "is not granted to the tool" in beyond.stderr


def test_a_program_runs_the_same_task_with_three_arguments(standing: Standing, monkeypatch):
    monkeypatch.setenv("RINGFENCE_HOME", str(standing.home.root))
    script = PROJECT / "examples" / "tasks" / "monthly-report.script.yaml"
    said: list[str] = []
    with secure_agent_runner(PROJECT, script=script, echo=said.append) as runner:
        result = runner.execute_agent_task("ana@example.com", "Summarise the report.", ["s3-report-reader"])
        refused = runner.execute_agent_task("nobody@example.com", "Summarise the report.", ["s3-report-reader"])
    assert (result.status, "1250" in result.output) == (Status.SUCCEEDED, True)
    assert refused.status is Status.REFUSED and refused.audit_id
    with pytest.raises(RingfenceError, match="closing"):
        runner.execute_agent_task("ana@example.com", "Once more.", ["s3-report-reader"])


def test_a_program_is_told_what_is_missing(monkeypatch, tmp_path):
    with pytest.raises(RingfenceError), secure_agent_runner(tmp_path):
        pass
