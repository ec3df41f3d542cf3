"""A host with a metadata service and a resolver, in a network namespace of its own: what an ordinary process sees of them,
and what a sandbox on the same host does. Run by `test_network`; prints one JSON object."""

from __future__ import annotations

import asyncio
import fcntl
import json
import pickle
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from ringfence.runner.local_executor import Ways
from tests.sandbox.conftest import HELPERS, Lab, answer_of, echoing

METADATA, RESOLVER = "169.254.169.254", "169.254.169.253"
PROBE = f"""
def ask(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(3)
        try:
            udp.sendto(b"query", (host, 53))
            return udp.recv(100).decode()
        except OSError as error:
            return "failed " + (os.strerror(error.errno) if error.errno else type(error).__name__)
say({{"metadata": reach("{METADATA}", 80), "resolver": ask("{RESOLVER}"), "resolver by TCP": reach("{RESOLVER}", 53)}})
"""
_SIOCSIFADDR, _SIOCGIFFLAGS, _SIOCSIFFLAGS, _UP = 0x8916, 0x8913, 0x8914, 0x1


def address(interface: str, host: str) -> None:
    """Gives the loopback interface, or an alias of it, an address, and takes it up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = interface.encode()
        packed = struct.pack("16sH2s4s8s", name, socket.AF_INET, b"", socket.inet_aton(host), b"")
        fcntl.ioctl(control, _SIOCSIFADDR, packed)
        flags = struct.unpack("16sH", fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH", name, 0)))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH", name, flags | _UP))


def answer_datagrams(server: socket.socket) -> None:
    while True:
        data, peer = server.recvfrom(512)
        server.sendto(b"answer to " + data, peer)


def greet(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"host")


def serve() -> None:
    """The two services."""
    for number, host in enumerate(("127.0.0.1", METADATA, RESOLVER)):
        address("lo" if not number else f"lo:{number}", host)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((RESOLVER, 53))
    threading.Thread(target=answer_datagrams, args=(udp,), daemon=True).start()
    for place in ((METADATA, 80), (RESOLVER, 53)):
        threading.Thread(target=greet, args=(socket.create_server(place),), daemon=True).start()


async def inside(state: Path, runsc: Path, root: object) -> object:
    async with echoing("gateway") as gateway:
        return await Lab(state, runsc, root, Ways(gateway, {})).ask(PROBE)


def main() -> None:
    state, runsc, pickled = map(Path, sys.argv[1:4])
    serve()
    done = subprocess.run(
        [sys.executable, "-I", "-c", HELPERS + textwrap.dedent(PROBE)], capture_output=True, text=True, timeout=300
    )
    answers = {"outside": answer_of(done.stdout + done.stderr)}
    answers["inside"] = asyncio.run(inside(state, runsc, pickle.loads(pickled.read_bytes())))
    print("ANSWER " + json.dumps(answers))


if __name__ == "__main__":
    main()
