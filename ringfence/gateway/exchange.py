"""One request's answer on the wire: started once, cut cleanly, and its request's body read with bounds."""

from __future__ import annotations

import asyncio
import binascii
import json
import struct
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import Send

from ringfence.gateway.errors import ApiError
from ringfence.gateway.sessions import Session

# Codes after which asking again can't help. OpenAI's and Anthropic's clients honour this header.
_FINAL = frozenset({"budget_exhausted", "deadline", "breaker_open"})
_RETRY_AFTER_SECONDS = 5
# Seconds that a slow reader gets to take an error.
_PATIENCE_SECONDS = 2.0


class Exchange:
    """The answer to one model call. api: decides how a stream that was cut says so."""

    def __init__(self, send: Send, api: str):
        self._send = send
        self._api = api
        self.started = False
        self.finished = False

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Sends status and headers."""
        self.started = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        """Sends a part of the body; waits while the reader is slow."""
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Sends the last part."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def refuse(self, error: ApiError) -> None:
        """Answers with an error; a stream that has begun ends with an event that says so. Waits for no slow reader."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._refuse(error)
        except TimeoutError:
            return

    async def _refuse(self, error: ApiError) -> None:
        if self.finished:
            return
        if not self.started:
            body = json.dumps(error.body()).encode()
            await self.start(error.status, error_headers(error) | {"content-length": str(len(body))})
            await self.finish(body)
        else:
            await self.finish(_last_event(self._api, error))


def error_headers(error: ApiError) -> dict[str, str]:
    """Headers of an error: what each API's clients look at."""
    headers = {"content-type": "application/json", "x-amzn-errortype": error.code, "cache-control": "no-store"}
    if error.code in _FINAL:
        headers["x-should-retry"] = "false"
    if error.code == "rate":
        headers["retry-after"] = str(_RETRY_AFTER_SECONDS)
    return headers


def _last_event(api: str, error: ApiError) -> bytes:
    data = json.dumps(error.body())
    if api == "openai":
        return f"data: {data}\n\n".encode()
    if api == "anthropic":
        return f"event: error\ndata: {data}\n\n".encode()
    return _exception_message(json.dumps({"message": f"{error.code}: {error.message}"}).encode())


def _exception_message(payload: bytes) -> bytes:
    """An AWS event stream message that ends the stream (smithy.io/2.0/aws/amazon-eventstream.html)."""
    headers = b"".join(
        struct.pack("!B", len(name)) + name + b"\x07" + struct.pack("!H", len(value)) + value
        for name, value in (
            (b":message-type", b"exception"),
            (b":exception-type", b"serviceUnavailableException"),
            (b":content-type", b"application/json"),
        )
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    prelude += struct.pack("!I", binascii.crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack("!I", binascii.crc32(message))


class BodyBytes:
    """Bytes of bodies that one session holds in memory, given back when its request ends."""

    def __init__(self, session: Session):
        self._session = session
        self._held = 0

    def take(self, count: int) -> None:
        """Counts further bytes. Raises ApiError when the session holds too many."""
        if self._session.bytes_at_once + count > self._session.limits.bytes_at_once:
            raise ApiError("rate", "too much is being sent at once; wait for the requests under way")
        self._session.bytes_at_once += count
        self._held += count

    def release(self) -> None:
        """Gives all of it back."""
        self._session.bytes_at_once -= self._held
        self._held = 0


async def read_body(request: Request, held: BodyBytes, most: int, seconds: float) -> bytes:
    """The request's body. Raises ApiError: above `most` bytes, compressed, or slower than `seconds`."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError("unsupported_encoding", "send the body uncompressed")
    too_large = ApiError("too_large", f"the body may have {most} bytes")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > most:
                    raise too_large
                held.take(len(chunk))
                body += chunk
    except TimeoutError:
        raise ApiError("slow_request", f"the body must arrive within {seconds:g} s") from None
    except ClientDisconnect:
        raise ApiError("invalid_request", "the connection was closed before the body was complete") from None
    return bytes(body)
