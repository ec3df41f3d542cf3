"""Builds the reports of `review` and `drift`, and writes them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from ringfence.catalog.model import Catalog
from ringfence.review.compare import compare
from ringfence.review.facts import Surface
from ringfence.review.lockfile import Lockfile, catalogue_versions
from ringfence.review.rendering import FORMATS
from ringfence.review.report import Report, locations
from ringfence.review.usage import Usage, unused

SUFFIXES = {"markdown": "md", "json": "json", "sarif": "sarif", "html": "html"}


def review_report(
    *,
    before: Surface,
    candidate: Surface,
    head: Lockfile | None,
    catalog: Catalog | None,
    usage: Mapping[str, Usage],
    day: datetime.date,
    labels: tuple[str, str],
) -> Report:
    """What `candidate` grants beyond `before`; a change that the working tree's lockfile covers counts as approved."""
    changes = compare(before, candidate)
    approved: dict[str, str] = {}
    if head is not None and head.surface is not before:
        still_open = {change.place for change in compare(head.surface, candidate) if change.needs_review}
        for change in changes:
            block = head.block(change.subject)
            if change.needs_review and change.place not in still_open and block is not None:
                approved[change.place] = block.approver
    return Report(
        title="Permission review",
        baseline=labels[0],
        candidate=labels[1],
        changes=changes,
        versions=catalogue_versions(),
        day=day,
        unused=unused(candidate, usage),
        approved=approved,
        locations=locations(head, catalog),
    )


def drift_report(
    *,
    baseline: Surface,
    candidate: Surface,
    lock: Lockfile,
    catalog: Catalog | None,
    usage: Mapping[str, Usage],
    day: datetime.date,
    unread: tuple[str, ...],
) -> Report:
    """Where what is there differs from what was approved, either way."""
    return Report(
        title="Permission drift",
        baseline=lock.path.name,
        candidate=candidate.label,
        changes=compare(baseline, candidate),
        versions=catalogue_versions(),
        day=day,
        unused=unused(candidate, usage),
        locations=locations(lock, catalog),
        unread=unread,
    )


def write(report: Report, formats: Iterable[str], out: Path | None) -> None:
    """Prints a report, or writes it: to a file for one format, into a folder as ``report.<suffix>`` for several."""
    wanted = tuple(dict.fromkeys(formats))
    for name in wanted:
        text = FORMATS[name](report)
        if out is None:
            click.echo(text, nl=False)
            continue
        path = out / f"report.{SUFFIXES[name]}" if len(wanted) > 1 else out
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
