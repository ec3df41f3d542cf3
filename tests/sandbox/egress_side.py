"""A whole control side with its egress proxy in a network namespace of its own, where a small internet stands: see tests/components/egress/lab.py.

    python -m tests.sandbox.egress_side tasks FOLDER    runs tasks, prints what each saw and the audit trail, as JSON
    python -m tests.sandbox.egress_side stay FOLDER [orphan]    prints the proxy's process id and waits to be killed

Everything is real but the broker, which has nothing to issue here. `orphan` takes away what ends the proxy with its maker.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import socket
import ssl
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from ringfence.audit import TRAIL_FILE
from ringfence.catalog import load
from ringfence.egress.policy import ways_out
from ringfence.local import toolchain
from ringfence.names import Names
from ringfence.runner.assembly import ControlSide, Plan, control_side
from ringfence.runner.local_executor import LocalExecutor, Proxy, ReadOnlyMount, Root, Ways, image_root, launch
from tests.components.egress import lab

ROOT = Path(__file__).parents[2]
USER = "ana@example.com"
ANSWERS = {
    "docs.python.org": [["8.8.4.4"]],
    "en.wikipedia.org": [["9.9.9.10"]],
    "kubernetes.io": [["127.0.0.1"]],  # a listed name that leads back to the host
    "pages.example.org": [["9.9.9.10"]],
    "evil.example.org": [["8.8.4.4"]],
}
SCRIPT = """
steps:
  - tool_calls: [{name: web-fetch, arguments: {url: "https://docs.python.org/3/"}}]
  - say: "Read: ${tool_result:1}"
"""
HELPERS = """
import json, os, socket, ssl, urllib.request
HOST = "192.0.2.1"

def reach(host, port):
    try:
        with socket.create_connection((host, port), 3):
            return "reached"
    except OSError as error:
        return "failed " + (os.strerror(error.errno) if error.errno else type(error).__name__)

def fetch(port, host, name=""):
    try:
        with socket.create_connection((HOST, port), 5) as plain:
            plain.settimeout(15)
            plain.sendall(f"CONNECT {host} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
            head = plain.recv(4096).decode()
            if " 200 " not in head:
                return head.partition("\\r\\n")[0]
            context = ssl.create_default_context(cafile="/home/ca.pem")
            with context.wrap_socket(plain, server_hostname=name or host.rpartition(":")[0]) as stream:
                stream.sendall(b"GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
                data = b"".join(iter(lambda: stream.recv(65536), b""))
                return "answered " + data.decode().rpartition("\\r\\n\\r\\n")[2]
    except OSError as error:
        return "failed " + type(error).__name__

def answer(value):
    url = os.environ["RINGFENCE_GATEWAY_URL"] + "/v1/result"
    headers = {"Authorization": "Bearer " + os.environ["CREDENTIALS_TOKEN"], "Content-Type": "application/json"}
    body = {"output": json.dumps(value), "status": "succeeded"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=300).read()
"""
PROBES = """
ports = json.loads(os.environ["RINGFENCE_TOOL_PORTS"])
mine = next(iter(ports.values()), None)
open_ports = [port for port in range(14990, 15100) if reach(HOST, port) == "reached"]
probes = {"ports": ports, "open": open_ports}
for port in REAL:
    probes[f"proxy {port}"] = [reach(host, port) for host in (HOST, "127.0.0.1")]
probes["host"] = [reach(host, port) for host in (HOST, "127.0.0.1", "8.8.4.4") for port in (443, 80, 22)]
if mine:
    probes |= {
        "listed": fetch(mine, OWN + ":443"),
        "unlisted": fetch(mine, "evil.example.org:443"),
        "of the other tool": fetch(mine, OTHER + ":443"),
        "address": fetch(mine, "8.8.4.4:443"),
        "loopback": fetch(mine, "127.0.0.1:443"),
        "leads to loopback": fetch(mine, "kubernetes.io:443"),
        "port 80": fetch(mine, OWN + ":80"),
        "another server name": fetch(mine, OWN + ":443", "en.wikipedia.org"),
    }
answer(probes)
"""


class Pages(lab.Servers):
    """On each address a page that says which address it is."""

    def _answer(self, connection: socket.socket, address: str, port: int) -> None:
        page = f"<html><title>A page</title><p>This is {address}.</p></html>"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        connection.settimeout(lab.SECONDS)
        try:
            with self._context.wrap_socket(connection, server_side=True) if port == 443 else connection as stream:
                stream.recv(65536)
                stream.sendall((head + page).encode())
                stream.unwrap() if isinstance(stream, ssl.SSLSocket) else None
        except OSError:
            connection.close()


class NothingToIssue:
    """A broker for tools without grants."""

    def list(self, *, active: bool) -> list[Any]:
        return []

    def revoke(self, *, invocation_id: str) -> None:
        pass

    def prune(self) -> None:
        pass

    def secrets(self) -> tuple[str, ...]:
        return ()


def catalog_in(folder: Path) -> Any:
    """The example's catalog, and two more tools: one that goes elsewhere, one that goes nowhere."""
    shutil.copytree(ROOT / "catalog", folder / "catalog")
    declared = yaml.safe_load((folder / "catalog" / "tools" / "web-fetch.yaml").read_text())
    roles = folder / "catalog" / "roles.yaml"
    roles.write_text(roles.read_text().replace("tools: [web-fetch]", "tools: [web-fetch, page-store, adder]"))
    for name, egress in (("page-store", {"domains": ["pages.example.org"]}), ("adder", {})):
        text = yaml.safe_dump(declared | {"name": name, "egress": egress})
        (folder / "catalog" / "tools" / f"{name}.yaml").write_text(text)
    return load(folder / "catalog")


def plan_in(folder: Path, proxy: Proxy, catalog: Any, runsc: Path, root: Root) -> Plan:
    """The control side."""
    script = folder / "script.yaml"
    script.write_text(SCRIPT)

    def executor(gateway: tuple[str, int]) -> LocalExecutor:
        return LocalExecutor(folder / "sandboxes", runsc, root, Ways(gateway, proxy.listeners, None, proxy))

    names = Names("ringfence", "test", "123456789012", "us-east-1")
    return Plan(names, catalog, folder, NothingToIssue, executor, environ={}, script=script, egress=proxy.serving)


async def task(control: ControlSide, root: Root, tool: str, hostile: str = "") -> dict[str, Any]:
    """One task with one tool. hostile: code in the place of the runtime."""
    command = ("/usr/bin/python3", "-c", HELPERS + textwrap.dedent(hostile)) if hostile else root.command
    control.parts.executor._root = dataclasses.replace(root, command=command)
    groups = control.catalog.groups_of(USER)
    result = await control.runner.run(USER, "Read the page.", [tool], groups=groups, model="scripted", source="test")
    return {"id": result.invocation_id, "status": str(result.status), "output": result.output, "error": result.error}


async def tasks(folder: Path) -> None:
    """Runs one honest task, and hostile ones with each tool."""
    catalog = catalog_in(folder)
    # Made before, where there is a network.
    image = image_root(say)
    authorities = ReadOnlyMount(folder / "ca", "/home")
    environment = (*image.environment, ("SSL_CERT_FILE", "/home/ca.pem"))
    root = dataclasses.replace(image, environment=environment, mounts=(*image.mounts, authorities))
    runsc = toolchain.resolve(["runsc"], report=say).path("runsc")
    servers = internet(folder)
    proxy = Proxy(ways_out(catalog.tools), resolvers=lambda: (lab.DNS_ADDRESS[0],))
    saw: dict[str, Any] = {}
    async with control_side(plan_in(folder, proxy, catalog, runsc, root), say) as control:
        saw["honest"] = await task(control, root, "web-fetch")
        real = [address[1] for address in proxy.listeners.values()]
        for tool, own, other in (
            ("web-fetch", "docs.python.org", "pages.example.org"),
            ("page-store", "pages.example.org", "docs.python.org"),
            ("adder", "", ""),
        ):
            code = f"REAL, OWN, OTHER = {real!r}, {own!r}, {other!r}\n"
            saw[tool] = await task(control, root, tool, code + PROBES)
        saw["servers"] = list(servers.reached)
        socket.create_connection(("127.0.0.1", 443)).close()
        while len(servers.reached) == len(saw["servers"]):
            await asyncio.sleep(0.01)
        saw["control"] = servers.reached[-1]
        pid = proxy.pid
    plan = dataclasses.replace(plan_in(folder, proxy, catalog, runsc, root), warm=1)
    async with control_side(plan, say) as control:
        control.runner.start()
        while control.runner._pool.waiting < 1:
            await asyncio.sleep(0.05)
        saw["warm"] = await task(control, root, "web-fetch")
    trail = (folder / TRAIL_FILE).read_text().splitlines()
    saw |= {"trail": [json.loads(line) for line in trail], "left": Path(f"/proc/{pid}").exists()}
    print(json.dumps(saw), flush=True)


async def stay(folder: Path) -> None:
    """Waits with the proxy running."""
    catalog = catalog_in(folder)
    proxy = Proxy(ways_out(catalog.tools), resolvers=lambda: (lab.DNS_ADDRESS[0],))
    nothing = Root(Path("/"), "/none", ("/none",))
    async with control_side(plan_in(folder, proxy, catalog, Path("/none"), nothing), say):
        assert proxy.closed() == ""
        print(proxy.pid, flush=True)
        await asyncio.sleep(60)


def internet(folder: Path) -> Pages:
    """DNS and TLS servers; the authorities' certificate in `folder`/ca."""
    lab.make_certificates(folder, list(ANSWERS))
    (folder / "ca").mkdir()
    shutil.copy(folder / "ca.pem", folder / "ca" / "ca.pem")
    lab.Dns().answers.update(ANSWERS)
    return Pages(folder)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    lab.enter_namespace(inside=os.geteuid())
    if "orphan" in sys.argv:
        launch.dies_with = lambda parent: None
    asyncio.run({"tasks": tasks, "stay": stay}[what](folder))


if __name__ == "__main__":
    main()
