"""A report as Markdown for one pull-request comment, as JSON, and as SARIF 2.1.0. HTML is in `page`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from typing import Any

from ringfence.review import wording
from ringfence.review.changes import Change, ChangeKind, request_text, slot_text
from ringfence.review.facts import Slot
from ringfence.review.page import as_html
from ringfence.review.report import COMMENT_MARKER, KIND_TEXT, Report, headline, report_data

# GitHub takes comments of up to 65,536 characters; GitLab takes more.
MARKDOWN_LIMIT = 60_000
SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {ChangeKind.REMOVED: "note"}


def _code(text: str) -> str:
    """Text as inline code that can't break out of it, of a table cell or of the line."""
    flat = " ".join(text.split()).replace("|", "\\|")
    fence = "``" if "`" in flat else "`"
    padded = f" {flat} " if "`" in flat else flat
    return f"{fence}{padded}{fence}" if flat else ""


def _plain(text: str) -> str:
    """A sentence whose names can't act as Markdown or HTML."""
    flat = " ".join(text.split())
    return "".join(f"\\{mark}" if mark in "\\`*_<>[]|#" else mark for mark in flat)


def as_markdown(report: Report) -> str:
    """One comment: the headline, what to review, what was removed, what isn't used."""
    head = [COMMENT_MARKER, f"## {_plain(report.title)}", "", f"**{_plain(headline(report))}**", ""]
    parts = [_change_markdown(report, change) for change in report.to_review]
    tail: list[str] = []
    if report.removed:
        tail += ["### No longer granted", ""]
        tail += [f"- {_plain(change.message)}{_witness(change)}" for change in report.removed] + [""]
    if report.unused:
        tail += ["### Granted but not used", ""]
        tail += [f"- {_code(u.subject)}: {_code(u.action)} of {_code(u.policy)}" for u in report.unused] + [""]
    if report.unread:
        tail += ["### Not read", "", *(f"- {_plain(item)}" for item in report.unread), ""]
    versions = ", ".join(f"{name}: {version}" for name, version in sorted(report.versions.items()))
    tail.append(f"<sub>{_plain(report.baseline)} → {_plain(report.candidate)}. Data: {_plain(versions)}.</sub>")
    return _within_limit(head, parts, tail)


def _within_limit(head: list[str], parts: list[str], tail: list[str]) -> str:
    text = "\n".join([*head, *parts, *tail]) + "\n"
    if len(text) <= MARKDOWN_LIMIT:
        return text
    kept: list[str] = []
    room = MARKDOWN_LIMIT - sum(len(line) + 1 for line in head) - 300
    for part in parts:
        if len(part) + 1 > room:
            break
        kept.append(part)
        room -= len(part) + 1
    rest = f"**{len(parts) - len(kept)} more changes don't fit here: see the full report of this run.**"
    return "\n".join([*head, *kept, rest]) + "\n"


def _witness(change: Change) -> str:
    return f" ({_code(request_text(change.request))})" if change.request else ""


def _change_markdown(report: Report, change: Change) -> str:
    place = report.location(change)
    approver = report.approved.get(change.place)
    state = f"approved by {_plain(approver)}" if approver else "**not approved**"
    lines = [f"### {_code(change.subject)}: {slot_text(change.slot)} {KIND_TEXT[change.kind]}, {state}", ""]
    lines.append(f"{_plain(change.message)}.")
    lines.append("")
    if change.request:
        lines.append(f"- Witness: {_code(request_text(change.request))}")
    lines += [f"- Added: {_code(item.statement)}" for item in change.additions[:10]]
    if len(change.additions) > 10:
        lines.append(f"- Added: {len(change.additions) - 10} more statements")
    lines += [
        f"- **Escalation path now complete**: {_code(item.path.name)} ({item.id}, {item.path.category})"
        for item in change.escalations[:10]
    ]
    if len(change.escalations) > 10:
        lines.append(f"- **{len(change.escalations) - 10} more escalation paths now complete**")
    lines += [
        f"- Why it matters: {wording.why(change)}.",
        f"- Fix: {wording.fix(change)}.",
        f"- Approve: {wording.approve(change)}.",
        f"- Where: {_code(f'{place.file}:{place.line}')}",
        "",
    ]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """The whole report as JSON."""
    return json.dumps(report_data(report), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def as_sarif(report: Report) -> str:
    """SARIF 2.1.0: a result per change at its catalog entry, so that a code host shows it beside the line."""
    changes = (*report.to_review, *report.removed)
    results = [_result(report, change) for change in changes]
    results += [_unused_result(report, item.subject, item.policy, item.action) for item in report.unused]
    log = {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "Ringfence",
                        "version": importlib.metadata.version("ringfence"),
                        "rules": list(_rules(changes, bool(report.unused))),
                    }
                },
                "columnKind": "utf16CodeUnits",
                "results": results,
            }
        ],
    }
    return json.dumps(log, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _rule_id(kind: ChangeKind, slot: Slot) -> str:
    return f"permission-{kind}/{slot}"


def _rules(changes: Iterable[Change], unused: bool) -> Iterable[dict[str, Any]]:
    told: dict[str, Change] = {}
    for change in changes:
        told.setdefault(_rule_id(change.kind, change.slot), change)
    for name, change in sorted(told.items()):
        yield {
            "id": name,
            "shortDescription": {"text": f"{slot_text(change.slot)}: {KIND_TEXT[change.kind]}"},
            "fullDescription": {"text": f"Why it matters: {wording.why(change)}."},
            "help": {"text": f"Fix: {wording.fix(change)}. Approve: {wording.approve(change)}."},
            "defaultConfiguration": {"level": _LEVELS.get(change.kind, "error")},
        }
    if unused:
        yield {
            "id": "permission-unused",
            "shortDescription": {"text": "granted but not used"},
            "defaultConfiguration": {"level": "note"},
        }


def _result(report: Report, change: Change) -> dict[str, Any]:
    text = " ".join(wording.lines(change))
    level = _LEVELS.get(change.kind, "warning" if change.place in report.approved else "error")
    return _sarif_result(report, change.subject, _rule_id(change.kind, change.slot), level, text, change.place)


def _unused_result(report: Report, subject: str, policy: str, action: str) -> dict[str, Any]:
    text = f"{subject} never used {action} of {policy}."
    return _sarif_result(report, subject, "permission-unused", "note", text, f"{subject} {policy} {action}")


def _sarif_result(report: Report, subject: str, rule: str, level: str, text: str, place: str) -> dict[str, Any]:
    location = report.locations.get(subject)
    file, line = (location.file, location.line) if location else ("catalog/grants.lock.json", 1)
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": file, "uriBaseId": "%SRCROOT%"},
                    "region": {"startLine": line},
                },
                "logicalLocations": [{"fullyQualifiedName": subject, "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"place/v1": hashlib.sha256(f"{rule} {place}".encode()).hexdigest()},
    }


FORMATS: dict[str, Callable[[Report], str]] = {
    "markdown": as_markdown,
    "json": as_json,
    "sarif": as_sarif,
    "html": as_html,
}
