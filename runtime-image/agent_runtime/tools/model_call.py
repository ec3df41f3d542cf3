"""model-call: asks the catalog's approved model, through the gateway and within the conversation's budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent_runtime.errors import GatewayError, ToolError
from agent_runtime.telemetry import trace_headers
from agent_runtime.tool import Tool
from agent_runtime.tools.surroundings import Surroundings

MAX_OUTPUT_TOKENS = 2048
_PARAMETERS = {
    "type": "object",
    "properties": {"prompt": {"type": "string", "description": "what to ask the model"}},
    "required": ["prompt"],
    "additionalProperties": False,
}


def tool(surroundings: Surroundings) -> Tool:
    """The tool for one task. The model is the one that the grant names."""
    declaration = surroundings.declaration
    models = [arn.partition("foundation-model/")[2] for grant in declaration.grants for arn in grant.resources]
    model = next((name for name in models if name and "*" not in name), "")
    executor = surroundings.executor

    def run(arguments: Mapping[str, Any]) -> str:
        prompt = arguments.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise ToolError("prompt is missing")
        if not model:
            raise ToolError("the tool's grant names no model")
        body = {
            "messages": [{"role": "user", "content": [{"text": prompt}]}],
            "inferenceConfig": {"maxTokens": MAX_OUTPUT_TOKENS},
        }
        with executor.model_call(model, len(json.dumps(body, ensure_ascii=False).encode()), MAX_OUTPUT_TOKENS) as call:
            try:
                answer = surroundings.client.converse(model, body, executor.deadline.remaining(), trace_headers())
            except GatewayError as error:
                if 400 <= error.status < 500:
                    call.refused()
                raise ToolError(f"the gateway refused the call: {error.code}") from None
            usage = answer.get("usage")
            if isinstance(usage, Mapping):
                call.used(usage.get("inputTokens"), usage.get("outputTokens"))
        try:
            return "".join(part.get("text", "") for part in answer["output"]["message"]["content"])
        except (KeyError, TypeError, AttributeError):
            raise ToolError("the model's answer has no text") from None

    return Tool(declaration.name, declaration.description or "Asks a model.", _PARAMETERS, run)
