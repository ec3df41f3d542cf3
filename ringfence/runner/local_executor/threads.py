"""Work that blocks, done beside the event loop and never left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T], discard: Callable[[_T], object] = lambda result: None) -> _T:
    """Runs `work` in a thread and waits for it even when cancelled, so that nothing is made after the call has raised;
    `discard` then takes back what it made."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if task.exception() is None:
            discard(task.result())
        raise


def in_own_thread(work: Callable[[], _T]) -> _T:
    """Runs `work` in a thread that ends with it: one that has changed its namespace must do nothing else."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="ringfence-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
