"""What a model call costs. A model that nobody knows the price of is refused: no worst case could be reserved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from agent_runtime.errors import ModelUnknown

MILLION = Decimal(1_000_000)
# genai-prices guesses the provider of most models by their name; Bedrock's names it must be told.
_PROVIDERS = (None, "aws")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. Cached input counts as input: never less than what is billed."""

    input: Decimal
    output: Decimal

    def cost(self, input_tokens: int, output_tokens: int) -> Decimal:
        """US dollars."""
        return (self.input * input_tokens + self.output * output_tokens) / MILLION


# The control side's scripted model, for demonstrations and tests: the price of a mid-range model, so that budgets show.
SCRIPTED = {"scripted": Price(Decimal(3), Decimal(15))}


class Prices:
    """overrides: the operator's own prices (model → ``{"input": "3", "output": "15"}``, US dollars per million tokens),
    ahead of the `genai-prices` table. Raises ValueError naming the model and the value."""

    def __init__(self, overrides: Mapping[str, Any] | None = None):
        self._known: dict[str, Price] = dict(SCRIPTED)
        for model, data in (overrides or {}).items():
            try:
                price = Price(Decimal(str(data["input"])), Decimal(str(data["output"])))
                usable = all(value.is_finite() and value >= 0 for value in (price.input, price.output))
            except (KeyError, TypeError, InvalidOperation):
                usable = False
            if not usable:
                raise ValueError(f"price of {model!r} | write input and output in US dollars per million tokens")
            self._known[model] = price

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> Decimal:
        """US dollars of a call. Raises ModelUnknown."""
        if price := self._known.get(model):
            return price.cost(input_tokens, output_tokens)
        # Imported when needed: half a second that a known model doesn't pay.
        try:
            import genai_prices
        except ImportError:
            raise ModelUnknown(f"the price of model {model!r} is not known | give its price with the task") from None
        usage = genai_prices.Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        for provider in _PROVIDERS:
            try:
                return genai_prices.calc_price(usage, model, provider_id=provider).total_price
            except LookupError:
                continue
        raise ModelUnknown(f"the price of model {model!r} is not known | give its price with the task")
