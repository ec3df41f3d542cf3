"""`ringfence`: one command for set-up, the embedded target, cost, catalog, permissions and review.

Subcommands are loaded when used, so that `ringfence iam` doesn't pay for Pulumi nor `ringfence cost` for boto3.
"""

from __future__ import annotations

import importlib
import sys

import click

from ringfence.errors import RingfenceError

# Where each subcommand lives. Grouped as `ringfence --help` shows them.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("ringfence.local.commands:up", "Stand up the environment on the embedded target."),
    "preview": ("ringfence.local.commands:preview", "Show what `up` would change."),
    "status": ("ringfence.local.commands:status", "Show what is running and what stands."),
    "down": ("ringfence.local.commands:down", "Destroy the environment, then stop everything."),
    "env": ("ringfence.local.commands:env", "Print the shell variables for using pulumi, aws and kubectl by hand."),
    "doctor": ("ringfence.local.commands:doctor", "Show each tool, its version, its source and what is missing."),
    "run": ("ringfence.runner.commands:run", "Run one agent task in a sandbox of its own."),
    "serve": ("ringfence.service.commands:serve", "Serve agent tasks over HTTP."),
    "explain": ("ringfence.access.commands:explain", "Say why a user may or may not use a tool."),
    "audit": ("ringfence.audit.commands:audit", "Show and verify the audit trail."),
    "reap": ("ringfence.runner.reaper_commands:reap", "Take away what killed runners left."),
    "settings": ("ringfence.settings.commands:settings", "Check and explain a stack's settings."),
    "catalog": ("ringfence.catalog.commands:catalog", "Check and explain the catalog of tools and roles."),
    "cost": ("ringfence.cost.commands:cost", "Estimate the monthly cost of a stack's settings."),
    "mirror": ("ringfence.artifacts_commands:mirror", "Copy pinned releases, checked, into the environment's bucket."),
    "image": ("ringfence.image.commands:image", "Build the runtime image, or unpack it for local sandboxes."),
    "credentials": ("ringfence.broker.commands:credentials", "List, revoke and prune the tools' live credentials."),
    "iam": ("ringfence.iam.commands:iam", "Compare policy documents and find escalation paths."),
    "grants": ("ringfence.review.commands:grants", "Check, update and explain the grant lockfile."),
    "review": ("ringfence.review.commands:review", "Report permission changes of a branch."),
    "drift": ("ringfence.review.commands:drift", "Compare the lockfile with the live account or a stack's state."),
    "audit-permissions": (
        "ringfence.review.commands:audit_permissions",
        "The quarterly audit: overdue review dates fail.",
    ),
}


class LazyGroup(click.Group):
    """A click group whose subcommands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringfence")
def cli() -> None:
    """A safe place to run AI agents on AWS.

    Start with `ringfence up` (or `make up`): it stands up the whole environment on this machine, without an account.
    """


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed, 2 bad input or needs review, 130 interrupted."""
    try:
        # click hands back what a command passed to `ctx.exit`.
        sys.exit(cli(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except RingfenceError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
