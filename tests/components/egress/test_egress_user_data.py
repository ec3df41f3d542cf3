"""The proxy's user data: as reviewed, valid, small enough, and its sync script run for real with a stand-in for S3."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import zipfile
from pathlib import Path

import pytest

from components.egress_user_data import (
    ProxySpec,
    encoded,
    envoy_unit,
    health_script,
    log_agent,
    packet_filter,
    sync_script,
    user_data,
)
from ringfence.egress.artifact import envoy_artifacts, envoy_key
from ringfence.egress.policy import REFUSED_RANGES
from ringfence.errors import InputError
from ringfence.names import Names

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
NAT = ProxySpec(NAMES, "10.42.0.0/16")
BUCKET = NAMES.bucket("artifacts")
# EC2's limit before base64 (docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html).
USER_DATA_LIMIT = 16_384


def test_the_user_data_is_the_reviewed_one(golden):
    golden("egress/user-data.sh", user_data(NAT))
    golden("egress/user-data-without-nat.sh", user_data(ProxySpec(NAMES)))


def test_the_script_parses_and_fits(tmp_path):
    script = tmp_path / "user-data.sh"
    script.write_text(user_data(NAT))
    subprocess.run(["bash", "-n", script], check=True)
    assert len(user_data(NAT).encode()) < USER_DATA_LIMIT
    assert base64.b64decode(encoded(user_data(NAT))).decode() == user_data(NAT)


@pytest.mark.parametrize(
    "spec", [ProxySpec(NAMES, architecture="riscv"), ProxySpec(NAMES, version="latest"), ProxySpec(NAMES, sha512="abc")]
)
def test_a_release_that_is_not_pinned_is_refused(spec):
    with pytest.raises(InputError) as caught:
        user_data(spec)
    assert all(problem.remedy for problem in caught.value.problems)


def test_the_packet_filter_forwards_only_with_nat_and_only_https_to_public_addresses():
    without, with_nat = packet_filter(ProxySpec(NAMES)), packet_filter(NAT)
    assert "masquerade" not in without and "dport" not in without.split("chain forward")[1]
    (rule,) = [line.strip() for line in with_nat.split("chain forward")[1].splitlines() if "dport" in line]
    assert rule == "ip saddr 10.42.0.0/16 ip daddr != @refused tcp dport 443 accept"
    for rules in (without, with_nat):
        assert all(cidr in rules for cidr in REFUSED_RANGES)
        assert rules.count("policy drop") == 2
    assert "net.ipv4.ip_forward = 0" in user_data(ProxySpec(NAMES)) and "net.ipv4.ip_forward = 1" in user_data(NAT)


def test_envoy_runs_without_privilege_and_without_an_admin_port():
    unit = envoy_unit()
    assert "User=envoy" in unit and "NoNewPrivileges=yes" in unit and "CapabilityBoundingSet=\n" in unit
    assert "Requires=nftables.service" in unit


def test_decisions_go_to_the_proxys_log_group():
    (item,) = json.loads(log_agent(NAT))["logs"]["logs_collected"]["files"]["collect_list"]
    assert item["log_group_name"] == "/ringfence/test/proxy" and item["file_path"].endswith("decisions.log")


def test_the_mirrored_release_is_the_one_that_the_script_asks_for():
    artifacts = {artifact.key: artifact for artifact in envoy_artifacts()}
    key = envoy_key(NAT.machine)
    assert artifacts[key].sha512 == NAT.digest and artifacts[key].url.startswith("https://")
    assert key in sync_script(NAT) and NAT.digest in sync_script(NAT)


class _Machine:
    """A folder that stands for the instance's root, with stand-ins for the AWS CLI, systemctl and logrotate on PATH."""

    def __init__(self, folder: Path):
        self.root, self.s3 = folder / "root", folder / "s3"
        self.calls = folder / "systemctl.log"
        self.bin = bin_folder = folder / "bin"
        for path in (self.root, self.s3, bin_folder):
            path.mkdir()
        self._command(
            bin_folder / "aws",
            f'shift 2; while [ "${{1#s3://}}" = "$1" ]; do shift; done\ncp "{self.s3}/${{1#s3://{BUCKET}/}}" "$2"',
        )
        self._command(bin_folder / "systemctl", f'echo "$@" >>{self.calls}')
        self._command(bin_folder / "logrotate", "true")
        self._path = f"{bin_folder}:{os.environ['PATH']}"
        wheel = folder / "envoy.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(
                "envoy/_bin/envoy",
                f'#!/bin/bash\ngrep -q refuse "${{@: -1}}" && exit 1\necho "$@" >>{folder}/envoy.log\n',
            )
        self.put(envoy_key("aarch64"), wheel.read_bytes())
        self.digest = hashlib.sha512(wheel.read_bytes()).hexdigest()
        self.put("egress/bootstrap.json", b"{}")
        self.put("egress/lds.json", b'{"resources": []}')

    @staticmethod
    def _command(path: Path, body: str) -> None:
        path.write_text(f"#!/bin/bash\nset -e\n{body}\n")
        path.chmod(0o755)

    def put(self, key: str, content: bytes) -> None:
        self.s3.joinpath(key).parent.mkdir(parents=True, exist_ok=True)
        self.s3.joinpath(key).write_bytes(content)

    def sync(self, digest: str = "") -> subprocess.CompletedProcess:
        script = sync_script(ProxySpec(NAMES, sha512=digest or self.digest), str(self.root))
        environment = {"PATH": self._path, "HOME": "/"}
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)

    def health(self, port: int) -> subprocess.CompletedProcess:
        """Runs the health script with an AWS CLI that writes down what it is called with."""
        self._command(self.bin / "aws", f'echo "$@" >>{self.calls}')
        self.put_file("var/lib/cloud/data/instance-id", "i-0123456789abcdef0\n")
        script = health_script(ProxySpec(NAMES), str(self.root), port)
        environment = {"PATH": self._path, "HOME": "/"}
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)

    def put_file(self, path: str, content: str) -> None:
        self.file(path).parent.mkdir(parents=True, exist_ok=True)
        self.file(path).write_text(content)

    def file(self, path: str) -> Path:
        return self.root / path

    def units(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path):
    return _Machine(tmp_path)


def test_a_good_release_and_configuration_are_installed_and_started(machine):
    done = machine.sync()
    assert done.returncode == 0, done.stderr
    assert os.access(machine.file("opt/ringfence-egress/envoy"), os.X_OK)
    assert machine.file("etc/ringfence-egress/bootstrap.json").read_text() == "{}"
    assert machine.file("etc/ringfence-egress/listeners/lds.json").read_text() == '{"resources": []}'
    assert machine.units() == ["restart ringfence-egress.service"]


def test_a_release_with_another_digest_is_never_installed_or_started(machine):
    done = machine.sync(digest="0" * 128)
    assert done.returncode != 0 and "not the pinned one" in done.stderr
    assert not machine.file("opt").exists() and not machine.file("etc").exists()
    assert machine.units() == []


@pytest.mark.parametrize("missing", [envoy_key("aarch64"), "egress/lds.json", "egress/bootstrap.json"])
def test_nothing_starts_while_anything_is_missing_and_it_starts_once_it_is_there(machine, missing):
    kept = machine.s3.joinpath(missing).read_bytes()
    machine.s3.joinpath(missing).unlink()
    assert machine.sync().returncode != 0 and machine.units() == []
    machine.put(missing, kept)
    assert machine.sync().returncode == 0 and machine.units() == ["restart ringfence-egress.service"]


def test_a_changed_list_is_put_in_place_without_a_restart(machine):
    machine.sync()
    machine.put("egress/lds.json", b'{"resources": [1]}')
    assert machine.sync().returncode == 0
    assert machine.file("etc/ringfence-egress/listeners/lds.json").read_text() == '{"resources": [1]}'
    assert machine.units()[1:] == ["start ringfence-egress.service"]


def test_a_changed_bootstrap_restarts_the_proxy(machine):
    machine.sync()
    machine.put("egress/bootstrap.json", b'{"node": {}}')
    assert machine.sync().returncode == 0
    assert machine.units()[1:] == ["restart ringfence-egress.service"]


@pytest.mark.parametrize(
    ("key", "content"), [("egress/lds.json", b"<html>"), ("egress/bootstrap.json", b'{"refuse": 1}')]
)
def test_a_configuration_that_is_not_valid_leaves_the_old_one(machine, key, content):
    machine.sync()
    machine.put(key, content)
    assert machine.sync().returncode != 0
    assert machine.file("etc/ringfence-egress/bootstrap.json").read_text() == "{}"
    assert machine.file("etc/ringfence-egress/listeners/lds.json").read_text() == '{"resources": []}'
    assert len(machine.units()) == 1


def test_whether_the_proxy_listens_is_told_by_instance_in_the_namespace_that_it_may_write(machine):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = machine.health(port)
        assert done.returncode == 0, done.stderr
    assert machine.health(port).returncode == 0
    said = (
        "cloudwatch put-metric-data --region us-east-1 --namespace ringfence-test-egress-health --metric-name Listening"
        " --value {} --dimensions InstanceId=i-0123456789abcdef0"
    )
    assert machine.units() == [said.format(1), said.format(0)]


def test_health_is_told_after_every_sync_also_after_one_that_failed():
    """systemd runs ExecStopPost whatever became of ExecStart (systemd.service, ExecStopPost=)."""
    sync = user_data(NAT).split("ringfence-egress-sync.service <<")[1].split("END_OF_FILE")[1]
    assert "Type=oneshot" in sync and "ExecStopPost=/usr/local/sbin/ringfence-egress-health" in sync
    assert "ExecStart=/usr/local/sbin/ringfence-egress-sync" in sync
