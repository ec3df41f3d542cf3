"""MCP, client side: a server's tools as guarded tools. A server is not trusted: its descriptions taint the conversation,
its lists of values vouch for nothing, and a description that changes is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from agent_runtime.errors import ToolError
from agent_runtime.executor import InstrumentedAgentExecutor
from agent_runtime.tool import Tool

# A server that never ends its list is not heard to the end.
MAX_PAGES = 20


async def guard(
    executor: InstrumentedAgentExecutor, session: Any, names: Mapping[str, str] | None = None
) -> list[Tool]:
    """Registers the server's tools that the task may use, and returns them; the others' descriptions reach no model.

    session: an initialised `mcp.ClientSession` or an open `mcp.Client`, used from the running event loop; names: a tool's
    name at the server → its name in the catalog, where they differ. Raises ValueError when a tool changed since it was
    read, or when a name is taken.
    """
    loop = asyncio.get_running_loop()
    guarded = []
    for listed in await _listed(session):
        name = (names or {}).get(listed.name, listed.name)
        if executor.gate.allows(name):
            tool = _tool(session, loop, listed, name)
            executor.register(tool)
            guarded.append(tool)
    return guarded


async def _listed(session: Any) -> list[Any]:
    found: list[Any] = []
    cursor = None
    for _ in range(MAX_PAGES):
        page = await (_page(session, cursor) if cursor else session.list_tools())
        found += page.tools
        cursor = _field(page, "next_cursor", "nextCursor")
        if not cursor:
            break
    return found


async def _page(session: Any, cursor: str) -> Any:
    from mcp.types import PaginatedRequestParams

    try:
        return await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
    except TypeError:
        # `mcp.Client` takes the cursor itself.
        return await session.list_tools(cursor=cursor)


def _tool(session: Any, loop: asyncio.AbstractEventLoop, listed: Any, name: str) -> Tool:
    async def arun(arguments: Mapping[str, Any]) -> str:
        answer = await session.call_tool(listed.name, dict(arguments))
        text = "\n".join(_texts(answer))
        # A tool that failed answers like one that did not, but for this.
        if _field(answer, "is_error", "isError"):
            raise ToolError(text or f"{name} failed")
        return text

    def run(arguments: Mapping[str, Any]) -> str:
        # The session belongs to its loop; a call from another thread waits for it there.
        return asyncio.run_coroutine_threadsafe(arun(arguments), loop).result()

    schema = _field(listed, "input_schema", "inputSchema") or {"type": "object", "properties": {}}
    return Tool(
        name,
        listed.description or "",
        schema,
        run,
        arun,
        trusted_schema=False,
        attributes={"mcp.method.name": "tools/call"},
    )


def _texts(answer: Any) -> Iterator[str]:
    for block in answer.content:
        text = getattr(block, "text", None)
        yield text if isinstance(text, str) else f"[{getattr(block, 'type', 'unknown')} content left out]"


def _field(value: Any, name: str, older: str) -> Any:
    """A field by its name in version 2 of the library, else in version 1."""
    return getattr(value, name) if hasattr(value, name) else getattr(value, older, None)
