"""A tool as the executor knows it, whatever framework it came from, and what a call of it came to."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_runtime.gate import Surface

# Longest answer of a tool that a model is shown. Characters.
MAX_ANSWER_LENGTH = 200_000
Run = Callable[[Mapping[str, Any]], Any | Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Tool:
    """name: the catalog's; parameters: JSON Schema of an object; run: gets the arguments, may be a coroutine function,
    raises ToolError for what the model may be told; arun: what runs in its place within an event loop, a coroutine
    function; trusted_schema: False when name, description and schema come from somebody untrusted (an MCP server): its
    lists of values then vouch for nothing, and reading it taints; attributes: of the spans of its calls."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    run: Run
    arun: Callable[[Mapping[str, Any]], Awaitable[Any]] | None = None
    trusted_schema: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict)

    def reads_like(self, other: Tool) -> bool:
        """Whether a model is told the same of both."""
        return (self.description, self.parameters, self.trusted_schema) == (
            other.description,
            other.parameters,
            other.trusted_schema,
        )

    def surface(self) -> Surface:
        """What the gate may rely on."""
        properties = self.parameters.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        fixed = {}
        if self.trusted_schema:
            fixed = {name: frozenset(_listed(schema)) for name, schema in properties.items()}
        open_ended = self.parameters.get("additionalProperties") not in (None, False)
        return Surface(None if open_ended else frozenset(properties), fixed)

    def definition(self) -> dict[str, Any]:
        """The tool in the shape of OpenAI's chat completions."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


def _listed(schema: object) -> list[str]:
    if not isinstance(schema, Mapping):
        return []
    values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    return [value for value in values if isinstance(value, str)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to. content: what the model is shown, masked and bounded; code: empty when it succeeded, else
    stable, e.g. ``argument_tainted``, ``tool_failed``; refused: the tool was not run; value: what the tool returned."""

    content: str
    code: str = ""
    refused: bool = False
    value: Any = None

    @property
    def ok(self) -> bool:
        """Whether the tool ran and succeeded."""
        return not self.code


def as_text(value: object) -> str:
    """A tool's return value as the model is shown it: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)
