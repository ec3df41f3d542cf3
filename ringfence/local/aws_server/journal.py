"""The request log: one JSON line per request, without parameters, bodies, query strings, signatures or keys."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from ringfence.local.aws_server.wire import Call, Reply

_MAX_BYTES = 5 * 1024 * 1024


class _PrivateFile(RotatingFileHandler):
    """A rotating file that only its owner may read."""

    def _open(self) -> Any:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


class Journal:
    """Writes `<folder>/aws-server.jsonl`, rotated at 5 MiB, two old files kept. Thread-safe."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / "aws-server.jsonl"
        handler = _PrivateFile(self.path, maxBytes=_MAX_BYTES, backupCount=2)
        handler.setFormatter(logging.Formatter("%(message)s"))
        self._log = logging.Logger("ringfence.aws_server.requests", logging.INFO)
        self._log.addHandler(handler)

    def line(self, environ: dict[str, Any], call: Call | None, layer: str, reply: Reply, seconds: float) -> None:
        """One request: what was called, who answered, the status and the time taken in milliseconds."""
        entry: dict[str, Any] = {"time": _now(), "layer": layer, "status": reply.status, "ms": round(seconds * 1000, 1)}
        if call is not None:
            entry |= {"service": call.service, "operation": call.name, "region": call.region, "id": call.request_id}
        else:
            entry |= {"method": environ.get("REQUEST_METHOD", ""), "path": str(environ.get("PATH_INFO", ""))[:200]}
        self._log.info(json.dumps(entry))

    def failure(self, call: Call | None, trace: str) -> None:
        """An error of our own or of moto, with its traceback's frames but not its message, which may hold values."""
        frames = [line.strip() for line in trace.splitlines() if line.lstrip().startswith("File ")]
        kind = trace.rstrip().splitlines()[-1].partition(":")[0]
        about = {"service": call.service, "operation": call.name} if call else {}
        self._log.info(json.dumps({"time": _now(), "layer": "failed", "error": kind, "frames": frames[-12:], **about}))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
