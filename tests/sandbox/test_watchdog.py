"""A process tree that can't be measured is ended, one that has partly ended is not."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from ringfence.runner.local_executor import watchdog
from ringfence.runner.local_executor.cgroups import Limits

PLENTY = Limits(1 << 40, 1000, 1 << 20)


def _watched(monkeypatch: pytest.MonkeyPatch, *errors: Exception, pid: int = 0) -> str:
    """What the watchdog says of a process (this one by default) whose reading fails with each of `errors`, the last
    one for ever; TimeoutError when it says nothing."""
    left = list(errors)

    def unreadable(_pid: int) -> int:
        error = left.pop(0) if len(left) > 1 else left[0]
        if error:
            raise error
        return 0

    monkeypatch.setattr(watchdog, "_mapped", unreadable)
    # Priorities are for sandboxes: this is the test's own process.
    monkeypatch.setattr(watchdog, "_NICE", -20)
    patience = 3 * watchdog._BLIND_LOOKS * watchdog.LOOK_S
    return asyncio.run(asyncio.wait_for(watchdog.watch(pid or os.getpid(), PLENTY), patience))


@pytest.mark.parametrize("error", [PermissionError(1, "no"), OSError(5, "broken"), ValueError("no number")])
def test_what_can_not_be_measured_is_ended(monkeypatch, error):
    assert _watched(monkeypatch, error) == "Unwatchable"


@pytest.mark.parametrize("error", [PermissionError(1, "no"), OSError(5, "broken")])
def test_what_can_not_be_measured_for_a_moment_goes_on(monkeypatch, error):
    with pytest.raises(TimeoutError):
        _watched(monkeypatch, error, None)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), ProcessLookupError(3, "gone")])
def test_what_has_just_ended_is_not_counted(monkeypatch, error):
    with pytest.raises(TimeoutError):
        _watched(monkeypatch, error)


def test_what_gave_back_its_memory_on_its_way_out_is_not_counted(monkeypatch):
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.raises(TimeoutError):
            _watched(monkeypatch, PermissionError(13, "root's now"), pid=ended.pid)
    finally:
        ended.wait()
