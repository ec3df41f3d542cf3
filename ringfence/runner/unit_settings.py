"""What an environment tells its runners about units: the ConfigMap `sandbox-unit`, written by `components.sandbox`.

Trust zone: control side.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.errors import InputError, Problem
from ringfence.runner.manifests import UnitLimits

CONFIG_MAP = "sandbox-unit"
KEY = "unit.json"
# Kept free of a unit's quota for what the runtime itself takes (the RuntimeClass's `overhead.podFixed` counts in it).
OVERHEAD_CPU_MILLIS, OVERHEAD_MEMORY_MIB = 100, 128
_CPU = re.compile(r"^(\d+)(m?)$")
_MEMORY = re.compile(r"^(\d+)(Mi|Gi)$")
_DIGEST = re.compile(r"^[^\s@]+@sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where sandboxes reach the model gateway: an address, never a name, since they resolve none. labels: of its pods."""

    address: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The base address of its HTTP API."""
        return f"http://{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnitSettings:
    """limits: of one namespace; max_concurrent: sandboxes at once; registries: where images may come from; image: the
    sandbox's, by digest; gateway: see `GatewayAddress`; proxy_cidrs, tool_ports: the egress proxy's listeners."""

    limits: UnitLimits = field(default_factory=UnitLimits)
    max_concurrent: int = 100
    registries: tuple[str, ...] = ()
    proxy_cidrs: tuple[str, ...] = ()
    tool_ports: Mapping[str, int] = field(default_factory=dict)
    image: str = ""
    gateway: GatewayAddress | None = None

    def render(self) -> str:
        """The ConfigMap's text, the same for the same settings."""
        unit = {
            "limits": dataclasses.asdict(self.limits),
            "maxConcurrent": self.max_concurrent,
            "registries": sorted(self.registries),
            "proxyCidrs": sorted(self.proxy_cidrs),
            "toolPorts": dict(sorted(self.tool_ports.items())),
            "image": self.image,
            "gateway": dataclasses.asdict(self.gateway) if self.gateway else None,
        }
        return json.dumps(unit, indent=2, sort_keys=True)

    @property
    def max_cpu_millis(self) -> int:
        """The most CPU that a sandbox's container may have, in thousandths."""
        return min(cpu_millis(self.limits.max_container_cpu), cpu_millis(self.limits.cpu) - OVERHEAD_CPU_MILLIS)

    @property
    def max_memory_mib(self) -> int:
        """The most memory that a sandbox's container may have."""
        most = memory_mib(self.limits.memory) - OVERHEAD_MEMORY_MIB
        return min(memory_mib(self.limits.max_container_memory), most)


def cpu_millis(quantity: str) -> int:
    """``1`` or ``500m`` in thousandths of a CPU. Raises ValueError for any other form."""
    if not (found := _CPU.match(quantity)):
        raise ValueError(f"{quantity!r} is not a CPU quantity such as 1 or 500m")
    return int(found.group(1)) * (1 if found.group(2) else 1000)


def memory_mib(quantity: str) -> int:
    """``512Mi`` or ``1Gi`` in MiB. Raises ValueError for any other form."""
    if not (found := _MEMORY.match(quantity)):
        raise ValueError(f"{quantity!r} is not a memory quantity such as 512Mi or 1Gi")
    return int(found.group(1)) * (1024 if found.group(2) == "Gi" else 1)


def parse(text: str, where: str) -> UnitSettings:
    """The settings in a ConfigMap's text. Raises InputError naming everything that a sandbox couldn't be made with."""
    remedy = "run `ringfence up` (or `pulumi up`) with this version"
    try:
        raw = json.loads(text)
        gateway = raw["gateway"] and GatewayAddress(**raw["gateway"])
        settings = UnitSettings(
            limits=UnitLimits(**raw["limits"]),
            max_concurrent=int(raw["maxConcurrent"]),
            registries=tuple(raw["registries"]),
            proxy_cidrs=tuple(raw["proxyCidrs"]),
            tool_ports={str(tool): int(port) for tool, port in raw["toolPorts"].items()},
            image=raw["image"],
            gateway=gateway,
        )
        settings.max_cpu_millis, settings.max_memory_mib  # noqa: B018 (refuses quantities that can't be read)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError([Problem(where, KEY, f"can't be read: {type(error).__name__} {error}", remedy)]) from None
    if problems := list(_problems(settings, where)):
        raise InputError(problems)
    return settings


def _problems(settings: UnitSettings, where: str) -> Any:
    if not _DIGEST.match(settings.image):
        yield Problem(where, "image", f"{settings.image!r} names no image by digest", "set sandboxImage of the stack")
    if settings.gateway is None:
        yield Problem(where, "gateway", "names no model gateway", "deploy the control side first")
        return
    try:
        ipaddress.IPv4Address(settings.gateway.address)
    except ValueError:
        text = f"{settings.gateway.address!r} is not an IPv4 address"
        yield Problem(where, "gateway.address", text, "sandboxes resolve no names")
