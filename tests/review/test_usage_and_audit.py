"""Unused grants, overdue reviews and exceptions."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import InputError
from ringfence.review import auditing, exceptions, usage
from ringfence.review.compare import compare
from ringfence.review.lockfile import Lockfile

TODAY = datetime.date(2026, 11, 22)


def event(source: str, name: str, role: str = "x") -> dict[str, Any]:
    issuer = {"arn": f"arn:aws:iam::123456789012:role/{role}"}
    return {
        "eventSource": f"{source}.amazonaws.com",
        "eventName": name,
        "userIdentity": {
            "arn": "arn:aws:sts::123456789012:assumed-role/x/y",
            "sessionContext": {"sessionIssuer": issuer},
        },
    }


def test_actions_that_no_event_shows_are_unused(kit: Any, tmp_path: Path) -> None:
    grants = kit.document(kit.allow(["s3:GetObject", "s3:Put*", "s3:ListBucket", "sqs:*"], "*"))
    path = tmp_path / "events.json"
    path.write_text(json.dumps({"Records": [event("s3", "GetObject"), event("s3", "ListObjectsV2")]}))
    found = usage.unused(kit.surface(*kit.role("x", grants), *kit.role("silent", grants)), usage.read([], [path]))
    assert {(item.subject, item.action) for item in found} == {("role/x", "s3:Put*"), ("role/x", "sqs:*")}


def test_last_accessed_data_of_whole_services_calls_no_action_unused(kit: Any, tmp_path: Path) -> None:
    grants = kit.document(kit.allow(["s3:GetObject", "sqs:SendMessage", "sns:Publish"], "*"))
    services = [
        {"ServiceNamespace": "s3", "LastAuthenticated": "2026-11-01T00:00:00Z"},
        {"ServiceNamespace": "sqs"},
        {
            "ServiceNamespace": "sns",
            "LastAuthenticated": "2026-11-01T00:00:00Z",
            "TrackedActionsLastAccessed": [
                {"ActionName": "Publish", "LastAccessedTime": "2026-11-01T00:00:00Z"},
                {"ActionName": "Subscribe"},
            ],
        },
    ]
    path = tmp_path / "last.json"
    path.write_text(json.dumps({"arn:aws:iam::123456789012:role/x": {"ServicesLastAccessed": services}}))
    found = usage.unused(kit.surface(*kit.role("x", grants)), usage.read([path], []))
    assert [item.action for item in found] == ["sqs:SendMessage"]


@pytest.mark.parametrize("text", ["", "{", "\xff\xfe"])
def test_unreadable_usage_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError):
        usage.read([], [path])


def test_overdue_and_missing_review_dates_are_found(kit: Any, lock: Callable[..., Lockfile], tmp_path: Path) -> None:
    read = lock(*kit.role("late"), day="2026-01-01")
    none = tmp_path / "exceptions.yaml"
    (finding,) = auditing.findings(read, none, {}, TODAY)
    assert finding.startswith("overdue by 234 days: role/late")
    assert auditing.findings(lock(*kit.role("fine")), none, {}, TODAY) == []
    data = json.loads(read.path.read_text())
    del data["grants"]["role/fine"]["reviewDate"]
    from ringfence.review import lockfile

    (missing,) = auditing.findings(lockfile.parse(json.dumps(data), read.path), none, {}, TODAY)
    assert missing.startswith("no review date: role/fine")


def exception_file(tmp_path: Path, expires: str, **more: str) -> Path:
    entry = {
        "subject": "role/x",
        "action": "s3:DeleteObject",
        "resource": "arn:aws:s3:::b/old",
        "reason": "the migration deletes one file by hand",
        "expires": expires,
    } | more
    path = tmp_path / "exceptions.yaml"
    path.write_text(
        "grants:\n  - " + "\n    ".join(f"{key}: {value!r}" for key, value in entry.items() if key != "expires")
    )
    path.write_text(path.read_text() + f"\n    expires: {entry['expires']}\n")
    return path


def test_an_exception_covers_its_one_action_on_its_one_resource(kit: Any, tmp_path: Path) -> None:
    excused = exceptions.read(exception_file(tmp_path, "2026-12-01"), TODAY)
    baseline = excused.extend(kit.surface(*kit.role("x")))
    one = kit.document(kit.allow("s3:DeleteObject", "arn:aws:s3:::b/old"))
    more = kit.document(kit.allow("s3:DeleteObject", "arn:aws:s3:::b/*"))
    assert not [c for c in compare(baseline, baseline.with_facts(kit.role("x", one))) if c.needs_review]
    assert [c for c in compare(baseline, baseline.with_facts(kit.role("x", more))) if c.needs_review]


def test_an_expired_exception_covers_nothing_and_is_told(kit: Any, tmp_path: Path) -> None:
    excused = exceptions.read(exception_file(tmp_path, "2026-11-21"), TODAY)
    assert excused.grants == ()
    assert "expired on 2026-11-21" in exceptions.expired_text(excused.expired[0])


@pytest.mark.parametrize(
    "more", [{"action": "s3:*"}, {"resource": "arn:aws:s3:::b/*"}, {"reason": "because"}, {"expires": "2028-01-01"}]
)
def test_a_broad_or_endless_exception_is_refused(tmp_path: Path, more: dict[str, str]) -> None:
    path = exception_file(
        tmp_path, more.get("expires", "2026-12-01"), **{k: v for k, v in more.items() if k != "expires"}
    )
    with pytest.raises(InputError):
        exceptions.read(path, TODAY)
