"""Prices: the worst case is never below what a call can cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from ringfence.gateway.money import NANO, to_nano, to_usd
from ringfence.gateway.prices import FixedPrice, ListPrice, Prices, Tokens, UnknownModel, UnpricedCache

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def priced() -> list[ListPrice]:
    """Every model of the three price lists that has a price per token."""
    found = []
    for provider in get_snapshot().providers:
        if provider.id in ("openai", "anthropic", "aws"):
            for model in provider.models:
                try:
                    found.append(Prices().of(provider.id, model.id, NOW, NOW + timedelta(seconds=300)))
                except UnknownModel:
                    continue
    return found


MODELS = priced()


def test_the_three_lists_have_prices() -> None:
    assert len(MODELS) > 150


@given(model=st.sampled_from(MODELS), data=st.data())
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(model: ListPrice, data: st.DataObject) -> None:
    most = data.draw(st.tuples(st.integers(0, 2_000_000), st.integers(0, 200_000)))
    spent, output = data.draw(st.integers(0, most[0])), data.draw(st.integers(0, most[1]))
    read = data.draw(st.integers(0, spent))
    by_itself = model.provider == "openai"
    ttl = data.draw(st.sampled_from(["", *model.highest_cache_write]))
    written = data.draw(st.integers(0, spent - read)) if ttl or by_itself else 0
    hour = data.draw(st.integers(0, written)) if ttl == "1h" else 0
    tokens = Tokens(spent, output, read, written, hour)
    assert model.of(tokens) <= model.at_most(*most, cache_ttl=ttl) + 1


def test_the_dearest_tier_is_assumed() -> None:
    price = Prices().of("anthropic", "claude-sonnet-4-5", NOW, NOW)
    assert price.of(Tokens(1000, 0)) == to_nano(Decimal("0.003"))
    assert price.at_most(1000, 0) == to_nano(Decimal("0.006"))


@pytest.mark.parametrize(("provider", "model"), [
    ("openai", "gpt-99"), ("openai", "whisper-1"), ("openai", "text-embedding-3-small"), ("anthropic", "gpt-4o"), ("nobody", "gpt-4o"), ("aws", ""), ("openai", "gpt-4o-search-preview"),
    ("openai", "o3-deep-research"),
])  # fmt: skip
def test_a_model_without_a_price_per_token_is_unknown(provider: str, model: str) -> None:
    with pytest.raises(UnknownModel):
        Prices().of(provider, model, NOW, NOW)


def test_writing_to_a_cache_needs_a_price() -> None:
    with pytest.raises(UnpricedCache):
        Prices().of("openai", "gpt-4o", NOW, NOW).at_most(10, 10, "5m")
    assert Prices().of("anthropic", "claude-sonnet-4-5", NOW, NOW).at_most(10, 10, "1h") > 0


def test_counts_that_contradict_each_other_have_no_price() -> None:
    with pytest.raises(ValueError, match="exceed"):
        Prices().of("openai", "gpt-4o", NOW, NOW).of(Tokens(10, 10, cache_read=11))


@given(st.decimals(0, 1000, places=15))
def test_money_is_rounded_up_and_exact_on_the_way_back(usd: Decimal) -> None:
    assert 0 <= to_usd(to_nano(usd)) - usd < Decimal(1) / NANO
    assert to_nano(to_usd(to_nano(usd))) == to_nano(usd)


def test_a_fixed_price_is_the_same_before_and_after() -> None:
    price = FixedPrice(Decimal(3), Decimal(15))
    assert price.at_most(1_000_000, 1_000_000) == price.of(Tokens(1_000_000, 1_000_000)) == 18 * NANO
