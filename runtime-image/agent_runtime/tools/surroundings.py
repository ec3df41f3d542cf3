"""What a built-in tool is given: its declaration, its own credentials and its own way out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_runtime.declaration import Declaration
from agent_runtime.gateway import GatewayClient

if TYPE_CHECKING:
    from agent_runtime.executor import InstrumentedAgentExecutor


@dataclass(frozen=True, slots=True)
class Surroundings:
    """credentials: AccessKeyId, SecretAccessKey, SessionToken, None without any; endpoint: AWS's, when it isn't AWS's
    own; proxy_host: of the egress proxy, whose port is the declaration's; secrets: name → text of what else the tool was
    given (`secrets` of its catalog entry)."""

    declaration: Declaration
    credentials: Mapping[str, str] | None = field(repr=False)
    endpoint: str | None
    region: str
    proxy_host: str | None
    client: GatewayClient
    executor: InstrumentedAgentExecutor
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
