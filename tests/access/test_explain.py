"""`ringfence explain`, as people and pipelines call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ringfence.access.commands import explain
from ringfence.errors import InputError

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


def test_a_stack_s_own_catalog_decides(tmp_path: Path):
    """The catalog beside the caller says something else than the stack's."""
    project = tmp_path / "project"
    for name in ("catalog", "stacks"):
        shutil.copytree(CATALOG.parent / name, project / name)
    shutil.copy(CATALOG.parent / "Pulumi.yaml", project)
    shutil.move(project / "catalog", project / "tools-of-ours")
    stack = project / "stacks" / "Pulumi.local.yaml"
    stack.write_text(stack.read_text().replace("config:\n", "config:\n  ringfence:catalogPath: tools-of-ours\n", 1))
    roles = project / "tools-of-ours" / "roles.yaml"
    roles.write_text(roles.read_text().replace("tools: [web-fetch]", "tools: [web-fetch, ticket-store]"))
    asked = ["ana@example.com", "ticket-store"]
    of_stack = CliRunner().invoke(explain, [*asked, "--stack", "local", "--project", str(project)])
    assert of_stack.exit_code == 0, of_stack.output
    assert "tools-of-ours/tools/ticket-store.yaml" in of_stack.output
    assert run(*asked).exit_code == 2
    both = run(*asked, "--stack", "local")
    assert isinstance(both.exception, InputError)


def test_what_placement_decides_is_said_and_no_more_than_is_needed():
    for tool, needs_way in (("web-fetch", True), ("s3-report-reader", True), ("model-call", False)):
        said = json.loads(run("ana@example.com", tool, "--json").output)["placement"]
        assert "512 MiB" in said and ("listener" in said) is needs_way
    assert "the sandbox:" in run("ana@example.com", "web-fetch").output
    assert json.loads(run("ana@example.com", "ticket-store", "--json").output)["placement"] == ""
