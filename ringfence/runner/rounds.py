"""What the control side does again and again while it lives: reap, and look at what credentials are used for.

Trust zone: control side. A round that fails is recorded and made again; it ends nothing but itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from ringfence.runner.executor import Report
from ringfence.runner.ports import Audit
from ringfence.runner.threads import in_thread

# So many failures of one round in a row are an alert.
ALERT_AFTER = 3


@dataclass(frozen=True, slots=True)
class Round:
    """name: one word; seconds: from one end to the next beginning."""

    name: str
    seconds: float
    act: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def going(rounds: Sequence[Round], audit: Audit, report: Report) -> AsyncIterator[None]:
    """Goes the rounds while the context is open. Leaving waits for those under way."""
    ended = asyncio.Event()
    tasks = [asyncio.create_task(_go(item, audit, report, ended)) for item in rounds]
    try:
        yield
    finally:
        ended.set()
        await asyncio.gather(*tasks)


async def _go(item: Round, audit: Audit, report: Report, ended: asyncio.Event) -> None:
    failures = 0
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(item.seconds):
                await ended.wait()
        if ended.is_set():
            return
        try:
            await item.act()
        except Exception as error:
            failures += 1
            await _failed(item, str(error) or type(error).__name__, failures, audit, report)
        else:
            failures = 0


async def _failed(item: Round, why: str, failures: int, audit: Audit, report: Report) -> None:
    """Records a failure, and once in a row of them an alert. When that can't be recorded either, it is said at least."""
    detail = f"{item.name} failed {failures} time{'s' if failures > 1 else ''} in a row: {why}"
    report(detail)
    kinds = ["round.failed", *(["alert.rounds"] if failures == ALERT_AFTER else [])]
    try:
        for kind in kinds:
            await in_thread(audit.record, kind, None, code=item.name, detail=detail)
    except Exception as error:
        report(f"{item.name}: the failure could not be recorded: {str(error) or type(error).__name__}")
