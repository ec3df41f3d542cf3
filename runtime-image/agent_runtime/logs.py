"""Structured logs: one JSON object a line, masked, with the invocation and the trace in it."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import traceback
from typing import Any

from agent_runtime.redaction import RedactingStream, Redactor
from agent_runtime.telemetry import current_trace

# Attributes of a record that callers add by `extra=`, e.g. ``extra={"tool": ...}``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """timestamp (RFC 3339, UTC), severity, logger, message, invocation, trace_id, span_id and the record's own extras."""

    def __init__(self, redactor: Redactor, invocation: str):
        super().__init__()
        self._redactor = redactor
        self._invocation = invocation

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry: dict[str, Any] = {
            "timestamp": moment.isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "ringfence.invocation.id": self._invocation,
            **current_trace(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["exception.type"] = type(record.exc_info[1]).__name__
            entry["exception.message"] = str(record.exc_info[1])
            entry["exception.stacktrace"] = "".join(traceback.format_exception(*record.exc_info))
        return self._redactor(json.dumps(entry, default=str, ensure_ascii=False))


def install(redactor: Redactor, invocation: str, level: int = logging.INFO) -> tuple[RedactingStream, RedactingStream]:
    """Makes every logger write JSON lines, and every `print` pass the redactor. Returns the new stdout and stderr, whose
    `finish` writes what they hold back."""
    out, err = RedactingStream(sys.stdout, redactor), RedactingStream(sys.stderr, redactor)
    sys.stdout, sys.stderr = out, err
    handler = logging.StreamHandler(err)
    handler.setFormatter(JsonFormatter(redactor, invocation))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    return out, err
