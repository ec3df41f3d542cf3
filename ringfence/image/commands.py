"""`ringfence image`: build the runtime image, unpack it for local sandboxes, list what is in it."""

from __future__ import annotations

from pathlib import Path

import click

from ringfence.image import lock
from ringfence.image.build import Builder
from ringfence.image.relock import relock
from ringfence.image.sbom import sbom as rendered_sbom


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group()
def image() -> None:
    """The runtime image: what runs inside a sandbox."""


@image.command()
@click.option("--platform", "platforms", multiple=True, help="e.g. linux/arm64; every pinned one when left out")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("agent-runtime.oci.tar"),
    show_default=True,
)
def build(platforms: tuple[str, ...], output: Path) -> None:
    """Write the image as an OCI archive and print the digest that a cluster pins it by."""
    made = Builder(_say).archive(platforms or None)
    output.write_bytes(made.data)
    _say(f"{output}: {len(made.data) >> 20} MiB")
    for platform, digest in made.manifests.items():
        _say(f"{platform}: {digest}")
    click.echo(made.digest)


@image.command()
def rootfs() -> None:
    """Unpack the image for this machine's own sandboxes and print the folder."""
    click.echo(Builder(_say).rootfs())


@image.command()
@click.option("--platform", default="linux/arm64", show_default=True)
def sbom(platform: str) -> None:
    """Print the bill of materials (CycloneDX)."""
    lock.base(platform)
    click.echo(rendered_sbom(platform), nl=False)


@image.command("lock")
def lock_() -> None:
    """Pin the base's Debian packages anew. The Python packages: uv pip compile, as runtime-image/README.md says."""
    for line in relock() or ["nothing changed"]:
        click.echo(line)
