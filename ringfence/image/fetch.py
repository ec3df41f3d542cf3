"""Fetches what the locks pin. A file whose digest differs from its pin is never used, wherever it came from."""

from __future__ import annotations

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from ringfence.errors import RingfenceError
from ringfence.image.lock import MACHINES, SOURCE, WHEEL_LOCK, DebianPackage

# RINGFENCE_DEBIAN_MIRROR replaces the list, for a network with a mirror of its own.
MIRRORS = ("https://deb.debian.org", "https://snapshot.debian.org/archive")
MIRROR_VARIABLE = "RINGFENCE_DEBIAN_MIRROR"
# snapshot.debian.org keeps every file; a mirror only what is current. Paths there begin with archive and date.
_SNAPSHOT = "20261122T000000Z"
TIMEOUT_S = 30.0
CHUNK = 1 << 20
# glibc of the base is 2.36; older manylinux tags run on it too.
_GLIBC_MINORS = (36, 34, 31, 28, 27, 24, 17)
Report = Callable[[str], None]


def debian(packages: Sequence[DebianPackage], folder: Path, report: Report) -> list[Path]:
    """The packages' files, downloaded into `folder` unless they are there. Raises RingfenceError naming the package."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, package in enumerate(packages, 1):
        path = folder / f"{package.sha256}.deb"
        if not path.exists():
            report(
                f"base package {number}/{len(packages)}: {package.name} {package.version} ({package.size >> 10} KiB)"
            )
            _download(package, path)
        paths.append(path)
    return paths


def _addresses(package: DebianPackage) -> list[str]:
    path = quote(package.path)
    if own := os.environ.get(MIRROR_VARIABLE):
        return [f"{own.rstrip('/')}/{path}"]
    archive, _, rest = path.partition("/")
    return [f"{MIRRORS[0]}/{path}", f"{MIRRORS[1]}/{archive}/{_SNAPSHOT}/{rest}"]


def _download(package: DebianPackage, path: Path) -> None:
    failures = []
    for address in _addresses(package):
        try:
            data = _read(address, package.size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{address}: {getattr(error, 'reason', None) or error}")
            continue
        found = hashlib.sha256(data).hexdigest()
        if found == package.sha256:
            temporary = path.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(data)
            temporary.replace(path)
            return
        failures.append(f"{address}: SHA-256 is {found}, pinned is {package.sha256}")
    raise RingfenceError(
        f"Debian package {package.name} {package.version} can't be had:\n  " + "\n  ".join(failures) + "\n"
        f"    remedy: let {MIRROR_VARIABLE} name a mirror that has it, or pin the current packages by `ringfence image lock`"
    )


def _read(address: str, size: int) -> bytes:
    if not address.startswith(("https://", "http://")):
        raise ValueError("is no http address")
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - checked above
        data = answer.read(size + 1)
    if len(data) != size:
        raise ValueError(f"has not the pinned size of {size} bytes")
    return data


def wheels(platform: str, folder: Path, report: Report, source: Path = SOURCE) -> list[Path]:
    """The wheels of the lock for a platform, downloaded into `folder` by pip, which checks every digest. Raises
    RingfenceError with pip's own last words."""
    machine = MACHINES[platform]
    report(f"Python packages for {platform}")
    tags = [f"--platform=manylinux_2_{minor}_{machine}" for minor in _GLIBC_MINORS]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--require-hashes", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311",
            "--abi=abi3", "--abi=none", *tags, f"--platform=manylinux2014_{machine}", "--dest", scratch,
            "--requirement", str(source / WHEEL_LOCK),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise RingfenceError(f"the image's Python packages can't be had:\n{last}")
        folder.mkdir(parents=True, exist_ok=True)
        for path in Path(scratch).iterdir():
            path.replace(folder / path.name)
    return sorted(folder.glob("*.whl"))
