"""The packs see resources, not languages: programs in JavaScript and YAML are refused and passed alike.

The Node.js host is taken from PATH, else built from the pinned module in nodehost/ (v3.50.0 is the last one that the
SDK's own module holds) where Go and npm are installed. YAML runs where its host is on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ringfence.local.results import Result

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

HOST = "pulumi-language-nodejs"
MODULE = "github.com/pulumi/pulumi/sdk/v3/nodejs/cmd/pulumi-language-nodejs"
SDK = "3.220.0"
DOCUMENT = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "%s", "Resource": "arn:aws:s3:::data/reports/*"}]}'


@pytest.fixture(scope="session")
def node_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Node.js language host."""
    found = shutil.which(HOST)
    if found:
        return Path(found).parent
    if not (shutil.which("go") and shutil.which("npm")):
        pytest.skip("no Node.js language host on PATH, and no Go and npm to build one")
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ringfence" / "test-nodehost-3.50.0"
    if not (folder / HOST).exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["go", "build", "-mod=mod", "-o", str(folder / HOST), MODULE],
            cwd=shutil.copytree(Path(__file__).parent / "nodehost", tmp_path_factory.mktemp("go") / "nodehost"),
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
        )
    return folder


@pytest.fixture(scope="session")
def node_modules(node_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pulumi's Node.js SDK."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text(json.dumps({"dependencies": {"@pulumi/pulumi": SDK}}), encoding="utf-8")
    subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True
    )
    return folder / "node_modules"


def preview(
    lab: Any, name: str, files: dict[str, str], pack: str, config: Any, extra: Path | None, modules: Path | None
) -> Result:
    engine = lab.engine(name, "", files=files)
    if modules:
        (engine.project_dir / "node_modules").symlink_to(modules)
    if extra:
        engine.extra_env["PATH"] = os.pathsep.join([str(extra), engine.extra_env["PATH"]])
    path = lab.folder / f"config-{name}.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    packs = Path(__file__).parents[2] / "policy-packs"
    return engine.preview(policy_packs=[packs / pack], args=["--policy-pack-config", str(path)])


def javascript(type_: str, name: str, props: dict[str, Any]) -> dict[str, str]:
    program = (
        f'new (require("@pulumi/pulumi").CustomResource)({json.dumps(type_)}, {json.dumps(name)}, {json.dumps(props)});'
    )
    return {
        "Pulumi.yaml": "name: js\nruntime: nodejs\nmain: index.js\n",
        "package.json": json.dumps({"main": "index.js"}),
        "index.js": program,
    }


def creep(approved: Path) -> dict[str, Any]:
    return {name: {"lockfile": str(approved)} for name in ("grants-match-lockfile", "stack-matches-lockfile")}


def policy(action: str) -> dict[str, Any]:
    return {"name": "main", "role": "app", "policy": DOCUMENT % action}


@pytest.mark.parametrize(
    ("name", "files", "pack", "told"),
    [
        (
            "js-wider",
            javascript("aws:iam/rolePolicy:RolePolicy", "main", policy("s3:*")),
            "permission-creep",
            "role/app inline policy main allows more than was approved",
        ),
        (
            "js-open",
            javascript("aws:ec2/launchTemplate:LaunchTemplate", "n", {"metadataOptions": {"httpTokens": "optional"}}),
            "sandbox-guardrails",
            "n leaves version 1 of the instance metadata service on",
        ),
        (
            "js-same",
            javascript("aws:iam/rolePolicy:RolePolicy", "main", policy("s3:GetObject")),
            "permission-creep",
            "",
        ),
    ],
)
def test_a_javascript_program(
    lab: Any,
    approved: Path,
    node_path: Path,
    node_modules: Path,
    name: str,
    files: dict[str, str],
    pack: str,
    told: str,
) -> None:
    config = creep(approved) if pack == "permission-creep" else {}
    result = preview(lab, name, files, pack, config, node_path, node_modules)
    assert result.ok == (not told), result.tail()
    assert any(told in violation.message for violation in result.violations) == bool(told)


@pytest.mark.skipif(not shutil.which("pulumi-language-yaml"), reason="no YAML language host on PATH")
def test_a_yaml_program(lab: Any, approved: Path) -> None:
    resource = {"type": "aws:iam/rolePolicy:RolePolicy", "properties": policy("s3:*")}
    files = {"Pulumi.yaml": json.dumps({"name": "yaml", "runtime": "yaml", "resources": {"main": resource}})}
    result = preview(lab, "yaml", files, "permission-creep", creep(approved), None, None)
    assert not result.ok
    assert any("role/app inline policy main allows more" in violation.message for violation in result.violations)
