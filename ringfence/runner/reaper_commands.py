"""`ringfence reap`: takes away what killed runners left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ringfence.errors import InputError, Problem, RingfenceError

if TYPE_CHECKING:
    from ringfence.runner.ports import Collaborators
    from ringfence.runner.reaper import Reaped

    Parts = AbstractContextManager[Collaborators]


@click.command()
@click.option("--stack", "-s", default="local", show_default=True, help="stack to work on")
@click.option(
    "--project",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="project folder; default: the current one or the nearest above it",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "kubernetes"]),
    default="local",
    show_default=True,
    help="where the sandboxes are: gVisor on this machine, or the stack's cluster",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="how to reach the cluster of a stack on AWS  [default: the stack's kubeconfig setting]",
)
@click.option("--context", default="", help="context of that kubeconfig  [default: its current one]")
@click.option("--json", "as_json", is_flag=True, help="print what was taken away as JSON")
def reap(stack: str, project: Path, executor: str, kubeconfig: Path | None, context: str, as_json: bool) -> None:
    """Take away sandboxes, credentials and reservations that a killed runner left.

    Whatever is past its deadline, or belongs to a runner that no longer lives, is removed; anything else is left alone.
    May be run by anyone, at any time, any number of times; a control side that runs does it by itself. On AWS your own
    credentials must reach the ledger and the tool roles' policies, and the kubeconfig the cluster.
    Exit code 1: something could not be taken away.
    """
    # Imported here: `ringfence --help` should start fast.
    from ringfence.local.lifecycle import find_project
    from ringfence.runner import reaper
    from ringfence.settings import load_stack

    folder = find_project(project)
    settings = load_stack(folder, stack)
    if settings.target == "aws":
        found = _on_aws(folder, stack, kubeconfig or settings.kubeconfig, context or None)
    else:
        if kubeconfig or context:
            given = "--kubeconfig" if kubeconfig else "--context"
            raise InputError([Problem("reap", given, f"stack {stack} is not on AWS", "leave it out")])
        found = _on_this_machine(folder, stack, executor)
    with found as parts:
        reaped = asyncio.run(reaper.reap(parts))
    _show(reaped, as_json)


def _on_aws(folder: Path, stack: str, kubeconfig: str | Path | None, context: str | None) -> Parts:
    from ringfence.local.lifecycle import home_of
    from ringfence.runner import cluster

    if not kubeconfig:
        remedy = "aws eks update-kubeconfig --name CLUSTER --kubeconfig FILE, then --kubeconfig FILE"
        raise InputError([Problem("reap", "--kubeconfig", f"stack {stack} names no way to its cluster", remedy)])
    return cluster.parts(folder, stack, home_of(folder) / "reap" / stack, Path(kubeconfig), context)


def _on_this_machine(folder: Path, stack: str, executor: str) -> Parts:
    from ringfence.local.console import Clock
    from ringfence.local.lifecycle import Embedded, home_of
    from ringfence.runner import embedded

    target = Embedded(folder, stack=stack, home=home_of(folder), clock=Clock(), verbose=False)
    if not embedded.stands(target):
        raise RingfenceError(
            "the environment doesn't stand here: nothing can be looked through\n    remedy: `ringfence up`, then again"
        )
    found = embedded.ground(target, stack)
    return embedded.parts(found, executor=executor, report=lambda line: click.echo(line, err=True))


def _show(reaped: Sequence[Reaped], as_json: bool) -> None:
    if as_json:
        shown = [{"invocation": item.invocation_id, "why": item.why, "failures": item.failures} for item in reaped]
        click.echo(json.dumps(shown, indent=2))
    else:
        for item in reaped:
            click.echo(f"{item.invocation_id}  {item.why}")
            for failure in item.failures:
                click.echo(f"    not taken away: {failure}")
        click.echo(f"{len(reaped)} taken away" if reaped else "nothing to take away")
    if failed := [item for item in reaped if item.failures]:
        raise RingfenceError(f"{len(failed)} of {len(reaped)} could not be taken away whole; run it again")
