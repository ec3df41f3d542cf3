"""`ringfence explain`: why a user may or may not use a tool."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ringfence.access.decision import Decision, Reason, decide
from ringfence.catalog import load

NO = 2


def _lines(decision: Decision, reason: Reason) -> list[str]:
    groups = ", ".join(decision.groups) or "none"
    lines = [
        f"{'yes' if reason.allowed else 'no'}: {decision.user} {'may' if reason.allowed else 'may not'} use {reason.tool}",
        f"    {reason.text}",
        f"    groups: {groups}; roles: {', '.join(decision.roles) or 'none'}",
        *(f"    declared in {source.file}:{source.line}" for source in reason.sources),
    ]
    return [*lines, f"    remedy: {reason.remedy}"] if reason.remedy else lines


def _as_dict(decision: Decision, reason: Reason) -> dict[str, object]:
    return {
        "user": decision.user,
        "groups": list(decision.groups),
        "roles": list(decision.roles),
        "tool": reason.tool,
        "allowed": reason.allowed,
        "code": reason.code,
        "reason": reason.text,
        "path": list(reason.path),
        "declarations": [{"file": source.file, "line": source.line} for source in reason.sources],
        "remedy": reason.remedy,
    }


@click.command()
@click.argument("user")
@click.argument("tool")
@click.option("--group", "groups", multiple=True, help="group claim to decide with, instead of those in users.yaml")
@click.option(
    "--catalog", type=click.Path(path_type=Path), default=Path("catalog"), show_default=True, help="catalog folder"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def explain(user: str, tool: str, groups: Sequence[str], catalog: Path, as_json: bool) -> None:
    """Say why USER may or may not use TOOL: user → group → role → capability → tool → credential.

    Exit codes: 0 yes, 2 no.
    """
    found = load(catalog)
    decision = decide(found, user, groups or found.groups_of(user), [tool])
    # The tool's own reason comes last; one before it speaks of the user, and says where its declarations are.
    reason = decision.why[-1]
    if len(decision.why) > 1:
        first = decision.why[0]
        reason = Reason(tool, False, first.code, first.text, first.path, first.sources, first.remedy)
    if as_json:
        click.echo(json.dumps(_as_dict(decision, reason), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(decision, reason)))
    if not reason.allowed:
        sys.exit(NO)
