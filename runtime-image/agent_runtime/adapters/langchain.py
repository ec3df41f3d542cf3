"""LangChain and LangGraph: guarded tools for `create_agent`, `ToolNode` and `bind_tools`, and a budgeted chat model."""

from __future__ import annotations

import contextvars
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, PrivateAttr

from agent_runtime.executor import InstrumentedAgentExecutor
from agent_runtime.model import MAX_OUTPUT_TOKENS
from agent_runtime.tool import Outcome, Tool

# What the framework, not the model, gives to a call (state, store, run id): the gate has no say in it.
_injected: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "injected", default=types.MappingProxyType({})
)


class GuardedTool(BaseTool):
    """A LangChain tool whose calls pass the gate. A refusal or a failure becomes a tool message with status ``error``; a
    stop is raised and ends the graph."""

    _executor: InstrumentedAgentExecutor = PrivateAttr()
    _given: frozenset[str] = PrivateAttr()
    _tool_name: str = PrivateAttr()

    def _run(self, *args: Any, **kwargs: Any) -> str:
        sent, injected = self._split(kwargs)
        token = _injected.set(injected)
        try:
            return _content(self._executor.call(self._tool_name, sent))
        finally:
            _injected.reset(token)

    async def _arun(self, *args: Any, **kwargs: Any) -> str:
        sent, injected = self._split(kwargs)
        token = _injected.set(injected)
        try:
            return _content(await self._executor.acall(self._tool_name, sent))
        finally:
            _injected.reset(token)

    def _split(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        plain = {name: _plain(value) for name, value in kwargs.items()}
        sent = {name: value for name, value in plain.items() if name not in self._given}
        return sent, {name: kwargs[name] for name in kwargs if name in self._given}


def _plain(value: Any) -> Any:
    """What pydantic made of an argument, as JSON again: what the gate reads is what the tool gets."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _content(outcome: Outcome) -> str:
    if not outcome.ok:
        raise ToolException(outcome.content)
    return outcome.content


def guard(
    executor: InstrumentedAgentExecutor, tools: Iterable[BaseTool], names: Mapping[str, str] | None = None
) -> list[GuardedTool]:
    """The tools, guarded. names: a tool's name in LangChain → its name in the catalog, where they differ. Raises
    ValueError for a name that is taken."""
    return [_guarded(executor, tool, (names or {}).get(tool.name, tool.name)) for tool in tools]


def _guarded(executor: InstrumentedAgentExecutor, tool: BaseTool, name: str) -> GuardedTool:
    shown = tool.tool_call_schema
    parameters = shown if isinstance(shown, dict) else shown.model_json_schema()
    every = (
        tool.get_input_schema().model_fields
        if not isinstance(tool.args_schema, dict)
        else parameters.get("properties", {})
    )
    given = frozenset(every) - frozenset(parameters.get("properties", {}))

    def run(arguments: Mapping[str, Any]) -> Any:
        return tool.invoke({**arguments, **_injected.get()})

    async def arun(arguments: Mapping[str, Any]) -> Any:
        return await tool.ainvoke({**arguments, **_injected.get()})

    executor.register(Tool(name, tool.description, parameters, run, arun))
    guarded = GuardedTool(
        name=tool.name,
        description=tool.description,
        args_schema=tool.args_schema or tool.get_input_schema(),
        handle_tool_error=True,
        return_direct=tool.return_direct,
    )
    guarded._executor, guarded._given, guarded._tool_name = executor, given, name
    return guarded


class BudgetedChatModel(BaseChatModel):
    """A chat model whose calls are reserved before and settled after. It doesn't stream: a stream that is left early
    would never say what it cost."""

    inner: Any
    model_name: str
    max_output_tokens: int = MAX_OUTPUT_TOKENS
    _executor: InstrumentedAgentExecutor = PrivateAttr()

    @property
    def _llm_type(self) -> str:
        return "ringfence-budgeted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """The same model, knowing these tools."""
        return budgeted(
            self._executor,
            self.inner.bind_tools(tools, **kwargs),
            self.model_name,
            max_output_tokens=self.max_output_tokens,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._executor.model_call(self.model_name, self._size(messages), self.max_output_tokens) as call:
            answer = self.inner.invoke(messages, **_sent(stop, kwargs))
            _count(call, answer)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._executor.model_call(self.model_name, self._size(messages), self.max_output_tokens) as call:
            answer = await self.inner.ainvoke(messages, **_sent(stop, kwargs))
            _count(call, answer)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _size(self, messages: list[BaseMessage]) -> int:
        """Bytes of the request: messages, and what is bound to the model (the tools' schemas)."""
        bound = getattr(self.inner, "kwargs", {})
        return sum(len(message.model_dump_json().encode()) for message in messages) + len(repr(bound).encode())


def _sent(stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "stop": stop} if stop else kwargs


def _count(call: Any, answer: Any) -> None:
    usage = getattr(answer, "usage_metadata", None) or {}
    call.used(usage.get("input_tokens"), usage.get("output_tokens"))


def budgeted(
    executor: InstrumentedAgentExecutor, model: Any, model_name: str, max_output_tokens: int = MAX_OUTPUT_TOKENS
) -> BudgetedChatModel:
    """A LangChain chat model (or one with tools bound) within the executor's budget. model_name: as the price table knows
    it; max_output_tokens: the bound that the model itself was made with."""
    wrapped = BudgetedChatModel(inner=model, model_name=model_name, max_output_tokens=max_output_tokens)
    wrapped._executor = executor
    return wrapped
