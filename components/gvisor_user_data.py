"""What a sandbox node runs at boot: pure rendering of its MIME user data.

Order on AL2023 (awslabs/amazon-eks-ami, nodeadm): `nodeadm-config` reads the NodeConfig of the user data before
cloud-init; cloud-init then runs the shell part; `nodeadm-run` starts after cloud-init is done, merges
/etc/eks/nodeadm.d/*.yaml over the user data, configures again because the two differ, and starts containerd and kubelet.
So the containerd handler and the node label stand in a drop-in that the shell part writes as its very last step: a node
whose release has a wrong digest joins without them, and no sandbox is ever scheduled there; a node whose release isn't in
the bucket yet waits, and does not join before it is.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import yaml

from ringfence.artifacts import ARTIFACTS, gvisor_key
from ringfence.errors import InputError, Problem
from ringfence.names import GVISOR_HANDLER, GVISOR_RUNTIME_CLASS, SANDBOX_NODE_LABEL, Names
from ringfence.versions import GVISOR_RELEASE, GVISOR_SHA512

# EC2's limit on user data before base64 (docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html).
USER_DATA_LIMIT = 16_384
_BOUNDARY = "ringfence-user-data"
NODE_CONFIG_TYPE = "application/node.eks.aws"
# Loopback addresses of the relayed AWS APIs, apart from 127.0.0.0/24 where programs of the node listen.
_RELAY_NETWORK = ipaddress.ip_network("127.64.0.0/24")
_DIGEST = re.compile(r"^[0-9a-f]{128}$")
_HOST = re.compile(r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")

# Accounts whose registries hold the add-ons' images, where it isn't the usual one
# (docs.aws.amazon.com/eks/latest/userguide/add-ons-images.html).
_USUAL_IMAGE_ACCOUNT = "602401143452"
_IMAGE_ACCOUNTS = {
    "af-south-1": "877085696533", "ap-east-1": "800184023465", "ap-south-2": "900889452093",
    "ap-southeast-3": "296578399912", "ap-southeast-4": "491585149902", "ca-west-1": "761377655185",
    "cn-north-1": "918309763551", "cn-northwest-1": "961992271922", "eu-central-2": "900612956339",
    "eu-south-1": "590381155156", "eu-south-2": "455263428931", "il-central-1": "066635153087",
    "me-central-1": "759879836304", "me-south-1": "558608220178", "us-gov-east-1": "151742754352",
    "us-gov-west-1": "013241004608",
}  # fmt: skip

# gVisor's flags. systrap needs no nested virtualisation; gofer-mediated file access (no directfs) and OCI seccomp keep the
# sandbox process's own syscalls few; nothing is shared with the host but the root overlay's own file.
RUNSC_FLAGS = {
    "directfs": "false",
    "host-uds": "none",
    "net-raw": "false",
    "network": "sandbox",
    "oci-seccomp": "true",
    "overlay2": "root:self",
    "platform": "systrap",
    "systemd-cgroup": "true",
}
# containerd 2 (config version 3) ignores the former key io.containerd.grpc.v1.cri without a word. No pod_annotations:
# a pod must not choose flags of its own sandbox.
CONTAINERD_RUNTIMES = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes"


@dataclass(frozen=True)
class NodeSpec:
    """machine: as `uname -m` prints it. proxy_host and proxy_port: the egress proxy's listener for nodes. vpc_cidr and
    service_cidr: reached without the proxy. release and sha512: of gvisor.tar.bz2 in the artifact bucket.
    """

    names: Names
    machine: str
    proxy_host: str
    proxy_port: int
    vpc_cidr: str
    service_cidr: str
    release: str = GVISOR_RELEASE
    sha512: str = ""

    @property
    def digest(self) -> str:
        """The digest to hold the download against."""
        return self.sha512 or GVISOR_SHA512.get(self.machine, "")


class _Literal(str):
    """Text that YAML shows as a block."""


class _Dumper(yaml.SafeDumper):
    """Block style for `_Literal`."""


_Dumper.add_representer(
    _Literal, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def _yaml(data: dict) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1000)


def _dns_suffix(names: Names) -> str:
    return "amazonaws.com.cn" if names.partition == "aws-cn" else "amazonaws.com"


def relayed_hosts(names: Names) -> tuple[str, ...]:
    """AWS APIs that add-ons call from sandbox nodes without knowing the proxy: EC2 and EKS Auth."""
    eks_auth = "api.amazonwebservices.com.cn" if names.partition == "aws-cn" else "api.aws"
    return (f"ec2.{names.region}.{_dns_suffix(names)}", f"eks-auth.{names.region}.{eks_auth}")


def node_hosts(names: Names) -> tuple[str, ...]:
    """Every host that a sandbox node must reach through the proxy's node listener: the account's registry, the
    registry of EKS's own images, ECR's API, and the relayed APIs. Layers come over the S3 gateway endpoint."""
    ecr = f"ecr.{names.region}.{_dns_suffix(names)}"
    image_account = _IMAGE_ACCOUNTS.get(names.region, _USUAL_IMAGE_ACCOUNT)
    registries = sorted({f"{account}.dkr.{ecr}" for account in (names.account_id, image_account)})
    return (f"api.{ecr}", *registries, *relayed_hosts(names))


def no_proxy(spec: NodeSpec) -> tuple[str, ...]:
    """What a node reaches directly: itself, link-local services, the VPC, the cluster's API and S3's gateway."""
    suffix = _dns_suffix(spec.names)
    s3 = f"s3.{spec.names.region}.{suffix}"
    return (
        "localhost", "127.0.0.0/8", "169.254.0.0/16", spec.vpc_cidr, spec.service_cidr, ".svc", ".cluster.local",
        f".eks.{suffix}", s3, f".{s3}",
    )  # fmt: skip


def node_config(spec: NodeSpec) -> str:
    """The NodeConfig of the user data: the proxy's environment and kubelet limits, and on purpose neither handler nor
    label. EKS adds the cluster's own values as a further part."""
    environment = {
        "HTTPS_PROXY": f"http://{spec.proxy_host}:{spec.proxy_port}",
        "NO_PROXY": ",".join(no_proxy(spec)),
    }
    return _yaml(
        {
            "apiVersion": "node.eks.aws/v1alpha1",
            "kind": "NodeConfig",
            "spec": {
                "instance": {"environment": {"default": environment}},
                "kubelet": {"config": {"podPidsLimit": 1024, "seccompDefault": True}},
            },
        }
    )


def runsc_toml() -> str:
    """/etc/containerd/runsc.toml: flags of every gVisor sandbox on the node. The shim reads strings only."""
    lines = [f'{flag} = "{value}"' for flag, value in sorted(RUNSC_FLAGS.items())]
    return "\n".join(["[runsc_config]", *lines, ""])


def containerd_toml() -> str:
    """The containerd stanza of the handler."""
    return "\n".join(
        [
            f"[{CONTAINERD_RUNTIMES}.{GVISOR_HANDLER}]",
            'runtime_type = "io.containerd.runsc.v1"',
            f"[{CONTAINERD_RUNTIMES}.{GVISOR_HANDLER}.options]",
            'TypeUrl = "io.containerd.runsc.v1.options"',
            'ConfigPath = "/etc/containerd/runsc.toml"',
            "",
        ]
    )


def drop_in() -> str:
    """/etc/eks/nodeadm.d/50-gvisor.yaml: containerd's handler and the node's label, together or not at all.

    The whole containerd configuration is here, since older nodeadm merges two such texts into none. `--node-labels`
    adds to the labels that EKS passes.
    """
    return _yaml(
        {
            "apiVersion": "node.eks.aws/v1alpha1",
            "kind": "NodeConfig",
            "spec": {
                "containerd": {"config": _Literal(containerd_toml())},
                "kubelet": {"flags": [f"--node-labels={SANDBOX_NODE_LABEL}={GVISOR_RUNTIME_CLASS}"]},
            },
        }
    )


def relay_addresses(names: Names) -> dict[str, str]:
    """Loopback address → host of each relayed API."""
    hosts = relayed_hosts(names)
    return {str(address): host for address, host in zip(_RELAY_NETWORK.hosts(), hosts, strict=False)}


def relay_unit(spec: NodeSpec) -> str:
    """The systemd unit of the relay, with no more rights than binding a low port takes."""
    pairs = " ".join(f"{address}={host}" for address, host in relay_addresses(spec.names).items())
    program = "/usr/local/lib/ringfence/node_api_relay.py"
    return "\n".join(
        [
            "[Unit]",
            "Description=AWS APIs of this node through the egress proxy",
            "After=network-online.target",
            "Wants=network-online.target",
            "Before=nodeadm-run.service",
            "[Service]",
            f"ExecStart=/usr/bin/python3 -I {program} {spec.proxy_host}:{spec.proxy_port} {pairs}",
            "DynamicUser=yes",
            "AmbientCapabilities=CAP_NET_BIND_SERVICE",
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
            "Restart=always",
            "RestartSec=1",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        ]
    )


def _write(path: str, text: str, mode: str = "0644") -> str:
    """Shell that writes `text` to `path` at once: readers see all of it or nothing."""
    return f"install -D -m {mode} /dev/stdin {path}.new <<'END_OF_FILE'\n{text}END_OF_FILE\nmv {path}.new {path}\n"


def install_script(spec: NodeSpec, root: str = "") -> str:
    """The shell part. root: written before every path of the node, so that a test can run it elsewhere."""
    bucket, key = spec.names.bucket(ARTIFACTS), gvisor_key(spec.release, spec.machine)
    relay = Path(__file__).with_name("node_api_relay.py").read_text(encoding="utf-8")
    hosts = "".join(f"{address} {host}\n" for address, host in relay_addresses(spec.names).items())
    return f"""#!/bin/bash
# Handler and label are written last, and only if everything before went well: without them no sandbox comes here.
set -euo pipefail
umask 022
root={quote(root)}
bin=$root/usr/local/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {{ echo "ringfence: $1; this node stays without the gVisor handler and label" >&2; exit 1; }}

# The node's own AWS calls.
{_write("$root/usr/local/lib/ringfence/node_api_relay.py", relay)}
{_write("$root/etc/systemd/system/ringfence-relay.service", relay_unit(spec))}
cat >>"$root/etc/hosts" <<'END_OF_FILE'
{hosts}END_OF_FILE
systemctl daemon-reload
systemctl enable --now ringfence-relay.service

# gVisor {spec.release}, from the environment's own bucket through the S3 gateway endpoint.
# An environment's first nodes may be here before it: they wait, and join once it is mirrored.
until env -u HTTPS_PROXY -u https_proxy aws s3 cp --region {spec.names.region} --no-progress \\
    s3://{bucket}/{key} "$work/gvisor.tar.bz2"; do
  echo "ringfence: no s3://{bucket}/{key} yet, this node waits for it: run ringfence mirror" >&2
  sleep 15
done
echo "{spec.digest}  $work/gvisor.tar.bz2" | sha512sum --check --status \\
  || fail "gVisor {spec.release} has a sha512 that is not the pinned one"
mkdir "$work/gvisor"
# AL2023 has no bzip2 program, but its Python has the module.
python3 -I -c 'import bz2, shutil, sys; shutil.copyfileobj(bz2.open(sys.argv[1]), sys.stdout.buffer)' \\
  "$work/gvisor.tar.bz2" | tar -x --no-same-owner -C "$work/gvisor"
for part in runsc containerd-shim-runsc-v1; do
  [ -f "$work/gvisor/$part" ] || fail "gVisor {spec.release} has no $part"
done
[ -d "$work/gvisor/gvisor-bin" ] || fail "gVisor {spec.release} has no gvisor-bin"
chmod -R u=rwX,go=rX "$work/gvisor"
chmod 0755 "$work/gvisor/runsc" "$work/gvisor/containerd-shim-runsc-v1"
mkdir -p "$bin"
rm -rf "$bin/gvisor-bin"
mv "$work/gvisor/runsc" "$work/gvisor/containerd-shim-runsc-v1" "$work/gvisor/gvisor-bin" "$bin/"
[[ "$("$bin/runsc" --version)" == *release-{spec.release}* ]] || fail "runsc does not run or is not {spec.release}"
{_write("$root/etc/containerd/runsc.toml", runsc_toml())}
# Last: see above.
{_write("$root/etc/eks/nodeadm.d/50-gvisor.yaml", drop_in())}"""


def _check(spec: NodeSpec) -> None:
    problems = []
    if spec.machine not in GVISOR_SHA512:
        known = " or ".join(GVISOR_SHA512)
        problems.append(Problem("gVisor pool", "machine", f"{spec.machine!r} has no gVisor release", known))
    elif not _DIGEST.match(spec.digest):
        remedy = "the 128 hexadecimal digits of sha512sum gvisor.tar.bz2"
        problems.append(Problem("gVisor pool", "sha512", f"{spec.digest!r} is not a SHA-512 digest", remedy))
    if not re.fullmatch(r"\d{8}\.\d+", spec.release):
        problems.append(Problem("gVisor pool", "release", f"{spec.release!r} is not a release", "e.g. 20260928.0"))
    if not _HOST.match(spec.proxy_host):
        problems.append(Problem("gVisor pool", "proxy_host", f"{spec.proxy_host!r} is not a host", "a DNS name"))
    if not 1 <= spec.proxy_port <= 65_535:
        problems.append(Problem("gVisor pool", "proxy_port", f"is {spec.proxy_port}", "1 to 65535"))
    for key, value in (("vpc_cidr", spec.vpc_cidr), ("service_cidr", spec.service_cidr)):
        try:
            ipaddress.ip_network(value)
        except ValueError:
            problems.append(Problem("gVisor pool", key, f"{value!r} is not an address range", "e.g. 10.42.0.0/16"))
    if problems:
        raise InputError(problems)


def user_data(spec: NodeSpec) -> str:
    """The MIME document, not yet base64. Raises InputError for values that could not be right, and when too long."""
    _check(spec)
    parts = (("text/x-shellscript; charset=us-ascii", install_script(spec)), (NODE_CONFIG_TYPE, node_config(spec)))
    # Written out rather than by email.mime: EKS documents MIME-Version as the first line.
    head = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{_BOUNDARY}"\n\n'
    text = head + "".join(f"--{_BOUNDARY}\nContent-Type: {kind}\n\n{body}\n" for kind, body in parts)
    text += f"--{_BOUNDARY}--\n"
    if len(text) > USER_DATA_LIMIT:
        size = f"{len(text):,} bytes, of which EC2 allows {USER_DATA_LIMIT:,}"
        raise InputError([Problem("gVisor pool", "user data", size, "shorten names or the release's own scripts")])
    return text
