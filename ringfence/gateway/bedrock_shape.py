"""Bedrock's runtime API: Converse and InvokeModel, each streaming and not.

Fields: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. Refused because the worst case would
not hold or can't be known: `additionalModelRequestFields` (may undo the limit), guardrails, prompts by ARN, documents,
video and S3 locations, latency-optimised and other service tiers. InvokeModel's body is each model's own; Anthropic's is
read here, every other model has Converse.
"""

from __future__ import annotations

import re
from typing import Any

from ringfence.gateway import anthropic_shape
from ringfence.gateway.errors import ApiError
from ringfence.gateway.request import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    Check,
    ModelCall,
    Reader,
    cache_control,
    each,
    only,
    plain,
    record,
)

# Model ids and cross-region inference profiles. ARNs are refused: prices are known by id.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,200}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/=]+", re.ASCII)


def _image_source(reader: Reader, path: str, value: Any) -> None:
    data = value.get("bytes") if reader.fields(path, value, {"bytes": plain}) else None
    if isinstance(data, str) and _BASE64.fullmatch(data):
        reader.image(data)
    else:
        reader.refuse(path, "must hold the image's own bytes, base64")


_IMAGE = record({"format": plain, "source": _image_source})
_TOOL_RESULT = record({
    "toolUseId": plain, "status": plain,
    "content": each(record({"text": plain, "json": plain, "image": _IMAGE})),
})  # fmt: skip
_CONTENT = record({
    "text": plain, "image": _IMAGE, "toolUse": plain, "toolResult": _TOOL_RESULT, "reasoningContent": plain,
    "cachePoint": cache_control,
})  # fmt: skip
_CONVERSE: dict[str, Check] = {
    "messages": each(record({"role": only("user", "assistant"), "content": each(_CONTENT)})),
    "system": each(record({"text": plain, "cachePoint": cache_control})),
    "inferenceConfig": record(dict.fromkeys(("maxTokens", "temperature", "topP", "stopSequences"), plain)),
    "toolConfig": record(
        {"tools": each(record({"toolSpec": plain, "cachePoint": cache_control})), "toolChoice": plain}
    ),
    "additionalModelResponseFieldPaths": plain,
    "requestMetadata": plain,
    "performanceConfig": record({"latency": only("standard")}),
    "serviceTier": record({"type": only("default")}),
}


def _converse(model: str, body: dict[str, Any], streaming: bool) -> ModelCall:
    reader = Reader()
    reader.fields("", body, _CONVERSE)
    body = {key: value for key, value in body.items() if value is not None}
    if "messages" not in body:
        reader.refuse("messages", "is missing")
    config = body.get("inferenceConfig", {})
    named = config.get("maxTokens") if isinstance(config, dict) else None
    limit = DEFAULT_MAX_OUTPUT_TOKENS if named is None else reader.count("inferenceConfig.maxTokens", named)
    reader.check()
    forwarded = body | {"inferenceConfig": config | {"maxTokens": limit}}
    return ModelCall(
        "bedrock-converse", model, forwarded, streaming, reader.input_tokens(body), limit, reader.cache_ttl
    )


def read(model: str, action: str, body: dict[str, Any]) -> ModelCall:
    """The call that a path and a body ask for. action: the path's last part. Raises ApiError."""
    if not _MODEL.fullmatch(model):
        raise ApiError("model_unknown", "name a model or inference profile by its id", model[:100])
    if action.startswith("converse"):
        return _converse(model, body, action.endswith("-stream"))
    if "anthropic." not in model:
        raise ApiError("invalid_request", "InvokeModel is understood for Anthropic's models; use Converse for this one")
    return anthropic_shape.read_for_bedrock(model, body, action.endswith("-stream"))
