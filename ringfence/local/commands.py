"""`ringfence up`, `preview`, `status`, `down`, `env` and `doctor`."""

from __future__ import annotations

import functools
import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ringfence.errors import RingfenceError
from ringfence.local import doctor as doctor_module
from ringfence.local import services, shell
from ringfence.local.console import Clock, show_changes
from ringfence.local.lifecycle import Embedded, find_project, home_of


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command here has. A TERM signal stops a command as Ctrl-C does."""

    @click.option("--stack", "-s", default="local", show_default=True, help="stack to work on")
    @click.option(
        "--project",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        default=Path(),
        help="project folder; default: the current one or the nearest above it",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        command(*args, **options)

    return wrapped


def _embedded(project: Path, stack: str, verbose: bool = False, quiet: bool = False) -> Embedded:
    folder = find_project(project)
    # With --json, standard output is the engine's alone.
    clock = Clock(functools.partial(click.echo, err=True)) if quiet else Clock()
    return Embedded(folder, stack=stack, home=home_of(folder), clock=clock, verbose=verbose)


def _cost_line(project: Path, stack: str) -> str:
    # Imported here and in `up`: the other commands should start fast, and stop things whatever the settings say.
    from ringfence.catalog import load as load_catalog
    from ringfence.cost.estimate import estimate, summary_line
    from ringfence.settings import load_stack

    settings = load_stack(project, stack)
    catalog = load_catalog(project / settings.catalog_path)
    return summary_line(estimate(settings, sum(len(tool.egress.domains) for tool in catalog.tools)))


@click.command()
@_common
@click.option("--verbose", "-v", is_flag=True, help="one line for each resource that changes")
def up(project: Path, stack: str, verbose: bool) -> None:
    """Stand up the environment on this machine, with the real engine and no account.

    Runs again at any time: it makes only what is missing or different, also after an interrupted run or a reboot.
    """
    from ringfence.settings import load_stack, stack_file

    embedded = _embedded(project, stack, verbose)
    ours = stack_file(embedded.project_dir, stack).exists()
    if ours:
        load_stack(embedded.project_dir, stack)
    embedded.up()
    outputs = embedded.engine().outputs()
    width = max(map(len, outputs), default=0)
    for name, value in sorted(outputs.items()):
        shown = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        click.echo(f"        {name:<{width}}  {shown}")
    for entry in services.recorded(embedded.home):
        if resources := entry["resources"]:
            kinds = ", ".join(f"{count} {kind}" for kind, count in resources.items())
            embedded.clock.say(f"recorded, not emulated: {entry['service']}: {kinds}")
    if ours:
        embedded.clock.say(f"cost: {_cost_line(embedded.project_dir, stack)}")
    embedded.clock.say(
        'next: `eval "$(ringfence env)"` for pulumi, aws and kubectl by hand; `make down` removes everything'
    )


@click.command(context_settings={"ignore_unknown_options": True})
@_common
@click.option("--json", "as_json", is_flag=True, help="print the engine's JSON")
@click.option("--refresh", is_flag=True, help="read the real resources first, so that drift shows")
@click.option(
    "--policy-pack", "packs", multiple=True, type=click.Path(path_type=Path, exists=True), help="pack to check"
)
@click.option("--verbose", "-v", is_flag=True, help="one line for each resource while it is worked on")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def preview(
    project: Path,
    stack: str,
    as_json: bool,
    refresh: bool,
    packs: tuple[Path, ...],
    verbose: bool,
    arguments: tuple[str, ...],
) -> None:
    """Show what `up` would change. Further ARGUMENTS go to `pulumi preview`."""
    embedded = _embedded(project, stack, verbose, quiet=as_json)
    result = embedded.preview(arguments, packs=packs, refresh=refresh, as_json=as_json)
    if as_json:
        click.echo(result.stdout, nl=False)
    else:
        show_changes(result)
    if not result.ok and not result.violations:
        result.check()
    if not result.ok:
        raise RingfenceError("a mandatory policy was violated")


@click.command()
@_common
@click.option("--verbose", "-v", is_flag=True, help="one line for each resource that is deleted")
def down(project: Path, stack: str, verbose: bool) -> None:
    """Destroy the environment, then stop everything. Twice is the same as once."""
    _embedded(project, stack, verbose).down()


@click.command()
@_common
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def status(project: Path, stack: str, as_json: bool) -> None:
    """Show what is running and what stands. Starts nothing."""
    embedded = _embedded(project, stack)
    found = embedded.status() | {"conversations": _conversations(embedded.home.root)}
    if as_json:
        click.echo(json.dumps(found, indent=2, sort_keys=True))
        return
    aws, kubernetes = found["aws"], found["kubernetes"]
    click.echo(f"home        {found['home']}")
    click.echo(f"AWS         {_state(aws['ready'], aws['pid'])}  {aws['endpoint']}")
    click.echo(
        f"Kubernetes  {_state(kubernetes['ready'], kubernetes['parts'].get('kube-apiserver'))}  {kubernetes['server']}"
    )
    for name, pid in kubernetes["parts"].items():
        click.echo(f"            {name}: {f'pid {pid}' if pid else 'not running'}")
    for name, state in found["stacks"].items():
        pending = f", {state['pending']} unfinished operations" if state["pending"] else ""
        click.echo(f"stack       {name}: {state['resources']} resources{pending}")
    if found["unrecorded"]:
        click.echo(
            "unrecorded  a run is at work, or was killed before its state was written: then the next one starts over"
        )
    click.echo(f"last up     {found['last_up'].get('at', 'never, or down since')}")
    for row in found["conversations"]:
        held = f" + {row['reserved_usd']} held" if row["active"] else ""
        cost = f"${row['spent_usd']}{held} of ${row['cap_usd']}, {row['calls']} calls"
        running = f", {row['active']} running" if row["active"] else ""
        click.echo(f"conversation {row['id']}  {row['user']}: {cost}{running}")


def _conversations(home: Path) -> list[dict[str, Any]]:
    """Live cost of the last conversations, from the model gateway's ledger; amounts in USD with four decimals."""
    if not (home / "gateway").is_dir():
        return []
    # Imported here: reading prices takes longer than the rest of this command.
    from ringfence.gateway.ledger import LEDGER_FILE, conversations

    return [
        {
            "id": row.id,
            "user": row.user,
            "spent_usd": f"{row.spent_usd:.4f}",
            "reserved_usd": f"{row.reserved_usd:.4f}",
            "cap_usd": f"{row.cap_usd:.2f}",
            "calls": row.calls,
            "active": row.active,
            "updated": row.updated.isoformat(timespec="seconds"),
        }
        for row in conversations(home / LEDGER_FILE, limit=10)
    ]


def _state(ready: bool, pid: int | None) -> str:
    if ready:
        return f"ready (pid {pid})" if pid else "ready"
    return f"not answering (pid {pid})" if pid else "not running"


@click.command()
@_common
def env(project: Path, stack: str) -> None:
    """Print the shell variables for using pulumi, aws and kubectl by hand: eval "$(ringfence env)"."""
    embedded = _embedded(project, stack, quiet=True)
    engine = embedded.engine()
    for name, value in shell.exports(engine).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    folders = ":".join(shlex.quote(folder) for folder in shell.folders(engine))
    click.echo(f'export PATH={folders}:"$PATH"')


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def doctor(as_json: bool) -> None:
    """Show each tool, its version, where it came from and what is missing. Exit code 1 when something is missing."""
    checks = doctor_module.examine()
    if as_json:
        click.echo(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        click.echo(doctor_module.table(checks))
    if any(not check.ok for check in checks):
        sys.exit(1)
