"""`ringfence doctor`: each part that the embedded target needs, its version, its source, and what is missing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ringfence.egress import program as envoy
from ringfence.local import bootstrap, target
from ringfence.local.toolchain import golang, resolution
from ringfence.local.toolchain.recipes import ON_DEMAND, PARTS
from ringfence.versions import ENVOY_VERSION

# The Python packages whose versions matter to what the embedded target does.
PACKAGES = ("pulumi", "pulumi-aws", "pulumi-kubernetes", "pulumi-random", "moto", "boto3")


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One part. version is empty when it is missing; remedy says how to get it."""

    name: str
    ok: bool
    version: str
    source: str
    detail: str = ""
    remedy: str = ""

    def as_dict(self) -> dict[str, str | bool]:
        """For JSON."""
        return dataclasses.asdict(self)


def _python() -> Check:
    lowest, highest = bootstrap.PYTHONS
    ok = lowest <= sys.version_info[:2] < highest
    remedy = f"use Python 3.{lowest[1]} to 3.{highest[1] - 1}: make PYTHON=/path/to/python3"
    return Check("python", ok, platform.python_version(), "venv", sys.prefix, "" if ok else remedy)


def _uv(cache: Path, needed_now: bool) -> Check:
    found = bootstrap.known_uv(cache)
    if found is None and not needed_now:
        return Check("uv", True, "", "not needed", "the Python environment is complete")
    if found is None:
        return Check("uv", False, "", "", remedy="`make up` fetches it; or install uv and put it on PATH")
    path, version = found
    source = "PyPI" if Path(path).is_relative_to(cache) else "PATH"
    return Check("uv", True, ".".join(map(str, version)), source, path)


def _go(cache: Path, needed_now: bool) -> Check:
    needed = max(build.go_version() for part in PARTS for build in part.builds)
    wanted = ".".join(map(str, needed))
    go = golang.find_go(needed, cache)
    if go:
        return Check("go", True, go.version, go.source.value, str(go.path))
    if needed_now:
        return Check("go", False, "", "", remedy=f"`make up` fetches it; or put Go {wanted} or newer on PATH")
    return Check("go", True, "", "not needed", "every tool is there already")


def _tools(cache: Path, environ: Mapping[str, str]) -> list[Check]:
    tools, missing = resolution.find([part.name for part in (*PARTS, *ON_DEMAND)], cache=cache, environ=environ)
    checks = []
    for part in (*PARTS, *ON_DEMAND):
        if part in missing and part in ON_DEMAND:
            detail = "`ringfence run` downloads or builds it when it first needs it"
            checks += [Check(program, True, "", "not there yet", detail) for program in part.programs]
            continue
        if part in missing:
            remedy = "`make up` downloads or builds it"
            checks += [Check(program, False, "", "", remedy=remedy) for program in part.programs]
            continue
        damaged = resolution.verify(part, cache)
        for program in part.programs:
            tool = tools[program]
            bad = program in damaged and tool.path.is_relative_to(cache)
            remedy = f"remove {tool.path.parent.parent} and run `make up`: its content is not what was put there"
            checks.append(Check(program, not bad, tool.version, tool.source.value, tool.detail, remedy if bad else ""))
    return checks


def _envoy(environ: Mapping[str, str]) -> Check:
    """What `ringfence run` needs for tools with egress domains, which are refused without it."""
    found = envoy.find(environ)
    if found is None:
        return Check("envoy", False, "", "", remedy=envoy.REMEDY)
    return Check("envoy", True, ENVOY_VERSION, found.source, str(found.path))


def _packages() -> list[Check]:
    checks = []
    for name in PACKAGES:
        try:
            checks.append(Check(f"package {name}", True, importlib.metadata.version(name), "requirements.lock"))
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(f"package {name}", False, "", "", remedy="`make up` installs requirements.lock"))
    return checks


def _providers() -> list[Check]:
    checks = []
    for name in target.PROVIDERS:
        module = Path(__file__).parent / "providers" / name
        there = module.is_dir() or module.with_suffix(".py").is_file()
        remedy = "" if there else "the installation is incomplete: run `make up`"
        checks.append(Check(f"provider {name}", there, "embedded" if there else "", "this project", remedy=remedy))
    return checks


def examine(environ: Mapping[str, str] = os.environ) -> list[Check]:
    """Looks at every part. Downloads, builds and starts nothing."""
    cache = bootstrap.cache_root(environ)
    tools = _tools(cache, environ)
    building = any(not check.ok for check in tools)
    packages = _packages()
    envoy = _envoy(environ)
    installing = building or any(not check.ok for check in (*packages, envoy))
    return [_python(), _uv(cache, installing), _go(cache, building), *tools, envoy, *packages, *_providers()]


def table(checks: list[Check]) -> str:
    """The checks as aligned lines, and a closing line with the count of what is missing."""
    names = max(len(check.name) for check in checks)
    versions = max(len(check.version) for check in checks)
    lines = []
    for check in checks:
        sign = "ok " if check.ok else "MISSING"
        lines.append(
            f"{sign:<8}{check.name:<{names}}  {check.version:<{versions}}  {check.source}  {check.detail}".rstrip()
        )
        if check.remedy:
            lines.append(f"{'':8}remedy: {check.remedy}")
    missing = sum(not check.ok for check in checks)
    free = shutil.disk_usage(Path.home()).free >> 30
    closing = "everything is there" if not missing else f"{missing} missing"
    return "\n".join([*lines, f"{closing}; {free} GiB free, {os.cpu_count()} processors"])
