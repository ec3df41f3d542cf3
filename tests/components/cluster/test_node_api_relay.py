"""The relay on sandbox nodes, run for real between a client and a proxy."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import components

RELAY = Path(components.__file__).with_name("node_api_relay.py")
HOST = "ec2.us-east-1.amazonaws.com"


class _Proxy(threading.Thread):
    """Answers CONNECT with `status`; once connected, sends back what comes in capitals."""

    def __init__(self, status: str):
        super().__init__(daemon=True)
        self._status, self.asked = status, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rwb", buffering=0) as stream:
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        head += stream.readline()
                    self.asked.append(head.decode())
                    stream.write(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
                    while self._status.startswith("200") and (chunk := connection.recv(65536)):
                        connection.sendall(chunk.upper())

    def stop(self) -> None:
        self._listener.close()


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
def relay():
    """Starts proxy and relay; gives the relay's port and the proxy."""
    started: list = []

    def start(status: str = "200 OK") -> tuple[int, _Proxy, subprocess.Popen]:
        proxy = _Proxy(status)
        proxy.start()
        port = _free_port("127.64.0.1")
        process = subprocess.Popen(
            [sys.executable, "-I", RELAY, f"127.0.0.1:{proxy.port}", f"127.64.0.1={HOST}", "--port", str(port)],
            stderr=subprocess.PIPE,
            text=True,
        )
        started.extend((proxy, process))
        for _ in range(1200):
            with contextlib.suppress(OSError), socket.create_connection(("127.64.0.1", port), timeout=1):
                return port, proxy, process
            assert process.poll() is None, process.stderr.read()
            threading.Event().wait(0.05)
        raise AssertionError("the relay did not start")

    yield start
    for thing in started:
        if isinstance(thing, _Proxy):
            thing.stop()
        else:
            thing.terminate()
            thing.wait(300)
            thing.stderr.close()


def _exchange(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.64.0.1", port), timeout=300) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        return received


def test_bytes_pass_both_ways_through_a_tunnel_to_the_addresss_own_name(relay):
    port, proxy, _ = relay()
    payload = b"client hello " * 20_000
    assert _exchange(port, payload) == payload.upper()
    assert proxy.asked[-1] == f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n"


def test_a_refusal_of_the_proxy_closes_the_connection_and_is_logged(relay):
    port, _, process = relay("403 Forbidden")
    assert _exchange(port, b"client hello") == b""
    assert "403 Forbidden" in process.stderr.readline()
