"""The images, built without a container engine: pinned Debian packages, hashed wheels, the project's own modules."""

from __future__ import annotations

from ringfence.image.build import COMMAND, ENVIRONMENT, Builder, rootfs
from ringfence.image.kinds import CONTROL, KINDS, RUNTIME, Kind
from ringfence.image.sbom import sbom

__all__ = ["COMMAND", "CONTROL", "ENVIRONMENT", "KINDS", "RUNTIME", "Builder", "Kind", "rootfs", "sbom"]
