"""The HTTP/1.1 connection: clients that send or read too slowly are cut off, client certificates reach the application.

uvicorn bounds idle connections between requests only; a client that sends half a head, or never reads its answer, would
hold its connection forever.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# From the connection's, or the last answer's, last byte to a whole request head.
HEAD_S = 10.0
# How long written bytes may wait for the client to read.
DRAIN_S = 30.0
# Where the application finds the verified certificate in its scope.
CERTIFICATE = "ringfence.client_certificate"


async def _with_certificate(app: Any, certificate: dict[str, Any] | None, scope: Any, receive: Any, send: Any) -> None:
    scope[CERTIFICATE] = certificate
    await app(scope, receive, send)


class DeadlineProtocol(H11Protocol):
    """uvicorn's own protocol with two deadlines and the peer's certificate."""

    head_s, drain_s = HEAD_S, DRAIN_S
    _head: asyncio.TimerHandle | None = None
    _drain: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        # Empty unless the client showed one that the configured authority signed.
        certificate = (tls.getpeercert() or None) if tls else None
        self.app = functools.partial(_with_certificate, self.app, certificate)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop("_head")
        self._stop("_drain")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """Between requests the clock runs; it isn't set back by single bytes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop("_head")
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.head_s, self.transport.abort)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop("_drain")
        self._drain = self.loop.call_later(self.drain_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop("_drain")
        super().resume_writing()

    def _stop(self, name: str) -> None:
        timer = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)
