"""Blocking calls from asynchronous code, so that cancellation never leaves one running behind the clean-up's back.

Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import functools
import threading
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


class LoopThread:
    """An event loop in a daemon thread, made when first asked for."""

    def __init__(self, name: str):
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """Whether the loop was ever asked for."""
        return self._loop is not None

    def running(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def call(self, call: Callable[[], object]) -> None:
        """Has the loop make a call."""
        self.running().call_soon_threadsafe(call)

    def stop(self) -> None:
        """Ends the loop and its thread; what still runs in it is cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
