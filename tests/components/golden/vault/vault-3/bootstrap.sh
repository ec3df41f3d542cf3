#!/bin/sh
# Sets a new Vault up, once. Reads PGP public keys, one a line (gpg --export ID | base64 -w0), from standard input and
# prints one recovery key for each, encrypted to it; more than half of them together make a new root token. Run it from
# outside of the cluster:
#   kubectl exec -i -n ringfence-vault vault-0 -- sh /etc/vault/bootstrap.sh < pgp-keys.txt > recovery-keys.txt
# No root token is printed or kept: it lives in this shell and is revoked when the shell ends, whatever happens.
set -eu
umask 077
work=$(mktemp -d /tmp/bootstrap.XXXXXX)
finish() {
  status=$?
  rm -rf "$work"
  if [ -n "${VAULT_TOKEN:-}" ]; then
    vault token revoke -self >/dev/null || { echo "the root token was NOT revoked: revoke it" >&2; status=1; }
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM
count=0
keys=
while read -r key || [ -n "$key" ]; do
  [ -n "$key" ] || continue
  count=$((count + 1))
  printf '%s' "$key" > "$work/$count.asc"
  keys="$keys${keys:+,}$work/$count.asc"
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
made=$(vault operator init -format=json -recovery-shares="$count" -recovery-threshold=$((count / 2 + 1)) \
  -recovery-pgp-keys="$keys")
VAULT_TOKEN=$(printf '%s\n' "$made" | sed -n 's/^ *"root_token": *"\([^"]*\)".*$/\1/p')
export VAULT_TOKEN
printf '%s\n' "$made" | sed -n '/"recovery_keys_b64"/,/]/s/^ *"\([A-Za-z0-9+/=]*\)",\{0,1\}$/\1/p'
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
vault write sys/audit/stdout - >/dev/null <<'REQUEST'
{
  "type": "file",
  "options": {
    "file_path": "stdout",
    "log_raw": "false"
  }
}
REQUEST
vault write sys/mounts/kv - >/dev/null <<'REQUEST'
{
  "type": "kv-v2"
}
REQUEST
vault write sys/policies/acl/broker - >/dev/null <<'REQUEST'
{
  "policy": "path \"kv/data/tools/*\" {\n  capabilities = [\"read\"]\n}"
}
REQUEST
vault write sys/policies/acl/snapshot - >/dev/null <<'REQUEST'
{
  "policy": "path \"sys/storage/raft/snapshot\" {\n  capabilities = [\"read\"]\n}"
}
REQUEST
vault write sys/policies/acl/operator - >/dev/null <<'REQUEST'
{
  "policy": "path \"kv/data/tools/*\" {\n  capabilities = [\"create\", \"update\", \"patch\"]\n}\npath \"kv/metadata/tools/*\" {\n  capabilities = [\"list\", \"delete\"]\n}"
}
REQUEST
vault write sys/auth/kubernetes - >/dev/null <<'REQUEST'
{
  "type": "kubernetes"
}
REQUEST
vault write auth/kubernetes/config - >/dev/null <<'REQUEST'
{
  "kubernetes_host": "https://kubernetes.default.svc"
}
REQUEST
vault write auth/kubernetes/role/broker - >/dev/null <<'REQUEST'
{
  "bound_service_account_names": [
    "runner"
  ],
  "bound_service_account_namespaces": [
    "ringfence-system"
  ],
  "audience": "vault",
  "token_policies": [
    "broker"
  ],
  "token_no_default_policy": true,
  "token_ttl": "15m",
  "token_max_ttl": "15m"
}
REQUEST
vault write auth/kubernetes/role/snapshot - >/dev/null <<'REQUEST'
{
  "bound_service_account_names": [
    "vault-snapshot"
  ],
  "bound_service_account_namespaces": [
    "ringfence-vault"
  ],
  "audience": "vault",
  "token_policies": [
    "snapshot"
  ],
  "token_no_default_policy": true,
  "token_ttl": "5m",
  "token_max_ttl": "5m"
}
REQUEST
vault write auth/kubernetes/role/operator - >/dev/null <<'REQUEST'
{
  "bound_service_account_names": [
    "vault-operator"
  ],
  "bound_service_account_namespaces": [
    "ringfence-vault"
  ],
  "audience": "vault",
  "token_policies": [
    "operator"
  ],
  "token_no_default_policy": true,
  "token_ttl": "15m",
  "token_max_ttl": "15m"
}
REQUEST
echo "vault is set up" >&2
