"""Releases that nodes install at boot, kept in the environment's own bucket: where each comes from, its digest, its copy.

Nodes have no way to a public host; an operator runs `ringfence mirror` once per environment and release.
"""

from __future__ import annotations

import hashlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ringfence.errors import RingfenceError
from ringfence.names import Names
from ringfence.versions import GVISOR_RELEASE, GVISOR_SHA512

# Purpose of the bucket, as `Names.bucket` takes it.
ARTIFACTS = "artifacts"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file: key in the bucket, official address, and its SHA-512 in lower-case hexadecimal."""

    key: str
    url: str
    sha512: str


class S3(Protocol):
    """The two calls of boto3's S3 client that a copy takes."""

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]: ...
    def upload_fileobj(self, Fileobj: IO[bytes], Bucket: str, Key: str, ExtraArgs: dict[str, Any]) -> None: ...


def gvisor_key(release: str, machine: str) -> str:
    """Object key of a gVisor release for a machine type as `uname -m` prints it."""
    return f"gvisor/{release}/{machine}/gvisor.tar.bz2"


def gvisor_artifacts() -> tuple[Artifact, ...]:
    """The pinned gVisor release for every architecture that has a pinned digest."""
    base = f"https://storage.googleapis.com/gvisor/releases/release/{GVISOR_RELEASE}"
    return tuple(
        Artifact(gvisor_key(GVISOR_RELEASE, machine), f"{base}/{machine}/gvisor.tar.bz2", digest)
        for machine, digest in sorted(GVISOR_SHA512.items())
    )


def fetch(artifact: Artifact, into: IO[bytes], source: Path | None = None) -> None:
    """Copies the artifact from its address, or from `source`, into a file, and rewinds it.

    Raises RingfenceError when it can't be read or when its digest is not the pinned one; then nothing may be used.
    """
    digest = hashlib.sha512()
    try:
        with _open(artifact, source) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                into.write(chunk)
    except (OSError, urllib.error.URLError) as error:
        raise RingfenceError(f"{source or artifact.url}: can't be read: {error}") from None
    if digest.hexdigest() != artifact.sha512:
        raise RingfenceError(
            f"{source or artifact.url}: its SHA-512 is {digest.hexdigest()[:16]}…, but {artifact.sha512[:16]}… is pinned; "
            "nothing was copied. Get the release again, or check the pin in ringfence/versions.py"
        )
    into.seek(0)


def _open(artifact: Artifact, source: Path | None) -> IO[bytes]:
    if source is not None:
        return source.open("rb")
    if not artifact.url.startswith("https://"):
        raise RingfenceError(f"{artifact.url}: only https is fetched")
    return urllib.request.urlopen(artifact.url, timeout=_TIMEOUT_SECONDS)  # noqa: S310  (https, checked above)


def is_mirrored(s3: S3, bucket: str, artifact: Artifact) -> bool:
    """Whether the bucket holds the artifact with its pinned digest."""
    # Imported here: boto3 loads botocore, which takes a second that no other command should wait for.
    from botocore.exceptions import ClientError

    try:
        held = s3.head_object(Bucket=bucket, Key=artifact.key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise RingfenceError(f"s3://{bucket}/{artifact.key}: {error.response['Error'].get('Message', error)}") from None
    return held.get("Metadata", {}).get("sha512") == artifact.sha512


def mirror(
    s3: S3,
    names: Names,
    artifacts: Iterable[Artifact],
    say: Callable[[str], None],
    sources: dict[str, Path] | None = None,
) -> int:
    """Copies what is missing into the environment's bucket, each only after its digest was checked.

    sources: key → file to take instead of the official address. Returns how many were copied. Raises RingfenceError.
    """
    bucket, copied = names.bucket(ARTIFACTS), 0
    for artifact in artifacts:
        if is_mirrored(s3, bucket, artifact):
            say(f"{artifact.key}: already there")
            continue
        with tempfile.TemporaryFile() as checked:
            fetch(artifact, checked, (sources or {}).get(artifact.key))
            _upload(s3, bucket, artifact, checked)
        copied += 1
        say(f"{artifact.key}: copied to s3://{bucket}")
    return copied


def _upload(s3: S3, bucket: str, artifact: Artifact, checked: IO[bytes]) -> None:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        s3.upload_fileobj(checked, bucket, artifact.key, ExtraArgs={"Metadata": {"sha512": artifact.sha512}})
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise RingfenceError(f"s3://{bucket}/{artifact.key}: can't be written: {error}") from None
