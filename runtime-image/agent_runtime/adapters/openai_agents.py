"""OpenAI Agents SDK: guarded function tools and a budgeted model."""

from __future__ import annotations

import contextvars
import dataclasses
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from agents import FunctionTool
from agents.models.interface import Model

from agent_runtime.executor import InstrumentedAgentExecutor
from agent_runtime.model import MAX_OUTPUT_TOKENS
from agent_runtime.tool import Tool

_context: contextvars.ContextVar[Any] = contextvars.ContextVar("tool_context")
# Fields by which a copy of a tool raises what its function raises, instead of telling the model that all is well.
_RAISING = {"_failure_error_function": None, "_use_default_failure_error_function": False}


def guard(
    executor: InstrumentedAgentExecutor, tools: Iterable[Any], names: Mapping[str, str] | None = None
) -> list[FunctionTool]:
    """The function tools, guarded. names: a tool's name in the SDK → its name in the catalog, where they differ. Raises
    ValueError for hosted tools, which run at the provider, where no gate stands, and for a name that is taken."""
    guarded = []
    for tool in tools:
        if not isinstance(tool, FunctionTool):
            raise ValueError(f"{type(tool).__name__} runs outside of this process | use function tools")
        guarded.append(_guarded(executor, tool, (names or {}).get(tool.name, tool.name)))
    return guarded


def _guarded(executor: InstrumentedAgentExecutor, tool: FunctionTool, name: str) -> FunctionTool:
    known = {field.name for field in dataclasses.fields(tool)}
    raising = dataclasses.replace(tool, **{key: value for key, value in _RAISING.items() if key in known})

    async def arun(arguments: Mapping[str, Any]) -> Any:
        return await raising.on_invoke_tool(_context.get(), json.dumps(arguments))

    async def invoke(context: Any, arguments: str) -> str:
        token = _context.set(context)
        try:
            outcome = await executor.acall(name, arguments, str(getattr(context, "tool_call_id", "") or ""))
        finally:
            _context.reset(token)
        return outcome.content

    executor.register(Tool(name, tool.description, tool.params_json_schema, arun, arun))
    return dataclasses.replace(raising, on_invoke_tool=invoke)


class BudgetedModel(Model):
    """A model of the SDK within the executor's budget. inner: the model; model: its name as the price table knows it."""

    def __init__(
        self, executor: InstrumentedAgentExecutor, inner: Model, model: str, max_output_tokens: int = MAX_OUTPUT_TOKENS
    ):
        self._executor = executor
        self._inner = inner
        self._model = model
        self._max_output_tokens = max_output_tokens

    async def get_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """As the wrapped model's, reserved before and settled after. Raises Stopped."""
        settings, bound = self._bounded(model_settings)
        with self._executor.model_call(self._model, _size(system_instructions, input, tools), bound) as call:
            answer = await self._inner.get_response(system_instructions, input, settings, tools, *args, **kwargs)
            # The SDK counts nothing as 0 when the provider said nothing.
            if answer.usage.requests:
                call.used(answer.usage.input_tokens, answer.usage.output_tokens)
            return answer

    async def stream_response(
        self, system_instructions: Any, input: Any, model_settings: Any, tools: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As the wrapped model's; a stream that is left early counts as its worst case."""
        settings, bound = self._bounded(model_settings)
        with self._executor.model_call(self._model, _size(system_instructions, input, tools), bound) as call:
            async for event in self._inner.stream_response(
                system_instructions, input, settings, tools, *args, **kwargs
            ):
                usage = getattr(getattr(event, "response", None), "usage", None)
                if usage is not None:
                    call.used(usage.input_tokens, usage.output_tokens)
                yield event

    def _bounded(self, settings: Any) -> tuple[Any, int]:
        bound = min(settings.max_tokens or self._max_output_tokens, self._max_output_tokens)
        return dataclasses.replace(settings, max_tokens=bound), bound


def _size(instructions: Any, given: Any, tools: Iterable[Any]) -> int:
    schemas = [[tool.name, getattr(tool, "description", ""), getattr(tool, "params_json_schema", {})] for tool in tools]
    return len(json.dumps([instructions, given, schemas], default=str, ensure_ascii=False).encode())
