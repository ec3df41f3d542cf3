"""Reads what a call used out of the provider's response, streaming or not, while the bytes pass through.

`None` always means: not known, so the whole reservation is spent. A stream's usage counts only when the stream came to
its proper end.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from botocore.eventstream import EventStreamBuffer, ParserError

from ringfence.gateway.prices import Tokens
from ringfence.gateway.request import ModelCall

# One event of a stream: a tool call's arguments come in pieces, so real ones are far smaller.
MAX_EVENT_BYTES = 4 * 1024 * 1024
_MOST = 10**12


class StreamError(Exception):
    """The provider's stream is not in its own format."""


def _count(usage: Mapping[str, Any], key: str) -> int:
    """A count; missing and null are zero. Raises ValueError for anything that is none."""
    value = usage.get(key)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(key)
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _openai(usage: Mapping[str, Any]) -> Tokens:
    details = _mapping(usage.get("prompt_tokens_details"))
    return Tokens(
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        cache_read=_count(details, "cached_tokens"),
        cache_write=_count(details, "cache_write_tokens"),
    )


def _anthropic(usage: Mapping[str, Any]) -> Tokens:
    # input_tokens leaves out what was read from or written to the cache.
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    hour = _count(_mapping(usage.get("cache_creation")), "ephemeral_1h_input_tokens")
    return Tokens(_count(usage, "input_tokens") + read + written, _count(usage, "output_tokens"), read, written, hour)


def _converse(usage: Mapping[str, Any]) -> Tokens:
    # inputTokens leaves out what was read from or written to the cache
    # (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html).
    read, written = _count(usage, "cacheReadInputTokens"), _count(usage, "cacheWriteInputTokens")
    details = usage.get("cacheDetails")
    hour = sum(
        _count(_mapping(entry), "inputTokens")
        for entry in (details if isinstance(details, list) else [])
        if _mapping(entry).get("ttl") == "1h"
    )
    return Tokens(_count(usage, "inputTokens") + read + written, _count(usage, "outputTokens"), read, written, hour)


# API → the keys that usage must have, and how it is read.
_READERS = {
    "openai": (("prompt_tokens", "completion_tokens"), _openai),
    "anthropic": (("input_tokens", "output_tokens"), _anthropic),
    "bedrock-invoke": (("input_tokens", "output_tokens"), _anthropic),
    "bedrock-converse": (("inputTokens", "outputTokens"), _converse),
}


def tokens(api: str, usage: Any) -> Tokens | None:
    """A provider's `usage` object as Tokens; None when it is missing, incomplete or not made of counts."""
    needed, read = _READERS[api]
    if not isinstance(usage, dict) or any(type(usage.get(key)) is not int for key in needed):
        return None
    try:
        return read(usage)
    except ValueError:
        return None


def of_response(api: str, content: bytes) -> Tokens | None:
    """The usage of a response that is not a stream."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return tokens(api, _mapping(body).get("usage"))


class StreamReader(Protocol):
    """Follows one stream. feed: what may be passed on of what came; finish: what is left at the end, then `used`."""

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes and returns those to pass on now. Raises StreamError."""

    def used(self) -> Tokens | None:
        """The usage, once the stream has come to its proper end; None before, or when it said nothing."""


class _ServerSentEvents:
    """Splits a stream into whole events (html.spec.whatwg.org, "Server-sent events"); passes on whole ones only."""

    def __init__(self, call: ModelCall):
        self._call = call
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """See `StreamReader`."""
        self._rest += data
        passed = [block for block in self._blocks() if self._event(block)]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise StreamError("an event is too large")
        return b"".join(passed)

    def _blocks(self) -> Iterator[bytes]:
        while True:
            ends = [(at + len(end)) for end in (b"\n\n", b"\r\n\r\n", b"\r\r") if (at := self._rest.find(end)) >= 0]
            if not ends:
                return
            cut = min(ends)
            block, self._rest = self._rest[:cut], self._rest[cut:]
            yield block

    def _event(self, block: bytes) -> bool:
        """Reads an event; whether it is passed on."""
        lines = [line.removeprefix(b"data:").strip() for line in block.splitlines() if line.startswith(b"data:")]
        data = b"\n".join(lines)
        if data == b"[DONE]":
            self.ended()
            return True
        try:
            value = json.loads(data) if data else {}
        except (ValueError, RecursionError):
            raise StreamError("an event is not JSON") from None
        return self.event(_mapping(value))

    def event(self, value: Mapping[str, Any]) -> bool:
        """Reads one event's data; whether it is passed on."""
        raise NotImplementedError

    def ended(self) -> None:
        """The stream said that it is complete."""


class OpenAIStream(_ServerSentEvents):
    """Chat completion chunks; the last before ``[DONE]`` holds the usage and no choice."""

    def __init__(self, call: ModelCall):
        super().__init__(call)
        self._tokens: Tokens | None = None
        self._done = False

    def event(self, value: Mapping[str, Any]) -> bool:
        """Leaves the usage out where the sandbox didn't ask for it: some clients expect a choice in each chunk."""
        if value.get("usage") is not None:
            self._tokens = tokens("openai", value["usage"])
        return not (self._call.hide_usage and value.get("choices") == [] and "usage" in value)

    def ended(self) -> None:
        """See `_ServerSentEvents`."""
        self._done = True

    def used(self) -> Tokens | None:
        """See `StreamReader`."""
        return self._tokens if self._done else None


class _AnthropicUsage:
    """Anthropic's events: input in ``message_start``, the final output in ``message_delta``, then ``message_stop``."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}
        self._final = self._stopped = False

    def event(self, value: Mapping[str, Any]) -> None:
        """Reads one event."""
        kind = value.get("type")
        if kind == "message_start":
            self._usage.update(_mapping(_mapping(value.get("message")).get("usage")))
        elif kind == "message_delta" and _mapping(value.get("usage")):
            counts = {key: count for key, count in value["usage"].items() if count is not None}
            self._usage.update(counts)
            self._final = "output_tokens" in counts
        elif kind == "message_stop":
            self._stopped = True

    def used(self) -> Tokens | None:
        """See `StreamReader`."""
        return tokens("anthropic", self._usage) if self._final and self._stopped else None


class AnthropicStream(_ServerSentEvents):
    """Events of the Messages API."""

    def __init__(self, call: ModelCall):
        super().__init__(call)
        self._usage = _AnthropicUsage()

    def event(self, value: Mapping[str, Any]) -> bool:
        """See `_ServerSentEvents`."""
        self._usage.event(value)
        return True

    def used(self) -> Tokens | None:
        """See `StreamReader`."""
        return self._usage.used()


class BedrockStream:
    """AWS event stream messages; their checksums are verified before a byte is passed on."""

    def __init__(self, call: ModelCall):
        self._invoke = call.api == "bedrock-invoke"
        self._buffer = EventStreamBuffer()
        self._held = bytearray()
        self._anthropic = _AnthropicUsage()
        self._tokens: Tokens | None = None
        self._stopped = False

    def feed(self, data: bytes) -> bytes:
        """See `StreamReader`."""
        self._held += data
        self._buffer.add_data(data)
        whole = 0
        try:
            for message in self._buffer:
                whole += message.prelude.total_length
                self._message(message.headers, message.payload)
        except (ParserError, ValueError, RecursionError, KeyError) as error:
            raise StreamError(f"not an AWS event stream: {type(error).__name__}") from None
        if len(self._held) - whole > MAX_EVENT_BYTES:
            raise StreamError("an event is too large")
        passed = bytes(self._held[:whole])
        del self._held[:whole]
        return passed

    def _message(self, headers: Mapping[str, Any], payload: bytes) -> None:
        if headers.get(":message-type") != "event":
            return
        value = _mapping(json.loads(payload)) if payload else {}
        kind = headers.get(":event-type")
        if self._invoke and kind == "chunk":
            self._anthropic.event(_mapping(json.loads(_decoded(value.get("bytes")))))
        elif kind == "messageStop":
            self._stopped = True
        elif kind == "metadata":
            self._tokens = tokens("bedrock-converse", value.get("usage"))

    def used(self) -> Tokens | None:
        """See `StreamReader`."""
        if self._invoke:
            return self._anthropic.used()
        return self._tokens if self._stopped else None


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error):
        raise StreamError("a chunk is not base64") from None


def stream_reader(call: ModelCall) -> StreamReader:
    """The reader of a call's stream."""
    if call.api == "openai":
        return OpenAIStream(call)
    return AnthropicStream(call) if call.api == "anthropic" else BedrockStream(call)
