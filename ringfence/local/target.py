"""The environment in which the engine, and a user's own pulumi, aws and kubectl, meet the embedded target."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from ringfence.local.operator_key import operator_key
from ringfence.local.state import Home, write_atomic
from ringfence.local.toolchain.model import Tools

# Packages whose types the embedded target serves; each has ringfence/local/providers/<name>.
PROVIDERS = ("aws", "kubernetes", "random")
AWS_REGION = "us-east-1"
# Variables of the caller that could point the engine or a provider at a real account, cluster or backend.
DROPPED_PREFIXES = ("AWS_", "PULUMI_", "KUBE", "VAULT_")


def endpoint(ports: Mapping[str, int]) -> str:
    """Address of the embedded AWS server."""
    return f"http://127.0.0.1:{ports['aws']}"


def variables(home: Home) -> dict[str, str]:
    """What tells pulumi, AWS clients and kubectl to use the embedded target; PATH apart."""
    key = operator_key(home)
    return {
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint(home.kept_ports()),
        "AWS_REGION": AWS_REGION,
        "AWS_DEFAULT_REGION": AWS_REGION,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "KUBECONFIG": str(home.kubeconfig),
        "PULUMI_BACKEND_URL": f"file://{home.backend}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(home.passphrase()),
        # The engine would copy the whole state after every run; the folder is disposable.
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        # The salt is made per machine and kept in the state, not in the project's configuration file.
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        "PULUMI_HOME": str(home.pulumi_home),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "RINGFENCE_HOME": str(home.root),
    }


def search_path(home: Home, tools: Tools) -> list[str]:
    """What comes first on PATH: the provider wrappers, this Python environment, the tools."""
    return [str(home.plugins), str(Path(sys.prefix) / "bin"), *tools.search_path()]


def neutral(base: Mapping[str, str]) -> dict[str, str]:
    """`base` without what could lead to a real account, cluster or backend."""
    return {name: value for name, value in base.items() if not name.startswith(DROPPED_PREFIXES)}


def environment(home: Home, tools: Tools, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The engine's whole environment: `base` without what could lead it elsewhere, plus `variables` and PATH."""
    path = [*search_path(home, tools), base.get("PATH", os.defpath)]
    # Services listen on this machine, where no proxy of the caller's leads.
    direct = ",".join(filter(None, (base.get("NO_PROXY") or base.get("no_proxy"), "127.0.0.1,localhost")))
    # --event-log, which progress and results are read from, is offered as a debug command.
    return (
        neutral(base)
        | variables(home)
        | {
            "PATH": os.pathsep.join(path),
            "NO_PROXY": direct,
            "no_proxy": direct,
            "PULUMI_DEBUG_COMMANDS": "true",
        }
    )


def write_plugins(home: Home) -> None:
    """Writes the `pulumi-resource-*` programs that the engine finds on PATH and starts as providers."""
    home.plugins.mkdir(parents=True, exist_ok=True)
    for provider in PROVIDERS:
        # -P: the engine starts plugins in the project's folder, whose modules must not hide installed ones.
        line = f'exec {shlex.quote(sys.executable)} -P -m ringfence.local.providers.{provider} "$@"'
        path = home.plugins / f"pulumi-resource-{provider}"
        script = f"#!/bin/sh\n{line}\n"
        if not path.exists() or path.read_text(encoding="utf-8") != script:
            write_atomic(path, script, mode=0o755)
