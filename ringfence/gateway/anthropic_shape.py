"""`POST /v1/messages` as Anthropic speaks it, and the same body as Bedrock's InvokeModel takes it.

Fields: platform.claude.com/docs/en/api/messages. Refused because the worst case would not hold or can't be known: server
tools and containers, documents and images by URL or file id, `inference_geo`, `speed`, service tiers, beta features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ringfence.gateway.request import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    Check,
    ModelCall,
    Reader,
    cache_control,
    each,
    model_of,
    only,
    plain,
    record,
    text_or,
    variant,
)

API = "anthropic"
_BASE64 = re.compile(r"[A-Za-z0-9+/=]+", re.ASCII)


def _source(reader: Reader, path: str, value: Any) -> None:
    variant({"base64": {"media_type": plain, "data": plain}})(reader, path, value)
    data = value.get("data") if isinstance(value, dict) else None
    if isinstance(data, str) and _BASE64.fullmatch(data):
        reader.image(data)
    else:
        reader.refuse(f"{path}.data", "must be the image itself, base64")


def _blocks(reader: Reader, path: str, value: Any) -> None:
    text_or(each(variant(_BLOCKS)))(reader, path, value)


_BLOCKS: dict[str, Mapping[str, Check]] = {
    "text": {"text": plain, "cache_control": cache_control},
    "image": {"source": _source, "cache_control": cache_control},
    "tool_use": {"id": plain, "name": plain, "input": plain, "cache_control": cache_control},
    "tool_result": {"tool_use_id": plain, "content": _blocks, "is_error": plain, "cache_control": cache_control},
    "thinking": {"thinking": plain, "signature": plain},
    "redacted_thinking": {"data": plain},
}
_TOOL = {
    "custom": {
        "name": plain, "description": plain, "input_schema": plain, "strict": plain, "cache_control": cache_control,
    }
}  # fmt: skip
# The budget of "enabled" is part of max_tokens.
_THINKING = {"enabled": {"budget_tokens": plain}, "adaptive": {"display": plain}, "disabled": {}}
_FIELDS: dict[str, Check] = dict.fromkeys(
    ("max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "tool_choice", "metadata"), plain
) | {
    "messages": each(record({"role": only("user", "assistant"), "content": _blocks})),
    "system": text_or(each(variant({"text": _BLOCKS["text"]}))),
    "tools": each(variant(_TOOL, default="custom")),
    "thinking": variant(_THINKING),
    "output_config": record({"effort": plain, "format": plain}),
}
_DIRECT: dict[str, Check] = _FIELDS | {
    "model": plain, "stream": only(True, False), "service_tier": only("standard_only"),
}  # fmt: skip


def _limited(reader: Reader, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The body without nulls and with a limit."""
    body = {key: value for key, value in body.items() if value is not None}
    if "messages" not in body:
        reader.refuse("messages", "is missing")
    limit = reader.count("max_tokens", body.get("max_tokens", DEFAULT_MAX_OUTPUT_TOKENS))
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        budget = reader.count("thinking.budget_tokens", thinking.get("budget_tokens"))
        if budget >= limit:
            reader.refuse("thinking.budget_tokens", "must be below max_tokens")
    return body | {"max_tokens": limit}, limit


def read(body: dict[str, Any]) -> ModelCall:
    """The call that a body asks for, with a limit and the standard service tier. Raises ApiError."""
    reader = Reader()
    reader.fields("", body, _DIRECT)
    model = model_of(body)
    limited, limit = _limited(reader, body)
    reader.check()
    forwarded = limited | {"service_tier": "standard_only"}
    streaming = limited.get("stream", False)
    return ModelCall(API, model, forwarded, streaming, reader.input_tokens(limited), limit, reader.cache_ttl)


def read_for_bedrock(model: str, body: dict[str, Any], streaming: bool) -> ModelCall:
    """The same for InvokeModel (docs.aws.amazon.com/bedrock, "Anthropic Claude Messages API"). Raises ApiError."""
    reader = Reader()
    reader.fields("", body, _FIELDS | {"anthropic_version": only("bedrock-2023-05-31")})
    limited, limit = _limited(reader, body)
    reader.check()
    forwarded = limited | {"anthropic_version": "bedrock-2023-05-31"}
    return ModelCall(
        "bedrock-invoke", model, forwarded, streaming, reader.input_tokens(limited), limit, reader.cache_ttl
    )
