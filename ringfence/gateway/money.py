"""Money of the gateway: whole nano-dollars, so that sums are exact, rounded up so that nothing is free."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

NANO = 10**9


def to_nano(usd: Decimal) -> int:
    """Dollars as whole nano-dollars, rounded up."""
    return int((usd * NANO).to_integral_value(ROUND_CEILING))


def to_usd(nano: int) -> Decimal:
    """Whole nano-dollars as dollars, exactly."""
    return Decimal(nano) / NANO
