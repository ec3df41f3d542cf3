"""The limits of a sandbox where no control group may be made: its processes are counted, and ended when they have too much.

Coarser than a control group: a sandbox can go beyond a limit for as long as one look takes, and its CPU is only given last
place, not capped. Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil

from ringfence.runner.local_executor.cgroups import Limits
from ringfence.runner.local_executor.threads import in_thread

LOOK_S = 0.1
# The lowest CPU priority there is.
_NICE = 19


async def watch(pid: int, limits: Limits) -> str:
    """Returns why the process tree of `pid` must end (``OOMKilled``, ``TooManyProcesses``), as soon as it must; never
    returns while it keeps its limits."""
    while True:
        memory, threads = await in_thread(lambda: _used(pid))
        if memory > limits.memory_bytes:
            return "OOMKilled"
        if threads > limits.processes:
            return "TooManyProcesses"
        await asyncio.sleep(LOOK_S)


def _used(pid: int) -> tuple[int, int]:
    """Bytes of memory, shared ones divided among who shares them, and threads, of the process and all below it."""
    memory = threads = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                threads += each.num_threads()
                if each.nice() < _NICE:
                    each.nice(_NICE)
                memory += _proportional(each.pid)
    return memory, threads


def _proportional(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0
