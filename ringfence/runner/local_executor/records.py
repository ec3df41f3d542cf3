"""The folder of one sandbox, and taking away everything of it from any process, also after its runner was killed.

A folder appears whole (its record is in it before it has its name) and disappears last, so whatever else of a sandbox exists,
its folder does too. Trust zone: control side.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ringfence.runner.executor import ExecutorError, Leftover
from ringfence.runner.local_executor.cgroups import Group
from ringfence.runner.local_executor.launch import mark

_ID = re.compile(r"[a-z0-9]{12,26}")
_MAKING = ".making-"
# A folder without its name is being made, which takes milliseconds; after this its maker is dead.
_MAKING_S = 60.0
_KILL_S = 10.0
_UMOUNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def checked(invocation_id: str) -> str:
    """The id, when it is one: it becomes a path. Raises ExecutorError."""
    if not _ID.fullmatch(invocation_id):
        raise ExecutorError(f"invocation id {invocation_id!r} | 12 to 26 lower-case letters and digits")
    return invocation_id


class Records:
    """The folders below `root`, which is made with mode 0700 when it is missing."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def folder(self, invocation_id: str) -> Path:
        """Where the sandbox's folder is, or would be."""
        return self.root / checked(invocation_id)

    def make(self, invocation_id: str, owner: str, deadline: datetime) -> Path:
        """Makes the folder with its record. Raises ExecutorError when there is one already."""
        final = self.folder(invocation_id)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f"{_MAKING}{invocation_id}-", dir=self.root))
        record = {
            "invocation_id": invocation_id,
            "owner": owner,
            "deadline": deadline.astimezone(UTC).isoformat(),
            "pid": os.getpid(),
            "made": datetime.now(UTC).isoformat(),
        }
        (making / "unit.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        try:
            if final.exists():
                raise FileExistsError
            # A folder with content in its place makes the rename fail, so two makers can't both succeed.
            making.rename(final)
        except OSError:
            shutil.rmtree(making, ignore_errors=True)
            raise ExecutorError(
                f"a sandbox of invocation {invocation_id} exists already\n    remedy: remove it"
            ) from None
        return final

    def leftovers(self) -> list[Leftover]:
        """Every sandbox that has a folder. One whose record can't be read has no owner and no deadline."""
        found: dict[str, Leftover] = {}
        for path in self._folders():
            making = path.name.startswith(_MAKING)
            invocation_id = path.name.removeprefix(_MAKING).partition("-")[0]
            if not _ID.fullmatch(invocation_id) or (making and _age(path) < _MAKING_S):
                continue
            if not making or invocation_id not in found:
                found[invocation_id] = _read(path, invocation_id)
        return sorted(found.values(), key=lambda leftover: leftover.invocation_id)

    def erase(self, invocation_id: str) -> None:
        """Kills every process of the sandbox and removes its control group, mounts and folder. Twice is the same as once.

        Raises ExecutorError naming what is left.
        """
        folder = self.folder(invocation_id)
        group = Group(invocation_id)
        _kill_all(lambda: group.processes() | _processes_on(folder), f"sandbox {invocation_id}")
        group.remove()
        for point in _mounted_below(folder):
            if _libc.umount2(os.fsencode(point), _UMOUNT_DETACH) != 0:
                raise ExecutorError(f"{point} can't be unmounted: {os.strerror(ctypes.get_errno())}")
        for path in self._folders():
            if path == folder or path.name.startswith(f"{_MAKING}{invocation_id}-"):
                _remove_folder(path)

    def _folders(self) -> list[Path]:
        try:
            return sorted(path for path in self.root.iterdir() if path.is_dir() and not path.is_symlink())
        except FileNotFoundError:
            return []


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path, invocation_id: str) -> Leftover:
    try:
        record = json.loads((path / "unit.json").read_text(encoding="utf-8"))
        deadline = datetime.fromisoformat(record["deadline"])
        if deadline.tzinfo is None:
            raise ValueError
        return Leftover(invocation_id, str(record["owner"]), deadline)
    except (OSError, ValueError, KeyError, TypeError):
        return Leftover(invocation_id, "", None)


def _processes_on(folder: Path) -> set[int]:
    """gVisor's processes for this sandbox: those whose --root is in its folder."""
    wanted = mark(folder).encode()
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            # A process that has ended, or is another user's, is none of ours.
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if wanted in words:
                    found.add(int(entry.name))
    return found


def _kill_all(processes: Callable[[], set[int]], what: str) -> None:
    deadline = time.monotonic() + _KILL_S
    while pids := {pid for pid in processes() if not _is_zombie(pid)}:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ExecutorError(f"{what}: processes {sorted(pids)} can't be killed")
        time.sleep(0.005)


def _is_zombie(pid: int) -> bool:
    """Whether the process has ended and only waits for its parent to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return True


def _mounted_below(folder: Path) -> Iterator[str]:
    """Mount points in the folder, deepest first."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        points = [line.split()[1].encode().decode("unicode_escape") for line in file]
    yield from sorted((point for point in points if point.startswith(f"{folder}/")), key=len, reverse=True)


def _remove_folder(path: Path) -> None:
    # The record goes last: a removal that is killed half-way stays visible with its owner and deadline.
    try:
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name == "unit.json"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        path.rmdir()
    except FileNotFoundError:
        if path.exists():
            _remove_folder(path)
    except OSError as error:
        raise ExecutorError(f"{path} can't be removed: {error}") from None
