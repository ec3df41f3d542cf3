"""Carries a sandbox's connections from its fence to the control-side address that the port stands for, and nowhere else.

Trust zone: control side. Bytes pass unread; what may be asked behind a port is decided by who listens there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import Mapping

Address = tuple[str, int]
# Open connections that one sandbox may have: a tool call needs a few, a hostile sandbox would hold thousands.
MAX_CONNECTIONS = 64
CONNECT_TIMEOUT_S = 5.0
# Connections that wait to be accepted, per port.
_BACKLOG = 64
_CHUNK_BYTES = 1 << 16
# Loopback addresses that sandboxes come to the gateway from, apart from those of `ringfence.egress.decisions`.
_ADDRESSES = ipaddress.IPv4Network("127.128.0.0/10")


class Relay:
    """The open ports of one sandbox. Belongs to one event loop. used: set once the sandbox has connected to any; address:
    of this machine, the sandbox's alone, for servers that bound what one address may hold."""

    def __init__(self) -> None:
        self.used = asyncio.Event()
        self.address = str(_ADDRESSES[1 + secrets.randbelow(_ADDRESSES.num_addresses - 2)])
        self._servers: dict[int, asyncio.Server] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def ports(self) -> tuple[int, ...]:
        """The sandbox-side ports that are open."""
        return tuple(sorted(self._servers))

    async def open(self, ports: Mapping[int, tuple[socket.socket, Address]], source: str = "") -> None:
        """Listens on each bound socket; what connects is carried to the address beside it, from the address `source` of this
        machine, if given."""
        for port, (bound, target) in ports.items():

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: Address = target) -> None:
                self._accept(reader, writer, to, source)

            bound.listen(_BACKLOG)
            self._servers[port] = await asyncio.start_server(accept, sock=bound, limit=_CHUNK_BYTES, backlog=_BACKLOG)

    def close(self) -> None:
        """Closes every port and cuts every connection."""
        self._closed = True
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        for task in self._connections:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address, source: str) -> None:
        if self._closed or len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self.used.set()
        task = asyncio.get_running_loop().create_task(_carry(reader, writer, target, source))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address, source: str) -> None:
    """One connection, both ways, each closed on its own as the peers do."""
    far: asyncio.StreamWriter | None = None
    whole = False
    try:
        far_reader, far = await asyncio.wait_for(
            asyncio.open_connection(*target, limit=_CHUNK_BYTES, local_addr=(source, 0) if source else None),
            CONNECT_TIMEOUT_S,
        )
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, far))
            both.create_task(_copy(far_reader, writer))
        whole = True
    except* (OSError, TimeoutError):
        # Either peer may go away at any time; the other sees its connection end.
        pass
    finally:
        for end in (writer, far):
            if end is not None and whole:
                end.close()
            elif end is not None:
                end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
