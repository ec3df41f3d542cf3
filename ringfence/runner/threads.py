"""Blocking calls from asynchronous code, so that cancellation never leaves one running behind the clean-up's back.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
# Calls to the broker, the gateway's ledger, the journal and the audit trail wait for disks and networks, not processors.
CALL_THREADS = 32
_calls = ThreadPoolExecutor(CALL_THREADS, "ringfence-runner")


async def outlast(awaitable: Awaitable[T]) -> T:
    """Waits for `awaitable` to end, also when this task is cancelled meanwhile; a cancellation is raised only then."""
    future = asyncio.ensure_future(awaitable)
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not future.cancelled():
            future.exception()
        raise asyncio.CancelledError
    return future.result()


async def in_thread(call: Callable[..., T], *args: Any, pool: Pool = _calls, **kwargs: Any) -> T:
    """The result of a blocking call made in a thread. A cancelled caller gets its cancellation once the call has ended."""
    loop = asyncio.get_running_loop()
    return await outlast(loop.run_in_executor(pool, functools.partial(call, *args, **kwargs)))
