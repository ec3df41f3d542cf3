"""The model gateway: the only way from a sandbox to a model, and where its budget is law. Trust zone: control side."""

from __future__ import annotations

from ringfence.gateway.configured import upstreams
from ringfence.gateway.errors import LedgerError, Refused
from ringfence.gateway.gateway import Gateway
from ringfence.gateway.ledger import Conversation, conversations
from ringfence.gateway.limits import Limits
from ringfence.gateway.prices import Prices
from ringfence.gateway.sessions import SandboxEvent, SandboxResult
from ringfence.gateway.tool_models import tool_models
from ringfence.gateway.upstream import Upstream

__all__ = [
    "Conversation",
    "Gateway",
    "LedgerError",
    "Limits",
    "Prices",
    "Refused",
    "SandboxEvent",
    "SandboxResult",
    "Upstream",
    "conversations",
    "tool_models",
    "upstreams",
]
