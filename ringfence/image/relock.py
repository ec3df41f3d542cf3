"""Pins the base's packages anew: asks apt, which checks Debian's signatures, for what is current, in a folder of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from ringfence.errors import RingfenceError
from ringfence.image import lock
from ringfence.image.lock import BASE_LOCK, DEBIAN_ARCHITECTURES, SOURCE

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRROR = "http://deb.debian.org"
# As `apt-get download --print-uris` writes a line: address, file name, size, digest.
_LINE = re.compile(r"^'(\S+)' (\S+)_(\S+)_(\S+)\.deb (\d+) SHA256:([0-9a-f]{64})$")


def relock(source: Path = SOURCE) -> list[str]:
    """Writes base.lock.json with the current versions of the packages that are in it. Returns one line per package that
    changed. Raises RingfenceError where apt or Debian's keyring is missing, or apt fails."""
    if shutil.which("apt-get") is None or not Path(KEYRING).exists():
        raise RingfenceError("pinning the base anew needs apt-get and Debian's keyring\n    remedy: run it on Debian")
    before = {platform: lock.base(platform, source) for platform in lock.platforms(source)}
    suite = lock.suite(source)
    after: dict[str, list[dict[str, object]]] = {}
    with tempfile.TemporaryDirectory(prefix="ringfence-apt-") as scratch:
        root = _prepare(Path(scratch), suite)
        for platform, packages in before.items():
            architecture = DEBIAN_ARCHITECTURES[platform]
            _apt(root, architecture, "update")
            names = sorted(package.name for package in packages)
            after[platform] = parsed(_apt(root, architecture, "download", "--print-uris", *names), names)
    data = {"distribution": "debian", "suite": suite, "platforms": after}
    (source / BASE_LOCK).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return [
        f"{platform}: {old.name} {old.version} -> {new['version']}"
        for platform, packages in before.items()
        for old, new in zip(sorted(packages, key=lambda package: package.name), after[platform], strict=True)
        if old.sha256 != new["sha256"]
    ]


def parsed(output: str, names: Sequence[str]) -> list[dict[str, object]]:
    """The pins in what apt printed, sorted by name. Raises RingfenceError naming the packages that are missing."""
    found: dict[str, dict[str, object]] = {}
    for line in output.splitlines():
        if match := _LINE.match(line.strip()):
            address, name, version, architecture, size, digest = match.groups()
            found[name] = {
                "name": name,
                "version": unquote(version),
                "architecture": architecture,
                "path": unquote(address.split("/", 3)[3]),
                "size": int(size),
                "sha256": digest,
            }
    if missing := sorted(set(names) - set(found)):
        raise RingfenceError(f"apt knows no {', '.join(missing)}")
    return [found[name] for name in sorted(names)]


def _prepare(root: Path, suite: str) -> Path:
    for folder in ("etc/apt/preferences.d", "etc/apt/apt.conf.d", "lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True)
    (root / "status").touch()
    signed = f"[signed-by={KEYRING}]"
    lines = [
        f"deb {signed} {MIRROR}/debian {suite} main",
        f"deb {signed} {MIRROR}/debian {suite}-updates main",
        f"deb {signed} {MIRROR}/debian-security {suite}-security main",
    ]
    (root / "etc/apt/sources.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def _apt(root: Path, architecture: str, *arguments: str) -> str:
    options = {
        "Dir::Etc": root / "etc/apt",
        "Dir::State::lists": root / "lists",
        "Dir::State::status": root / "status",
        "Dir::Cache": root / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    command = ["apt-get", *(part for key, value in options.items() for part in ("-o", f"{key}={value}")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=root)
    if done.returncode:
        raise RingfenceError(f"apt-get {arguments[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout
