"""What is made of the engine's events."""

from __future__ import annotations

import pytest

from ringfence.local.console import Clock, Watch, show_changes, summary
from ringfence.local.results import EngineError, Result, Step

URN = "urn:pulumi:local::p::aws:iam/role:Role::reader"


def diagnostic(message: str, severity: str = "error", **more):
    return {"diagnosticEvent": {"message": message, "severity": severity} | more}


def step(op: str, keys=None, **more):
    detailed = {key: {"diffKind": kind} for key, kind in (keys or {}).items()} or None
    metadata = {"op": op, "urn": URN, "type": "aws:iam/role:Role", "detailedDiff": detailed} | more
    return {"resourcePreEvent": {"metadata": metadata}}


def result(*events, code=0, stdout="", stderr=""):
    return Result(("preview", "--stack", "local"), code, stdout, stderr, 0.1, tuple(events))


def test_a_step_names_what_differs_and_what_forces_a_replacement():
    found = result(step("replace", {"name": "update-replace", "tags": "update"})).steps
    assert found == (Step("replace", URN, "aws:iam/role:Role", ("name", "tags"), ("name",)),)
    assert found[0].name == "reader"


def test_unchanged_and_read_resources_are_no_changes():
    assert result(step("same"), step("read"), step("refresh")).changed_steps == ()


def test_violations_keep_pack_policy_level_and_resource():
    event = {
        "policyEvent": {
            "policyPackName": "creep",
            "policyName": "wildcard",
            "enforcementLevel": "mandatory",
            "message": "too wide\n",
            "resourceUrn": URN,
        }
    }
    (violation,) = result(event).violations
    assert (violation.pack, violation.policy, violation.level) == ("creep", "wildcard", "mandatory")
    assert (violation.message, violation.urn) == ("too wide", URN)


def test_what_is_expected_and_debug_output_is_left_out():
    found = result(
        diagnostic("using pulumi-resource-aws from $PATH at /x\n", "warning"),
        diagnostic("registering", "debug"),
        diagnostic("odd thing\n", "warning"),
    )
    assert found.diagnostics == (("warning", "odd thing"),)


def test_the_trace_of_a_program_that_was_stopped_is_left_out_and_a_real_one_is_kept_whole():
    lines = ("Traceback (most recent call last):", '  File "x", line 1', "    select()")
    stopped = [diagnostic(f"{line}\n\n", "info#err") for line in (*lines, "KeyboardInterrupt")]
    raised = [diagnostic(f"{line}\n\n", "info#err") for line in (*lines, "ValueError: no")]
    assert result(diagnostic("creating x: refused"), *stopped).diagnostics == (("error", "creating x: refused"),)
    assert result(*raised).diagnostics == (("info#err", "\n".join((*lines, "ValueError: no"))),)


def test_the_bare_fact_of_failure_counts_only_when_nothing_else_is_said():
    assert result(diagnostic("no such role"), diagnostic("update failed\n")).errors == ("no such role",)
    assert result(diagnostic("update failed\n")).errors == ("update failed",)


def test_a_failed_run_raises_with_the_engines_reasons():
    with pytest.raises(EngineError, match=r"`pulumi preview` failed with exit code 255:\nno such role"):
        result(diagnostic("no such role"), code=255).check()
    with pytest.raises(EngineError, match="no project"):
        result(code=255, stderr="error: no project").check()


def test_a_killed_run_says_so_and_what_to_do():
    with pytest.raises(EngineError, match=r"ended by signal 9(.|\n)*remedy: run the command again"):
        result(code=-9).check()


def test_progress_shows_failures_at_once_and_counts():
    lines: list[str] = []
    watch = Watch(Clock(lines.append), verbose=True)
    for event in (
        step("create"),
        {"resOutputsEvent": {"metadata": {"op": "create", "urn": URN, "type": "aws:iam/role:Role"}}},
        {"resOpFailedEvent": {"metadata": {"op": "update", "urn": URN, "type": "aws:iam/role:Role"}}},
        diagnostic("creating x: refused", urn=URN),
        diagnostic("update failed"),
        diagnostic("fine", "info"),
    ):
        watch.on_event(event)
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "+ aws:iam/role:Role reader",
        "! aws:iam/role:Role reader",
        "error: aws:iam/role:Role reader: creating x: refused",
    ]


def test_a_preview_is_shown_one_line_for_each_change():
    lines: list[str] = []
    summed = {"summaryEvent": {"resourceChanges": {"create": 1, "same": 2}}}
    show_changes(
        result(step("create"), step("same"), step("replace", {"name": "update-replace"}), summed), lines.append
    )
    assert lines == ["   + aws:iam/role:Role reader", "  +- aws:iam/role:Role reader  [name!]", "1 create, 2 same"]


def test_counts_are_put_in_words():
    assert summary({"create": 2, "same": 1, "delete": 0}) == "2 created, 1 unchanged"
