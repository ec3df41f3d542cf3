"""The control side's image: pinned, the same bytes on each build, without Pulumi, and able to do what its pod is told to."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ringfence.image import CONTROL, KINDS, RUNTIME, Builder, contents, lock, sbom
from ringfence.image.bytecode import host_platform
from ringfence.image.commands import SETTING
from ringfence.image.commands import image as image_command

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")


def _pinned(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE))


@pytest.fixture(scope="session")
def root() -> Path:
    return Builder(lambda line: None, kind=CONTROL).rootfs()


# Locks


def test_every_wheel_is_pinned_by_digest_in_the_version_that_the_project_is_tested_with():
    found = {requirement.name: requirement.version for requirement in lock.wheels(CONTROL.source)}
    tested = _pinned((ROOT / "requirements.lock").read_text())
    assert found and {name: tested.get(name) for name in found} == found


def test_nothing_of_pulumi_of_the_emulator_or_of_the_build_is_in_it():
    names = {requirement.name for requirement in lock.wheels(CONTROL.source)}
    assert not {name for name in names if name.startswith("pulumi")}
    # grpcio is OpenTelemetry's way to the collector.
    assert not {"moto", "flask", "pip", "pytest", "hypothesis", "policy-sentry"} & names


def test_what_it_asks_for_is_asked_for_in_the_same_ranges_by_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {*project["dependencies"], *project["optional-dependencies"]["runner"]}
    own = tomllib.loads((CONTROL.source / "pyproject.toml").read_text())["project"]
    assert set(own["dependencies"]) <= ranges
    assert own["version"] == project["version"]


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64"])
def test_the_base_is_the_runtime_image_s_and_what_a_ledger_in_a_file_needs(platform: str):
    own, runtime = lock.base(platform, CONTROL.source), lock.base(platform, RUNTIME.source)
    assert {package.name for package in set(own) - set(runtime)} == {"libsqlite3-0"}
    assert set(runtime) <= set(own)


def test_each_image_has_a_setting_that_its_reference_goes_into():
    from ringfence.settings.loader import FIELDS

    assert set(SETTING) == set(KINDS) and set(SETTING.values()) <= set(FIELDS)


# Bill of materials


def test_the_bill_of_materials_is_valid_and_lists_what_is_installed(root):
    text = sbom(host_platform(), CONTROL.source, CONTROL.title)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert (root / "usr/share/sbom/control.cdx.json").read_text() == text
    listed = {item["name"].lower().replace("_", "-") for item in json.loads(text)["components"]}
    wheels = {
        path.name.split("-")[0].lower().replace("_", "-") for path in (root / contents.PACKAGES).glob("*.dist-info")
    }
    packages = {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()}
    assert (wheels - {"ringfence"}) | packages == listed


def test_the_command_prints_it():
    done = CliRunner().invoke(image_command, ["sbom", "control", "--platform", "linux/arm64"])
    assert done.exit_code == 0 and done.output == sbom("linux/arm64", CONTROL.source, CONTROL.title)


# What is in it


def test_there_is_an_interpreter_and_no_shell_and_nothing_that_becomes_root(root):
    assert sorted(path.name for path in (root / "usr/bin").iterdir()) == ["python3", "python3.11"]
    assert list((root / "usr/sbin").iterdir()) == []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert path.stat().st_mode & 0o6000 == 0, path


def test_the_licence_the_user_and_the_mount_points_are_in_it(root):
    (about,) = (root / contents.PACKAGES).glob("ringfence-*.dist-info")
    assert (about / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert f"ringfence:x:{CONTROL.user}:{CONTROL.user}:" in (root / "etc/passwd").read_text()
    assert all((root / path).is_dir() for path in ("etc/ringfence", "etc/ringfence-tls", "var/lib/ringfence"))


def test_no_second_client_of_kubernetes_takes_room(root):
    assert not (root / contents.PACKAGES / "kubernetes/aio").exists()


def test_a_changed_module_gives_another_image_and_the_sandbox_s_stays(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "ringfence", folder / "ringfence", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONTROL.source, folder / "control-image")
    for name in ("LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    builder = Builder(lambda line: None, source=folder / "control-image", kind=CONTROL)
    before = builder._key("linux/arm64")
    (folder / "ringfence/cost/prices.yaml").open("a").write("# x\n")
    assert builder._key("linux/arm64") != before


def inside(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The image's interpreter as the image's user, in the image's root."""
    return subprocess.run(
        ["/usr/bin/python3", "-P", *arguments], env=dict(CONTROL.environment), capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: (os.chroot(root), os.chdir("/"), os.setgroups([]), os.setgid(10001), os.setuid(10001)),
    )  # fmt: skip


@needs_root
def test_the_entry_point_explains_serve(root):
    done = inside(root, *CONTROL.command[2:], "serve", "--help")
    assert done.returncode == 0, done.stderr
    assert "--oidc-issuer" in done.stdout
    assert "0." in inside(root, *CONTROL.command[2:], "--version").stdout


MODULES = """
import os, sys
import ringfence.runner.cluster, ringfence.runner.embedded, ringfence.runner.reaper_commands, ringfence.cost.commands
import ringfence.service.commands, ringfence.iam.escalation, ringfence.gateway.prices, ringfence.broker.commands
loaded = [m for m in sys.modules.values() if (getattr(getattr(m, "__spec__", None), "origin", None) or "").endswith(".py")]
slow = [m.__name__ for m in loaded if not os.path.exists(m.__spec__.cached)]
print(len(loaded) > 500, slow, os.getuid(), [p for p in sys.path if not p.startswith("/usr")])
"""


@needs_root
def test_what_serving_imports_is_all_there_and_compiled(root):
    done = inside(root, "-c", MODULES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True [] 10001 []"


CLIENTS = """
import boto3
session = boto3.Session("x", "y", region_name="us-east-1")
for name in {names}:
    session.client(name)
try:
    session.client("ec2")
except Exception as error:
    print(type(error).__name__)
"""


@needs_root
def test_botocore_knows_the_services_that_the_control_side_calls_and_no_others(root):
    used = set()
    for path in [*(ROOT / "ringfence/broker").glob("*.py"), *(ROOT / "ringfence/runner").rglob("*.py")]:
        used |= set(re.findall(r'client\(\s*"([a-z0-9-]+)"', path.read_text()))
    # The embedded target's agent, which no cluster has.
    assert used - {"eks-auth"} == set(CONTROL.services)
    done = inside(root, "-c", CLIENTS.format(names=tuple(sorted(CONTROL.services))))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "UnknownServiceError"


@pytest.mark.e2e
def test_two_builds_from_nothing_give_the_same_digest(tmp_path):
    made = []
    for number in (1, 2):
        made.append(Builder(lambda line: None, tmp_path / str(number), kind=CONTROL).archive())
        shutil.rmtree(tmp_path / str(number))
    assert made[0].digest == made[1].digest and made[0].data == made[1].data
