"""What a sandbox node runs at boot: its text, its parts, and the shell part really run."""

from __future__ import annotations

import email
import hashlib
import io
import os
import signal
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from components.gvisor_user_data import (
    NodeSpec,
    drop_in,
    install_script,
    node_hosts,
    relayed_hosts,
    runsc_toml,
    user_data,
)
from ringfence.errors import InputError
from ringfence.names import Names
from ringfence.versions import GVISOR_RELEASE, GVISOR_SHA512

HANDLER = "etc/eks/nodeadm.d/50-gvisor.yaml"
FLAGS = "etc/containerd/runsc.toml"


def _spec(names, **changes):
    values = {
        "machine": "aarch64",
        "proxy_host": "egress.ringfence-test.internal",
        "proxy_port": 15000,
        "vpc_cidr": "10.42.0.0/16",
        "service_cidr": "172.20.0.0/16",
    }
    return NodeSpec(names, **(values | changes))


def _parts(text: str) -> dict[str, str]:
    message = email.message_from_string(text)
    assert message.is_multipart() and not message.defects
    return {part.get_content_type(): part.get_payload() for part in message.get_payload()}


def _bundle(release: str = GVISOR_RELEASE, without: str = "") -> bytes:
    """A gVisor release whose runsc prints its version, as the real one does."""
    files = {
        "runsc": f"#!/bin/sh\necho runsc version release-{release}\n",
        "containerd-shim-runsc-v1": "#!/bin/sh\n",
        "gvisor-bin/gvisor_sentry": "#!/bin/sh\n",
    }
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:bz2") as archive:
        for path, text in files.items():
            if without and path.startswith(without):
                continue
            member = tarfile.TarInfo(path)
            member.mode, member.size = 0o777, len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return output.getvalue()


def _program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def boot(tmp_path, names):
    """Runs the shell part in a root of its own; `aws` hands out `bundle`, from the time on that the script has slept
    `after` times. It is ended when it has slept 30 times. Returns the process and the root."""

    def run(bundle: bytes, pinned: bytes, after: int = 0) -> tuple[subprocess.CompletedProcess, Path]:
        root, programs = tmp_path / "root", tmp_path / "programs"
        (root / "etc").mkdir(parents=True)
        programs.mkdir()
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (tmp_path / "release").write_bytes(bundle)
        (tmp_path / "slept").touch()
        slept = f'$(wc -l <"{tmp_path}/slept")'
        serve = f'[ {slept} -ge {after} ] || exit 1\ncp "{tmp_path}/release" "${{@: -1}}"'
        _program(programs, "aws", f'echo "$@" >>"{tmp_path}/calls"\n{serve}')
        _program(programs, "systemctl", f'echo systemctl "$@" >>"{tmp_path}/calls"')
        _program(programs, "sleep", f'echo "$@" >>"{tmp_path}/slept"\n[ {slept} -lt 30 ] || kill -TERM $PPID')
        script = tmp_path / "part.sh"
        script.write_text(install_script(_spec(names, sha512=hashlib.sha512(pinned).hexdigest()), str(root)))
        environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HTTPS_PROXY": "http://wrong:1"}
        done = subprocess.run(["/bin/bash", script], env=environment, capture_output=True, text=True, timeout=300)
        return done, root

    return run


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_the_user_data_is_one_reviewed_document(names, golden, machine):
    golden(f"gvisor_user_data_{machine}.mime", user_data(_spec(names, machine=machine)))


def test_the_user_data_is_a_mime_document_that_starts_as_eks_documents_it(names):
    text = user_data(_spec(names))
    assert text.startswith("MIME-Version: 1.0\nContent-Type: multipart/mixed;")
    assert set(_parts(text)) == {"text/x-shellscript", "application/node.eks.aws"}
    assert text.isascii() and len(text) < 16_384


def test_the_node_config_of_the_user_data_gives_neither_handler_nor_label(names):
    config = yaml.safe_load(_parts(user_data(_spec(names)))["application/node.eks.aws"])
    assert (config["apiVersion"], config["kind"]) == ("node.eks.aws/v1alpha1", "NodeConfig")
    assert "containerd" not in config["spec"] and "flags" not in config["spec"]["kubelet"]


def test_nodes_use_the_proxy_for_everything_but_the_vpc_the_api_and_s3(names):
    config = yaml.safe_load(_parts(user_data(_spec(names)))["application/node.eks.aws"])
    environment = config["spec"]["instance"]["environment"]["default"]
    assert environment["HTTPS_PROXY"] == "http://egress.ringfence-test.internal:15000"
    direct = environment["NO_PROXY"].split(",")
    assert {
        "10.42.0.0/16",
        "172.20.0.0/16",
        "169.254.0.0/16",
        ".eks.amazonaws.com",
        ".s3.us-east-1.amazonaws.com",
    } <= set(direct)
    assert ".amazonaws.com" not in direct


def test_the_handler_stands_under_the_key_that_containerd_2_reads():
    config = yaml.safe_load(drop_in())
    containerd = tomllib.loads(config["spec"]["containerd"]["config"])
    runsc = containerd["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["runsc"]
    assert runsc == {
        "runtime_type": "io.containerd.runsc.v1",
        "options": {"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/etc/containerd/runsc.toml"},
    }
    assert config["spec"]["kubelet"]["flags"] == ["--node-labels=ringfence.dev/sandbox=gvisor"]


def test_a_pod_chooses_no_flag_of_its_own_sandbox():
    containerd = tomllib.loads(yaml.safe_load(drop_in())["spec"]["containerd"]["config"])
    runsc = containerd["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["runsc"]
    assert "pod_annotations" not in runsc
    assert "allow-flag-override" not in tomllib.loads(runsc_toml())["runsc_config"]


def test_gvisor_runs_with_the_strict_flags_as_strings():
    flags = tomllib.loads(runsc_toml())
    assert flags == {"runsc_config": {
        "platform": "systrap", "network": "sandbox", "overlay2": "root:self", "host-uds": "none", "net-raw": "false",
        "oci-seccomp": "true", "systemd-cgroup": "true", "directfs": "false",
    }}  # fmt: skip


def test_a_verified_release_gives_the_node_handler_and_label(boot, tmp_path):
    bundle = _bundle()
    done, root = boot(bundle, pinned=bundle)
    assert done.returncode == 0, done.stderr
    assert (root / HANDLER).read_text() == drop_in()
    assert (root / FLAGS).read_text() == runsc_toml()
    installed = root / "usr/local/bin"
    for part in ("runsc", "containerd-shim-runsc-v1", "gvisor-bin/gvisor_sentry"):
        mode = (installed / part).stat().st_mode
        assert mode & 0o111 and not mode & 0o022, f"{part} is {mode:o}"
    calls = (tmp_path / "calls").read_text()
    bucket = "ringfence-test-artifacts-111122223333-us-east-1"
    assert f"s3://{bucket}/gvisor/{GVISOR_RELEASE}/aarch64/gvisor.tar.bz2" in calls
    assert "systemctl enable --now ringfence-relay.service" in calls
    assert not list(root.rglob("*.new"))


@pytest.mark.parametrize(
    ("bundle", "pinned", "said"),
    [
        (_bundle() + b"x", _bundle(), "sha512"),
        (_bundle("20260101.0"), _bundle(), "sha512"),
        (b"", _bundle(), "sha512"),
    ],
    ids=["altered", "another release", "empty"],
)
def test_a_release_that_is_not_the_pinned_one_gives_neither_handler_nor_label(boot, bundle, pinned, said):
    done, root = boot(bundle, pinned)
    assert done.returncode != 0
    assert said in done.stderr and "without the gVisor handler and label" in done.stderr
    assert not (root / HANDLER).exists() and not (root / FLAGS).exists()
    assert not (root / "usr/local/bin/runsc").exists()


def test_a_node_that_starts_before_the_mirror_joins_once_the_release_is_there(boot):
    bundle = _bundle()
    done, root = boot(bundle, pinned=bundle, after=7)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this node waits for it: run ringfence mirror") == 7
    assert (root / HANDLER).read_text() == drop_in()


def test_a_node_without_a_release_goes_on_waiting_and_has_neither_handler_nor_label(boot):
    """cloud-init has no time limit, and nodeadm starts the kubelet only after it: the node doesn't join."""
    bundle = _bundle()
    done, root = boot(bundle, pinned=bundle, after=1000)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert not (root / HANDLER).exists() and not (root / "usr/local/bin/runsc").exists()


@pytest.mark.parametrize("without", ["runsc", "containerd-shim-runsc-v1", "gvisor-bin"])
def test_an_incomplete_release_gives_neither_handler_nor_label(boot, without):
    bundle = _bundle(without=without)
    done, root = boot(bundle, pinned=bundle)
    assert done.returncode != 0 and without in done.stderr
    assert not (root / HANDLER).exists()


def test_a_runsc_of_another_release_gives_neither_handler_nor_label(boot):
    bundle = _bundle("20250101.0")
    done, root = boot(bundle, pinned=bundle)
    assert done.returncode != 0 and "runsc does not run" in done.stderr
    assert not (root / HANDLER).exists()


def test_the_nodes_own_api_calls_are_led_to_the_relay(boot, names):
    bundle = _bundle()
    _, root = boot(bundle, pinned=bundle)
    hosts = dict(reversed(line.split()) for line in (root / "etc/hosts").read_text().splitlines())
    assert set(relayed_hosts(names)) <= set(hosts)
    unit = (root / "etc/systemd/system/ringfence-relay.service").read_text()
    for host in relayed_hosts(names):
        assert hosts[host].startswith("127.") and f"{hosts[host]}={host}" in unit
    assert "egress.ringfence-test.internal:15000" in unit
    relay = root / "usr/local/lib/ringfence/node_api_relay.py"
    compile(relay.read_text(), str(relay), "exec")


def test_node_hosts_name_registries_exactly():
    assert node_hosts(Names("ringfence", "test", "111122223333", "us-east-1")) == (
        "api.ecr.us-east-1.amazonaws.com",
        "111122223333.dkr.ecr.us-east-1.amazonaws.com",
        "602401143452.dkr.ecr.us-east-1.amazonaws.com",
        "ec2.us-east-1.amazonaws.com",
        "eks-auth.us-east-1.api.aws",
    )
    china = node_hosts(Names("ringfence", "test", "111122223333", "cn-north-1", "aws-cn"))
    assert "918309763551.dkr.ecr.cn-north-1.amazonaws.com.cn" in china
    assert not any("*" in host for host in china)


def test_the_pinned_digests_are_sha512_of_both_architectures():
    assert set(GVISOR_SHA512) == {"aarch64", "x86_64"}
    assert all(len(digest) == 128 and int(digest, 16) for digest in GVISOR_SHA512.values())


def test_every_value_that_could_not_be_right_is_named(names):
    with pytest.raises(InputError) as caught:
        user_data(_spec(names, machine="riscv64", release="latest", proxy_host="a b", proxy_port=0, vpc_cidr="x"))
    assert [p.key for p in caught.value.problems] == ["machine", "release", "proxy_host", "proxy_port", "vpc_cidr"]
    with pytest.raises(InputError) as caught:
        user_data(_spec(names, sha512="abc"))
    assert [p.key for p in caught.value.problems] == ["sha512"]
