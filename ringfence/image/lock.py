"""What an image is made of, pinned: Debian packages (base.lock.json) and Python wheels (requirements.lock)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import InputError, Problem

# The images' sources lie beside the library in its working tree.
SOURCE = Path(__file__).parents[2] / "runtime-image"
CONTROL_SOURCE = Path(__file__).parents[2] / "control-image"
BASE_LOCK, WHEEL_LOCK = "base.lock.json", "requirements.lock"
# Architectures as Docker, Debian, wheels and the kernel name them.
DEBIAN_ARCHITECTURES = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")


@dataclass(frozen=True, slots=True)
class DebianPackage:
    """One package. path: below a mirror's root; size: bytes; sha256: of the .deb file, hexadecimal."""

    name: str
    version: str
    architecture: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Requirement:
    """One Python distribution and the SHA-256 digests of its files, any of which may be installed."""

    name: str
    version: str
    hashes: tuple[str, ...]


def platforms(source: Path = SOURCE) -> tuple[str, ...]:
    """The platforms that the base is pinned for, e.g. ``linux/arm64``."""
    return tuple(_read(source)["platforms"])


def suite(source: Path = SOURCE) -> str:
    """The Debian release."""
    return str(_read(source)["suite"])


def base(platform: str, source: Path = SOURCE) -> tuple[DebianPackage, ...]:
    """The base's packages. Raises InputError for a platform or a pin that can't be used, all problems at once."""
    data = _read(source)["platforms"]
    where = f"{source.name}/{BASE_LOCK}"
    if platform not in data:
        raise InputError([Problem(where, platform, "is not a pinned platform", f"use one of {', '.join(data)}")])
    packages, problems = [], []
    for index, item in enumerate(data[platform]):
        try:
            package = DebianPackage(**item)
        except TypeError as error:
            problems.append(
                Problem(where, f"{platform}[{index}]", str(error), "write name, version, path, size and sha256")
            )
            continue
        if not _DIGEST.fullmatch(package.sha256) or ".." in package.path or package.path.startswith("/"):
            problems.append(Problem(where, package.name, "has no usable digest or path", "run `ringfence image lock`"))
        packages.append(package)
    if problems:
        raise InputError(problems)
    return tuple(packages)


def wheels(source: Path = SOURCE) -> tuple[Requirement, ...]:
    """The Python distributions. Raises InputError for one without a version or a digest."""
    found, problems = [], []
    text = (source / WHEEL_LOCK).read_text(encoding="utf-8").replace("\\\n", " ")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _REQUIREMENT.match(line)
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
        if match is None or not hashes:
            problems.append(
                Problem(f"{source.name}/{WHEEL_LOCK}", f"entry {number}", "is not pinned by digest", "lock again")
            )
        else:
            found.append(Requirement(match[1], match[2], hashes))
    if problems:
        raise InputError(problems)
    return tuple(found)


def _read(source: Path) -> dict:
    path = source / BASE_LOCK
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data["platforms"], dict) and data["suite"]:
            return data
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError([Problem(f"{source.name}/{BASE_LOCK}", "", "can't be read", "take it from the repository")])
