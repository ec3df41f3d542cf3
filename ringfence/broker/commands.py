"""`ringfence credentials`: what is in use, end it, clean up, and look for what should not be."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ringfence.errors import InputError, Problem

if TYPE_CHECKING:
    from ringfence.broker.broker import Broker

# Something was found that a person must look at.
FOUND = 2


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--stack", "-s", default="local", show_default=True, help="whose credentials"),
        click.option(
            "--project",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            default=Path(),
            help="project folder; default: the current one or the nearest above it",
        ),
    ):
        command = option(command)
    return command


def _broker(project: Path, stack: str) -> Broker:
    from ringfence.broker.factory import broker_for
    from ringfence.local.lifecycle import find_project

    return broker_for(find_project(project), stack)


def _plain(value: Any) -> dict[str, Any]:
    return {
        name: item.isoformat() if isinstance(item, datetime) else item
        for name, item in dataclasses.asdict(value).items()
    }


@click.group()
def credentials() -> None:
    """Credentials that tools use on behalf of invocations."""


@credentials.command("list")
@_common
@click.option("--all", "everything", is_flag=True, help="also those revoked that are not over yet")
@click.option("--json", "as_json", is_flag=True, help="print JSON lines")
def list_(project: Path, stack: str, everything: bool, as_json: bool) -> None:
    """Show which credentials are in use, for whom and until when."""
    entries = _broker(project, stack).list(active=not everything)
    for entry in entries:
        if as_json:
            click.echo(json.dumps(_plain(entry), sort_keys=True))
        else:
            ends = entry.ends.strftime("%H:%M:%SZ")
            click.echo(f"{entry.id}  {entry.state:<9}  until {ends}  {entry.tool}  {entry.user}  {entry.invocation_id}")
    if not entries and not as_json:
        click.echo("no credential is in use")


@credentials.command()
@_common
@click.argument("invocation", required=False, default="")
@click.option("--credential", default="", help="one credential, by its id")
@click.option("--tool", default="", help="every session of a tool issued until now, also unknown ones")
@click.option("--reason", default="revoked by an operator", show_default=True, help="kept in the ledger")
def revoke(project: Path, stack: str, invocation: str, credential: str, tool: str, reason: str) -> None:
    """Revoke the credentials of an INVOCATION, one credential, or a whole tool's."""
    if sum(map(bool, (invocation, credential, tool))) != 1:
        remedy = "name an invocation, or give --credential or --tool"
        raise InputError([Problem("credentials revoke", "", "exactly one thing can be revoked at a time", remedy)])
    broker = _broker(project, stack)
    count = broker.revoke_tool(tool, reason) if tool else broker.revoke(invocation, credential, reason)
    click.echo(f"{count} active credential{'' if count == 1 else 's'} revoked")


@credentials.command()
@_common
def prune(project: Path, stack: str) -> None:
    """Revoke what killed brokers left behind and close what is over. Anyone may run it at any time."""
    done = _broker(project, stack).prune()
    click.echo(f"{done.revoked} revoked, {done.lapsed} closed, {done.forgotten} old records deleted")


@credentials.command()
@_common
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--hours", type=click.IntRange(1, 24 * 90), default=1, show_default=True, help="how far back to look")
@click.option("--json", "as_json", is_flag=True, help="print JSON lines")
def anomalies(project: Path, stack: str, files: tuple[Path, ...], hours: int, as_json: bool) -> None:
    """Compare CloudTrail's events with the ledger. Exits with 2 when a session is not as it should be.

    FILES hold CloudTrail or EventBridge events; without any, CloudTrail is asked.
    """
    found = _broker(project, stack).anomalies(_events(files) if files else _recent(project, stack, hours))
    for anomaly in found:
        line = f"{anomaly.at:%Y-%m-%dT%H:%M:%SZ}  {anomaly.kind}  {anomaly.event}  {anomaly.detail}"
        click.echo(json.dumps(_plain(anomaly), sort_keys=True) if as_json else line)
    if found:
        sys.exit(FOUND)
    if not as_json:
        click.echo("no anomaly")


def _events(files: tuple[Path, ...]) -> Iterator[Any]:
    from ringfence.broker.anomalies import records

    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            parsed: list[object] = [json.loads(text)]
        except ValueError:
            try:
                parsed = [json.loads(line) for line in text.splitlines() if line.strip()]
            except ValueError:
                remedy = "give CloudTrail's or EventBridge's JSON, whole or line by line"
                raise InputError([Problem(str(path), "", "is not JSON", remedy)]) from None
        yield from records(parsed)


def _recent(project: Path, stack: str, hours: int) -> Iterator[Any]:
    from ringfence.broker.anomalies import lookup
    from ringfence.broker.factory import events_client
    from ringfence.local.lifecycle import find_project

    until = datetime.now(UTC)
    return lookup(events_client(find_project(project), stack), until - timedelta(hours=hours), until)
