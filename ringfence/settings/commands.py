"""`ringfence settings`: check a stack's settings, show them, list every key."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence.settings.loader import load_stack
from ringfence.settings.project_file import listing

_STACK = click.option("--stack", "-s", default="local", show_default=True, help="stack name")
_PROJECT = click.option(
    "--project", type=click.Path(path_type=Path), default=Path(), help="project folder; default: the current one"
)


@click.group()
def settings() -> None:
    """A stack's settings."""


@settings.command()
@_STACK
@_PROJECT
def check(stack: str, project: Path) -> None:
    """Report every problem of the stack's settings. Exits with 2 if there is one."""
    found = load_stack(project, stack)
    click.echo(f"{stack}: profile {found.profile}, account {found.account_id}, {found.region}: no problems")


@settings.command()
@_STACK
@_PROJECT
def show(stack: str, project: Path) -> None:
    """Print the settings in force, defaults and profile applied."""
    for key, value in load_stack(project, stack).model_dump(by_alias=True).items():
        click.echo(f"{key}: {list(value) if isinstance(value, tuple) else value}")


@settings.command("list")
def list_() -> None:
    """List every key with type, default and meaning."""
    click.echo(listing())
