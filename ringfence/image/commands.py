"""`ringfence image`: build the images, push them, unpack one for local sandboxes, list what is in them."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence.errors import RingfenceError
from ringfence.image import lock
from ringfence.image.build import Builder
from ringfence.image.kinds import KINDS, kind_of
from ringfence.image.oci import Archive
from ringfence.image.relock import relock
from ringfence.image.sbom import sbom as rendered_sbom
from ringfence.settings import Settings, load_stack

# The setting that an image's reference goes into.
SETTING = {"runtime": "sandboxImage", "control": "serviceImage"}
_KIND = click.argument("kind", type=click.Choice(list(KINDS)), default="runtime")


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group()
def image() -> None:
    """The two images: `runtime`, what runs inside a sandbox, and `control`, what `ringfence serve` runs in."""


@image.command()
@_KIND
@click.option("--platform", "platforms", multiple=True, help="e.g. linux/arm64; every pinned one when left out")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="[default: agent-runtime.oci.tar, control.oci.tar]",
)
def build(kind: str, platforms: tuple[str, ...], output: Path | None) -> None:
    """Write the image as an OCI archive and print the digest that a cluster pins it by."""
    output = output or Path(f"{kind_of(kind).title}.oci.tar")
    made = Builder(_say, kind=kind_of(kind)).archive(platforms or None)
    output.write_bytes(made.data)
    _say(f"{output}: {len(made.data) >> 20} MiB")
    for platform, digest in made.manifests.items():
        _say(f"{platform}: {digest}")
    click.echo(made.digest)


@image.command()
@click.argument("kinds", nargs=-1, type=click.Choice(list(KINDS)))
@click.option("--stack", "-s", required=True, help="stack whose repositories get the images")
@click.option("--platform", "platforms", multiple=True, help="e.g. linux/arm64; every pinned one when left out")
@click.option(
    "--project", type=click.Path(path_type=Path), default=Path(), help="project folder; default: the current one"
)
def push(kinds: tuple[str, ...], stack: str, platforms: tuple[str, ...], project: Path) -> None:
    """Build the images and put them into the stack's repositories, both unless one is named.

    Prints each reference by digest, and how to set it. What is there already isn't uploaded again. AWS credentials are taken
    as the AWS CLI takes them.
    """
    settings = load_stack(project, stack)
    if settings.target == "embedded":
        raise RingfenceError(
            f"stack {stack} stands on this machine, where no registry takes images and no node pulls any\n"
            "    remedy: name a stack of an AWS account; `ringfence image build` prints the digest"
        )
    authorization = _authorization(settings, stack)
    references = {kind: _push(settings, authorization, kind, platforms) for kind in kinds or tuple(KINDS)}
    for reference in references.values():
        click.echo(reference)
    for kind, reference in references.items():
        click.echo(f"pulumi config set ringfence:{SETTING[kind]} {reference} -s {stack}")


def tag_of(made: Archive) -> str:
    """The tag that says which content it is: tags of a repository can't be moved."""
    return f"sha256-{made.digest.removeprefix('sha256:')[:40]}"


def _push(settings: Settings, authorization: str, kind: str, platforms: tuple[str, ...]) -> str:
    from ringfence.image.push import Registry

    made = Builder(_say, kind=kind_of(kind)).archive(platforms or None)
    repository = settings.names.repository(kind_of(kind).title)
    registry = Registry(f"https://{settings.names.registry}", repository, authorization, _say)
    return f"{settings.names.registry}/{repository}@{registry.push(made, tag_of(made))}"


def _authorization(settings: Settings, stack: str) -> str:
    """The registry's Authorization header. Raises RingfenceError for no credentials, or another account's."""
    # Imported here: botocore takes a second that no other command should wait for.
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    session = boto3.Session(region_name=settings.region)
    try:
        account = session.client("sts").get_caller_identity()["Account"]
        if account != settings.account_id:
            raise RingfenceError(
                f"the credentials are those of account {account}, but stack {stack} belongs to {settings.account_id}; "
                "use that account's credentials"
            )
        (given,) = session.client("ecr").get_authorization_token()["authorizationData"]
    except (BotoCoreError, ClientError) as error:
        raise RingfenceError(
            f"no usable AWS credentials: {error}\n    remedy: log in to account {settings.account_id}"
        ) from None
    return f"Basic {given['authorizationToken']}"


@image.command()
@_KIND
def rootfs(kind: str) -> None:
    """Unpack the image for this machine's own sandboxes and print the folder."""
    click.echo(Builder(_say, kind=kind_of(kind)).rootfs())


@image.command()
@_KIND
@click.option("--platform", default="linux/arm64", show_default=True)
def sbom(kind: str, platform: str) -> None:
    """Print the bill of materials (CycloneDX)."""
    made = kind_of(kind)
    lock.base(platform, made.source)
    click.echo(rendered_sbom(platform, made.source, made.title), nl=False)


@image.command("lock")
@_KIND
def lock_(kind: str) -> None:
    """Pin the base's Debian packages anew. The Python packages: uv pip compile, as the image's README.md says."""
    for line in relock(kind_of(kind).source) or ["nothing changed"]:
        click.echo(line)
