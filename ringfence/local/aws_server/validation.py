"""Checks a request against AWS's own request model as strictly as AWS does, where nothing behind it would.

boto3 checks types and required members only; here also unknown members, enumerations, patterns and lengths are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.model import Shape
from moto.core.parse import PROTOCOL_PARSERS
from werkzeug.datastructures import MultiDict

from ringfence.local.aws_server.wire import Call

# Java's regular expressions name Unicode classes in a way that Python's don't; the nearest Python class for each.
_UNICODE_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{M}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Nd}": r"\d",
    r"\p{Z}": r"\s",
    r"\p{Zs}": r"\s",
    r"\p{P}": r"!-/:-@\[-`{-~",
    r"\p{S}": r"$+<->^`|~",
    r"\p{Alnum}": r"A-Za-z0-9",
    r"\p{Alpha}": r"A-Za-z",
    r"\p{ASCII}": r"\x00-\x7f",
    r"\p{Graph}": r"\x21-\x7e",
    r"\p{Print}": r"\x20-\x7e",
    r"\p{Punct}": r"!-/:-@\[-`{-~",
}
# Patterns that Python reads differently from Java: an unescaped hyphen after a class, a flag in the middle.
_REPAIRED = {
    r"[\w-_]*": r"[\w\-_]*",
    r"^(?! )[\p{L}\p{N}\p{Z}-_]*(?<! )$": r"^(?! )[\p{L}\p{N}\p{Z}\-_]*(?<! )$",
    r"^(?![^:\\]*/action/|(?i).*<script>.*</script>.*)[^:\\]+$": r"^(?![^:\\]*/action/|(?i:.*<script>.*</script>.*))[^:\\]+$",
}
_UNPARSABLE = "the request can't be parsed by the operation's model"
_NUMBERS = {"integer": int, "long": int, "float": (int, float), "double": (int, float)}


def problems(call: Call) -> list[str]:
    """What is wrong with a request's parameters, one sentence each; empty when AWS's model accepts it."""
    shape = call.operation.input_shape
    if shape is None:
        return []
    if call.protocol in ("json", "rest-json") and not shape.serialization.get("payload"):
        return _json_problems(call, shape)
    params = _params(call)
    if params is None:
        return [_UNPARSABLE]
    found = list(_Checker(wire=False).structure(shape, params, ""))
    return [*_unknown_form_members(call), *found] if call.protocol in ("query", "ec2") else found


def _params(call: Call) -> dict[str, Any] | None:
    """The parsed parameters; None for what can't be parsed."""
    try:
        return call.params
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _json_problems(call: Call, shape: Shape) -> list[str]:
    """The body as it came, and for rest-json what path, query string and headers add to it."""
    try:
        body = json.loads(call.body or b"{}")
    except ValueError:
        return ["the body is not JSON"]
    if not isinstance(body, dict):
        return ["the body is not a JSON object"]
    checker = _Checker(wire=True)
    located = {n: m.serialization.get("name", n) for n, m in shape.members.items() if m.serialization.get("location")}
    if not located:
        return list(checker.structure(shape, body, ""))
    misplaced = [f"{key}: does not belong in the body" for key in sorted(body.keys() & set(located.values()))]
    params = _params(call)
    if params is None:
        return [*misplaced, *checker.structure(shape, body, "")] or [_UNPARSABLE]
    elsewhere = {wire: params[name] for name, wire in located.items() if name in params}
    return [*misplaced, *checker.structure(shape, body | elsewhere, "")]


def _unknown_form_members(call: Call) -> list[str]:
    """Form keys that parsing the request by its model never asks for."""
    seen: set[str] = set()

    class Watched(MultiDict):
        def get(self, key: str, default: Any = None, type: Any = None) -> Any:
            seen.add(key)
            return super().get(key, default)

    values = Watched(call.request.values.items(multi=True))
    PROTOCOL_PARSERS[call.protocol](call.operation).parse({"values": values})
    return [f"{key}: unknown member" for key in sorted(set(values) - seen - {"Action", "Version"})]


class _Checker:
    """Walks a value along its shape. wire: keys are the names on the wire (JSON), else the model's member names."""

    def __init__(self, wire: bool):
        self.wire = wire

    def check(self, shape: Shape, value: Any, path: str) -> Iterator[str]:
        kind = shape.type_name
        if kind == "structure":
            yield from self.structure(shape, value, path)
        elif kind == "list":
            yield from self.list(shape, value, path)
        elif kind == "map":
            yield from self.map(shape, value, path)
        elif kind == "string":
            yield from _check_string(shape, value, path)
        elif kind in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, _NUMBERS[kind]):
                yield f"{path}: a number ({kind}) is expected, not {value!r}"
                return
            yield from _check_size(shape, value, path, "")
        elif kind == "boolean" and not isinstance(value, bool):
            yield f"{path}: true or false is expected, not {value!r}"

    def structure(self, shape: Shape, value: Any, path: str) -> Iterator[str]:
        if getattr(shape, "is_document_type", False):
            return
        if not isinstance(value, dict):
            yield f"{path or 'request'}: a structure is expected, not {type(value).__name__}"
            return
        prefix = f"{path}." if path else ""
        keys = {name: m.serialization.get("name", name) if self.wire else name for name, m in shape.members.items()}
        members = {key: shape.members[name] for name, key in keys.items()}
        for key in sorted(value.keys() - members.keys()):
            yield f"{prefix}{key}: unknown member; known are {', '.join(sorted(keys))}"
        for name in shape.required_members:
            if value.get(keys[name]) is None:
                yield f"{prefix}{name}: required member is missing"
        given = [key for key in value if key in members and value[key] is not None]
        if getattr(shape, "is_tagged_union", False) and len(given) != 1:
            yield f"{path}: exactly one of {', '.join(sorted(keys))} is expected"
        for key in given:
            yield from self.check(members[key], value[key], f"{prefix}{key}")

    def list(self, shape: Shape, value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{path}: a list is expected, not {type(value).__name__}"
            return
        yield from _check_size(shape, len(value), path, "members")
        for index, item in enumerate(value):
            yield from self.check(shape.member, item, f"{path}[{index}]")

    def map(self, shape: Shape, value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path}: a map is expected, not {type(value).__name__}"
            return
        yield from _check_size(shape, len(value), path, "entries")
        for key, item in value.items():
            yield from self.check(shape.key, key, f"{path} key {key!r}")
            yield from self.check(shape.value, item, f"{path}.{key}")


def _check_string(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{path}: a string is expected, not {type(value).__name__}"
        return
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        yield f"{path}: {value!r} is not one of {', '.join(allowed)}"
        return
    yield from _check_size(shape, len(value), path, "characters")
    pattern = shape.metadata.get("pattern")
    if pattern and not compiled(pattern).fullmatch(value):
        yield f"{path}: {value[:80]!r} does not match {pattern}"


def _check_size(shape: Shape, size: float, path: str, unit: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    measure = f"{size} {unit}".rstrip()
    if least is not None and size < least:
        yield f"{path}: {measure} is less than {least}"
    if most is not None and size > most:
        yield f"{path}: {measure} is more than {most}"


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A model's pattern as Python's. Raises re.error for one that can't be expressed.

    AWS matches whole values. A dot also matches line ends here, so that multi-line text is never refused wrongly.
    """
    # Java writes everything beyond the first plane as pairs of surrogates, which Python's patterns don't know.
    pattern = _REPAIRED.get(pattern, pattern).replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    for java, python in _UNICODE_CLASSES.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern, re.DOTALL)
