"""One review as data, for every output format alike."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.catalog.model import Catalog
from ringfence.review import wording
from ringfence.review.changes import Change, ChangeKind, request_text, shown_context
from ringfence.review.lockfile import Lockfile
from ringfence.review.usage import UnusedGrant

# Marks the one comment that is edited on every push.
COMMENT_MARKER = "<!-- ringfence-review -->"


@dataclass(frozen=True, slots=True)
class Location:
    """Where a reader mends or approves a finding: file and 1-based line."""

    file: str
    line: int


@dataclass(frozen=True)
class Report:
    """The outcome of one comparison. approved: places of changes that the working tree's lockfile already covers, with
    who approved them; versions: of the data that the decisions rest on; day: when it was made."""

    title: str
    baseline: str
    candidate: str
    changes: tuple[Change, ...]
    versions: Mapping[str, str]
    day: datetime.date
    unused: tuple[UnusedGrant, ...] = ()
    approved: Mapping[str, str] = field(default_factory=dict)
    locations: Mapping[str, Location] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def to_review(self) -> tuple[Change, ...]:
        """Changes that somebody must look at, unapproved ones first."""
        found = [change for change in self.changes if change.needs_review]
        return tuple(sorted(found, key=lambda change: change.place in self.approved))

    @property
    def removed(self) -> tuple[Change, ...]:
        """Changes that only take away."""
        return tuple(change for change in self.changes if not change.needs_review)

    @property
    def unapproved(self) -> tuple[Change, ...]:
        """Changes to review that no lockfile covers."""
        return tuple(change for change in self.to_review if change.place not in self.approved)

    def location(self, change: Change) -> Location:
        """Where the change is mended or approved."""
        return self.locations.get(change.subject) or Location("catalog/grants.lock.json", 1)


def locations(lock: Lockfile | None, catalog: Catalog | None) -> dict[str, Location]:
    """File and line by subject: the catalog entry of a tool's role, else the lockfile's block."""
    if lock is None:
        return {}
    found: dict[str, Location] = {}
    sources = {tool.name: tool.source for tool in catalog.tools} if catalog else {}
    for subject, block in lock.content.grants.items():
        source = sources.get(block.tool or "")
        found[subject] = (
            Location(source.file, max(source.line, 1))
            if source
            else Location(lock.path.as_posix(), lock.lines.get(subject, 1))
        )
    return found


def headline(report: Report) -> str:
    """The outcome in a sentence."""
    count, open_ = len(report.to_review), len(report.unapproved)
    paths = sum(len(change.escalations) for change in report.to_review)
    if not count:
        return "No permission was added." if report.removed else "No permission changed."
    parts = [f"{count} permission change{'s' if count != 1 else ''} to review"]
    parts.append(f"{open_} not approved" if open_ else "all approved in this branch")
    if paths:
        parts.append(f"{paths} escalation path{'s' if paths != 1 else ''} newly complete")
    return ", ".join(parts) + "."


def change_data(report: Report, change: Change) -> dict[str, Any]:
    """A change as plain values."""
    place = report.location(change)
    request = change.request
    return {
        "kind": str(change.kind),
        "needsReview": change.needs_review,
        "subject": change.subject,
        "slot": str(change.slot),
        "key": change.key,
        "message": change.message,
        "witness": None
        if request is None
        else {
            "text": request_text(request),
            "action": request.action,
            "resource": request.resource,
            "principal": request.principal.value if request.principal else None,
            "context": {key: list(values) for key, values in shown_context(request).items()},
        },
        "added": [
            {"statement": item.statement, "witness": request_text(item.request) if item.request else None}
            for item in change.additions
        ],
        "escalationPaths": [
            {"id": item.id, "name": item.path.name, "category": item.path.category, "scope": str(item.scope)}
            for item in change.escalations
        ],
        "why": wording.why(change),
        "fix": wording.fix(change),
        "approve": wording.approve(change),
        "approvedBy": report.approved.get(change.place),
        "source": change.source,
        "file": place.file,
        "line": place.line,
    }


def report_data(report: Report) -> dict[str, Any]:
    """A report as plain values: what `--format json` prints."""
    return {
        "schema": 1,
        "title": report.title,
        "summary": headline(report),
        "baseline": report.baseline,
        "candidate": report.candidate,
        "day": report.day.isoformat(),
        "versions": dict(report.versions),
        "needsReview": bool(report.to_review),
        "changes": [change_data(report, change) for change in (*report.to_review, *report.removed)],
        "unused": [{"subject": u.subject, "policy": u.policy, "action": u.action} for u in report.unused],
        "unread": list(report.unread),
    }


KIND_TEXT = {
    ChangeKind.WIDENED: "allows more",
    ChangeKind.ADDED: "added",
    ChangeKind.CHANGED: "changed",
    ChangeKind.UNDECIDED: "undecided",
    ChangeKind.UNREVIEWABLE: "not reviewable",
    ChangeKind.REMOVED: "removed",
}
