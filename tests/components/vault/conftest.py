"""The secrets store of one environment, registered under mocks."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from components.vault import Vault, VaultArgs
from ringfence.names import Names
from tests.components.account.conftest import identity_permits, resource_permits

__all__ = ["identity_permits", "resource_permits"]

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
SEEDS = {"vault-authority-seed": b"a" * 32, "vault-server-seed": b"s" * 32}


def random_bytes(type_: str, name: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the random provider computes; fixed, so that golden files hold."""
    if type_ != "random:index/randomBytes:RandomBytes":
        return {}
    return {"base64": base64.b64encode(SEEDS[name]).decode(), "hex": SEEDS[name].hex()}


@pytest.fixture
def stood_up(record) -> Callable[..., Any]:
    """`stood_up(preview=False, **args)` registers a Vault; its outputs end up in the recording."""

    def run(preview: bool = False, **changes: Any) -> Any:
        args = VaultArgs(NAMES, "ringfence-test", "ringfence-encrypted", **changes)

        def program() -> dict[str, Any]:
            vault = Vault("vault", args)
            return {
                "address": vault.address,
                "ca_certificate": vault.ca_certificate,
                "snapshot_bucket": vault.snapshot_bucket,
                "service_account": vault.service_account,
                "unseal_key_alias": vault.unseal_key_alias,
                "role_arn": vault.role_arn,
                "snapshot_role_arn": vault.snapshot_role_arn,
                "audience": vault.audience,
            }

        return record(program, preview=preview, computed=random_bytes)

    return run
