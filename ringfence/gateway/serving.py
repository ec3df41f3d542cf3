"""Serves the gateway to sandboxes: bounded connections, no patience with half a request, nothing of it in a log."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ringfence.errors import RingfenceError
from ringfence.gateway.app import application
from ringfence.gateway.gateway import Gateway

# Seconds until a connection must have sent its request's head.
HEAD_SECONDS = 10.0
_HEAD_BYTES = 32 * 1024
# Connections of one address at once, and of all: sandboxes share a server, each with an address of its own (its pod's, or
# its relay's). All together they fit: 100 sandboxes of 64 connections each through relays, or 32 pods that take all they can.
CONNECTIONS_PER_ADDRESS = 256
_CONNECTIONS = 8192
# A relayed connection takes three descriptors of this process.
_OPEN_FILES = 3 * _CONNECTIONS
_START_SECONDS = 10.0
_STOP_SECONDS = 5


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a limit of connections per address, and on the time that a request's head may take."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: Any = None
        address = self.client[0] if self.client else ""
        mine = sum(1 for other in self.connections if other.client and other.client[0] == address)
        if mine > CONNECTIONS_PER_ADDRESS:
            transport.abort()
            return
        self.loop.call_later(HEAD_SECONDS, self._check_head)

    def _check_head(self) -> None:
        """Ends a connection that has begun no request since the last look and has none under way."""
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is self._seen:
            self.transport.abort()
            return
        self._seen = self.cycle
        self.loop.call_later(HEAD_SECONDS, self._check_head)


class _Server(uvicorn.Server):
    """A server inside somebody else's process: signals are theirs."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Captures none."""
        return nullcontext()


def _allow_open_files() -> None:
    """Lets this process open as many files as the machine grants it: a process that can't accept serves nobody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@asynccontextmanager
async def listening(app: ASGIApp, host: str, port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """Serves an application in the running loop. Gives the address; port 0 takes a free one.

    Raises RingfenceError when the address can't be taken.
    """
    _allow_open_files()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off: an answer's body would else wait up to 40 ms for the
    # acknowledgement of its head.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise RingfenceError(f"the gateway can't listen on {host}:{port}: {error.strerror}") from None
    config = uvicorn.Config(
        app, http=_Protocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, limit_concurrency=_CONNECTIONS, h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_keep_alive=5, timeout_graceful_shutdown=_STOP_SECONDS,
    )  # fmt: skip
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
        if serving.done():
            await serving
            raise RingfenceError("the gateway's server did not start")
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        await serving
        listener.close()


@asynccontextmanager
async def serving(gateway: Gateway, host: str, port: int = 0) -> AsyncIterator[tuple[str, int]]:
    """Serves a gateway to sandboxes while the context is open; the gateway itself is the caller's to stop."""
    async with listening(application(gateway), host, port) as address:
        yield address
