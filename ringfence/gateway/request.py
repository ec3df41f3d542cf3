"""What every API shape's request becomes: checked field by field, capped, its worst case known, and written anew.

A field that isn't listed is refused: new fields of these APIs mostly cost something (server tools, service tiers, files,
audio). What is forwarded is written from what was read, never the sandbox's own bytes, so that no two readers can
understand it differently (duplicate keys, odd encodings).
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

from ringfence.gateway.errors import ApiError

MAX_BODY_BYTES = 10 * 1024 * 1024
# Forwarded when the request names no limit of its own.
DEFAULT_MAX_OUTPUT_TOKENS = 4096
# Above every model's limit; keeps amounts within SQLite's integers.
_MOST_TOKENS = 10_000_000
_MOST_CHOICES = 128
# What a provider adds around the request: role markers and instructions for tool use, at most 804 tokens so far
# (platform.claude.com/docs/en/agents-and-tools/tool-use/overview, "Pricing").
_OVERHEAD_TOKENS = 2048
# Dearest image of any listed model: gpt-4o-mini at high detail, 2833 + 8 tiles x 5667
# (developers.openai.com/api/docs/guides/images-vision, "Calculating costs").
IMAGE_TOKENS = 50_000
_SHOWN_PROBLEMS = 5
_PIECE = 65_536


@dataclass(frozen=True)
class ModelCall:
    """A request that may be forwarded. api: ``openai``, ``anthropic``, ``bedrock-converse`` or ``bedrock-invoke``;
    body: JSON to forward; input_tokens, output_tokens: the most that it can use; cache_ttl: see `Price.at_most`;
    hide_usage: the sandbox didn't ask for the stream's usage, which the gateway needs."""

    api: str
    model: str
    body: Mapping[str, Any] = field(repr=False)
    streaming: bool
    input_tokens: int
    output_tokens: int
    cache_ttl: str = ""
    hide_usage: bool = False

    @cached_property
    def content(self) -> bytes:
        """The body's bytes."""
        return json.dumps(self.body, separators=(",", ":"), allow_nan=False).encode()

    @cached_property
    def digest(self) -> bytes:
        """The same for identical calls."""
        return hashlib.sha256(b"\0".join((self.api.encode(), self.model.encode(), self.content))).digest()

    def prepared(self) -> ModelCall:
        """Itself, with what takes time computed."""
        hash(self.digest)
        return self


def parse_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises ApiError for anything else, NaN and absurd nesting included."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError("invalid_request", f"the body is not JSON: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise ApiError("invalid_request", "the body must be a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


Check = Callable[["Reader", str, Any], None]


def plain(_reader: Reader, _path: str, _value: Any) -> None:
    """Any JSON: costs nothing but its own length."""


def only(*values: Any) -> Check:
    """One of these values."""

    def check(reader: Reader, path: str, value: Any) -> None:
        if not any(value == known and type(value) is type(known) for known in values):
            shown = ", ".join(json.dumps(known) for known in values)
            reader.refuse(path, f"must be {shown}: anything else may cost what the budget can't foresee")

    return check


def record(allowed: Mapping[str, Check]) -> Check:
    """An object with these fields at most."""

    def check(reader: Reader, path: str, value: Any) -> None:
        reader.fields(path, value, allowed)

    return check


def each(item: Check) -> Check:
    """A list of such items."""

    def check(reader: Reader, path: str, value: Any) -> None:
        if not isinstance(value, list):
            reader.refuse(path, "must be a list")
            return
        for index, part in enumerate(value):
            item(reader, f"{path}[{index}]", part)

    return check


def variant(kinds: Mapping[str, Mapping[str, Check]], default: str | None = None) -> Check:
    """An object whose ``type`` is one of `kinds`, with the fields of that kind at most."""

    def check(reader: Reader, path: str, value: Any) -> None:
        kind = value.get("type", default) if isinstance(value, dict) else None
        if isinstance(kind, str) and kind in kinds:
            reader.fields(path, value, {"type": plain} | kinds[kind])
        else:
            reader.refuse(path, f"must be an object of type {', '.join(kinds)}")

    return check


def text_or(check: Check) -> Check:
    """A text, or what passes `check`."""

    def either(reader: Reader, path: str, value: Any) -> None:
        if not isinstance(value, str):
            check(reader, path, value)

    return either


class Reader:
    """Checks a body's fields and gathers what is wrong, and what the worst case is made of."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.images = 0
        self.image_characters = 0
        self.cache_ttl = ""

    def refuse(self, path: str, why: str) -> None:
        """Notes a problem; paths are cut, since the sandbox wrote them."""
        self.problems.append(f"{path[:100]}: {why}")

    def fields(self, path: str, value: Any, allowed: Mapping[str, Check]) -> bool:
        """Whether `value` is an object; each of its fields must be allowed and pass its check."""
        if not isinstance(value, dict):
            self.refuse(path, "must be an object")
            return False
        for key, part in value.items():
            place = f"{path}.{key}" if path else key
            if key not in allowed:
                self.refuse(place, "is not accepted by this gateway; remove it")
            elif part is not None:
                allowed[key](self, place, part)
        return True

    def count(self, path: str, value: Any, most: int = _MOST_TOKENS) -> int:
        """A whole number from 1 on; 1 when it isn't one."""
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(path, f"must be a whole number from 1 to {most}")
            return 1
        return value

    def image(self, data: str) -> None:
        """Counts an image that the request brings along, base64."""
        self.images += 1
        self.image_characters += len(data)

    def caches(self, ttl: str) -> None:
        """Notes that input may be written to a cache."""
        self.cache_ttl = max(self.cache_ttl, ttl, key=("", "5m", "1h").index)

    def check(self) -> None:
        """Raises ApiError with what was gathered."""
        if self.problems:
            shown = "; ".join(self.problems[:_SHOWN_PROBLEMS])
            more = len(self.problems) - _SHOWN_PROBLEMS
            raise ApiError("invalid_request", shown + (f"; and {more} more" if more > 0 else ""))

    def input_tokens(self, body: Mapping[str, Any]) -> int:
        """The most tokens that `body` can be: one for each byte of its text, since no tokenizer makes more of them; text
        is measured as it is and in its compatibility form, which some tokenizers make of it first."""
        text = json.dumps(body, ensure_ascii=False)
        size = len(text)
        if not text.isascii():
            # In pieces: the compatibility form may be eleven times as long (U+FDFA).
            pieces = [text[start : start + _PIECE] for start in range(0, size, _PIECE)]
            size = sum(max(_size(piece), _size(unicodedata.normalize("NFKC", piece))) for piece in pieces)
        return size - self.image_characters + self.images * IMAGE_TOKENS + _OVERHEAD_TOKENS


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def cache_control(reader: Reader, path: str, value: Any) -> None:
    """Anthropic's ``cache_control`` and Bedrock's ``cachePoint``: a write costs more than plain input."""
    variant({kind: {"ttl": only("5m", "1h")} for kind in ("ephemeral", "default")})(reader, path, value)
    if isinstance(value, dict):
        reader.caches("1h" if value.get("ttl") == "1h" else "5m")


def model_of(body: Mapping[str, Any]) -> str:
    """The model that a body names. Raises ApiError when it names none."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError("invalid_request", "model: must name the model")
    return model


def choices(reader: Reader, path: str, value: Any) -> int:
    """How many answers are asked for; each costs its own output."""
    return reader.count(path, value, _MOST_CHOICES)
