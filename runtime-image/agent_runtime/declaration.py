"""A tool as the catalog declares it, in the JSON that the control side hands to a sandbox.

Placeholders (``${account}``) are filled in by the control side. Whatever is missing takes the strictest value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The catalog's own bounds (ringfence/catalog/model.py), for a declaration that leaves them out.
MAX_TIMEOUT_SECONDS = 300
DEFAULT_CALLS_PER_MINUTE = 60
# Longest string in an argument that declares no bound of its own, in characters.
DEFAULT_MAX_LENGTH = 10_000
# A pattern is matched against text of the model; without a bound on its length a bad pattern could cost seconds.
MAX_PATTERN_LENGTH = 500


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """What one argument may be. pattern: matches the whole value; enum: the values themselves; max_length: characters
    of each string; content: free text (a note's body), which says nothing about where it goes or what it names; listed_by:
    the value of the tool's argument `action` whose answers name this argument's values."""

    pattern: re.Pattern[str] | None = None
    enum: tuple[str, ...] | None = None
    max_length: int = DEFAULT_MAX_LENGTH
    content: bool = False
    listed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """One Allow: IAM actions, resource ARNs, conditions (operator → key → values)."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A tool's name, limits and the most that it can ever do. timeout_seconds: of one call; trusted_output: False
    taints the conversation; port: its own listener of the egress proxy, None without one."""

    name: str
    description: str = ""
    trusted_output: bool = False
    timeout_seconds: int = MAX_TIMEOUT_SECONDS
    calls_per_minute: int = DEFAULT_CALLS_PER_MINUTE
    grants: tuple[Grant, ...] = ()
    domains: tuple[str, ...] = ()
    arguments: Mapping[str, ArgumentRule] = field(default_factory=dict)
    port: int | None = None

    @classmethod
    def parse(cls, data: object, where: str = "tools") -> Declaration:
        """The declaration in the control side's JSON. Raises ValueError naming the key, the value and the remedy."""
        if not isinstance(data, Mapping) or not isinstance(data.get("name"), str) or not data["name"]:
            raise ValueError(f"{where}: a tool must be an object with a name | send the catalog's own declaration")
        where = f"{where}.{data['name']}"
        limits = _mapping(data.get("limits"), f"{where}.limits")
        port = data.get("port")
        if port is not None and not (isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536):
            raise ValueError(f"{where}.port: {port!r} is no port | send 1 to 65535 or null")
        return cls(
            name=data["name"],
            description=str(data.get("description", "")),
            trusted_output=data.get("output") == "trusted",
            timeout_seconds=_bounded(limits, "timeoutSeconds", MAX_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS, where),
            calls_per_minute=_bounded(limits, "callsPerMinute", DEFAULT_CALLS_PER_MINUTE, 10_000, where),
            grants=tuple(_grant(item, f"{where}.grants") for item in data.get("grants") or ()),
            domains=_strings(_mapping(data.get("egress"), f"{where}.egress").get("domains"), f"{where}.egress.domains"),
            arguments={
                str(name): _rule(rule, f"{where}.arguments.{name}")
                for name, rule in _mapping(data.get("arguments"), f"{where}.arguments").items()
            },
            port=port,
        )


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {type(value).__name__} is no object | send an object")
    return value


def _strings(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{where}: must be a list of strings")
    return tuple(value)


def _bounded(limits: Mapping[str, Any], key: str, default: int, most: int, where: str) -> int:
    value = limits.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{where}.limits.{key}: {value!r} | send a whole number from 1 to {most}")
    return value


def _grant(data: object, where: str) -> Grant:
    item = _mapping(data, where)
    conditions = {
        operator: {key: _strings(values, f"{where}.conditions.{operator}.{key}") for key, values in keys.items()}
        for operator, keys in _mapping(item.get("conditions"), f"{where}.conditions").items()
    }
    return Grant(
        _strings(item.get("actions"), f"{where}.actions"),
        _strings(item.get("resources"), f"{where}.resources"),
        conditions,
    )


def _rule(data: object, where: str) -> ArgumentRule:
    item = _mapping(data, where)
    if unknown := sorted(set(item) - {"pattern", "enum", "maxLength", "content", "listedBy"}):
        # A rule that isn't understood must not be taken for no rule.
        raise ValueError(f"{where}: unknown key {unknown[0]!r} | use pattern, enum, maxLength, content, listedBy")
    pattern = item.get("pattern")
    if pattern is not None:
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_LENGTH:
            raise ValueError(f"{where}.pattern: must be a string of at most {MAX_PATTERN_LENGTH} characters")
        try:
            pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{where}.pattern: {error} | write a regular expression") from None
    enum, listed_by = item.get("enum"), item.get("listedBy")
    if listed_by is not None and not (isinstance(listed_by, str) and listed_by):
        raise ValueError(f"{where}.listedBy: must be a value of the tool's argument `action`")
    return ArgumentRule(
        pattern,
        None if enum is None else _strings(enum, f"{where}.enum"),
        _bounded({"maxLength": item.get("maxLength") or DEFAULT_MAX_LENGTH}, "maxLength", 1, 1 << 20, where),
        item.get("content") is True,
        listed_by,
    )
