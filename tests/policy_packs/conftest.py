"""Small programs on the real engine with the packs, many at a time, against a lockfile made from a reviewed program."""

from __future__ import annotations

import datetime
import json
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.catalog.model import Catalog
from ringfence.local import target
from ringfence.local.results import Result
from ringfence.local.stack import Engine
from ringfence.local.state import Home
from ringfence.local.toolchain import Tools
from ringfence.names import Names
from ringfence.review import lockfile, sources, updating

HERE = Path(__file__).parent
PACKS = HERE.parents[1] / "policy-packs"
NAMES = Names("shop", "test", "123456789012", "us-east-1")
# What every program may use.
PRELUDE = """
import json
import pulumi
import pulumi_aws as aws

ARN = "arn:aws:iam::123456789012"
BUCKET = "arn:aws:s3:::data"

def doc(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})

def allow(actions, resources):
    return {"Effect": "Allow", "Action": actions, "Resource": resources}

def deny(actions, resources, condition=None):
    made = {"Effect": "Deny", "Action": actions, "Resource": resources}
    return {**made, "Condition": condition} if condition else made

TRUST = doc({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": ARN + ":role/broker"},
             "Condition": {"StringEquals": {"sts:ExternalId": "shop"}}})

def native(type_, name, **props):
    return pulumi.CustomResource(type_, name, props)

def kube(type_, name, metadata, **props):
    return native("kubernetes:" + type_, name, metadata=metadata, **props)

SAFE = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]}}

def pod(context=None, **spec):
    containers = [{"name": "c", "image": "i", "securityContext": {**SAFE, **(context or {})}}]
    return {"containers": containers, "automountServiceAccountToken": False, **spec}
"""


@dataclass(frozen=True)
class Lab:
    """Runs previews. Each has a project of its own; the home, and so its plugins, are shared."""

    tools: Tools
    folder: Path

    def engine(
        self, name: str, program: str, *, prelude: str = PRELUDE, files: Mapping[str, str] | None = None
    ) -> Engine:
        """The engine on a program. `files` with a Pulumi.yaml make it a program of another language."""
        project = self.folder / f"project-{name}"
        project.mkdir()
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (project / "Pulumi.yaml").write_text(yaml.safe_dump({"name": f"p{name}", "runtime": runtime}), encoding="utf-8")
        (project / "__main__.py").write_text(prelude + textwrap.dedent(program), encoding="utf-8")
        for path, text in (files or {}).items():
            (project / path).write_text(text, encoding="utf-8")
        home = Home.of(self.folder / f"home-{name}")
        echo = self.folder / "plugins"
        path = os.pathsep.join([str(echo), target.environment(home, self.tools)["PATH"]])
        return Engine(project, home, self.tools, extra_env={"PATH": path})

    def preview(
        self, name: str, program: str, pack: str, config: Mapping[str, Any] | None = None, **more: Any
    ) -> Result:
        """A preview with a pack under a configuration."""
        args = []
        if config is not None:
            path = self.folder / f"config-{name}.json"
            path.write_text(json.dumps(config), encoding="utf-8")
            args = ["--policy-pack-config", str(path)]
        return self.engine(name, program, **more).preview(policy_packs=[PACKS / pack], args=args)


@pytest.fixture(scope="session")
def lab(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Previews whose resources are made by a provider that accepts every type."""
    folder = tmp_path_factory.mktemp("lab")
    plugins = folder / "plugins"
    plugins.mkdir()
    line = f"exec {shlex.quote(sys.executable)} -P {shlex.quote(str(HERE / 'echo_provider.py'))}"
    for name in ("aws", "aws-native", "kubernetes"):
        path = plugins / f"pulumi-resource-{name}"
        path.write_text(f'#!/bin/sh\n{line} "$@"\n', encoding="utf-8")
        path.chmod(0o755)
    return Lab(tools, folder)


@pytest.fixture(scope="session")
def approved(lab: Lab) -> Path:
    """A lockfile that approves exactly what cases/approved.yaml declares, made the way a user makes it."""
    program = yaml.safe_load((HERE / "cases/approved.yaml").read_text(encoding="utf-8"))["program"]
    result = lab.engine("approved", program).preview(json=True)
    assert result.ok, result.tail()
    preview = lab.folder / "approved.json"
    preview.write_text(result.stdout, encoding="utf-8")
    surface = sources.surface_of("preview", sources.preview_resources(preview))
    approval = updating.Approval("lead@example.com", datetime.date(2026, 11, 1), "shop@example.com", "the shop's own")
    content = updating.updated(NAMES, Catalog((), (), ()), surface.facts.values(), None, approval)
    path = lab.folder / "grants.lock.json"
    path.write_text(lockfile.render(content), encoding="utf-8")
    return path


def load_cases(name: str) -> list[dict[str, Any]]:
    """The programs of cases/<name>.yaml."""
    return yaml.safe_load((HERE / "cases" / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def previews(lab: Lab) -> Callable[..., dict[str, Result]]:
    """Previews all programs of a table with a pack, two at a time, and answers the results by name."""

    def run(table: str, pack: str, config: Mapping[str, Any] | None = None) -> dict[str, Result]:
        cases = load_cases(table)

        def one(numbered: tuple[int, dict[str, Any]]) -> Result:
            number, case = numbered
            return lab.preview(f"{table}{number}", case["program"], pack, config)

        with ThreadPoolExecutor(2) as pool:
            return dict(zip([case["name"] for case in cases], pool.map(one, enumerate(cases)), strict=True))

    return run
