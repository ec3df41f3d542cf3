"""The control group of one sandbox: memory, CPU and process limits of everything that runs for it, set before it starts.

Both hierarchies are served: version 2, and the separate controllers of version 1. gVisor joins a group that is there and
reads its own memory and CPU count from it (gvisor.dev/docs/user_guide/runtime). Trust zone: control side.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ringfence.runner.executor import ExecutorError

PREFIX = "ringfence-sandbox-"
_PERIOD_US = 100_000
# Version 1 controllers whose limits are set; every other mounted one gets a plain group, so that gVisor makes none itself.
_LIMITED = ("memory", "cpu", "pids")
_REMOVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a whole sandbox, gVisor's own processes included. processes: host threads."""

    memory_bytes: int
    cpu_millis: int
    processes: int


def _mounts() -> list[tuple[str, str, set[str]]]:
    """(type, mount point, options) of every cgroup file system."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    return [
        (row[2], row[1].replace("\\040", " "), set(row[3].split(","))) for row in rows if row[2].startswith("cgroup")
    ]


def _version_1(mounts: list[tuple[str, str, set[str]]]) -> dict[str, Path]:
    """Folder of each version 1 controller (and named hierarchy) by name."""
    found: dict[str, Path] = {}
    for kind, point, _ in mounts:
        if kind == "cgroup":
            for name in Path(point).name.split(","):
                found[name] = Path(point)
    return found


class Group:
    """The control group of the sandbox `name`, whether it is there or not. `path` is what the bundle names."""

    def __init__(self, name: str) -> None:
        self.name = f"{PREFIX}{name}"
        mounts = _mounts()
        self._controllers = _version_1(mounts)
        unified = [Path(point) for kind, point, _ in mounts if kind == "cgroup2"]
        # A hybrid host mounts both; its unified hierarchy has no controllers.
        self._unified = unified[0] if unified and "memory" not in self._controllers else None

    @property
    def path(self) -> str:
        """As `linux.cgroupsPath` of the OCI configuration."""
        return f"/{self.name}"

    def folders(self) -> list[Path]:
        """The group's folders that exist, in every hierarchy that is mounted."""
        roots = {Path(point) for _, point, _ in _mounts()}
        return sorted(root / self.name for root in roots if (root / self.name).is_dir())

    def make(self, limits: Limits) -> None:
        """Makes the group with its limits. Raises ExecutorError when the system doesn't let this process limit anything."""
        try:
            if self._unified is not None:
                self._make_unified(self._unified, limits)
            else:
                self._make_version_1(limits)
        except OSError as error:
            raise ExecutorError(
                f"control group {self.name} can't be made: {error}\n"
                "    remedy: run where cgroups are writable (as root, or with the controllers memory, cpu and pids delegated)"
            ) from None

    def _make_unified(self, root: Path, limits: Limits) -> None:
        for controller in _LIMITED:
            _write(root / "cgroup.subtree_control", f"+{controller}")
        folder = root / self.name
        folder.mkdir()
        _write(folder / "memory.max", str(limits.memory_bytes))
        if (folder / "memory.swap.max").exists():
            _write(folder / "memory.swap.max", "0")
        _write(folder / "memory.oom.group", "1")
        _write(folder / "cpu.max", f"{_quota(limits.cpu_millis)} {_PERIOD_US}")
        _write(folder / "pids.max", str(limits.processes))

    def _make_version_1(self, limits: Limits) -> None:
        missing = [name for name in _LIMITED if name not in self._controllers]
        if missing:
            raise OSError(errno.ENOENT, f"no cgroup controller {', '.join(missing)}")
        for root in sorted(set(self._controllers.values())):
            (root / self.name).mkdir(exist_ok=True)
        if cpuset := self._controllers.get("cpuset"):
            for file in ("cpuset.cpus", "cpuset.mems"):
                _write(cpuset / self.name / file, (cpuset / file).read_text())
        memory = self._controllers["memory"] / self.name
        _write(memory / "memory.limit_in_bytes", str(limits.memory_bytes))
        # Absent when the kernel doesn't count swap; then there is none to use, or it is the host's to switch off.
        if (memory / "memory.memsw.limit_in_bytes").exists():
            _write(memory / "memory.memsw.limit_in_bytes", str(limits.memory_bytes))
        cpu = self._controllers["cpu"] / self.name
        _write(cpu / "cpu.cfs_period_us", str(_PERIOD_US))
        _write(cpu / "cpu.cfs_quota_us", str(_quota(limits.cpu_millis)))
        _write(self._controllers["pids"] / self.name / "pids.max", str(limits.processes))

    def limit_cpu(self, cpu_millis: int) -> None:
        """Changes the CPU limit of a group that was made. Raises OSError."""
        if self._unified is not None:
            _write(self._unified / self.name / "cpu.max", f"{_quota(cpu_millis)} {_PERIOD_US}")
        else:
            _write(self._controllers["cpu"] / self.name / "cpu.cfs_quota_us", str(_quota(cpu_millis)))

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in the group because its memory was used up."""
        for folder in self.folders():
            for file in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    words = dict(line.split() for line in (folder / file).read_text().splitlines())
                    if int(words.get("oom_kill", 0)):
                        return True
        return False

    def processes(self) -> set[int]:
        """Process ids in the group and below it."""
        found: set[int] = set()
        for folder in self.folders():
            for procs in folder.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found.update(int(line) for line in procs.read_text().split())
        # 0 stands for a process of another process namespace.
        return found - {0}

    def kill(self) -> None:
        """Kills every process in the group, also those that it makes meanwhile."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Kills what is in the group and removes it. Raises ExecutorError when it is still there after ten seconds."""
        deadline = time.monotonic() + _REMOVE_S
        while folders := self.folders():
            self.kill()
            for folder in folders:
                for path in [*_below(folder), folder]:
                    with contextlib.suppress(OSError):
                        path.rmdir()
            if time.monotonic() > deadline:
                raise ExecutorError(
                    f"control group {folders[0]} can't be removed: processes {sorted(self.processes())}"
                )
            if any(folder.is_dir() for folder in folders):
                time.sleep(0.01)


def _below(folder: Path) -> Iterator[Path]:
    """Groups inside `folder`, deepest first."""
    with contextlib.suppress(OSError):
        yield from sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))


def _quota(cpu_millis: int) -> int:
    return max(cpu_millis * _PERIOD_US // 1000, 1000)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii")
