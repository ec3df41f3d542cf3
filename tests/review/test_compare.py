"""Comparison by meaning: what counts as a change, which kind, and with which witness."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ringfence.review.changes import ChangeKind
from ringfence.review.compare import compare
from ringfence.review.facts import AT_PREVIEW, Fact, Slot, Surface

READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}


def test_a_document_as_text_and_as_mapping_is_the_same(kit: Any) -> None:
    before = kit.surface(*kit.role("x", kit.document(READ)))
    text = Fact("role/x", Slot.INLINE, "policy", json.dumps(kit.document(READ), indent=3))
    assert compare(before, before.with_facts([text])) == ()


def test_reordering_splitting_and_respelling_is_no_change(kit: Any) -> None:
    before = kit.surface(*kit.role("x", kit.document(kit.allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::b/*"))))
    split = kit.document(
        kit.allow("S3:putobject", ["arn:aws:s3:::b/*", "arn:aws:s3:::b/a*"]),
        kit.allow("s3:GetObject", "arn:aws:s3:::b/*"),
    )
    assert compare(before, kit.surface(*kit.role("x", split))) == ()
    other_names = kit.surface(
        *kit.role("x", kit.document(kit.allow("s3:PutObject", "arn:aws:s3:::b/*")), kit.document(READ))
    )
    assert compare(before, other_names) == ()


def test_a_widened_statement_is_named_with_a_witness(kit: Any) -> None:
    before = kit.surface(*kit.role("x", kit.document(READ)))
    after = kit.surface(*kit.role("x", kit.document(READ, kit.allow("s3:DeleteObject", "arn:aws:s3:::b/*"))))
    (change,) = compare(before, after)
    assert (change.kind, change.slot, change.key) == (ChangeKind.WIDENED, Slot.INLINE, "policy")
    assert change.request is not None
    assert change.request.action == "s3:DeleteObject"
    assert [item.statement for item in change.additions] == ["Allow s3:DeleteObject on arn:aws:s3:::b/*"]


def test_granting_less_needs_no_review(kit: Any) -> None:
    before = kit.surface(*kit.role("x", kit.document(READ, kit.allow("s3:DeleteObject", "arn:aws:s3:::b/*"))))
    (change,) = compare(before, kit.surface(*kit.role("x", kit.document(READ))))
    assert change.kind is ChangeKind.REMOVED
    assert not change.needs_review
    assert change.request is not None
    assert change.request.action == "s3:DeleteObject"


def test_a_deny_in_one_policy_covers_an_allow_in_another(kit: Any) -> None:
    deny = {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"}
    before = kit.surface(*kit.role("x", kit.document(kit.allow("s3:*", "*")), kit.document(deny)))
    assert compare(before, before) == ()
    without = kit.surface(*kit.role("x", kit.document(kit.allow("s3:*", "*"))))
    (change,) = compare(before, without)
    assert change.kind is ChangeKind.WIDENED
    assert change.request is not None
    assert change.request.action.startswith("s3:Delete")


def test_an_attached_policy_counts_with_its_document(kit: Any) -> None:
    shared = Fact("policy/shared", Slot.DOCUMENT, "", kit.document(READ))
    attached = Fact("role/x", Slot.MANAGED, "policy/shared", "policy/shared")
    before = kit.surface(*kit.role("x"), attached, shared)
    inline_instead = kit.surface(*kit.role("x", kit.document(READ)), shared)
    assert compare(before, inline_instead) == ()
    wider = Fact("policy/shared", Slot.DOCUMENT, "", kit.document(READ, kit.allow("s3:PutObject", "*")))
    found = compare(before, kit.surface(*kit.role("x"), attached, wider))
    assert {change.subject for change in found if change.needs_review} == {"policy/shared", "role/x"}


def test_the_boundary_limits_and_its_removal_is_told(kit: Any) -> None:
    limit = Fact("policy/limit", Slot.DOCUMENT, "", kit.document(kit.allow("s3:*", "*")))
    before = kit.surface(*kit.role("x", kit.document(READ), boundary="policy/limit"), limit)
    outside = kit.surface(*kit.role("x", kit.document(READ, kit.allow("iam:*", "*")), boundary="policy/limit"), limit)
    assert compare(before, outside) == ()
    gone = kit.surface(*kit.role("x", kit.document(READ, kit.allow("iam:*", "*"))), limit)
    found = compare(before, gone)
    assert any(change.slot is Slot.BOUNDARY and "is removed" in change.message for change in found)
    assert any(change.escalations for change in found)


def test_a_boundary_removed_from_a_role_that_uses_less_is_still_told(kit: Any) -> None:
    before = kit.surface(*kit.role("x", kit.document(READ), boundary="policy/elsewhere"))
    (change,) = compare(before, kit.surface(*kit.role("x", kit.document(READ))))
    assert change.kind is ChangeKind.CHANGED
    assert change.slot is Slot.BOUNDARY


def test_an_attachment_whose_document_nobody_has_is_told(kit: Any) -> None:
    attached = Fact("role/x", Slot.MANAGED, "policy/elsewhere", "policy/elsewhere")
    (change,) = compare(kit.surface(*kit.role("x")), kit.surface(*kit.role("x"), attached))
    assert change.kind is ChangeKind.ADDED


def test_an_aws_managed_policy_is_told_even_if_it_adds_nothing(kit: Any) -> None:
    attached = Fact("role/x", Slot.MANAGED, "aws:policy/ReadOnlyAccess", "aws:policy/ReadOnlyAccess")
    before = kit.surface(*kit.role("x", kit.document(kit.allow("*", "*"))))
    (change,) = compare(before, kit.surface(*kit.role("x", kit.document(kit.allow("*", "*"))), attached))
    assert change.kind is ChangeKind.ADDED
    assert "AWS can change" in change.message


@pytest.mark.parametrize(
    "who", [{"AWS": "*"}, "*", {"AWS": "arn:aws:iam::123456789012:root"}, {"Service": "ec2.amazonaws.com"}]
)
def test_a_wider_trust_is_told(kit: Any, who: Any) -> None:
    (change,) = compare(kit.surface(*kit.role("x")), kit.surface(*kit.role("x", who=who)))
    assert (change.kind, change.slot) == (ChangeKind.WIDENED, Slot.TRUST)


def test_a_deny_dropped_from_a_bucket_policy_is_told(kit: Any) -> None:
    grant = kit.allow("s3:GetObject", "arn:aws:s3:::b/*", Principal={"AWS": f"{kit.ARN}:role/x"})
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*", "Principal": "*"}
    before = kit.surface(Fact("bucket/b", Slot.RESOURCE_POLICY, "", kit.document(grant, deny)))
    after = kit.surface(Fact("bucket/b", Slot.RESOURCE_POLICY, "", kit.document(grant)))
    (change,) = compare(before, after)
    assert change.needs_review
    (gone,) = compare(before, kit.surface(Fact("bucket/c", Slot.EXISTS, "", True)), ["bucket/b"])
    assert gone.needs_review


def test_an_unknown_document_needs_a_review_and_hides_nothing_else(kit: Any) -> None:
    before = kit.surface(*kit.role("x", kit.document(READ)))
    unknown = Fact("role/x", Slot.INLINE, "other", AT_PREVIEW)
    wider = Fact("role/x", Slot.INLINE, "policy", kit.document(kit.allow("s3:*", "*")))
    kinds = {change.kind for change in compare(before, before.with_facts([unknown, wider]))}
    assert kinds == {ChangeKind.UNREVIEWABLE, ChangeKind.WIDENED}


def test_a_broken_document_needs_a_review(kit: Any) -> None:
    before = kit.surface(*kit.role("x", kit.document(READ)))
    for broken in ("not json", {"Statement": []}, kit.document({"Effect": "Allow", "Action": "s3:*"}), 5):
        changes = compare(before, before.with_facts([Fact("role/x", Slot.INLINE, "policy", broken)]))
        assert any(change.kind is ChangeKind.UNREVIEWABLE for change in changes), broken


def test_a_new_role_is_told_by_what_it_grants(kit: Any) -> None:
    found = compare(kit.surface(), kit.surface(*kit.role("new", kit.document(READ))))
    assert {change.slot for change in found} == {Slot.TRUST, Slot.INLINE}
    assert all(change.needs_review for change in found)
    (bare,) = compare(kit.surface(), kit.surface(Fact("user/u", Slot.EXISTS, "", True)))
    assert bare.kind is ChangeKind.ADDED


def test_condition_values_are_not_shown(kit: Any) -> None:
    secret = kit.allow("s3:PutObject", "*", Condition={"StringEquals": {"aws:UserAgent": "hunter2-secret"}})
    (change,) = compare(kit.surface(*kit.role("x")), kit.surface(*kit.role("x", kit.document(secret))))
    assert "hunter2" not in change.additions[0].statement


def test_a_policy_added_to_another_programs_role_is_held_to_that_roles_limits(kit: Any) -> None:
    limit = Fact("policy/limit", Slot.DOCUMENT, "", kit.document(kit.allow("s3:*", "*")))
    before = kit.surface(*kit.role("x", kit.document(READ), boundary="policy/limit"), limit)
    outside = Fact("role/x", Slot.INLINE, "more", kit.document(kit.allow("iam:*", "*")))
    inside = Fact("role/x", Slot.INLINE, "more", kit.document(kit.allow("s3:PutObject", "*")))
    assert compare(before, kit.surface(outside), ["role/x"]) == ()
    (change,) = compare(before, kit.surface(inside), ["role/x"])
    assert change.kind is ChangeKind.WIDENED


@pytest.mark.parametrize("slot", [Slot.INLINE, Slot.TRUST, Slot.DOCUMENT, Slot.RESOURCE_POLICY])
def test_a_document_that_gives_a_key_twice_is_never_the_approved_one(slot: Slot) -> None:
    principal = (
        {"Principal": {"AWS": "arn:aws:iam::123456789012:root"}} if slot in (Slot.TRUST, Slot.RESOURCE_POLICY) else {}
    )
    action = "sts:AssumeRole" if slot is Slot.TRUST else "s3:GetObject"
    resource = {} if slot is Slot.TRUST else {"Resource": "arn:aws:s3:::b/*"}
    statement = json.dumps({"Effect": "Allow", "Action": action, **resource, **principal})
    approved = f'{{"Version": "2012-10-17", "Statement": [{statement}]}}'
    twice = f'{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow"}}], "Statement": [{statement}]}}'
    place = ("role/x" if slot in (Slot.INLINE, Slot.TRUST) else "thing/x", slot, "")
    baseline = Surface.of("approved", [Fact(*place, approved)])
    assert compare(baseline, Surface.of("program", [Fact(*place, approved)])) == ()
    (change,) = compare(baseline, Surface.of("program", [Fact(*place, twice)]))
    assert change.kind is ChangeKind.UNREVIEWABLE
    deep = '{"Statement":' * 50_000
    (change,) = compare(baseline, Surface.of("program", [Fact(*place, deep)]))
    assert change.kind is ChangeKind.UNREVIEWABLE
