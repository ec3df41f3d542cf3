"""`ringfence mirror`: copy pinned releases into the environment's own bucket."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence.artifacts import gvisor_artifacts
from ringfence.artifacts import mirror as copy_missing
from ringfence.egress.artifact import envoy_artifacts
from ringfence.errors import RingfenceError
from ringfence.settings.loader import load_stack


@click.command()
@click.option("--stack", "-s", default="local", show_default=True, help="stack name")
@click.option(
    "--project", type=click.Path(path_type=Path), default=Path(), help="project folder; default: the current one"
)
@click.option(
    "--from", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="folder that holds files by their keys (e.g. gvisor/RELEASE/MACHINE/gvisor.tar.bz2), for a machine without internet",
)  # fmt: skip
def mirror(stack: str, project: Path, folder: Path | None) -> None:
    """Copy the releases that nodes install into the stack's bucket.

    Run it once after the bucket is made, and after each change of a pinned release. Every file is held against its pinned
    SHA-512 first. AWS credentials are taken as the AWS CLI takes them.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    settings = load_stack(project, stack)
    session = boto3.Session(region_name=settings.region)
    try:
        account = session.client("sts").get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise RingfenceError(f"no usable AWS credentials: {error}. Log in to account {settings.account_id}") from None
    if account != settings.account_id:
        raise RingfenceError(
            f"the credentials are those of account {account}, but stack {stack} belongs to {settings.account_id}; "
            "use that account's credentials"
        )
    artifacts = (*envoy_artifacts(), *gvisor_artifacts())
    sources = {item.key: folder / item.key for item in artifacts if folder and (folder / item.key).is_file()}
    copied = copy_missing(session.client("s3"), settings.names, artifacts, click.echo, sources)
    click.echo(f"{copied} copied, {len(artifacts) - copied} already there")
