"""`ringfence catalog`: check the declarations, list what each role reaches, write the JSON Schemas."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence.catalog.loader import load
from ringfence.catalog.schema import SCHEMAS, rendered
from ringfence.errors import InputError
from ringfence.names import Names

_LONGEST = Names("ringfence", "check", "0" * 12, "ap-southeast-1", "aws-us-gov")
_PATH = click.option(
    "--path", "path", type=click.Path(path_type=Path), default=Path("catalog"), show_default=True, help="catalog folder"
)


@click.group()
def catalog() -> None:
    """The catalog of tools and user roles."""


@catalog.command()
@_PATH
def check(path: Path) -> None:
    """Report every problem of the catalog. Exits with 2 if there is one.

    A grant that stands for no exact host of AWS is one: the proxy would open nothing for it. So is a tool whose grants fit
    no session policy: no credential of it could be issued. Sizes are those of the longest partition and region; a
    preview takes the stack's own.
    """
    # Imported here: `ringfence.iam` stands on the catalog's models.
    from ringfence.egress import aws_hosts
    from ringfence.iam.session_grants import session_problems

    found = load(path)
    problems = [problem for tool in found.tools for problem in session_problems(tool, _LONGEST, tool.source.file)]
    if problems := problems + aws_hosts.problems(found.tools):
        raise InputError(problems)
    for tool in found.tools:
        if services := aws_hosts.of_every_account(tool):
            click.echo(f"note: {tool.name} opens {', '.join(services)} of every account: docs/threat-model.md")
    click.echo(
        f"{len(found.tools)} tools, {len(found.capabilities)} capabilities, {len(found.roles)} roles: no problems"
    )


@catalog.command("list")
@_PATH
def list_(path: Path) -> None:
    """List tools with their owner and review date, then what each role reaches."""
    found = load(path)
    width = max(len(tool.name) for tool in found.tools) if found.tools else 0
    for tool in found.tools:
        click.echo(f"{tool.name:<{width}}  review by {tool.review_date}  {tool.owner}  {tool.description}")
    for role in found.roles:
        click.echo(f"role {role.name}: {', '.join(sorted(found.tools_of(role.name))) or 'nothing'}")


@catalog.command()
@_PATH
def schema(path: Path) -> None:
    """Write the JSON Schemas for editors into the catalog's schema folder."""
    folder = path / "schema"
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCHEMAS:
        (folder / name).write_text(rendered(name), encoding="utf-8")
        click.echo(folder / name)
