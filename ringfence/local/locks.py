"""What a killed engine leaves in the file backend: its locks, and the note beside a file, cut short."""

from __future__ import annotations

import datetime
import json
import socket
from pathlib import Path

import psutil

from ringfence.local.state import read_json

# The engine writes its lock after it has started; clocks of the two records may differ by rounding.
CLOCK_SLACK_S = 2.0


def _holder_is_alive(content: dict) -> bool:
    """Whether the process that wrote the lock still runs; True when that can't be known (another host)."""
    if content.get("hostname") != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(content["pid"]))
        written = datetime.datetime.fromisoformat(content["timestamp"]).timestamp()
        # A process that started after the lock was written has inherited the number, not the lock.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= written + CLOCK_SLACK_S
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def remove_stale(backend: Path) -> list[Path]:
    """Removes the locks under `backend` whose process is dead on this host. Returns them.

    A lock of a living process, of another host, or one that can't be read stays: the engine then says who holds it.
    """
    removed = []
    for path in sorted((backend / ".pulumi" / "locks").rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            alive = _holder_is_alive(content)
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if not alive:
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".attrs").unlink(missing_ok=True)
            removed.append(path)
    return removed


def remove_cut_notes(backend: Path) -> list[Path]:
    """Removes the `.attrs` files (type and checksum of the file beside) that aren't whole. Returns them.

    The engine empties such a file before it writes it anew, with every save of the state. Killed in between, it
    leaves one that makes the state unreadable to it ("failed to load checkpoint: EOF"); without one it is readable.
    """
    cut = [path for path in sorted((backend / ".pulumi").rglob("*.attrs")) if not read_json(path)]
    for path in cut:
        path.unlink(missing_ok=True)
    return cut
