"""Audit events of a sandbox. The control side records them as the sandbox's own, untrusted statement."""

from __future__ import annotations

import datetime
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from agent_runtime.errors import GatewayError

# Events that wait for the gateway; more are dropped and counted, since a full queue must not stop the task.
MAX_WAITING = 1000
# What the gateway takes: 16 KiB an event, 256 KiB a post, 240 posts a minute.
MAX_EVENT_BYTES, MAX_POST_BYTES = 16_000, 200_000
LINGER_S = 0.3
MAX_TEXT, MAX_ITEMS = 2000, 20
# Tries of one post.
TRIES = 4
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
        """Queues one event. Long texts and lists are cut."""
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
            return self._redact(value)[:MAX_TEXT]
        if isinstance(value, Mapping):
            return {
                self._redact(str(key))[:MAX_TEXT]: self._masked(item) for key, item in list(value.items())[:MAX_ITEMS]
            }
        if isinstance(value, list | tuple):
            return [self._masked(item) for item in value[:MAX_ITEMS]]
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
            for post in _posts(batch):
                self._post(post)
            if closing:
                return
            with self._condition:
                self._condition.wait_for(lambda: self._closing, LINGER_S)

    def _post(self, batch: list[Mapping[str, Any]]) -> None:
        for attempt in range(TRIES):
            try:
                self._send(batch)
                return
            except GatewayError as error:
                # Refused for good: sending the same again changes nothing.
                if 400 <= error.status < 500 and error.status != 429:
                    break
                time.sleep(LINGER_S * 2**attempt)
        _log.warning("%d audit events could not be handed over", len(batch))


def _posts(events: list[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The events in posts that the gateway takes, in order."""
    post: list[Mapping[str, Any]] = []
    size = 0
    for event in events:
        length = len(json.dumps(event).encode())
        if length > MAX_EVENT_BYTES:
            event = {
                "type": event["type"],
                "time": event.get("time"),
                "message": f"an event of {length} bytes was left out",
            }
            length = MAX_TEXT
        if post and size + length > MAX_POST_BYTES:
            yield post
            post, size = [], 0
        post.append(event)
        size += length
    if post:
        yield post
