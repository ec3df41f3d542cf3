"""`ringfence explain`: why a user may or may not use a tool."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ringfence.access.decision import Decision, Reason, decide
from ringfence.catalog import load
from ringfence.catalog.model import Tool
from ringfence.errors import InputError, Problem
from ringfence.iam.session_grants import needs_credential

NO = 2


def _lines(decision: Decision, reason: Reason, placement: str) -> list[str]:
    groups = ", ".join(decision.groups) or "none"
    lines = [
        f"{'yes' if reason.allowed else 'no'}: {decision.user} {'may' if reason.allowed else 'may not'} use {reason.tool}",
        f"    {reason.text}",
        f"    groups: {groups}; roles: {', '.join(decision.roles) or 'none'}",
        *(f"    declared in {source.file}:{source.line}" for source in reason.sources),
    ]
    if placement:
        lines.append(f"    {placement}")
    return [*lines, f"    remedy: {reason.remedy}"] if reason.remedy else lines


def _as_dict(decision: Decision, reason: Reason, placement: str) -> dict[str, object]:
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
        "placement": placement,
        "remedy": reason.remedy,
    }


def _folder(stack: str, project: Path, catalog: Path | None) -> Path:
    """The catalog's folder. Raises InputError for a stack that can't be read, or together with a folder."""
    if not stack:
        return catalog or Path("catalog")
    if catalog:
        raise InputError([Problem("explain", "--catalog", f"stack {stack} has its own", "leave one of the two out")])
    # Imported here: without a stack none of it is needed.
    from ringfence.local.lifecycle import find_project
    from ringfence.settings import load_stack

    folder = find_project(project)
    return folder / load_stack(folder, stack).catalog_path


def _placement(tool: Tool) -> str:
    """What `Executor.fit` will ask of the place where a task with the tool runs; no catalog can tell whether it is there."""
    needs = [f"{tool.limits.cpu_millis}m CPU and {tool.limits.memory_mib} MiB at most"]
    if tool.egress.domains or needs_credential(tool):
        needs.append("a listener of its own at the egress proxy, or the way to AWS of the machine it runs on")
    return f"the sandbox: {'; '.join(needs)}; where that isn't given, the task is refused when it is asked for"


@click.command()
@click.argument("user")
@click.argument("tool")
@click.option("--group", "groups", multiple=True, help="group claim to decide with, instead of those in users.yaml")
@click.option("--stack", "-s", default="", help="decide with the catalog of that stack  [default: ./catalog]")
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="project folder of the stack; default: the current one or the nearest above it",
)
@click.option("--catalog", type=click.Path(path_type=Path), help="catalog folder, instead of a stack's")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def explain(
    user: str, tool: str, groups: Sequence[str], stack: str, project: Path, catalog: Path | None, as_json: bool
) -> None:
    """Say why USER may or may not use TOOL: user → group → role → capability → tool → credential.

    What placement decides besides is said too: a task is refused when its sandbox would need a way out or a size that the
    place where it runs doesn't give. Exit codes: 0 yes, 2 no.
    """
    found = load(_folder(stack, project, catalog))
    decision = decide(found, user, groups or found.groups_of(user), [tool])
    # The tool's own reason comes last; one before it speaks of the user, and says where its declarations are.
    reason = decision.why[-1]
    if len(decision.why) > 1:
        first = decision.why[0]
        reason = Reason(tool, False, first.code, first.text, first.path, first.sources, first.remedy)
    placement = _placement(found.tool(tool)) if reason.allowed else ""
    if as_json:
        click.echo(json.dumps(_as_dict(decision, reason, placement), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(decision, reason, placement)))
    if not reason.allowed:
        sys.exit(NO)
