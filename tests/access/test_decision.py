"""Who may use which tool: every link of user → group → role → capability → tool can be missing, and each says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.access import decide
from ringfence.catalog import Catalog, load
from ringfence.errors import InputError

CATALOG = Path(__file__).parents[2] / "catalog"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load(CATALOG)


def test_an_analyst_may_read_reports_and_is_told_the_whole_path(catalog: Catalog):
    decision = decide(catalog, "ana@example.com", ["analysts"], ["s3-report-reader"])
    assert decision.ok
    assert [tool.name for tool in decision.allowed] == ["s3-report-reader"]
    (reason,) = decision.why
    assert reason.path[:4] == ("group analysts", "role analyst", "capability reporting", "tool s3-report-reader")
    assert "300 s" in reason.path[4] and "s3:GetObject" in reason.path[4]


def test_every_source_that_is_named_holds_the_declaration(catalog: Catalog):
    (reason,) = decide(catalog, "ana@example.com", ["analysts"], ["s3-report-reader"]).why
    found = [(CATALOG.parent / item.file).read_text().splitlines()[item.line - 1].strip() for item in reason.sources]
    assert found == ["- name: analyst", "- name: reporting", "name: s3-report-reader"]


def test_a_tool_of_another_role_is_refused_with_the_groups_that_carry_it(catalog: Catalog):
    decision = decide(catalog, "ana@example.com", ["analysts"], ["s3-report-reader", "ticket-store"])
    assert not decision.ok
    assert [tool.name for tool in decision.allowed] == ["s3-report-reader"]
    (refusal,) = decision.refusals
    assert (refusal.code, refusal.subject) == ("tool_not_allowed", "ticket-store")
    assert "support" in refusal.detail and "ticketing" in refusal.detail
    assert decide(catalog, "sam@example.com", ["support"], ["ticket-store"]).ok


@pytest.mark.parametrize("tools", [["s3-report-reader"], []])
@pytest.mark.parametrize("groups", [[], ["strangers"], ["Analysts"], ["analyst"]])
def test_a_user_without_a_role_is_refused_also_without_any_tool(catalog: Catalog, groups: list[str], tools: list[str]):
    decision = decide(catalog, "eve@example.com", groups, tools)
    assert [refusal.code for refusal in decision.refusals] == ["no_role"]
    assert decision.allowed == ()


@pytest.mark.parametrize(
    "name", ["nothing", "S3-report-reader", "s3-report-reader ", "*", "", "x" * 5000, "a\nb\x1b[31m"]
)
def test_what_is_not_declared_is_refused_and_shown_short_and_printable(catalog: Catalog, name: str):
    decision = decide(catalog, "ana@example.com", ["analysts"], [name])
    (refusal,) = decision.refusals
    assert refusal.code == "tool_unknown"
    assert decision.allowed == ()
    assert len(refusal.subject) <= 80 and refusal.subject.isprintable() and refusal.detail.isprintable()


def test_a_tool_asked_for_twice_is_refused(catalog: Catalog):
    decision = decide(catalog, "ana@example.com", ["analysts"], ["web-fetch", "web-fetch"])
    assert [refusal.code for refusal in decision.refusals] == ["tool_repeated"]


@pytest.mark.parametrize("user", ["", " ", "-x", "a b", "a\nb", "ü@example.com", "x" * 129, "a|b"])
def test_a_name_that_a_session_tag_cannot_carry_is_refused(catalog: Catalog, user: str):
    decision = decide(catalog, user, ["analysts"], ["s3-report-reader"])
    assert [refusal.code for refusal in decision.refusals] == ["user_invalid"]


def test_roles_add_up(catalog: Catalog):
    decision = decide(catalog, "both@example.com", ["audit", "support"], ["s3-report-reader", "ticket-store"])
    assert decision.ok and decision.roles == ("support-agent", "auditor")


def test_what_decide_allows_is_what_the_catalog_says_of_each_role(catalog: Catalog):
    for role in catalog.roles:
        for tool in catalog.tools:
            decision = decide(catalog, "u", role.groups[:1], [tool.name])
            assert decision.ok == (tool.name in catalog.tools_of(role.name))
            assert all(reason.allowed or reason.remedy for reason in decision.why)


def write(folder: Path, text: str) -> Path:
    for name in ("tools", "roles.yaml"):
        (folder / name).symlink_to(CATALOG / name)
    (folder / "users.yaml").write_text(text)
    return folder


def test_declared_users_have_groups_and_a_place(tmp_path: Path):
    catalog = load(write(tmp_path, "users:\n  - name: ana\n    groups: [analysts]\n"))
    assert catalog.groups_of("ana") == ("analysts",)
    assert catalog.groups_of("Ana") == ()
    assert catalog.users[0].source.line == 2


BAD_USERS = {
    "a group without a role": ("users:\n  - name: ana\n    groups: [strangers]\n", "no role has the group 'strangers'"),
    "a user twice": ("users:\n  - {name: a, groups: [audit]}\n  - {name: a, groups: [support]}\n", "declared 2 times"),
    "a name with a space": ("users:\n  - {name: a b, groups: [audit]}\n", "users[0].name"),
    "no groups": ("users:\n  - {name: a, groups: []}\n", "users[0].groups"),
    "not a mapping": ("- a\n", "is not a mapping"),
}


@pytest.mark.parametrize("case", BAD_USERS)
def test_a_bad_users_file_is_refused(tmp_path: Path, case: str):
    text, said = BAD_USERS[case]
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)


def test_without_a_users_file_nobody_is_known(tmp_path: Path):
    (write(tmp_path, "") / "users.yaml").unlink()
    assert load(tmp_path).users == ()
