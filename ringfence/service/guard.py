"""What every request passes before the application: a bounded body that arrives in time, a request id, no traceback out."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

from ringfence.redaction import Redactor
from ringfence.service.metrics import Metrics
from ringfence.service.problems import ApiError, answer

MAX_BODY_BYTES = 256 << 10
# From the head's end to the body's end.
BODY_S = 15.0
REQUEST_ID = "ringfence.request_id"
_log = logging.getLogger("ringfence.service")


class Guard:
    """ASGI middleware. Reads the whole body beforehand, which is small, so that no handler waits for a slow client."""

    def __init__(
        self,
        app: Any,
        metrics: Metrics,
        redactor: Redactor,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_s: float = BODY_S,
    ):
        self._app = app
        self._metrics = metrics
        self._redactor = redactor
        self._max, self._seconds = max_body_bytes, body_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope[REQUEST_ID] = request_id
        status, complete = 0, False

        async def sending(message: Any) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_headers(request_id)]
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        try:
            try:
                body = await self._in_time(scope, receive)
            except ApiError as said:
                # What is still on its way is not read: the connection can't be used again.
                said.headers["Connection"] = "close"
                await answer(said, request_id)(scope, receive, sending)
                return
            if body is None:
                return
            await self._app(scope, _replay(body, receive), sending)
        except Exception as error:
            text = self._redactor.text(f"{type(error).__name__}: {error}")
            _log.error("request %s failed: %s", request_id, text)
            # The application has answered with a problem by now, unless its answer had begun already.
            if not complete:
                raise ConnectionAbortedError(f"request {request_id} failed after its answer had begun") from None
        finally:
            self._metrics.request(scope["method"], scope.get("route"), status)

    async def _in_time(self, scope: Any, receive: Any) -> bytes | None:
        """As `_read`, within the time that a body may take. Raises ApiError."""
        try:
            return await asyncio.wait_for(self._read(scope, receive), self._seconds)
        except TimeoutError:
            text = f"the body did not arrive within {self._seconds:.0f} s"
            raise ApiError(408, "body_too_slow", text) from None

    async def _read(self, scope: Any, receive: Any) -> bytes | None:
        """The body; None when the client went away. Raises ApiError when it is too large."""
        headers = dict(scope["headers"])
        too_large = ApiError(413, "body_too_large", f"the body has more than {self._max} bytes")
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > 18 or int(declared) > self._max:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)


def _replay(body: bytes, receive: Any) -> Any:
    given = False

    async def replayed() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _headers(request_id: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-request-id", request_id.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
