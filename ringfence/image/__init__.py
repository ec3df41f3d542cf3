"""The runtime image, built without a container engine: pinned Debian packages, hashed wheels, agent_runtime."""

from __future__ import annotations

from ringfence.image.build import COMMAND, ENVIRONMENT, Builder, rootfs
from ringfence.image.sbom import sbom

__all__ = ["COMMAND", "ENVIRONMENT", "Builder", "rootfs", "sbom"]
