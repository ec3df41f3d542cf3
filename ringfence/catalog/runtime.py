"""What a sandbox is told of its tools: the part of their declarations that `agent_runtime` decides by.

Trust zone: control side. Owners, reasons and review dates stay here; placeholders are filled in, since a sandbox knows
neither account nor region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ringfence.catalog.model import Tool
from ringfence.iam.tool_documents import expand
from ringfence.names import Names


def runtime_tools(tools: Iterable[Tool], names: Names, ports: Mapping[str, int]) -> list[dict[str, Any]]:
    """The tools as JSON, in their order. ports: tool → its listener, as the sandbox reaches it; a tool that isn't in it
    has no way out but the model gateway."""
    return [_runtime_tool(tool, names, ports.get(tool.name)) for tool in tools]


def _runtime_tool(tool: Tool, names: Names, port: int | None) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "output": tool.output,
        "limits": {"timeoutSeconds": tool.limits.timeout_seconds, "callsPerMinute": tool.limits.calls_per_minute},
        "grants": [
            {
                "actions": list(grant.actions),
                "resources": [expand(resource, names) for resource in grant.resources],
                "conditions": {
                    operator: {key: [expand(value, names) for value in values] for key, values in keys.items()}
                    for operator, keys in grant.conditions.items()
                },
            }
            for grant in tool.grants
        ],
        "egress": {"domains": list(tool.egress.domains)},
        "arguments": {
            name: rule.model_dump(mode="json", by_alias=True, exclude_none=True)
            for name, rule in tool.arguments.items()
        },
        "port": port,
    }
