"""A process tree that can't be measured is ended, one that has partly ended is not."""

from __future__ import annotations

import asyncio
import os

import pytest

from ringfence.runner.local_executor import watchdog
from ringfence.runner.local_executor.cgroups import Limits

PLENTY = Limits(1 << 40, 1000, 1 << 20)


def _watched(monkeypatch: pytest.MonkeyPatch, error: Exception) -> str:
    def unreadable(pid: int) -> int:
        raise error

    monkeypatch.setattr(watchdog, "_mapped", unreadable)
    # Priorities are for sandboxes: this is the test's own process.
    monkeypatch.setattr(watchdog, "_NICE", -20)
    return asyncio.run(asyncio.wait_for(watchdog.watch(os.getpid(), PLENTY), 3 * watchdog.LOOK_S))


@pytest.mark.parametrize("error", [PermissionError(1, "no"), OSError(5, "broken"), ValueError("no number")])
def test_what_can_not_be_measured_is_ended(monkeypatch, error):
    assert _watched(monkeypatch, error) == "Unwatchable"


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), ProcessLookupError(3, "gone")])
def test_what_has_just_ended_is_not_counted(monkeypatch, error):
    with pytest.raises(TimeoutError):
        _watched(monkeypatch, error)
