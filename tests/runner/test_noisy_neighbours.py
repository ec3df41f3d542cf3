"""Sandboxes that hold every connection they can get: a quiet one beside them reaches the gateway all the same."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest

from ringfence.gateway import serving
from ringfence.runner.local_executor.relay import MAX_CONNECTIONS, Relay
from tests.gateway import conftest
from tests.gateway.conftest import Lab, chat

pytestmark = pytest.mark.anyio
start = conftest.start
# More of them than one address's connections hold.
HOSTILE = serving.CONNECTIONS_PER_ADDRESS // MAX_CONNECTIONS + 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def relayed(lab: Lab, stack: AsyncExitStack, own_address: bool) -> int:
    """A sandbox's port to the gateway."""
    host, _, port = lab.url.removeprefix("http://").rpartition(":")
    relay, bound = Relay(), socket.create_server(("127.0.0.1", 0))
    stack.callback(relay.close)
    await relay.open({1: (bound, (host, int(port)))}, relay.address if own_address else "")
    return bound.getsockname()[1]


async def hold(port: int, stack: AsyncExitStack) -> None:
    for _ in range(MAX_CONNECTIONS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # The reader is kept too: without one asyncio ends the connection.
        stack.callback(lambda _reader, writer: writer.transport.abort(), reader, writer)


async def ask(port: int, authorization: str) -> bytes:
    """The status line of a model call; empty when the connection is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(chat()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    try:
        async with asyncio.timeout(120):
            return await reader.readline()
    except OSError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(("own_address", "answer"), [(True, b"HTTP/1.1 200 OK\r\n"), (False, b"")])
async def test_hostile_sandboxes_shut_out_another_only_when_all_come_from_one_address(
    start: Any, monkeypatch: pytest.MonkeyPatch, own_address: bool, answer: bytes
) -> None:
    # What they hold stays, however slow the machine is.
    monkeypatch.setattr(serving, "HEAD_SECONDS", 120.0)
    async with start() as lab, AsyncExitStack() as stack:
        _, client = await lab.sandbox()
        quiet = await relayed(lab, stack, own_address)
        for _ in range(HOSTILE):
            await hold(await relayed(lab, stack, own_address), stack)
        await asyncio.sleep(1)
        assert await ask(quiet, client.headers["authorization"]) == answer


async def test_the_server_may_open_what_all_its_connections_need(start: Any) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        async with start():
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            assert soft == min(serving._OPEN_FILES, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
