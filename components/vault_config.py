"""What the secrets store is told: server configuration, policies, first set-up and scripts, as pure text.

Two distributions of one server: OpenBao sets itself up at its first start from `initialize.json`; HashiCorp Vault is set
up once by an operator with `bootstrap.sh`. Both end with the same engines, policies and roles, and no root token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.names import RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, VAULT_NAMESPACE
from ringfence.versions import OPENBAO_IMAGE, VAULT_IMAGE

OPENBAO, VAULT = "openbao", "vault"
NAME = "vault"
HEADLESS = "vault-internal"
SNAPSHOT_SERVICE_ACCOUNT = "vault-snapshot"
OPERATOR_SERVICE_ACCOUNT = "vault-operator"
# Audience of the service-account tokens that the store takes: a token made for the Kubernetes API doesn't log in here.
AUDIENCE = "vault"
API_PORT, CLUSTER_PORT = 8200, 8201
HOST = f"{NAME}.{VAULT_NAMESPACE}.svc"
ADDRESS = f"https://{HOST}:{API_PORT}"
TOOL_SECRETS = "tools"  # folder under the engine `kv`
CONFIG_DIR, TLS_DIR, DATA_DIR = "/etc/vault", "/etc/vault-tls", "/vault/data"
CA_FILE = f"{TLS_DIR}/ca.crt"
TOKEN_FILE = "/var/run/secrets/vault/token"  # noqa: S105 (a path)
SNAPSHOT_DIR = "/snapshot"
SNAPSHOT_PREFIX = "raft"


@dataclass(frozen=True)
class Distribution:
    """binary: the program. env_prefix: of the variables that it reads."""

    binary: str
    env_prefix: str
    image: str


DISTRIBUTIONS: Mapping[str, Distribution] = {
    OPENBAO: Distribution("bao", "BAO", OPENBAO_IMAGE),
    VAULT: Distribution("vault", "VAULT", VAULT_IMAGE),
}


@dataclass(frozen=True)
class Request:
    """One API request of the first set-up. name: a step's name; path: without ``/v1/``; data: its body."""

    name: str
    path: str
    data: Mapping[str, Any]


def peer_host(index: int) -> str:
    """DNS name of one replica's pod."""
    return f"{NAME}-{index}.{HEADLESS}.{VAULT_NAMESPACE}.svc"


def server_hosts() -> tuple[str, ...]:
    """The names that the server certificate is for; replicas by wildcard, so that adding one changes nothing."""
    names = (HOST, f"*.{HEADLESS}.{VAULT_NAMESPACE}.svc")
    return (*names, *(f"{name}.cluster.local" for name in names))


def authority_namespaces() -> tuple[str, ...]:
    """The DNS suffixes that the store's certificate authority may vouch for."""
    return (f"{VAULT_NAMESPACE}.svc", f"{VAULT_NAMESPACE}.svc.cluster.local")


def _text(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def server_config(distribution: str, replicas: int, region: str, key_alias: str) -> str:
    """``server.json``: storage, listener, seal and, for OpenBao, the audit device.

    Each replica's own addresses and node id come from its environment (`vault_manifests.server_env`).
    """
    listener = {
        "address": f"0.0.0.0:{API_PORT}",
        "cluster_address": f"0.0.0.0:{CLUSTER_PORT}",
        "tls_cert_file": f"{TLS_DIR}/tls.crt",
        "tls_key_file": f"{TLS_DIR}/tls.key",
        "tls_min_version": "tls13",
        "tls_disable_client_certs": True,
    }
    join = [
        {"leader_api_addr": f"https://{peer_host(index)}:{API_PORT}", "leader_ca_cert_file": CA_FILE}
        for index in range(replicas)
    ]
    config: dict[str, Any] = {
        "cluster_name": NAME,
        "ui": False,
        "log_format": "json",
        "log_level": "info",
        "default_lease_ttl": "15m",
        "max_lease_ttl": "24h",
        "listener": [{"tcp": listener}],
        "storage": {"raft": {"path": DATA_DIR} | ({"retry_join": join} if replicas > 1 else {})},
        "seal": {"awskms": {"region": region, "kms_key_id": key_alias}},
    }
    if distribution == OPENBAO:
        listener["disable_unauthed_rekey_endpoints"] = True
        # OpenBao takes audit devices from its configuration only (openbao.org/docs/configuration/audit). Every request
        # fails while no device takes its record, so nothing goes unseen.
        config["audit"] = [{"file": {"stdout": {"description": "Read by the collector", "options": _AUDIT}}}]
    else:
        # Vault demands a word on it with integrated storage. Nodes have no swap, and CAP_IPC_LOCK isn't given.
        config["disable_mlock"] = True
    return _text(config)


# Values are kept as keyed hashes (HMAC): log_raw stays off.
_AUDIT = {"file_path": "stdout", "log_raw": "false"}


def policy_text(rules: Mapping[str, Iterable[str]]) -> str:
    """Path → capabilities, as the store's policy language (HCL)."""
    return "\n".join(
        f"path {json.dumps(path)} {{\n  capabilities = {json.dumps(list(capabilities))}\n}}"
        for path, capabilities in rules.items()
    )


def policies(distribution: str) -> Mapping[str, str]:
    """Name → text of every policy.

    broker: reads tools' secrets. snapshot: saves the encrypted storage. operator: writes tools' secrets without reading
    them; with OpenBao, whose first start makes no recovery keys, also has them made.
    """
    operator: dict[str, list[str]] = {
        f"kv/data/{TOOL_SECRETS}/*": ["create", "update", "patch"],
        f"kv/metadata/{TOOL_SECRETS}/*": ["list", "delete"],
    }
    if distribution == OPENBAO:
        for step in ("init", "update", "verify"):
            operator[f"sys/rotate/recovery/{step}"] = ["create", "read", "update", "delete", "sudo"]
    return {
        "broker": policy_text({f"kv/data/{TOOL_SECRETS}/*": ["read"]}),
        "snapshot": policy_text({"sys/storage/raft/snapshot": ["read"]}),
        "operator": policy_text(operator),
    }


def _role(policy: str, service_account: str, namespace: str, ttl: str) -> Request:
    data = {
        "bound_service_account_names": [service_account],
        "bound_service_account_namespaces": [namespace],
        "audience": AUDIENCE,
        "token_policies": [policy],
        "token_no_default_policy": True,
        "token_ttl": ttl,
        "token_max_ttl": ttl,
    }
    return Request(f"role-{policy}", f"auth/kubernetes/role/{policy}", data)


def first_requests(distribution: str) -> tuple[Request, ...]:
    """The first set-up in order: (Vault: audit,) the engine, policies, Kubernetes auth and its roles."""
    audit = Request("audit", "sys/audit/stdout", {"type": "file", "options": _AUDIT})
    return (
        *((audit,) if distribution == VAULT else ()),
        Request("mount-kv", "sys/mounts/kv", {"type": "kv-v2"}),
        *(
            Request(f"policy-{name}", f"sys/policies/acl/{name}", {"policy": text})
            for name, text in policies(distribution).items()
        ),
        Request("auth-kubernetes", "sys/auth/kubernetes", {"type": "kubernetes"}),
        # Token and CA of the pod itself: Kubernetes renews the projected token, and the server reads it anew.
        Request(
            "configure-kubernetes", "auth/kubernetes/config", {"kubernetes_host": "https://kubernetes.default.svc"}
        ),
        _role("broker", RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, "15m"),
        _role("snapshot", SNAPSHOT_SERVICE_ACCOUNT, VAULT_NAMESPACE, "5m"),
        _role("operator", OPERATOR_SERVICE_ACCOUNT, VAULT_NAMESPACE, "15m"),
    )


def initialize_config() -> str:
    """``initialize.json``: what OpenBao does at its first start, with a root token that it revokes itself and tells
    nobody (openbao.org/docs/configuration/self-init)."""
    requests = [
        {request.name: {"operation": "update", "path": request.path, "data": dict(request.data)}}
        for request in first_requests(OPENBAO)
    ]
    return _text({"initialize": [{"ringfence": {"request": requests}}]})


def start_script(distribution: str, replicas: int) -> str:
    """``start.sh``, the server container's command.

    With OpenBao, only the first replica sets the store up, and only after every other replica has said that it isn't set
    up: a server that has `initialize` starts a store of its own instead of joining one
    (github.com/openbao/openbao/issues/3652), so a first replica that lost its disk would split the store in two. Where
    data is there already, `initialize` does nothing, and a replica that doesn't answer is no reason to wait.
    """
    binary = DISTRIBUTIONS[distribution].binary
    lines = ["#!/bin/sh", "set -eu", f"set -- -config={CONFIG_DIR}/server.json"]
    if distribution == OPENBAO:
        peers = " ".join(f"https://{peer_host(index)}:{API_PORT}" for index in range(1, replicas))
        lines += [
            f'if [ "$POD_NAME" = {NAME}-0 ]; then',
            "  first=yes",
            *(_ask_peers(binary, peers) if peers else ()),
            f'  if [ "$first" = yes ]; then set -- "$@" -config={CONFIG_DIR}/initialize.json; fi',
            "fi",
        ]
    lines += [f'exec {binary} server "$@"']
    return "\n".join(lines) + "\n"


def _ask_peers(binary: str, peers: str) -> list[str]:
    return [
        f"  for peer in {peers}; do",
        "    while :; do",
        "      answer=0",
        f'      {binary} operator init -status -address="$peer" >/dev/null 2>&1 || answer=$?',
        '      case "$answer" in',
        "        0) first=no; break ;;  # it is set up: join it",
        "        2) break ;;            # it is not",
        "      esac",
        f"      if [ -e {DATA_DIR}/vault.db ]; then first=no; break; fi",
        '      echo "waiting for $peer to say whether the store is set up" >&2',
        "      sleep 5",
        "    done",
        "  done",
    ]


def snapshot_script(distribution: str) -> str:
    """``snapshot.sh``: logs in with the pod's own token and saves the storage, which stays encrypted."""
    kind = DISTRIBUTIONS[distribution]
    token = f"{kind.env_prefix}_TOKEN"
    return "\n".join(
        [
            "#!/bin/sh",
            "set -eu",
            "umask 077",
            f"{token}=$({kind.binary} write -field=token auth/kubernetes/login role=snapshot jwt=@{TOKEN_FILE})",
            f"export {token}",
            f"{kind.binary} operator raft snapshot save {SNAPSHOT_DIR}/raft.snap",
            f"test -s {SNAPSHOT_DIR}/raft.snap",
            "",
        ]
    )


def upload_script(bucket: str) -> str:
    """``upload.sh``: stores the snapshot under a name of its own; S3 refuses a name that is taken."""
    return "\n".join(
        [
            "#!/bin/sh",
            "set -eu",
            f'key="{SNAPSHOT_PREFIX}/$(date -u +%Y/%m/%d/%H%M%SZ).snap"',
            f'aws s3api put-object --bucket {bucket} --key "$key" --body {SNAPSHOT_DIR}/raft.snap \\',
            "  --checksum-algorithm SHA256 --if-none-match '*' --no-cli-pager >/dev/null",
            f'echo "stored s3://{bucket}/$key"',
            "",
        ]
    )


_BOOTSTRAP_HEAD = """\
#!/bin/sh
# Sets a new Vault up, once. Reads PGP public keys, one a line (gpg --export ID | base64 -w0), from standard input and
# prints one recovery key for each, encrypted to it; more than half of them together make a new root token. Run it from
# outside of the cluster:
#   kubectl exec -i -n {namespace} {name}-0 -- sh {config}/bootstrap.sh < pgp-keys.txt > recovery-keys.txt
# No root token is printed or kept: it lives in this shell and is revoked when the shell ends, whatever happens.
set -eu
umask 077
work=$(mktemp -d /tmp/bootstrap.XXXXXX)
finish() {{
  status=$?
  rm -rf "$work"
  if [ -n "${{VAULT_TOKEN:-}}" ]; then
    vault token revoke -self >/dev/null || {{ echo "the root token was NOT revoked: revoke it" >&2; status=1; }}
  fi
  exit "$status"
}}
trap finish EXIT
trap 'exit 1' HUP INT TERM
count=0
keys=
while read -r key || [ -n "$key" ]; do
  [ -n "$key" ] || continue
  count=$((count + 1))
  printf '%s' "$key" > "$work/$count.asc"
  keys="$keys${{keys:+,}}$work/$count.asc"
done
if [ "$count" -eq 0 ]; then
  echo "no PGP public key on standard input: give one line of base64 for each holder of a recovery key" >&2
  exit 2
fi
answer=0
vault operator init -status >/dev/null 2>&1 || answer=$?
if [ "$answer" -ne 2 ]; then
  echo "vault is set up already, or doesn't answer: nothing was done" >&2
  exit 1
fi
made=$(vault operator init -format=json -recovery-shares="$count" -recovery-threshold=$((count / 2 + 1)) \\
  -recovery-pgp-keys="$keys")
VAULT_TOKEN=$(printf '%s\\n' "$made" | sed -n 's/^ *"root_token": *"\\([^"]*\\)".*$/\\1/p')
export VAULT_TOKEN
printf '%s\\n' "$made" | sed -n '/"recovery_keys_b64"/,/]/s/^ *"\\([A-Za-z0-9+/=]*\\)",\\{{0,1\\}}$/\\1/p'
made=
if [ -z "$VAULT_TOKEN" ]; then
  echo "the answer has no root token: make one with the recovery keys, set vault up by hand and revoke it" >&2
  exit 1
fi
# The new server needs a moment to become the active one.
tries=0
until vault token lookup >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -ge 60 ]; then echo "vault did not become active in a minute" >&2; exit 1; fi
  sleep 1
done
"""


def bootstrap_script() -> str:
    """``bootstrap.sh``: sets HashiCorp Vault up once, as its head says."""
    lines = [_BOOTSTRAP_HEAD.format(namespace=VAULT_NAMESPACE, name=NAME, config=CONFIG_DIR).rstrip("\n")]
    for request in first_requests(VAULT):
        body = json.dumps(request.data, indent=2)
        lines += [f"vault write {request.path} - >/dev/null <<'REQUEST'", body, "REQUEST"]
    return "\n".join([*lines, 'echo "vault is set up" >&2']) + "\n"


def config_files(distribution: str, replicas: int, region: str, key_alias: str) -> dict[str, str]:
    """File name → text of everything in the servers' configuration folder. Nothing in it is secret."""
    files = {
        "server.json": server_config(distribution, replicas, region, key_alias),
        "start.sh": start_script(distribution, replicas),
    }
    if distribution == OPENBAO:
        return files | {"initialize.json": initialize_config()}
    return files | {"bootstrap.sh": bootstrap_script()}


def snapshot_files(distribution: str, bucket: str) -> dict[str, str]:
    """File name → text of the snapshot job's scripts."""
    return {"snapshot.sh": snapshot_script(distribution), "upload.sh": upload_script(bucket)}
