#!/bin/sh
set -eu
umask 077
BAO_TOKEN=$(bao write -field=token auth/kubernetes/login role=snapshot jwt=@/var/run/secrets/vault/token)
export BAO_TOKEN
bao operator raft snapshot save /snapshot/raft.snap
test -s /snapshot/raft.snap
