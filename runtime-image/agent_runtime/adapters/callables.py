"""Plain functions as tools: the wrapped function is called as before and passes the executor's gate first."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from agent_runtime.errors import Refused, ToolError
from agent_runtime.executor import InstrumentedAgentExecutor
from agent_runtime.tool import Outcome, Tool, as_text

_KINDS = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    tuple: "array",
    dict: "object",
}


def guard(
    executor: InstrumentedAgentExecutor, function: Callable[..., Any], name: str = "", description: str = ""
) -> Callable[..., Any]:
    """The function, or coroutine function, as a tool of the executor. name: the catalog's, by default the function's with
    hyphens; description: by default the first line of its docstring.

    A call of what is returned raises Refused when the gate says no, ToolError when the function fails, Stopped when the
    task is over; text that holds a credential comes back masked. Raises ValueError for ``*args`` and ``**kwargs``, whose
    names no policy can know, and for a name that is taken.
    """
    name = name or function.__name__.replace("_", "-")
    described = description or (inspect.getdoc(function) or name).splitlines()[0]
    signature = inspect.signature(function)
    is_async = inspect.iscoroutinefunction(function)

    async def arun(arguments: Mapping[str, Any]) -> Any:
        return await function(**arguments)

    def run(arguments: Mapping[str, Any]) -> Any:
        return function(**arguments)

    executor.register(Tool(name, described, schema(function), run, arun if is_async else None))

    def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        arguments = signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return dict(arguments.arguments)

    if is_async:

        @functools.wraps(function)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            return _value(await executor.acall(name, bound(args, kwargs)))

        return guarded_async

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return _value(executor.call(name, bound(args, kwargs)))

    return guarded


def schema(function: Callable[..., Any]) -> dict[str, Any]:
    """JSON Schema of a function's parameters, out of its annotations. Raises ValueError, see `guard`."""
    hints = typing.get_type_hints(function)
    properties: dict[str, Any] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ValueError(
                f"{function.__name__}: parameter {parameter.name!r} has no name of its own | name each one"
            )
        properties[parameter.name] = _schema_of(hints.get(parameter.name))
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _schema_of(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        kept = [item for item in arguments if item is not type(None)]
        return _schema_of(kept[0]) if len(kept) == 1 else {}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    kind = _KINDS.get(origin or hint)
    if kind == "array" and arguments:
        return {"type": kind, "items": _schema_of(arguments[0])}
    return {"type": kind} if kind else {}


def _value(outcome: Outcome) -> Any:
    if outcome.refused:
        raise Refused(outcome.code, outcome.content)
    if not outcome.ok:
        raise ToolError(outcome.content)
    # What was masked or cut must not get past by the function's own value.
    return outcome.value if as_text(outcome.value) == outcome.content else outcome.content
