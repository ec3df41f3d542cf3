"""Real gVisor sandboxes on this machine: `LocalExecutor`."""

from __future__ import annotations

from ringfence.runner.local_executor.bundle import ReadOnlyMount, Root, image_root
from ringfence.runner.local_executor.executor import AWS_PORT, GATEWAY_PORT, LocalExecutor, Ways
from ringfence.runner.local_executor.proxy import Proxy

__all__ = ["AWS_PORT", "GATEWAY_PORT", "LocalExecutor", "Proxy", "ReadOnlyMount", "Root", "Ways", "image_root"]
