"""Where model calls go: one interface for providers and for the scripted model. Trust zone: control side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ringfence.gateway.prices import Price
from ringfence.gateway.request import ModelCall


class NotSent(Exception):
    """The provider was not reached, so the call cost nothing."""


class UpstreamFailed(Exception):
    """The call broke off; nobody knows whether the provider did the work."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A provider's answer. headers: lower-case names; content: its bytes as they come, never compressed."""

    status: int
    headers: Mapping[str, str]
    content: AsyncIterator[bytes] = field(repr=False)


class Upstream(Protocol):
    """Takes calls of some models. name: OpenTelemetry's `gen_ai.provider.name`; price_list: genai-prices' provider id;
    prices: of models that are not on that list."""

    name: str
    price_list: str
    prices: Mapping[str, Price]

    def serves(self, api: str, model: str) -> bool:
        """Whether calls in this shape for this model go here. Never both of two upstreams for one."""

    def most_tokens(self, call: ModelCall) -> tuple[int, int]:
        """The most input and output tokens that the call may be charged for."""

    def send(
        self, call: ModelCall, headers: Mapping[str, str], invocation_id: str
    ) -> AbstractAsyncContextManager[Reply]:
        """Makes the call. headers: those of the sandbox that may be forwarded. Raises NotSent or UpstreamFailed."""

    def secrets(self) -> tuple[str, ...]:
        """Exact values that may never reach a sandbox or a log."""

    def forget(self, invocation_id: str) -> None:
        """The invocation has ended."""

    async def close(self) -> None:
        """Ends connections."""
