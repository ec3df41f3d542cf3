"""`ringfence grants`, `review`, `drift` and `audit-permissions`.

Exit codes: 0 nothing to do, 1 failed, 2 something needs a review.
"""

from __future__ import annotations

import datetime
import functools
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from ringfence import catalog as catalogs
from ringfence.catalog.model import Catalog
from ringfence.errors import InputError, Problem
from ringfence.review import auditing, baselines, live, lockfile, reporting, sources, updating, usage
from ringfence.review.changes import Change
from ringfence.review.compare import compare
from ringfence.review.explain import explain as explained
from ringfence.review.explain import subjects_named
from ringfence.review.lockfile import Lockfile
from ringfence.review.report import Report, headline
from ringfence.review.sources import surface_of
from ringfence.review.wording import lines
from ringfence.settings.loader import load_stack

NEEDS_REVIEW = 2
_FILE = click.Path(path_type=Path, dir_okay=False)


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--stack", default="local", show_default=True, help="whose grants"),
        click.option(
            "--catalog",
            "catalog_path",
            type=click.Path(path_type=Path),
            default=Path("catalog"),
            show_default=True,
            help="catalog folder",
        ),
        click.option(
            "--lockfile", "lock_path", type=_FILE, help="lockfile  [default: the stack's in the catalog folder]"
        ),
    ):
        command = option(command)
    return _failing_with_one(command)


def _failing_with_one(command: Callable[..., Any]) -> Callable[..., Any]:
    """Bad input ends other commands with 2, which of these means that something needs a review."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        try:
            return command(*args, **options)
        except InputError as error:
            error.exit_code = 1
            raise

    return run


def _usage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--last-accessed", "last_accessed", type=_FILE, multiple=True, help="IAM last-accessed data, by role"
        ),
        click.option("--cloudtrail", "events", type=_FILE, multiple=True, help="CloudTrail records"),
    ):
        command = option(command)
    return command


def _output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    formats = click.Choice(sorted(reporting.FORMATS))
    for option in (
        click.option("--format", "formats", type=formats, multiple=True, help="what to write  [default: markdown]"),
        click.option(
            "--out", type=click.Path(path_type=Path), help="file for one format, folder for several  [default: print]"
        ),
    ):
        command = option(command)
    return command


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _lock_path(given: Path | None, stack: str, catalog_path: Path) -> Path:
    return given or lockfile.path_for(stack, catalog_path)


def _catalog(path: Path) -> Catalog | None:
    """The catalog, None where a project has none: the review works without it."""
    return catalogs.load(path) if (path / "tools").is_dir() else None


def _say(changes: Iterable[Change]) -> None:
    for change in changes:
        click.echo("\n    ".join(lines(change) if change.needs_review else [f"{change.message}."]))


@click.group()
def grants() -> None:
    """The grant lockfile: what was approved, by whom, until when."""


@grants.command()
@_common
@click.option("--preview", type=_FILE, help="also compare with this `pulumi preview --json --show-sames`")
def check(lock_path: Path | None, catalog_path: Path, stack: str, preview: Path | None) -> None:
    """Say where the lockfile differs from the catalog, and from a preview if one is given. Exits with 2 if it does."""
    lock = lockfile.read(_lock_path(lock_path, stack, catalog_path))
    changes: list[Change] = []
    told: list[str] = []
    if (declared := _catalog(catalog_path)) is not None:
        changes, told = updating.catalog_differences(lock, declared)
    if preview:
        candidate = surface_of("preview", sources.preview_resources(preview))
        changes += [item for item in compare(lock.surface, candidate) if item not in changes]
    _say(changes)
    for line in told:
        click.echo(f"{line}.")
    count = len(lock.content.grants)
    if changes or told:
        click.echo(f"{len(changes) + len(told)} differences. Update with: ringfence grants update --approver YOU")
        sys.exit(NEEDS_REVIEW)
    click.echo(f"{count} subject{'s' if count != 1 else ''} approved in {lock.path}; the catalog agrees")


@grants.command()
@_common
@click.option("--preview", type=_FILE, help="take every grant from this `pulumi preview --json --show-sames`")
@click.option("--approver", required=True, help="who approves what is new or changed")
@click.option("--owner", default="", help="who answers for new grants outside the catalog")
@click.option("--justification", default="", help="why new grants outside the catalog are needed")
def update(
    lock_path: Path | None,
    catalog_path: Path,
    stack: str,
    preview: Path | None,
    approver: str,
    owner: str,
    justification: str,
) -> None:
    """Write the lockfile anew from the catalog and a preview. Without a preview only the tools' own grants change."""
    path = _lock_path(lock_path, stack, catalog_path)
    previous = lockfile.read(path) if path.exists() else None
    declared = _catalog(catalog_path) or Catalog((), (), ())
    names = load_stack(Path(), stack).names if previous is None else previous.content.environment.names()
    if preview:
        candidate = surface_of("preview", sources.preview_resources(preview))
    else:
        candidate = updating.without_preview(previous, declared, names)
    approval = updating.Approval(approver, _today(), owner, justification)
    content = updating.updated(names, declared, candidate.facts.values(), previous, approval)
    text = lockfile.render(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        click.echo(f"{path} is up to date")
        return
    before = set(previous.content.grants) if previous else set()
    path.write_text(text, encoding="utf-8")
    changed = [
        name for name, block in content.grants.items() if previous is None or previous.content.grants.get(name) != block
    ]
    gone = sorted(before - set(content.grants))
    for name in changed:
        click.echo(f"{'changed' if name in before else 'new'}: {name}")
    for name in gone:
        click.echo(f"gone: {name}")
    click.echo(f"wrote {path}: {len(content.grants)} subjects")


@grants.command()
@_common
@click.argument("name")
def explain(lock_path: Path | None, catalog_path: Path, stack: str, name: str) -> None:
    """Say in words what NAME (a tool, a role or another subject) is approved to do."""
    lock = lockfile.read(_lock_path(lock_path, stack, catalog_path))
    found = subjects_named(lock, name)
    if not found:
        known = ", ".join(sorted(lock.content.grants)) or "none"
        raise InputError([Problem(str(lock.path), name, "is not in the lockfile", f"known: {known[:1500]}")])
    for subject in found:
        for line in explained(lock, subject):
            click.echo(line)


@click.command()
@_common
@_usage_options
@_output_options
@click.option("--base", help="revision to compare with: what this branch adds  [default: the lockfile as it is]")
@click.option("--preview", type=_FILE, help="`pulumi preview --json --show-sames`  [default: see --embedded]")
@click.option("--embedded", is_flag=True, help="preview on the embedded target; so is it without --base and --preview")
def review(
    lock_path: Path | None,
    catalog_path: Path,
    stack: str,
    last_accessed: tuple[Path, ...],
    events: tuple[Path, ...],
    formats: tuple[str, ...],
    out: Path | None,
    base: str | None,
    preview: Path | None,
    embedded: bool,
) -> None:
    """Report the permission changes of a branch. Exits with 2 if there are any to review."""
    path = _lock_path(lock_path, stack, catalog_path)
    head = lockfile.read(path) if path.exists() else None
    before = baselines.at_revision(path, base) if base else head
    if preview is None and (base is None or embedded):
        resources = sources.preview_of(_embedded_preview(stack), "the embedded target's preview")
        candidate = surface_of("preview", resources)
    elif preview is not None:
        candidate = surface_of("preview", sources.preview_resources(preview))
    elif head is not None:
        candidate = head.surface
    else:
        # A lockfile that a branch deletes takes away no permission: nothing says any more which are approved.
        remedy = "restore it, or make it with `ringfence grants update`, or compare a preview (--preview, --embedded)"
        raise InputError([Problem(str(path), "", "is missing, and without it there is nothing to compare", remedy)])
    report = reporting.review_report(
        before=_surface(before),
        candidate=candidate,
        head=head,
        catalog=_catalog(catalog_path),
        usage=usage.read(last_accessed, events),
        day=_today(),
        labels=(
            f"{path.name} at {base}" if base else path.name,
            path.name if candidate.label != "preview" else "preview",
        ),
    )
    reporting.write(report, formats or ("markdown",), out)
    _finish(report, bool(report.to_review), out)


def _embedded_preview(stack: str) -> str:
    """The JSON of a preview on the embedded target. Packs are left out: their findings are what is reported here."""
    from ringfence.local.console import Clock
    from ringfence.local.lifecycle import Embedded, find_project, home_of

    folder = find_project(Path())
    # Standard output is the report's alone.
    clock = Clock(functools.partial(click.echo, err=True))
    target = Embedded(folder, stack=stack, home=home_of(folder), clock=clock)
    return target.preview((), packs=(), refresh=False, as_json=True).check().stdout


def _surface(lock: Lockfile | None) -> lockfile.Surface:
    return lock.surface if lock else lockfile.Surface("nothing approved")


def _finish(report: Report, needed: bool, out: Path | None) -> None:
    if out:
        click.echo(headline(report))
    for item in report.unread:
        click.echo(f"not read: {item}", err=True)
    if report.unread and not needed:
        sys.exit(1)
    if needed:
        sys.exit(NEEDS_REVIEW)


@click.command()
@_common
@_usage_options
@_output_options
@click.option("--live", "from_account", is_flag=True, help="read the account of the current credentials")
@click.option("--state", type=_FILE, help="read a `pulumi stack export`")
def drift(
    lock_path: Path | None,
    catalog_path: Path,
    stack: str,
    last_accessed: tuple[Path, ...],
    events: tuple[Path, ...],
    formats: tuple[str, ...],
    out: Path | None,
    from_account: bool,
    state: Path | None,
) -> None:
    """Compare the lockfile with the live account or a stack's state. Exits with 2 if they differ in any way."""
    if from_account == bool(state):
        remedy = "pass either --live or --state FILE"
        raise InputError([Problem("ringfence drift", "", "needs exactly one source", remedy)])
    lock = lockfile.read(_lock_path(lock_path, stack, catalog_path))
    unread: tuple[str, ...] = ()
    if state:
        baseline, candidate = lock.surface, surface_of(str(state), sources.state_resources(state), declared=False)
    else:
        import boto3

        found = live.read(lock, boto3.Session(region_name=lock.content.environment.region))
        baseline, candidate, unread = live.comparable(lock), found.surface, found.unread
    report = reporting.drift_report(
        baseline=baseline,
        candidate=candidate,
        lock=lock,
        catalog=_catalog(catalog_path),
        usage=usage.read(last_accessed, events),
        day=_today(),
        unread=unread,
    )
    reporting.write(report, formats or ("markdown",), out)
    _finish(report, bool(report.changes), out)


@click.command("audit-permissions")
@_common
@_usage_options
def audit_permissions(
    lock_path: Path | None,
    catalog_path: Path,
    stack: str,
    last_accessed: tuple[Path, ...],
    events: tuple[Path, ...],
) -> None:
    """The quarterly audit: review dates that are missing or past, expired exceptions, grants that nobody uses.

    Exits with 2 if there is anything to do.
    """
    lock = lockfile.read(_lock_path(lock_path, stack, catalog_path))
    findings = auditing.findings(lock, catalog_path / "exceptions.yaml", usage.read(last_accessed, events), _today())
    for finding in findings:
        click.echo(finding)
    if findings:
        sys.exit(NEEDS_REVIEW)
    click.echo(f"{len(lock.content.grants)} subjects, every review date set and ahead")
