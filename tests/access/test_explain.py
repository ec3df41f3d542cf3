"""`ringfence explain`, as people and pipelines call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ringfence.access.commands import explain

CATALOG = Path(__file__).parents[2] / "catalog"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(explain, [*arguments, "--catalog", str(CATALOG)])


def test_yes_shows_the_path_and_the_declarations():
    result = run("ana@example.com", "s3-report-reader")
    assert result.exit_code == 0
    assert "role analyst → capability reporting → tool s3-report-reader" in result.output
    assert "catalog/tools/s3-report-reader.yaml:2" in result.output


def test_a_tool_that_only_calls_models_is_said_to_have_no_credential():
    assert (
        "tool model-call → no AWS credential; models through the gateway" in run("ana@example.com", "model-call").output
    )
    assert "credential for 300 s: s3:GetObject" in run("ana@example.com", "s3-report-reader").output


def test_no_has_its_own_exit_code_and_a_remedy():
    result = run("ana@example.com", "ticket-store")
    assert result.exit_code == 2
    assert (
        "may not use ticket-store" in result.output
        and "remedy: ask for a group that carries it (support)" in result.output
    )


def test_groups_given_stand_in_the_place_of_those_in_the_users_file():
    assert run("ana@example.com", "ticket-store", "--group", "support").exit_code == 0
    assert run("ana@example.com", "s3-report-reader", "--group", "support").exit_code == 2


@pytest.mark.parametrize(
    ("user", "tool", "code"),
    [
        ("ana@example.com", "nope", "tool_unknown"),
        ("eve", "web-fetch", "no_role"),
        ("a b", "web-fetch", "user_invalid"),
    ],
)
def test_json_names_the_code(user: str, tool: str, code: str):
    result = run(user, tool, "--json")
    said = json.loads(result.output)
    assert result.exit_code == 2
    assert (said["allowed"], said["code"], said["tool"]) == (False, code, tool)
    assert said["remedy"]
