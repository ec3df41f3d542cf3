"""The pinned toolchain of the embedded target: engine, Python host, etcd and the Kubernetes control plane.

tools = toolchain.resolve()
tools.path("pulumi")
"""

from __future__ import annotations

from ringfence.local.bootstrap import cache_root
from ringfence.local.toolchain.model import Source, Tool, Tools
from ringfence.local.toolchain.resolution import find, resolve

__all__ = ["Source", "Tool", "Tools", "cache_root", "find", "resolve"]
