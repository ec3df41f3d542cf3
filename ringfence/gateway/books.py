"""The ledger as an event loop uses it: one writing thread, in order, and settlements that no cancellation can lose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import ParamSpec, TypeVar

from ringfence.gateway.ledger import Ledger

_log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


class Books:
    """One writer for one ledger. What is submitted first is written first, so that a settlement is seen by whatever asks
    after it."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="gateway-ledger")

    def now(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Does the work and waits for it, blocking."""
        return self._writer.submit(work, *args, **kwargs).result()

    async def reserve(self, invocation: str, amount: int, at: datetime) -> int:
        """See `Ledger.reserve`. When the caller is cancelled meanwhile the reservation stays, counted as spent."""
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, self.ledger.reserve, invocation, amount, at
        )

    def later(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Queues the work without waiting, also from a task that is being cancelled. A failure leaves the reservation as
        it is, which counts as spent."""
        try:
            self._writer.submit(work, *args, **kwargs).add_done_callback(_report)
        except RuntimeError:
            # Stopped meanwhile; the invocation's close has counted its reservations.
            return

    def stop(self) -> None:
        """Finishes what is queued and closes the ledger."""
        self._writer.shutdown(wait=True)
        self.ledger.stop()


def _report(done: Future[object]) -> None:
    if not done.cancelled() and (error := done.exception()):
        _log.error("the gateway could not write to its ledger: %s", error)
