"""The listening process: TLS, deadlines, and an end that loses nothing.

A TERM or INT signal begins to drain: new tasks are refused, those that run get `drain_s` seconds and are then cancelled
and cleaned up; a second INT stops waiting, and leaves the rest to `ringfence reap`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from ringfence.errors import InputError, Problem
from ringfence.service.desk import Desk
from ringfence.service.protocol import DeadlineProtocol

KEEP_ALIVE_S = 5
# After the drain: how long answers that are under way may take.
GRACEFUL_S = 10
# Connections; beyond it the answer is 503.
MAX_CONNECTIONS = 4096
BACKLOG = 2048
HEAD_BYTES = 32 << 10


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen. client_ca: certificates of callers that it signed are taken; without certificate and key the
    address must be this machine's own."""

    host: str = "127.0.0.1"
    port: int = 8443
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    def check(self) -> None:
        """Raises InputError with every problem."""
        found = []
        for name, path in (
            ("--tls-certificate", self.certificate),
            ("--tls-key", self.key),
            ("--client-ca", self.client_ca),
        ):
            if path and not path.is_file():
                found.append(Problem(name, "", f"{path} is not a file", "give a PEM file"))
        if bool(self.certificate) != bool(self.key):
            found.append(Problem("--tls-certificate", "", "goes with --tls-key", "give both"))
        if self.client_ca and not self.certificate:
            found.append(Problem("--client-ca", "", "needs TLS", "give --tls-certificate and --tls-key"))
        if not self.certificate and not _loopback(self.host):
            remedy = "give --tls-certificate and --tls-key, or listen on 127.0.0.1"
            found.append(Problem("--host", "", f"{self.host} without TLS would send tokens in the clear", remedy))
        if found:
            raise InputError(found)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Server(uvicorn.Server):
    """uvicorn's server, drained before it stops."""

    def __init__(self, config: uvicorn.Config, desk: Desk, drain_s: float):
        super().__init__(config)
        self._desk = desk
        self._drain_s = drain_s
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second INT ends at once."""
        if self._desk.draining and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        elif self._loop:
            self._loop.call_soon_threadsafe(self.begin_to_drain)
        else:
            self.should_exit = True

    def begin_to_drain(self) -> None:
        """Starts the drain, once. Called in the server's loop."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            await self._desk.drain(self._drain_s)
        finally:
            self.should_exit = True


def server(app: Any, desk: Desk, listen: Listen, drain_s: float) -> Server:
    """The server for `app`. Raises InputError for an address that tokens must not travel to, or unusable files."""
    listen.check()
    config = uvicorn.Config(
        app,
        host=listen.host,
        port=listen.port,
        http=DeadlineProtocol,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEAD_BYTES,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.key,
        ssl_ca_certs=str(listen.client_ca) if listen.client_ca else None,
        # Optional for the probes' sake, which need no identity; every other route asks for one.
        ssl_cert_reqs=ssl.CERT_OPTIONAL if listen.client_ca else ssl.CERT_NONE,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            [Problem("--tls-certificate", "", f"can't be used: {error}", "give PEM files that belong together")]
        ) from None
    if config.ssl:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return Server(config, desk, drain_s)
