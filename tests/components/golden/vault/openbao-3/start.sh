#!/bin/sh
set -eu
set -- -config=/etc/vault/server.json
if [ "$POD_NAME" = vault-0 ]; then
  first=yes
  for peer in https://vault-1.vault-internal.ringfence-vault.svc:8200 https://vault-2.vault-internal.ringfence-vault.svc:8200; do
    while :; do
      answer=0
      bao operator init -status -address="$peer" >/dev/null 2>&1 || answer=$?
      case "$answer" in
        0) first=no; break ;;  # it is set up: join it
        2) break ;;            # it is not
      esac
      if [ -e /vault/data/vault.db ]; then first=no; break; fi
      echo "waiting for $peer to say whether the store is set up" >&2
      sleep 5
    done
  done
  if [ "$first" = yes ]; then set -- "$@" -config=/etc/vault/initialize.json; fi
fi
exec bao server "$@"
