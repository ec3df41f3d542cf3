"""The lockfile: canonical text, metadata that survives, and errors instead of guesses."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.catalog import load as load_catalog
from ringfence.catalog.model import Catalog
from ringfence.errors import InputError
from ringfence.review import lockfile, updating
from ringfence.review.compare import compare
from ringfence.review.facts import AT_PREVIEW, Fact, Slot
from ringfence.review.lockfile import Lockfile

Lock = Callable[..., Lockfile]
CATALOG = Path(__file__).parents[2] / "catalog"


def approval(who: str, day: str = "2026-11-22") -> updating.Approval:
    return updating.Approval(who, datetime.date.fromisoformat(day), "shop@example.com", "a test of the shop")


def test_what_is_written_is_read_back(kit: Any, lock: Lock) -> None:
    facts = [
        *kit.role("x", kit.document(kit.allow("s3:GetObject", "arn:aws:s3:::b/*")), boundary="policy/limit"),
        Fact("policy/limit", Slot.DOCUMENT, "", kit.document(kit.allow("s3:*", "*"))),
        Fact("eks/c/principal/role/ops", Slot.ACCESS_POLICY, "View", "namespace a"),
        Fact("bucket/b", Slot.RESOURCE_POLICY, "", kit.document(kit.allow("s3:*", "*", Principal="*"))),
        Fact("function/f", Slot.RESOURCE_POLICY, "sid", kit.document(kit.allow("lambda:*", "*", Principal="*"))),
    ]
    read = lock(*facts)
    assert compare(read.surface, kit.surface(*facts)) == ()
    assert compare(kit.surface(*facts), read.surface) == ()


def test_the_text_does_not_depend_on_order_or_spelling(kit: Any, lock: Lock) -> None:
    first = lock(*kit.role("x", kit.document(kit.allow(["s3:GetObject", "s3:PutObject"], "*")))).path.read_text()
    second = lock(
        *reversed(kit.role("x", kit.document(kit.allow(["s3:PutObject", "s3:GetObject"], ["*"]))))
    ).path.read_text()
    assert first == second
    assert first.endswith("}\n")


def test_each_subject_starts_on_its_own_known_line(kit: Any, lock: Lock) -> None:
    read = lock(*kit.role("a"), *kit.role("b"))
    lines = read.path.read_text().splitlines()
    for subject, number in read.lines.items():
        assert lines[number - 1].strip() == f'"{subject}": {{'
    assert set(read.lines) == {"role/a", "role/b"}


def test_only_changed_blocks_get_a_new_approver(kit: Any, lock: Lock) -> None:
    before = lock(*kit.role("same"), *kit.role("wider"))
    facts = [*kit.role("same"), *kit.role("wider", kit.document(kit.allow("s3:*", "*"))), *kit.role("new")]
    content = updating.updated(kit.NAMES, Catalog((), (), ()), facts, before, approval("other@example.com"))
    approvers = {name: block.approver for name, block in content.grants.items()}
    assert approvers == {
        "role/same": "lead@example.com",
        "role/wider": "other@example.com",
        "role/new": "other@example.com",
    }
    assert content.grants["role/same"].review_date == before.content.grants["role/same"].review_date
    assert content.grants["role/wider"].review_date == datetime.date(2027, 2, 21)


def test_a_document_that_nobody_can_read_is_not_locked(kit: Any) -> None:
    facts = [*kit.role("x"), Fact("role/x", Slot.INLINE, "p", AT_PREVIEW), Fact("role/x", Slot.INLINE, "q", "nonsense")]
    with pytest.raises(InputError) as error:
        updating.updated(kit.NAMES, Catalog((), (), ()), facts, None, approval("a@example.com"))
    assert len(error.value.problems) == 2


def test_a_new_grant_outside_the_catalog_needs_an_owner_and_a_reason(kit: Any) -> None:
    nobody = updating.Approval("a@example.com", datetime.date(2026, 11, 22))
    with pytest.raises(InputError, match="pass --owner"):
        updating.updated(kit.NAMES, Catalog((), (), ()), kit.role("x"), None, nobody)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: data.pop("environment"), "environment"),
        (lambda data: data.update(schema=2), "schema"),
        (lambda data: data["grants"]["role/x"].pop("approver"), "approver"),
        (lambda data: data["grants"]["role/x"]["grants"].update(magic={}), "is no kind of grant"),
        (lambda data: data["grants"]["role/x"]["grants"].update(inline=[]), "must map names"),
        (lambda data: data["grants"]["role/x"].update(extra=1), "extra"),
    ],
    ids=["no environment", "other schema", "no approver", "unknown slot", "wrong shape", "unknown key"],
)
def test_a_spoilt_lockfile_is_refused(kit: Any, lock: Lock, spoil: Callable[[Any], Any], told: str) -> None:
    read = lock(*kit.role("x"))
    data = json.loads(read.path.read_text())
    spoil(data)
    with pytest.raises(InputError, match=told):
        lockfile.parse(json.dumps(data), read.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "schema": 1}', "null", "[" * 100_000], ids=range(6))
def test_what_is_no_lockfile_is_an_error_and_no_traceback(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        lockfile.parse(text, tmp_path / "grants.lock.json")


def test_the_catalog_and_its_lockfile_agree_and_differences_show(kit: Any, tmp_path: Path) -> None:
    catalog = load_catalog(CATALOG)
    facts = updating.catalog_facts(catalog, kit.NAMES)
    content = updating.updated(kit.NAMES, catalog, facts, None, approval("a@example.com"))
    read = lockfile.parse(lockfile.render(content), tmp_path / "grants.lock.json")
    assert updating.catalog_differences(read, catalog) == ([], [])
    tool = catalog.tools[0]
    grant = tool.grants[0].model_copy(update={"actions": ("ses:*", "iam:PutUserPolicy"), "resources": ("*",)})
    wider = tool.model_copy(update={"grants": (grant,), "owner": "else@example.com"})
    changes, told = updating.catalog_differences(read, Catalog((wider, *catalog.tools[1:]), (), ()))
    assert [change.subject for change in changes] == [f"role/shop-test-tool-{tool.name}"]
    assert any("owner of tool" in line for line in told)
    _, told = updating.catalog_differences(read, Catalog(catalog.tools[1:], (), ()))
    assert any("does not declare" in line for line in told)
