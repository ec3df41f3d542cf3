#!/bin/sh
set -eu
set -- -config=/etc/vault/server.json
if [ "$POD_NAME" = vault-0 ]; then
  first=yes
  if [ "$first" = yes ]; then set -- "$@" -config=/etc/vault/initialize.json; fi
fi
exec bao server "$@"
