"""`POST /v1/chat/completions` as OpenAI speaks it. Fields: developers.openai.com/api/reference, "Create chat completion".

Refused because the worst case would not hold or can't be known: server tools (`web_search_options`), audio and files,
`prediction` (its rejected tokens are charged beyond the limit), images by URL, service tiers, `store`.
"""

from __future__ import annotations

import re
from typing import Any

from ringfence.gateway.request import (
    DEFAULT_MAX_OUTPUT_TOKENS,
    ModelCall,
    Reader,
    choices,
    each,
    model_of,
    only,
    plain,
    record,
    text_or,
    variant,
)

API = "openai"
_INLINE_IMAGE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+", re.ASCII)


def _image(reader: Reader, path: str, value: Any) -> None:
    if not reader.fields(path, value, {"url": plain, "detail": only("auto", "low", "high")}):
        return
    url = value.get("url")
    if isinstance(url, str) and _INLINE_IMAGE.fullmatch(url):
        reader.image(url)
    else:
        reader.refuse(f"{path}.url", "must be a data: URL with a base64 image; addresses are not fetched")


_PARTS = {"text": {"text": plain}, "refusal": {"refusal": plain}, "image_url": {"image_url": _image}}
_CALLS = {"function": {"id": plain, "function": plain}, "custom": {"id": plain, "custom": plain}}
_TOOLS = {"function": {"function": plain}, "custom": {"custom": plain}}
_MESSAGE = {
    "role": only("developer", "system", "user", "assistant", "tool", "function"),
    "content": text_or(each(variant(_PARTS))),
    "tool_calls": each(variant(_CALLS)),
} | dict.fromkeys(("name", "tool_call_id", "refusal", "annotations"), plain)
_FIELDS = dict.fromkeys(
    ("model", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "presence_penalty",
     "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "tool_choice", "parallel_tool_calls",
     "response_format", "reasoning_effort", "verbosity", "user", "metadata", "safety_identifier", "prompt_cache_key"),
    plain,
) | {
    "messages": each(record(_MESSAGE)),
    "tools": each(variant(_TOOLS)),
    "stream": only(True, False),
    "stream_options": record({"include_usage": only(True, False)}),
    "store": only(False),
    "service_tier": only("default"),
    "modalities": only(["text"]),
}  # fmt: skip


def read(body: dict[str, Any]) -> ModelCall:
    """The call that a body asks for. Raises ApiError.

    The forwarded body always has a limit, the standard service tier (a project's default may be dearer), and asks a
    stream for its usage.
    """
    reader = Reader()
    reader.fields("", body, _FIELDS)
    model = model_of(body)
    body = {key: value for key, value in body.items() if value is not None}
    if "messages" not in body:
        reader.refuse("messages", "is missing")
    named = [key for key in ("max_completion_tokens", "max_tokens") if key in body]
    if len(named) == 2:
        reader.refuse("max_tokens", "name one limit: max_completion_tokens or max_tokens")
    limit = reader.count(named[0], body[named[0]]) if named else DEFAULT_MAX_OUTPUT_TOKENS
    answers = choices(reader, "n", body.get("n", 1))
    reader.check()
    streaming = body.get("stream", False)
    asked = bool(body.get("stream_options", {}).get("include_usage"))
    forwarded = body | {"service_tier": "default"}
    if not named:
        forwarded["max_completion_tokens"] = limit
    if streaming:
        forwarded["stream_options"] = {"include_usage": True}
    else:
        forwarded.pop("stream_options", None)
    tokens = reader.input_tokens(body)
    # Each answer is charged its output; some compatible servers charge the input for each as well.
    return ModelCall(API, model, forwarded, streaming, tokens * answers, limit * answers, hide_usage=not asked)
