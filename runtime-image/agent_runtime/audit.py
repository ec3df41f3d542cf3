"""Audit events of a sandbox. The control side records them as the sandbox's own, untrusted statement."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agent_runtime.errors import GatewayError

# Events that wait for the gateway; more are dropped and counted, since a full queue must not stop the task.
MAX_WAITING = 1000
_log = logging.getLogger(__name__)


class EventSink(Protocol):
    """Takes events. Must not block for long: it is called within tool calls."""

    def emit(self, kind: str, **fields: Any) -> None:
        """kind: ``tool_call``, ``refusal``, ``model_call``, ``progress`` or ``log``; fields: JSON values."""


class NullSink:
    """Forgets every event."""

    def emit(self, kind: str, **fields: Any) -> None:
        """Forgets the event."""


class GatewaySink:
    """Hands events to the gateway from a thread of its own, in order, several at once.

    send: posts a list of events (`GatewayClient.events`); redact: masks strings.
    """

    def __init__(self, send: Callable[[list[Mapping[str, Any]]], None], redact: Callable[[str], str]):
        self._send = send
        self._redact = redact
        self._waiting: list[Mapping[str, Any]] = []
        self._dropped = 0
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="audit-events", daemon=True)
        self._thread.start()

    def emit(self, kind: str, **fields: Any) -> None:
        """Queues one event."""
        moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        event = {"type": kind, "time": moment, **{key: self._masked(value) for key, value in fields.items()}}
        with self._condition:
            if len(self._waiting) >= MAX_WAITING:
                self._dropped += 1
                return
            self._waiting.append(event)
            self._condition.notify()

    def close(self, timeout: float = 5.0) -> None:
        """Hands over what waits, for at most `timeout` seconds."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join(timeout)

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, Mapping):
            return {str(key): self._masked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked(item) for item in value]
        return value

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._closing:
                    self._condition.wait()
                batch, self._waiting = self._waiting, []
                dropped, self._dropped = self._dropped, 0
                closing = self._closing
            if dropped:
                batch.append({"type": "log", "message": f"{dropped} events were dropped: too many at once"})
            if batch:
                self._post(batch)
            if closing:
                return

    def _post(self, batch: list[Mapping[str, Any]]) -> None:
        for attempt in range(3):
            try:
                self._send(batch)
                return
            except GatewayError as error:
                # Refused for good: sending the same again changes nothing.
                if 400 <= error.status < 500 and error.status != 429:
                    break
                time.sleep(0.1 * 2**attempt)
        _log.warning("%d audit events could not be handed over", len(batch))
