#!/bin/sh
set -eu
umask 077
VAULT_TOKEN=$(vault write -field=token auth/kubernetes/login role=snapshot jwt=@/var/run/secrets/vault/token)
export VAULT_TOKEN
vault operator raft snapshot save /snapshot/raft.snap
test -s /snapshot/raft.snap
