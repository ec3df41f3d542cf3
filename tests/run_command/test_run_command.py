"""`ringfence run`: what it takes, what it shows, how it ends. Whole runs in real sandboxes are in tests/failure_modes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from ringfence.catalog import load
from ringfence.errors import InputError
from ringfence.gateway.scripted import load as load_script
from ringfence.invocation import Refusal, Result, Status, Usage
from ringfence.local.console import Clock
from ringfence.names import Names
from ringfence.runner import commands
from ringfence.runner.progress import Progress, State
from ringfence.runner.summary import Watched, as_dict, show
from ringfence.runner.task_file import read

ROOT = Path(__file__).parents[2]
NAMES = Names("ringfence", "local", "123456789012", "us-east-1")
TRAIL = Path("/home/trail.jsonl")


def result(status: Status = Status.SUCCEEDED, **changes) -> Result:
    values = {
        "invocation_id": "0" * 20, "status": status, "output": "north,1250", "usage": Usage(10, 5, 2, 1),
        "cost_usd": Decimal("0.0123"), "audit_id": "a1", "duration_seconds": 2.0,
    }  # fmt: skip
    return Result(**values | changes)


@pytest.mark.parametrize(
    ("status", "code"),
    [(Status.SUCCEEDED, 0), (Status.FAILED, 1), (Status.TIMED_OUT, 1), (Status.BUDGET_EXHAUSTED, 1), (Status.BREAKER_OPEN, 1), (Status.REFUSED, 2), (Status.CANCELLED, 130)],
)  # fmt: skip
def test_every_end_has_its_exit_code(status: Status, code: int):
    assert commands._exit_code(result(status)) == code


def shown(outcome: Result, refused: list[str]) -> str:
    lines: list[str] = []
    show(outcome, TRAIL, refused, lines.append)
    return "\n".join(lines)


def test_the_summary_says_what_ran_what_it_cost_what_was_refused_and_where_the_record_is():
    text = shown(
        result(refusals=(Refusal("budget_exhausted", "scripted", "no money"),)), ["argument_not_allowed s3: no"]
    )
    for said in (
        "1 tool calls, 2 model calls",
        "$0.012300",
        "budget_exhausted scripted: no money",
        "in the sandbox: argument_not_allowed",
        "a1 in /home/trail.jsonl",
        "north,1250",
    ):
        assert said in text


def test_what_a_sandbox_says_cannot_steer_the_terminal():
    text = shown(result(output="\x1b]0;owned\x07 line"), ["\x1b[2J"])
    assert "\x1b" not in text and "\x07" not in text


def test_the_json_is_whole():
    said = json.loads(json.dumps(as_dict(result(), TRAIL, ["x"])))
    assert said["status"] == "succeeded" and said["cost_usd"] == "0.0123" and said["refused_in_sandbox"] == ["x"]


def progress(step: str, state: State, detail: str = "") -> Progress:
    return Progress("0" * 20, step, state, detail, datetime.now(UTC))


def test_progress_shows_steps_calls_and_refusals_and_keeps_the_refusals():
    lines: list[str] = []
    watched = Watched(Clock(lines.append))
    watched(progress("credentials", State.DONE))
    watched(progress("sandbox", State.EVENT, 'tool_call {"tool": "web-fetch", "outcome": "ok"}'))
    watched(
        progress("sandbox", State.EVENT, 'refusal {"tool": "web-fetch", "code": "domain_not_allowed", "detail": "no"}')
    )
    watched(progress("sandbox", State.UNDONE))
    for junk in ("tool_call not json", "tool_call []", 'log {"message": "x"}', ""):
        watched(progress("sandbox", State.EVENT, junk))
    text = "\n".join(lines)
    assert "credentials: ready" in text and "web-fetch: ok" in text and "sandbox: gone" in text
    assert watched.refused == ["domain_not_allowed web-fetch: no"] and len(lines) == 4


def asked(path: Path | None = None, **given):
    defaults = {
        "user": "",
        "tools": "",
        "prompt": "",
        "script": None,
        "scope": (),
        "conversation": "",
        "max_usd": "10",
        "timeout": 300,
        "model": "",
    }
    found = SimpleNamespace(settings=SimpleNamespace(names=NAMES), catalog=load(ROOT / "catalog"), home=None)
    return commands._asked(found, path, defaults | given)


def test_user_and_prompt_are_needed_and_both_are_said_at_once():
    with pytest.raises(InputError) as caught:
        asked()
    assert [problem.key for problem in caught.value.problems] == ["user", "prompt"]


def test_tools_are_split_at_commas():
    assert asked(user="u", prompt="p", tools="a, b,,c ").tools == ("a", "b", "c")


def test_scopes_come_from_options_and_from_the_task_file_and_are_checked_against_the_catalog(tmp_path: Path):
    given = {"user": "u", "prompt": "p", "tools": "s3-report-reader"}
    assert asked(**given).options["scopes"] == {}
    narrow = asked(**given, scope=("s3-report-reader=s3:GetObject",)).options["scopes"]
    assert narrow == {"s3-report-reader": {"actions": ["s3:GetObject"]}}
    with pytest.raises(InputError, match="is not granted"):
        asked(**given, scope=("s3-report-reader=s3:PutObject",))
    path = tmp_path / "task.yaml"
    text = "user: u\nprompt: p\ntools: [s3-report-reader]\nscopes: {s3-report-reader: {actions: ['s3:%s']}}\n"
    path.write_text(text % "GetObject")
    assert asked(path).options["scopes"] == narrow
    path.write_text(text % "PutObject")
    with pytest.raises(InputError, match=r"scopes\.s3-report-reader\.actions"):
        asked(path)


def test_a_task_file_goes_with_nothing_that_it_holds_itself(tmp_path: Path):
    path = tmp_path / "task.yaml"
    path.write_text("user: u\nprompt: p\n")
    with pytest.raises(InputError) as caught:
        asked(path, user="v", tools="a")
    assert [problem.key for problem in caught.value.problems] == ["user", "tools"]


def test_the_example_task_is_sound_and_asks_for_what_its_user_may_use():
    task = read(ROOT / "examples" / "tasks" / "monthly-report.yaml", NAMES)
    catalog = load(ROOT / "catalog")
    assert catalog.groups_of(task.user) == ("analysts",)
    assert set(task.seed) == {"example-reports-123456789012", "example-payroll-123456789012"}
    assert task.probe is not None and task.probe.bucket in task.seed
    # What the control of the probe reads is there.
    assert task.probe.granted.key in task.seed[task.probe.granted.bucket]
    assert load_script(ROOT / "examples" / "tasks" / task.script).steps


BAD = {
    "a list": ("- a\n", "is not a task"),
    "no user": ("prompt: p\n", "user"),
    "an unknown key": ("user: u\nprompt: p\ngroups: [a]\n", "groups"),
    "a script that isn't there": ("user: u\nprompt: p\nscript: nope.yaml\n", "nope.yaml is not there"),
    "an empty prompt": ("user: u\nprompt: ''\n", "prompt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_task_file_is_refused_with_its_place(tmp_path: Path, case: str):
    text, said = BAD[case]
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read(path, NAMES)
    assert said in str(caught.value)
