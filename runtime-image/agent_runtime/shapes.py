"""The API shapes that a model may be served in: chat completions, messages, Converse. The agent itself speaks the first.

Which one serves a task's model is the control side's word (`model_api` of the assignment): the gateway translates nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.errors import GatewayError
from agent_runtime.gateway import GatewayClient

OPENAI, ANTHROPIC, CONVERSE = "openai", "anthropic", "bedrock-converse"
Messages = Sequence[Mapping[str, Any]]
# Bedrock refuses a blank text.
_NOTHING = "(nothing)"


@dataclass(frozen=True, slots=True)
class Shape:
    """request: model, messages and tools in OpenAI's shape, output tokens at most → body; answer: the answer's body in
    OpenAI's shape, raises GatewayError when it isn't one; send: makes the call on a client."""

    request: Callable[[str, Messages, Messages, int], dict[str, Any]]
    answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    send: Callable[[GatewayClient, str], Callable[..., dict[str, Any]]]


# OpenAI


def _chat(model: str, messages: Messages, tools: Messages, most: int) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": list(messages), "max_completion_tokens": most}
    return body | ({"tools": list(tools)} if tools else {})


# Anthropic


def _messages(model: str, messages: Messages, tools: Messages, most: int) -> dict[str, Any]:
    system = _system(messages)
    body: dict[str, Any] = {"model": model, "max_tokens": most, "messages": list(_turns(messages, _anthropic_part))}
    if system:
        body["system"] = system
    if tools:
        body["tools"] = [_renamed(tool, "input_schema") for tool in tools]
    return body


def _anthropic_part(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "text":
        return {"type": "text", "text": value["text"]}
    if kind == "call":
        return {"type": "tool_use", "id": value["id"], "name": value["name"], "input": value["input"]}
    return {"type": "tool_result", "tool_use_id": value["id"], "content": value["text"]}


def _from_anthropic(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    parts = answer.get("content")
    if not isinstance(parts, list):
        raise _no_message()
    texts = [part.get("text") for part in _mappings(parts) if part.get("type") == "text"]
    calls = [
        _call(part.get("id"), part.get("name"), part.get("input"))
        for part in _mappings(parts)
        if part.get("type") == "tool_use"
    ]
    used = answer.get("usage")
    # Cached input is told apart from the rest.
    given = _sum(used, "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return _answer(texts, calls, given, _sum(used, "output_tokens"))


# Bedrock


def _converse(_model: str, messages: Messages, tools: Messages, most: int) -> dict[str, Any]:
    system = _system(messages)
    body: dict[str, Any] = {
        "messages": list(_turns(messages, _converse_part)),
        "inferenceConfig": {"maxTokens": most},
    }
    if system:
        body["system"] = [{"text": system}]
    if tools:
        specs = [_renamed(tool, "inputSchema") for tool in tools]
        body["toolConfig"] = {
            "tools": [{"toolSpec": spec | {"inputSchema": {"json": spec["inputSchema"]}}} for spec in specs]
        }
    return body


def _converse_part(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "text":
        return {"text": value["text"]}
    if kind == "call":
        return {"toolUse": {"toolUseId": value["id"], "name": value["name"], "input": value["input"]}}
    text = value["text"] if value["text"].strip() else _NOTHING
    return {"toolResult": {"toolUseId": value["id"], "content": [{"text": text}]}}


def _from_converse(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    output = answer.get("output")
    message = output.get("message") if isinstance(output, Mapping) else None
    parts = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(parts, list):
        raise _no_message()
    texts = [part.get("text") for part in _mappings(parts)]
    uses = [part.get("toolUse") for part in _mappings(parts)]
    calls = [_call(use.get("toolUseId"), use.get("name"), use.get("input")) for use in _mappings(uses)]
    used = answer.get("usage")
    given = _sum(used, "inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    return _answer(texts, calls, given, _sum(used, "outputTokens"))


# What both others have in common


def _system(messages: Messages) -> str:
    return "\n\n".join(str(item["content"]) for item in messages if item["role"] == "system" and item["content"])


def _turns(messages: Messages, part: Callable[[str, Mapping[str, Any]], dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """User and assistant by turns: all results of one answer's calls are one message of the user."""
    turn: dict[str, Any] | None = None
    for item in messages:
        if item["role"] == "system":
            continue
        role = "assistant" if item["role"] == "assistant" else "user"
        if turn is None or turn["role"] != role:
            if turn is not None:
                yield turn
            turn = {"role": role, "content": []}
        turn["content"] += [part(kind, value) for kind, value in _parts(item)]
    if turn is not None:
        yield turn


def _parts(item: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    text = str(item.get("content") or "")
    if item["role"] == "tool":
        yield "result", {"id": item["tool_call_id"], "text": text}
        return
    # Neither API takes an empty text.
    if text.strip():
        yield "text", {"text": text}
    for call in item.get("tool_calls") or ():
        function = call["function"]
        yield "call", {"id": call["id"], "name": function["name"], "input": _object(function["arguments"])}


def _object(arguments: object) -> Mapping[str, Any]:
    """Arguments as an object, which they were when the model sent them."""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        value = None
    return value if isinstance(value, Mapping) else {}


def _renamed(tool: Mapping[str, Any], schema: str) -> dict[str, Any]:
    function = tool["function"]
    return {
        "name": function["name"],
        "description": function.get("description") or function["name"],
        schema: function["parameters"],
    }


def _mappings(items: Iterable[object]) -> list[Mapping[str, Any]]:
    return [item for item in items if isinstance(item, Mapping)]


def _call(call_id: object, name: object, arguments: object) -> dict[str, Any]:
    text = json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)
    return {"id": str(call_id), "type": "function", "function": {"name": str(name), "arguments": text}}


def _sum(used: object, *names: str) -> object:
    """Tokens over several fields; None, which leaves the worst case in place, when the first or any other is no count."""
    if not isinstance(used, Mapping) or names[0] not in used:
        return None
    counts = [used[name] for name in names if used.get(name) is not None]
    return sum(counts) if all(type(count) is int for count in counts) else None


def _answer(texts: list[Any], calls: list[dict[str, Any]], given: object, said: object) -> Mapping[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(text for text in texts if isinstance(text, str))}
    if calls:
        message["tool_calls"] = calls
    return {"choices": [{"message": message}], "usage": {"prompt_tokens": given, "completion_tokens": said}}


def _no_message() -> GatewayError:
    return GatewayError(200, "answer_invalid", "the model's answer has no message")


def _to_converse(client: GatewayClient, model: str) -> Callable[..., dict[str, Any]]:
    return lambda body, timeout, headers=None: client.converse(model, body, timeout, headers)


SHAPES: Mapping[str, Shape] = {
    OPENAI: Shape(_chat, lambda answer: answer, lambda client, _model: client.chat),
    ANTHROPIC: Shape(_messages, _from_anthropic, lambda client, _model: client.messages),
    CONVERSE: Shape(_converse, _from_converse, _to_converse),
}
