"""Running a tool with a time limit. A thread can't be ended from outside, so what overruns is left behind, as a daemon."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> concurrent.futures.Future[T]:
    """Runs the function in a daemon thread of its own, with the caller's context variables (and thereby its span)."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(function)
        except BaseException as fault:
            future.set_exception(fault)
        else:
            future.set_result(result)

    threading.Thread(target=work, name="agent-tool", daemon=True).start()
    return future


def _complete(function: Callable[[], Any]) -> Any:
    result = function()
    return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def run(function: Callable[[], Any], timeout: float) -> Any:
    """The function's result, awaited when it is a coroutine. timeout: seconds. Raises TimeoutError."""
    return in_thread(lambda: _complete(function)).result(timeout)


async def arun(function: Callable[[], Any], timeout: float, in_loop: bool) -> Any:
    """As `run`, within an event loop. in_loop: the function returns an awaitable for this loop; otherwise it gets a
    thread of its own."""
    async with asyncio.timeout(timeout):
        if in_loop:
            return await function()
        return await asyncio.wrap_future(in_thread(lambda: _complete(function)))
