"""Creating calls remembered by the caller's idempotency header, so that a killed run can be repeated.

`X-Ringfence-Create: <urn>;<hash of inputs>;<ids of this urn that the engine knows>` works like a ClientToken for every
API: the same header with the same operation and parameters is answered with the first response, for as long as what it
made is there. A deleting call that succeeds forgets every creation that it names, as does `X-Ringfence-Delete: <urn>`.

A killed run whose inputs changed before the repetition sends another hash: nothing is remembered for it, so a second
thing is made, and the first is an orphan unless it has a name of its own (then the API answers that it exists).
`GET /ringfence/creations` lists what was made for each urn with the ids in the response: the caller compares them with
the ids it knows and deletes the rest.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.parsers import ResponseParserFactory

from ringfence.local.aws_server.wire import Call, Reply

CREATE_HEADER = "X-Ringfence-Create"
DELETE_HEADER = "X-Ringfence-Delete"
_DELETING = ("Delete", "Terminate", "Disassociate", "Detach", "Release", "Deregister", "Remove", "Revoke", "Schedule")
# Members that botocore fills with a random value in every call, though the model doesn't mark all of them.
_TOKENS = frozenset({"ClientToken", "clientToken", "clientRequestToken", "ClientRequestToken", "CreatorRequestId"})
_HIDDEN = "(sensitive)"


@dataclass(frozen=True, slots=True)
class Creation:
    """One remembered creating call."""

    urn: str
    header: str
    service: str
    operation: str
    at: str
    request: dict[str, Any]
    response: dict[str, Any]
    names: frozenset[str]
    reply: Reply

    def shown(self) -> dict[str, Any]:
        """For `GET /ringfence/creations`: without what the service's model marks as sensitive."""
        wanted = ("urn", "header", "service", "operation", "at", "request", "response")
        return {name: getattr(self, name) for name in wanted}


class Creations:
    """Remembers, and lets concurrent repetitions wait for the first. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Creation] = {}
        self._running: dict[str, threading.Event] = {}

    def once(self, call: Call, perform: Callable[[], Reply]) -> tuple[Reply, bool]:
        """The response to a call with a creation header, and whether it was remembered. Errors aren't remembered."""
        header = call.header(CREATE_HEADER)
        key = _key(call, header)
        while True:
            with self._lock:
                if key in self._known:
                    return self._known[key].reply, True
                waiting = self._running.get(key)
                if waiting is None:
                    self._running[key] = threading.Event()
                    break
            waiting.wait()
        try:
            reply = perform()
            if reply.status < 300:
                creation = _creation(call, header, reply)
                with self._lock:
                    self._known[key] = creation
            return reply, False
        finally:
            with self._lock:
                self._running.pop(key).set()

    def forget(self, call: Call, reply: Reply) -> None:
        """Forgets what a deleting call that succeeded, or found nothing, has made meaningless."""
        urn = call.header(DELETE_HEADER).partition(";")[0].strip()
        gone = reply.status < 300 or reply.status == 404 or b"NotFound" in reply.body[:2000]
        if not gone or not (urn or call.name.startswith(_DELETING)):
            return
        named = {text for text in _texts(call.params) if len(text) > 3} if call.name.startswith(_DELETING) else set()
        with self._lock:
            for key, creation in list(self._known.items()):
                if creation.urn == urn or named & creation.names:
                    del self._known[key]

    def shown(self, urn: str = "") -> list[dict[str, Any]]:
        """What is remembered, oldest first; only of one urn when given."""
        with self._lock:
            return [creation.shown() for creation in self._known.values() if urn in ("", creation.urn)]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()


def _key(call: Call, header: str) -> str:
    """One provider step may call an operation several times, so its parameters count too, random tokens aside."""
    idempotent = set(call.operation.idempotent_members) | _TOKENS
    params = {name: value for name, value in call.params.items() if name not in idempotent}
    body = call.body if call.service == "s3" else b""
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=repr).encode() + body).hexdigest()
    return "\n".join((call.service, call.name, call.region, header, digest))


def _creation(call: Call, header: str, reply: Reply) -> Creation:
    answer = {"status_code": reply.status, "headers": dict(reply.headers), "body": reply.body}
    shape = call.operation.output_shape
    parsed = ResponseParserFactory().create_parser(call.protocol).parse(answer, shape) if shape else {}
    parsed.pop("ResponseMetadata", None)
    return Creation(
        urn=header.partition(";")[0].strip(),
        header=header,
        service=call.service,
        operation=call.name,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        request=_printable(call.params, call.operation.input_shape),
        response=_printable(parsed, shape),
        names=frozenset(_texts(call.params)) | frozenset(_texts(parsed)),
        reply=reply,
    )


def _printable(value: Any, shape: Any) -> Any:
    """A value as JSON can hold it, sensitive members hidden."""
    if shape is not None and shape.metadata.get("sensitive"):
        return _HIDDEN
    if isinstance(value, dict):
        members = getattr(shape, "members", {}) if shape is not None and shape.type_name == "structure" else {}
        inner = shape.value if shape is not None and shape.type_name == "map" else None
        return {str(key): _printable(item, members.get(key, inner)) for key, item in value.items()}
    if isinstance(value, list):
        inner = shape.member if shape is not None and shape.type_name == "list" else None
        return [_printable(item, inner) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _texts(value: Any) -> Iterator[str]:
    """Every string inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
