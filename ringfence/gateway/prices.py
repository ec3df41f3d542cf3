"""What a call costs: at most, before it is made, and in the end, from the usage that the provider reports.

Prices come from `genai-prices`; a model that it doesn't know, or knows no price per token of, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from ringfence.gateway.money import to_nano

# genai-prices' keys, in USD per million tokens.
_INPUT = ("input_mtok", "input_text_mtok", "input_image_mtok")
_OUTPUT = ("output_mtok", "output_text_mtok")
# Time to live that a request may ask for → what a write then costs.
_CACHE_WRITE = {"5m": ("cache_write_mtok", "cache_write_5m_mtok"), "1h": ("cache_write_1h_mtok",)}
# Providers that may charge any input as a write to the cache, unasked.
_CACHES_BY_ITSELF = ("openai",)
# Models that search the web with every call.
_SEARCHES = re.compile(r"search|research")
_MILLION = 1_000_000


class UnknownModel(Exception):
    """No price per token is known, so the worst case isn't either."""


class UnpricedCache(Exception):
    """The request asks to write to a cache, and no price of that is known."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a provider says a call used. input: all of them, those read from or written to a cache included; output: the
    hidden reasoning included."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0


class Price(Protocol):
    """What one model's calls cost, in nano-dollars rounded up."""

    def at_most(self, input_tokens: int, output_tokens: int, cache_ttl: str = "") -> int:
        """The highest price of so many tokens: the dearest tier. cache_ttl: ``5m`` or ``1h`` when all of the input may be
        written to a cache for so long. Raises UnpricedCache."""

    def of(self, tokens: Tokens) -> int:
        """The price of what was used."""


@dataclass(frozen=True, slots=True)
class FixedPrice:
    """USD per million tokens, whatever their kind."""

    input: Decimal
    output: Decimal

    def at_most(self, input_tokens: int, output_tokens: int, cache_ttl: str = "") -> int:
        """See `Price`."""
        return to_nano((self.input * input_tokens + self.output * output_tokens) / _MILLION)

    def of(self, tokens: Tokens) -> int:
        """See `Price`."""
        return self.at_most(tokens.input, tokens.output)


@dataclass(frozen=True, slots=True)
class ListPrice:
    """genai-prices' entry for a model. highest_*: USD per million tokens, over all tiers and between two times."""

    provider: str
    model: str
    at: datetime
    highest_input: Decimal
    highest_output: Decimal
    highest_cache_write: Mapping[str, Decimal]
    per_call: Decimal

    def at_most(self, input_tokens: int, output_tokens: int, cache_ttl: str = "") -> int:
        """See `Price`."""
        dearest = self.highest_input
        if cache_ttl:
            if cache_ttl not in self.highest_cache_write:
                raise UnpricedCache(f"no price of writing to a cache for {cache_ttl} is known for model {self.model!r}")
            dearest = max(dearest, *self.highest_cache_write.values())
        return to_nano((dearest * input_tokens + self.highest_output * output_tokens) / _MILLION + self.per_call)

    def of(self, tokens: Tokens) -> int:
        """See `Price`. Raises ValueError for counts that contradict each other."""
        usage = PricedUsage(
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=tokens.cache_write,
            cache_write_1h_tokens=tokens.cache_write_1h,
        )
        priced = calc_price(usage, self.model, provider_id=self.provider, genai_request_timestamp=self.at)
        return to_nano(priced.total_price)


class Prices:
    """genai-prices' table, as it was installed."""

    def of(self, provider: str, model: str, begin: datetime, end: datetime) -> ListPrice:
        """The price of a model for calls between two times (some prices depend on the hour, or change on a day).

        provider: genai-prices' id. Raises UnknownModel.
        """
        try:
            _, info = get_snapshot().find_provider_model(model, None, provider, None)
        except LookupError:
            raise UnknownModel(f"no price is known for model {model!r} of {provider}") from None
        if _SEARCHES.search(model) or _SEARCHES.search(info.id):
            raise UnknownModel(f"model {model!r} searches unasked, and searches cost beyond its tokens")
        prices = [info.get_prices(at) for at in (begin, end)]
        highest_input, highest_output = _highest(prices, _INPUT), _highest(prices, _OUTPUT)
        if highest_input is None or highest_output is None:
            raise UnknownModel(f"no price per text token is known for model {model!r} of {provider}")
        if provider in _CACHES_BY_ITSELF:
            writes = [key for keys in _CACHE_WRITE.values() for key in keys]
            highest_input = max(highest_input, _highest(prices, writes) or Decimal(0))
        written = {ttl: _highest(prices, keys) for ttl, keys in _CACHE_WRITE.items()}
        known = {ttl: price for ttl, price in written.items() if price is not None}
        per_call = _highest(prices, ("requests_kcount",)) or Decimal(0)
        return ListPrice(provider, model, begin, highest_input, highest_output, known, per_call / 1000)


def _highest(prices: list[ModelPrice], keys: Sequence[str]) -> Decimal | None:
    values = [value for price in prices for key in keys for value in _tiers(getattr(price, key))]
    return max(values, default=None)


def _tiers(price: Decimal | TieredPrices | None) -> Iterator[Decimal]:
    if isinstance(price, TieredPrices):
        yield price.base
        yield from (tier.price for tier in price.tiers)
    elif price is not None:
        yield price
