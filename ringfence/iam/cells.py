"""One value per cell of a condition key, and whether a value satisfies an operator."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Literal

from ringfence.iam import operands, patterns
from ringfence.iam.automaton import OTHERS, find
from ringfence.iam.budget import Budget, Undecided

# An operator (positive base) with its values; what a key's cells are made from.
Test = tuple[str, frozenset[str]]
MAX_CELLS = 2_048
_FRESH = "other"
# Either truth value alone; any text; or what the operators that a policy compares the key with read.
Domain = Literal["boolean", "text", "typed"]
_cache: dict[tuple[frozenset[Test], Domain], tuple[str, ...]] = {}


def domain_of(key: str, boolean: frozenset[str]) -> Domain:
    """What a lower-case key's values can be: `boolean` lists those that are true or false; tags hold any text."""
    if key in boolean:
        return "boolean"
    return "text" if "tag/" in key else "typed"


def candidates(tests: frozenset[Test], domain: Domain, budget: Budget) -> tuple[str, ...]:
    """Values that between them show every combination of truths that `tests` can have on a present key.

    domain: what the key's values can be; on a typed key they are what its operators read. Raises Undecided beyond
    MAX_CELLS cells, and when the operators read values in ways that can't be set against each other.
    """
    known = _cache.get((tests, domain))
    if known is None:
        known = tuple(dict.fromkeys(_candidates(tests, domain, budget)))
        if len(known) > MAX_CELLS:
            raise Undecided(f"a condition key has over {MAX_CELLS:,} cells")
        if len(_cache) > 4_096:
            _cache.clear()
        _cache[(tests, domain)] = known
    return known


def forget() -> None:
    """Forget the cells worked out so far."""
    _cache.clear()


def _candidates(tests: frozenset[Test], domain: Domain, budget: Budget) -> Iterable[str]:
    if domain == "boolean":
        return ("true", "false")
    kinds = {kind_of(operator) for operator, _ in tests}
    if kinds <= {"text"}:
        return _texts(list(tests), budget) if kinds else (_FRESH,)
    # Text that is no number, date or address satisfies none of their operators.
    other = [_FRESH] if domain == "text" else []
    if kinds <= {"IpAddress", "text"}:
        return _addresses(tests) + other
    if kinds == {"Numeric", "Date"}:
        return _moments(tests) + other
    if len(kinds) > 1:
        raise Undecided(f"one condition key is compared as {' and as '.join(sorted(kinds))}")
    values = {value for _, listed in tests for value in listed}
    kind = kinds.pop()
    return [
        _number(point) if kind == "Numeric" else _date(point) for point in _thresholds(_points(values, kind))
    ] + other


def kind_of(operator: str) -> str:
    """What an operator reads values as."""
    if operator in ("StringLike", "StringFolded", "ArnLike", "BinaryEquals"):
        return "text"
    return next((kind for kind in ("Numeric", "Date") if operator.startswith(kind)), operator)


def _texts(tests: list[Test], budget: Budget) -> list[str]:
    every = {value for _, values in tests for value in values}
    specials = [value for value in every if not patterns.is_literal(value)]
    if all(value.endswith(patterns.STAR) and patterns.is_literal(value[:-1]) for value in specials):
        # Literals and prefixes: a cell is a literal, a prefix itself, a prefix going on, or anything else.
        literals = sorted(value for value in every if patterns.is_literal(value))
        prefixes = sorted(value[:-1] for value in specials)
        going_on = [prefix + _differing(prefix, every) for prefix in prefixes]
        fresh = [_FRESH if _FRESH not in every and not any(_FRESH.startswith(p) for p in prefixes) else ""]
        return literals + going_on + prefixes + [_differing("", every)] + fresh
    return _cells([tuple(sorted(values)) for _, values in tests], budget)


def _differing(prefix: str, values: set[str]) -> str:
    """Text to put after `prefix` so that no value or longer prefix is met."""
    following = {value[len(prefix)] for value in values if len(value) > len(prefix) and value.startswith(prefix)}
    return next(character for character in OTHERS if character not in following)


def _cells(groups: list[tuple[str, ...]], budget: Budget) -> list[str]:
    """One text for each set of groups that some text matches."""
    values: list[str] = []

    def collect(_matched: int, text: str) -> bool:
        values.append(text)
        return len(values) > MAX_CELLS

    find(groups, 0, budget, collect)
    return values


def _points(values: Iterable[str], kind: str) -> set[Decimal]:
    read = operands.number if kind == "Numeric" else operands.date
    return {point for point in (read(value) for value in values) if point is not None}


def _thresholds(thresholds: Iterable[Decimal]) -> list[Decimal]:
    """Each threshold, a point between each two neighbours, and one beyond each end."""
    points = sorted(thresholds)
    chosen: list[Decimal] = []
    for place, point in enumerate(points):
        chosen.append(point)
        chosen.append((point + points[place + 1]) / 2 if place + 1 < len(points) else point + 1)
    if points:
        chosen.append(points[0] - 1)
    return chosen


def _moments(tests: frozenset[Test]) -> list[str]:
    """Seconds since 1970, which number and date operators read alike when they are written with a decimal point."""
    points = {point for operator, values in tests for point in _points(values, kind_of(operator))}
    return [text if "." in text else f"{text}.0" for text in map(_number, _thresholds(points))]


def _number(point: Decimal) -> str:
    return format(point, "f")


def _date(point: Decimal) -> str:
    try:
        moment = datetime.fromtimestamp(float(point), UTC)
        if Decimal(str(moment.timestamp())) == point:
            return moment.isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        pass
    return format(point, "f")


def _addresses(tests: frozenset[Test]) -> list[str]:
    """One address for each elementary range that the CIDR ranges cut the two address families into. Text patterns have
    to be addresses or whole leading octets (`10.1.*`), which are ranges too; others raise Undecided."""
    ranges: list[operands.Network] = []
    found: list[str] = []
    for operator, values in tests:
        for value in values:
            item = operands.network(value) if operator == "IpAddress" else _as_range(value)
            if item is not None:
                ranges.append(item)
            if operator != "IpAddress" and patterns.is_literal(value):
                found.append(value)
    for make, width in ((ipaddress.IPv4Address, 32), (ipaddress.IPv6Address, 128)):
        cuts = {0}
        for item in ranges:
            if item.max_prefixlen == width:
                cuts.add(int(item.network_address))
                cuts.add(int(item.broadcast_address) + 1)
        found += [str(make(cut)) for cut in sorted(cuts) if cut < 1 << width]
    return found


def _as_range(pattern: str) -> operands.Network | None:
    """The addresses that a text pattern matches; None when it matches none. Raises Undecided when they are no range."""
    if patterns.is_literal(pattern):
        return operands.network(pattern)
    octets = pattern.split(".")
    if pattern != patterns.STAR and not (
        2 <= len(octets) <= 4 and octets[-1] == patterns.STAR and all(map(_is_octet, octets[:-1]))
    ):
        raise Undecided("an address is compared with text patterns that are no ranges")
    # A star alone matches every address, and so tells none apart.
    if pattern == patterns.STAR:
        return None
    whole = octets[:-1]
    return ipaddress.ip_network(f"{'.'.join([*whole, *['0'] * (4 - len(whole))])}/{8 * len(whole)}")


def _is_octet(text: str) -> bool:
    return text.isascii() and text.isdigit() and str(int(text)) == text and int(text) < 256


@lru_cache(maxsize=65_536)
def truth(operator: str, values: frozenset[str], value: str) -> bool:
    """Whether `value` satisfies the positive operator with these (encoded) values."""
    if operator in ("StringLike", "StringFolded", "ArnLike"):
        return any(patterns.matches(pattern, value) for pattern in values)
    if operator == "BinaryEquals":
        return value in values
    if operator == "IpAddress":
        address = operands.network(value)
        return address is not None and any(_within(address, operands.network(item)) for item in values)
    read = operands.number if operator.startswith("Numeric") else operands.date
    point = read(value)
    if point is None:
        return False
    relation = operator.removeprefix("Numeric").removeprefix("Date")
    return any(_related(relation, point, read(item)) for item in values)


def _within(address: operands.Network, item: operands.Network | None) -> bool:
    if item is None or item.version != address.version or address.num_addresses != 1:
        return False
    return item.network_address <= address.network_address <= item.broadcast_address


def _related(relation: str, point: Decimal, threshold: Decimal | None) -> bool:
    if threshold is None:
        return False
    return {
        "Equals": point == threshold,
        "LessThan": point < threshold,
        "LessThanEquals": point <= threshold,
        "GreaterThan": point > threshold,
        "GreaterThanEquals": point >= threshold,
    }[relation]
