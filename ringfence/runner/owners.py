"""Which runners of this machine live: an owner is a process by number, start time and boot, so a reused number is none.

Trust zone: control side.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_OWNER = re.compile(r"^process-(\d+)-(\d+)-([0-9a-f]{12})$")
_START_FIELD = 19  # of /proc/PID/stat, counted after the command's closing bracket (proc_pid_stat(5), field 22)


def _boot() -> str:
    return hashlib.sha256(Path("/proc/sys/kernel/random/boot_id").read_bytes()).hexdigest()[:12]


def _started(pid: int) -> int | None:
    """Start of the process in clock ticks after boot; None when there is none, or only what its parent hasn't read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[_START_FIELD])


class ProcessOwners:
    """`Owners` among processes that see each other's numbers; nothing is written, so nothing goes stale."""

    def __init__(self) -> None:
        self.id = f"process-{os.getpid()}-{_started(os.getpid())}-{_boot()}"

    def start(self) -> None:
        """Nothing to do: a process that lives is its own heartbeat."""

    def alive(self, owner: str) -> bool:
        """Whether that very process runs. An owner of another form, host or boot does not live."""
        found = _OWNER.match(owner)
        if not found or found.group(3) != _boot():
            return False
        return _started(int(found.group(1))) == int(found.group(2))

    def forget_dead(self) -> None:
        """Nothing to do: nothing was written."""

    def close(self) -> None:
        """Nothing to do."""
