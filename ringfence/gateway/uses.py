"""One model call as the gateway counted it, for audit and traces. Trust zone: control side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A call that was forwarded and has ended. provider: OpenTelemetry's name; began: aware; input_tokens,
    output_tokens: None when the provider reported none, so that the whole reservation counts as spent."""

    model: str
    api: str
    provider: str
    began: datetime
    seconds: float
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal

    @property
    def ok(self) -> bool:
        """Whether its usage is known."""
        return self.input_tokens is not None

    def fields(self) -> dict[str, Any]:
        """The same for an audit record; the control side's own word."""
        return {
            "resource": self.model,
            "outcome": "success" if self.ok else "failure",
            "api_shape": self.api,
            "provider": self.provider,
            "seconds": round(self.seconds, 3),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": str(self.cost_usd),
            "stated_by": "gateway",
        }
