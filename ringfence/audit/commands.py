"""`ringfence audit`: show the trail, verify it, list clusters of refused attempts."""

from __future__ import annotations

import functools
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ringfence.audit import TRAIL_FILE, Refusals, Trail, verify
from ringfence.audit.verification import lines
from ringfence.errors import RingfenceError
from ringfence.local.lifecycle import find_project, home_of

MAX_SHOWN = 1_000_000


def _trail(command: Callable[..., None]) -> Callable[..., None]:
    @click.option("--trail", type=click.Path(path_type=Path, dir_okay=False), help="trail  [default: this project's]")
    @functools.wraps(command)
    def wrapped(trail: Path | None, **options: Any) -> None:
        path = trail or home_of(find_project(Path())) / TRAIL_FILE
        if not path.exists():
            raise RingfenceError(
                f"there is no audit trail at {path}\n    remedy: it begins with the first `ringfence run`"
            )
        command(path, **options)

    return wrapped


@click.group()
def audit() -> None:
    """The audit trail of what agents did and were refused."""


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in lines(path):
        try:
            record = json.loads(line)
            if not isinstance(record["metadata"], dict):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            click.echo(f"{path}:{number}: not a record; `ringfence audit verify` says more", err=True)
            continue
        yield record


def _fits(record: Mapping[str, Any], invocation: str, user: str, kind: str) -> bool:
    metadata = record["metadata"]
    return (
        (not invocation or metadata.get("correlation_uid") == invocation)
        and (not user or record.get("actor", {}).get("user", {}).get("name") == user)
        and (not kind or str(metadata.get("event_code", "")).startswith(kind))
    )


def _line(record: Mapping[str, Any]) -> str:
    when = datetime.fromtimestamp(record.get("time", 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    metadata = record["metadata"]
    named = " ".join(str(item.get("name", "")) for item in record.get("resources", ()))
    said = " ".join(filter(None, (record.get("status_code", ""), record.get("status_detail", ""))))
    parts = (
        when, f"{metadata.get('event_code', ''):<22}", f"{record.get('status', ''):<7}",
        metadata.get("correlation_uid", "-"), record.get("actor", {}).get("user", {}).get("name", "") or "-", named, said,
    )  # fmt: skip
    # A record's text is a sandbox's own word in places: nothing of it may steer a terminal.
    return "".join(char if char.isprintable() else "?" for char in "  ".join(filter(None, parts)))


@audit.command()
@_trail
@click.option("--invocation", default="", help="only this invocation's")
@click.option("--user", default="", help="only this user's")
@click.option("--kind", default="", help="only kinds that begin so, e.g. access. or tool.refused")
@click.option("--limit", type=click.IntRange(1, MAX_SHOWN), default=100, show_default=True, help="the last so many")
@click.option("--json", "as_json", is_flag=True, help="print the records as they are, one a line")
def show(path: Path, invocation: str, user: str, kind: str, limit: int, as_json: bool) -> None:
    """Show the last records, oldest first."""
    found = deque((item for item in _records(path) if _fits(item, invocation, user, kind)), maxlen=limit)
    for record in found:
        click.echo(json.dumps(record, sort_keys=True) if as_json else _line(record))


@audit.command("verify")
@_trail
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def verify_(path: Path, as_json: bool) -> None:
    """Check every record's hash and place, up to the noted head. Exits with 1 when anything is wrong."""
    found = verify(path)
    if as_json:
        said = {"records": found.records, "head": found.head, "torn_bytes": found.torn_bytes, "ok": found.ok}
        click.echo(json.dumps(said | {"problems": [str(problem) for problem in found.problems]}, indent=2))
    else:
        for problem in found.problems:
            click.echo(str(problem))
        if found.torn_bytes:
            click.echo(f"{found.torn_bytes} bytes of an unfinished record at the end; the next record cuts them off")
        click.echo(f"{found.records} records, head {found.head}: {'sound' if found.ok else 'NOT sound'}")
    if not found.ok:
        sys.exit(1)


@audit.command()
@_trail
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def refusals(path: Path, as_json: bool) -> None:
    """Show the clusters of refused attempts of the last minutes, the largest first; those with an alert are marked."""
    clusters = Refusals(Trail(path)).clusters()
    if as_json:
        rows = [
            {
                "user": item.user, "tool": item.tool, "code": item.code, "source": item.source, "count": item.count,
                "first": item.first.isoformat(), "last": item.last.isoformat(), "alert": item.audit_id,
            }
            for item in clusters
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=2))
        return
    for item in clusters:
        what = "anything" if item.tool == "*" else f"{item.tool or 'no tool'} ({item.code})"
        alert = f"  ALERT {item.audit_id}" if item.audit_id else ""
        click.echo(f"{item.count:>5}  {item.user or 'unknown'} from {item.source or 'here'}: {what}{alert}")
    if not clusters:
        click.echo("no refused attempts in the last minutes")
