"""`ringfence run`: one agent task, from the shell."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ringfence.audit import TRAIL_FILE
from ringfence.errors import InputError, Problem
from ringfence.invocation import MAX_CONVERSATION_USD, MAX_SECONDS, Result, Status
from ringfence.local import examples
from ringfence.local.console import Clock
from ringfence.local.lifecycle import Embedded, find_project, home_of
from ringfence.redaction import MaskedOutput
from ringfence.runner.assembly import ControlSide
from ringfence.runner.embedded import Ground, ground, running
from ringfence.runner.probe import probe
from ringfence.runner.scopes import checked, scopes_of_options
from ringfence.runner.summary import Watched, as_dict, show
from ringfence.runner.task_file import Probe, TaskFile, read

REFUSED, INTERRUPTED = 2, 130


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    user: str
    tools: tuple[str, ...]
    prompt: str
    options: Mapping[str, Any]
    script: Path | None
    probe: Probe | None = None


@click.command()
@click.argument("prompt", required=False, default="")
@click.option("--user", default="", help="who asks; groups come from the catalog's users.yaml")
@click.option("--tools", default="", help="tools that the agent may use, separated by commas")
@click.option(
    "--task", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="task file, instead of these"
)
@click.option(
    "--executor", type=click.Choice(["local", "kubernetes"]), default="local", show_default=True, help="where it runs"
)
@click.option("--model", default="", help="model name  [default: the scripted model, when there is a script]")
@click.option(
    "--script", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="steps of the scripted model"
)
@click.option(
    "--scope",
    "scope",
    multiple=True,
    metavar="TOOL=VALUE",
    help="narrow a tool's credential to an action (s3:GetObject) or an ARN; any number of times",
)
@click.option("--conversation", default="", help="what the money is counted for  [default: this task alone]")
@click.option(
    "--max-usd", default=str(MAX_CONVERSATION_USD), show_default=True, help="most that the conversation may cost"
)
@click.option("--timeout", default=MAX_SECONDS, show_default=True, help="wall clock in seconds")
@click.option("--stack", "-s", default="local", show_default=True, help="stack to work on")
@click.option(
    "--project", type=click.Path(path_type=Path, exists=True, file_okay=False), default=Path(), help="project folder"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def run(task: Path | None, executor: str, stack: str, project: Path, as_json: bool, **given: Any) -> None:
    """Run one agent task in a sandbox of its own, with credentials of its own. Progress goes to standard error.

    Exit codes: 0 it succeeded, 1 it failed, 2 it was refused or the input is bad, 130 interrupted.
    """
    output = MaskedOutput().install()
    clock = Clock(functools.partial(click.echo, err=True))
    folder = find_project(project)
    embedded = Embedded(folder, stack=stack, home=home_of(folder), clock=clock)
    found = ground(embedded, stack)
    asked = _asked(found, task, given)
    watched = Watched(clock)
    result, probed = asyncio.run(_run(found, asked, executor, watched, output))
    trail = found.home.root / TRAIL_FILE
    if as_json:
        click.echo(
            json.dumps(as_dict(result, trail, watched.refused) | ({"probe": probed} if probed else {}), indent=2)
        )
    else:
        show(result, trail, watched.refused, click.echo)
        if probed:
            click.echo(f"probe     {probed}")
    sys.exit(_exit_code(result))


def _exit_code(result: Result) -> int:
    if result.status is Status.CANCELLED:
        return INTERRUPTED
    return {Status.SUCCEEDED: 0, Status.REFUSED: REFUSED}.get(result.status, 1)


def _asked(found: Ground, path: Path | None, given: Mapping[str, Any]) -> Asked:
    """What is to run. Raises InputError for a task file together with what it stands for."""
    options = {
        "conversation": given["conversation"],
        "max_usd": given["max_usd"],
        "timeout_seconds": given["timeout"],
        "model": given["model"],
    }
    if path is None:
        tools = tuple(name.strip() for name in given["tools"].split(",") if name.strip())
        missing = [name for name in ("user", "prompt") if not given[name]]
        if missing:
            raise InputError(
                [Problem("run", name, "is missing", "ringfence run --user U --tools a,b PROMPT") for name in missing]
            )
        scopes = checked(scopes_of_options(given["scope"]), tools, found.catalog, found.settings.names, "run")
        return Asked(given["user"], tools, given["prompt"], {**options, "scopes": scopes}, given["script"])
    if doubled := [name for name in ("user", "tools", "prompt", "script", "scope") if given[name]]:
        raise InputError([Problem("run", name, "stands in the task file too", "leave it out") for name in doubled])
    task = read(path, found.settings.names)
    given_scopes = {tool: scope.model_dump(exclude_none=True) for tool, scope in task.scopes.items()}
    options["scopes"] = checked(given_scopes, task.tools, found.catalog, found.settings.names, str(path))
    if made := examples.seed(found.home, task.seed):
        click.echo(f"example buckets made: {', '.join(made)}", err=True)
    script = path.parent / task.script if task.script else None
    return _of_file(task, options, script)


def _of_file(task: TaskFile, options: Mapping[str, Any], script: Path | None) -> Asked:
    model = options["model"] or task.model
    return Asked(task.user, task.tools, task.prompt, {**options, "model": model}, script, task.probe)


async def _run(
    found: Ground, asked: Asked, executor: str, watched: Watched, output: MaskedOutput
) -> tuple[Result, str]:
    async with contextlib.AsyncExitStack() as stack:
        control = await stack.enter_async_context(
            running(found, watched.clock.say, executor=executor, script=asked.script)
        )
        stack.enter_context(output.also(control.secrets))
        options = {**asked.options, "model": asked.options["model"] or control.default_model}
        groups = found.catalog.groups_of(asked.user)
        task = asyncio.create_task(
            control.runner.run(
                asked.user, asked.prompt, asked.tools, groups=groups, source="local", report=watched, **options
            )
        )
        with _interruptible(control, watched.clock):
            result = await task
        refused = ""
        if asked.probe:
            refused = await asyncio.to_thread(probe, asked.probe, asked.user, control.parts, found.client_of)
    return result, refused


@contextlib.contextmanager
def _interruptible(control: ControlSide, clock: Clock) -> Any:
    """INT and TERM cancel the task, which is then cleaned up; its result says so."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        clock.say("interrupted: stopping the task and taking everything of it away")
        for invocation_id in control.runner.active():
            control.runner.cancel(invocation_id)

    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop)
    try:
        yield
    finally:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(name)
