"""The limits of a sandbox where no control group may be made: its processes are counted, and ended when they have too much.

Coarser than a control group: a sandbox can go beyond a limit for as long as one look takes, and its CPU is only given last
place, not capped. Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import psutil

from ringfence.runner.local_executor.cgroups import Limits
from ringfence.runner.local_executor.threads import in_thread

LOOK_S = 0.1
# Looks in a row that may fail: a process between changing its user and executing its program can't be read for a moment.
_BLIND_LOOKS = 5
# The lowest CPU priority there is.
_NICE = 19
# What reading about a process says when it is gone; psutil's zombies are among the first.
_ENDED = (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError)


async def watch(pid: int, limits: Limits) -> str:
    """Returns why the process tree of `pid` must end (``OOMKilled``, ``TooManyProcesses``, ``Unwatchable`` when it can't
    be measured for several looks), as soon as it must; never returns while it keeps its limits."""
    blind = 0
    while blind < _BLIND_LOOKS:
        try:
            memory, threads = await in_thread(lambda: _used(pid))
        except (psutil.Error, OSError, ValueError):
            blind += 1
        else:
            blind = 0
            if memory > limits.memory_bytes:
                return "OOMKilled"
            if threads > limits.processes:
                return "TooManyProcesses"
        await asyncio.sleep(LOOK_S)
    return "Unwatchable"


def _used(pid: int) -> tuple[int, int]:
    """Bytes of memory and number of threads of the process and all below it.

    gVisor keeps the memory of what runs inside in anonymous files, mapped by several processes that share one address space:
    each file counts once, by what it holds, and of the mappings only what isn't such a file. A process that has ended
    counts nothing. Raises psutil.Error, OSError or ValueError when one that hasn't can't be measured.
    """
    memory = threads = 0
    files: dict[tuple[int, int], int] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(*_ENDED):
                threads += each.num_threads()
                if each.nice() < _NICE:
                    each.nice(_NICE)
                try:
                    memory += _mapped(each.pid)
                    files |= _anonymous_files(each.pid)
                except PermissionError:
                    # What has given back its memory on its way out belongs to root from then on (proc(5)).
                    if _has_memory(each.pid):
                        raise
    return memory + sum(files.values()), threads


def _has_memory(pid: int) -> bool:
    return "\nVmSize:" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")


def _mapped(pid: int) -> int:
    """Private memory and mapped files, in bytes, shared ones divided among who shares them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Pss_Anon:", "Pss_File:")))


def _anonymous_files(pid: int) -> dict[tuple[int, int], int]:
    """Bytes that each memfd holds which the process has open, by device and inode."""
    found = {}
    for descriptor in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(descriptor.path).startswith("/memfd:"):
                held = os.stat(descriptor.path)
                found[held.st_dev, held.st_ino] = held.st_blocks * 512
    return found
