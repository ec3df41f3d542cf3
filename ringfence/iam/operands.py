"""The values that condition operators compare: numbers, dates, addresses, booleans. Used by parsing and containment."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def number(text: str) -> Decimal | None:
    """The number written in `text`, None when it isn't one (NaN and infinities are not)."""
    try:
        value = Decimal(text)
    except (InvalidOperation, ValueError):
        return None
    return value if value.is_finite() and abs(value.adjusted()) < 100 else None


def date(text: str) -> Decimal | None:
    """Seconds since 1970 of an ISO 8601 date or of epoch seconds, None when it is neither."""
    epoch = number(text)
    # A bare four-digit year is ISO 8601; an epoch of four digits would be a time in January 1970.
    if epoch is not None and not (len(text) == 4 and text.isdigit()):
        return epoch
    try:
        moment = datetime.fromisoformat(f"{text}-01-01" if len(text) == 4 else text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return Decimal(str(moment.timestamp()))
    except (ValueError, OverflowError):
        return None


def network(text: str) -> Network | None:
    """The CIDR range or single address in `text`, None when it is neither. Host bits may be set, as IAM allows."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def operand_problem(operator: str, value: str) -> tuple[str, str]:
    """What is wrong with `value` as an operand of the base operator, and the remedy; two empty strings when nothing."""
    shown = repr(value if len(value) <= 60 else f"{value[:57]}…")
    if operator.startswith("Numeric") and number(value) is None:
        return f"{shown} is not a number", "write an integer or a decimal number"
    if operator.startswith("Date") and date(value) is None:
        return f"{shown} is not a date", "write 2026-01-31T00:00:00Z or seconds since 1970"
    if operator in ("Bool", "Null") and value.lower() not in ("true", "false"):
        return f"{shown} is not a boolean", "write true or false"
    if operator in ("IpAddress", "NotIpAddress") and network(value) is None:
        return f"{shown} is not an IP range", "write an address or a CIDR range such as 192.0.2.0/24"
    if operator == "BinaryEquals" and not _is_base64(value):
        return f"{shown} is not base64", "write the bytes in base64"
    return "", ""


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
