#!/bin/sh
set -eu
set -- -config=/etc/vault/server.json
exec vault server "$@"
