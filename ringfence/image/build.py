"""Builds an image: layers, root folder, OCI archive. Everything is cached per user by the digest of what it is
made from, made under a lock, and put in place in one step."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import filelock

from ringfence.image import bytecode, contents, fetch, lock, oci
from ringfence.image.contents import project_version
from ringfence.image.kinds import RUNTIME, Kind
from ringfence.image.sbom import sbom
from ringfence.image.tree import Tree, file, from_tar, to_tar, write
from ringfence.local.bootstrap import cache_root

# What a sandbox starts.
COMMAND = RUNTIME.command
ENVIRONMENT = dict(RUNTIME.environment)
# What decides an image's bytes, besides its locks and modules.
_RECIPE = ("build", "bytecode", "contents", "fetch", "kinds", "oci", "sbom", "tree")
# A root folder that nobody asked for in this time goes when another is made. Seconds.
UNUSED_S = 14 * 86_400
HEARTBEAT_S = 10.0
Report = Callable[[str], None]


class Builder:
    """Builds one image into one cache. cache: by default the user's; report: gets one line at a time; source: folder with
    the image's locks, by default its own; kind: which image."""

    def __init__(
        self, report: Report = print, cache: Path | None = None, source: Path | None = None, kind: Kind = RUNTIME
    ):
        self._report = report
        self._folder = (cache or cache_root(os.environ)) / "image"
        self._kind = kind
        self._source = source or kind.source
        self._recipe = _digest(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _RECIPE)

    def rootfs(self) -> Path:
        """The image's root for this machine as a folder, to be mounted read-only. Raises RingfenceError."""
        platform = bytecode.host_platform()
        path = self._folder / f"rootfs-{self._key(platform)}"
        if path.is_dir():
            os.utime(path)
            return path
        with self._locked():
            if not path.is_dir():
                self._make_rootfs(platform, path)
        return path

    def archive(self, platforms: Sequence[str] | None = None) -> oci.Archive:
        """The OCI archive, by default with every pinned platform. Raises RingfenceError, InputError."""
        images, kind = [], self._kind
        with self._locked():
            for platform in platforms or lock.platforms(self._source):
                images.append(
                    oci.Image(
                        platform,
                        self._layers(platform),
                        kind.environment,
                        kind.command,
                        f"{kind.user}:{kind.user}",
                        {
                            "org.opencontainers.image.title": kind.title,
                            "org.opencontainers.image.version": project_version(self._source),
                            "org.opencontainers.image.licenses": "Apache-2.0",
                        },
                    )
                )
        return oci.archive(images, f"{kind.title}:{project_version(self._source)}")

    def _make_rootfs(self, platform: str, path: Path) -> None:
        for left in self._folder.glob(".rootfs-*"):
            # The lock is held: whoever made it was killed.
            shutil.rmtree(left, ignore_errors=True)
        for old in self._folder.glob("rootfs-*"):
            if time.time() - old.stat().st_mtime > UNUSED_S:
                shutil.rmtree(old, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=".rootfs-", dir=self._folder))
        # mkdtemp's 0700 would keep the sandbox's user out.
        scratch.chmod(0o755)
        tree: Tree = {}
        for _, data in self._layers(platform):
            tree |= from_tar(data)
        self._report(f"writing the root folder of {self._kind.title}")
        write(tree, scratch)
        scratch.rename(path)

    def _key(self, platform: str) -> str:
        parts = [self._kind.name.encode(), platform.encode(), self._recipe.encode()]
        for name in (lock.BASE_LOCK, lock.WHEEL_LOCK, "pyproject.toml"):
            parts.append((self._source / name).read_bytes())
        for path, node in sorted(self._kind.modules(self._source).items()):
            parts += [path.encode(), node.data or b""]
        return _digest(parts)[:32]

    def _layers(self, platform: str) -> list[tuple[str, bytes]]:
        base_key = _digest([platform.encode(), self._recipe.encode(), (self._source / lock.BASE_LOCK).read_bytes()])
        base = self._cached(f"base-{base_key[:32]}", lambda: self._base(platform))
        services = ",".join(self._kind.services).encode()
        wheel_key = _digest([base_key.encode(), (self._source / lock.WHEEL_LOCK).read_bytes(), services])
        wheels = self._cached(f"packages-{wheel_key[:32]}", lambda: self._wheels(platform, wheel_key))
        modules = self._cached(f"{self._kind.name}-{self._key(platform)}", lambda: self._modules(platform))
        return [
            (f"Debian {lock.suite(self._source)} packages", base),
            ("Python packages", wheels),
            (self._kind.title, modules),
        ]

    def _cached(self, name: str, make: Callable[[], Tree]) -> bytes:
        path = self._folder / "layers" / f"{name}.tar"
        if path.exists():
            os.utime(path)
            return path.read_bytes()
        data = to_tar(make())
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("*.tar"):
            if time.time() - old.stat().st_mtime > UNUSED_S:
                old.unlink(missing_ok=True)
        temporary = path.with_suffix(".part")
        temporary.write_bytes(data)
        temporary.replace(path)
        return data

    def _plain_base(self, platform: str) -> Tree:
        packages = lock.base(platform, self._source)
        return contents.debian_layer(packages, fetch.debian(packages, self._folder / "packages", self._report))

    def _base(self, platform: str) -> Tree:
        tree = self._plain_base(platform)
        self._report(f"compiling Python's own modules for {platform}")
        return tree | bytecode.compiled(self._interpreter(platform, tree), tree)

    def _wheels(self, platform: str, key: str) -> Tree:
        tree = contents.wheel_layer(
            fetch.wheels(platform, self._folder / f"wheels-{key[:32]}", self._report, self._source), self._kind.services
        )
        return tree | bytecode.compiled(self._interpreter(platform), tree)

    def _modules(self, platform: str) -> Tree:
        title = self._kind.title
        self._report(f"compiling {title} for {platform}")
        tree = self._kind.modules(self._source)
        tree[f"usr/share/sbom/{title}.cdx.json"] = file(sbom(platform, self._source, title))
        return tree | bytecode.compiled(self._interpreter(platform), tree)

    def _interpreter(self, platform: str, tree: Tree | None = None) -> Tree:
        host = bytecode.host_platform()
        return tree if tree is not None and platform == host else self._plain_base(host)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        guard = filelock.FileLock(self._folder / "image.lock")
        while True:
            try:
                guard.acquire(timeout=HEARTBEAT_S)
                break
            except filelock.Timeout:
                self._report(f"another process is building an image in {self._folder}: waiting")
        try:
            yield
        finally:
            guard.release()


def _digest(parts: Iterator[bytes] | Sequence[bytes]) -> str:
    """SHA-256 over parts, each with its length in front, so that no two lists read alike."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def rootfs(report: Report = print, cache: Path | None = None) -> Path:
    """The runtime image's root for this machine, as a folder; made on first use (about a minute), then at hand at once.
    Mount it read-only and start COMMAND in it with ENVIRONMENT, as uid and gid 1000. Raises RingfenceError."""
    return Builder(report, cache).rootfs()
