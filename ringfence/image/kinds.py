"""The two images that are built here: what a sandbox runs, and what serves on the control side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import InputError, Problem
from ringfence.image import contents, lock
from ringfence.image.tree import Tree

# uid and gid of the control side's user; `components.service_manifests` runs the pod as it.
CONTROL_USER = 10001
_COMMON = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "HOME": "/tmp",  # noqa: S108 - the container's own, empty and private
    "PATH": "/usr/bin",
    "PYTHONUTF8": "1",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One image. name: as commands say it; title: of the archive, the repository and the bill of materials; source: folder
    with its locks; command: what a container starts, -P since the working folder is no place for modules; user: uid and gid;
    services: AWS services whose models botocore brings along; modules: makes the topmost layer, out of the source folder."""

    name: str
    title: str
    source: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    user: int
    services: tuple[str, ...]
    modules: Callable[[Path], Tree]


RUNTIME = Kind(
    "runtime",
    "agent-runtime",
    lock.SOURCE,
    ("/usr/bin/python3", "-P", "-m", "agent_runtime"),
    _COMMON,
    contents.UID,
    # The ones that the built-in tools call, with what all of them need.
    ("dynamodb", "s3", "ses", "sts"),
    contents.runtime_layer,
)
CONTROL = Kind(
    "control",
    "control",
    lock.CONTROL_SOURCE,
    ("/usr/bin/python3", "-P", "-m", "ringfence.cli"),
    _COMMON,
    CONTROL_USER,
    # The broker becomes tools, denies what it revoked, keeps its ledger, reads tools' secrets and looks for misuse.
    ("cloudtrail", "dynamodb", "iam", "secretsmanager", "sts"),
    lambda source: contents.control_layer(source, CONTROL_USER),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (RUNTIME, CONTROL)}


def kind_of(name: str) -> Kind:
    """The image of that name. Raises InputError with those there are."""
    if name not in KINDS:
        raise InputError([Problem("image", name, "is not known", f"write {' or '.join(KINDS)}")])
    return KINDS[name]
