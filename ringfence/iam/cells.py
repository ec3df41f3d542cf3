"""One value per cell of a condition key, and whether a value satisfies an operator."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache

from ringfence.iam import operands, patterns
from ringfence.iam.automaton import OTHERS, find
from ringfence.iam.budget import Budget, Undecided

# An operator (positive base) with its values; what a key's cells are made from.
Test = tuple[str, frozenset[str]]
MAX_CELLS = 2_048
_FRESH = "other"
_cache: dict[tuple[frozenset[Test], bool], tuple[str, ...]] = {}


def candidates(tests: frozenset[Test], boolean: bool, budget: Budget) -> tuple[str, ...]:
    """Values that between them show every combination of truths that `tests` can have on a present key.

    boolean: the key is known to be true or false. Raises Undecided beyond MAX_CELLS cells.
    """
    known = _cache.get((tests, boolean))
    if known is None:
        known = tuple(dict.fromkeys(_candidates(tests, boolean, budget)))
        if len(known) > MAX_CELLS:
            raise Undecided(f"a condition key has over {MAX_CELLS:,} cells")
        if len(_cache) > 4_096:
            _cache.clear()
        _cache[(tests, boolean)] = known
    return known


def forget() -> None:
    """Forget the cells worked out so far."""
    _cache.clear()


def _candidates(tests: frozenset[Test], boolean: bool, budget: Budget) -> Iterable[str]:
    kinds = {_kind(operator) for operator, _ in tests}
    if boolean or "Bool" in kinds:
        return ("true", "false")
    text = [(operator, values) for operator, values in tests if _kind(operator) == "text"]
    if "IpAddress" in kinds and all(patterns.is_literal(value) for _, values in text for value in values):
        return _addresses(tests)
    if len(kinds) > 1:
        raise Undecided(f"one condition key is compared as {' and as '.join(sorted(kinds))}")
    if text:
        return _texts(text, budget)
    if not kinds:
        return (_FRESH,)
    values = {value for _, listed in tests for value in listed}
    return _thresholds(values, kinds.pop())


def _kind(operator: str) -> str:
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


def _thresholds(values: set[str], kind: str) -> list[str]:
    """Each threshold, a point between each two neighbours, and one beyond each end."""
    read = operands.number if kind == "Numeric" else operands.date
    points = sorted({point for point in (read(value) for value in values) if point is not None})
    chosen: list[Decimal] = []
    for place, point in enumerate(points):
        chosen.append(point)
        chosen.append((point + points[place + 1]) / 2 if place + 1 < len(points) else point + 1)
    if points:
        chosen.append(points[0] - 1)
    return [_number(point) if kind == "Numeric" else _date(point) for point in chosen]


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
    """One address for each elementary range that the CIDR ranges cut the two address families into."""
    ranges = [operands.network(value) for operator, values in tests if operator == "IpAddress" for value in values]
    found: list[str] = []
    for make, width in ((ipaddress.IPv4Address, 32), (ipaddress.IPv6Address, 128)):
        cuts = {0}
        for item in ranges:
            if item is not None and item.max_prefixlen == width:
                cuts.add(int(item.network_address))
                cuts.add(int(item.broadcast_address) + 1)
        found += [str(make(cut)) for cut in sorted(cuts) if cut < 1 << width]
    for operator, values in tests:
        if operator != "IpAddress":
            found += [value for value in values if patterns.is_literal(value) and operands.network(value) is not None]
    return found


@lru_cache(maxsize=65_536)
def truth(operator: str, values: frozenset[str], value: str) -> bool:
    """Whether `value` satisfies the positive operator with these (encoded) values."""
    if operator in ("StringLike", "StringFolded", "ArnLike"):
        return any(patterns.matches(pattern, value) for pattern in values)
    if operator == "Bool":
        return value.lower() in values
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
