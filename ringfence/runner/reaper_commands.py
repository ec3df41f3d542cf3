"""`ringfence reap`: takes away what killed runners left."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from ringfence.errors import RingfenceError


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
@click.option("--json", "as_json", is_flag=True, help="print what was taken away as JSON")
def reap(stack: str, project: Path, executor: str, as_json: bool) -> None:
    """Take away sandboxes, credentials and reservations that a killed runner left.

    Whatever is past its deadline, or belongs to a runner that no longer lives, is removed; anything else is left alone.
    May be run by anyone, at any time, any number of times. Exit code 1: something could not be taken away.
    """
    # Imported here: `ringfence --help` should start fast.
    from ringfence.local.console import Clock
    from ringfence.local.lifecycle import Embedded, find_project, home_of
    from ringfence.runner import embedded, reaper

    folder = find_project(project)
    target = Embedded(folder, stack=stack, home=home_of(folder), clock=Clock(), verbose=False)
    if not embedded.stands(target):
        raise RingfenceError(
            "the environment doesn't stand here: nothing can be looked through\n    remedy: `ringfence up`, then again"
        )
    found = embedded.ground(target, stack)
    with embedded.parts(found, executor=executor, report=lambda line: click.echo(line, err=True)) as parts:
        reaped = asyncio.run(reaper.reap(parts))
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
