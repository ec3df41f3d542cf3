"""Real gVisor sandboxes: an executor whose only way out is an echo server, and probes that always say what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ringfence.invocation import new_id
from ringfence.local import toolchain
from ringfence.runner.executor import Exit, Unit
from ringfence.runner.local_executor import GATEWAY_PORT, LocalExecutor, ReadOnlyMount, Root, Ways

# What a probe may call: `say(value)` prints its one answer; `reach(host, port)` says what a connection gave.
HELPERS = """
import json, os, socket, sys

def say(value):
    print("ANSWER " + json.dumps(value), flush=True)

def reach(host, port, timeout=3):
    try:
        with socket.create_connection((host, port), timeout) as connection:
            return "reached " + connection.recv(100).decode()
    except OSError as error:
        return "failed " + (os.strerror(error.errno) if error.errno else type(error).__name__)
"""
INTERPRETER = f"/python/bin/{Path(sys.executable).resolve().name}"


def answer_of(log: str) -> Any:
    """What the probe said. No answer, or more than one, is a failure: silence never counts as denied."""
    said = [line.removeprefix("ANSWER ") for line in log.splitlines() if line.startswith("ANSWER ")]
    assert len(said) == 1, f"the probe gave {len(said)} answers:\n{log}"
    return json.loads(said[0])


@pytest.fixture(scope="session")
def runsc() -> Path:
    """The real gVisor; built on first use."""
    return toolchain.resolve(["runsc"], report=lambda line: print(line, file=sys.stderr, flush=True)).path("runsc")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root folder with this machine's Python and the libraries that it needs."""
    folder = tmp_path_factory.mktemp("root")
    folder.chmod(0o755)
    mounts = {Path(sys.base_prefix): "/python", Path("/usr"): "/usr", Path("/lib"): "/lib", Path("/lib64"): "/lib64"}
    for name in ("proc", "sys", "dev", "tmp", "opt", "var/run/ringfence/credentials"):
        (folder / name).mkdir(parents=True)
    for destination in mounts.values():
        (folder / destination.lstrip("/")).mkdir()
    there = tuple(ReadOnlyMount(source, destination) for source, destination in mounts.items() if source.is_dir())
    return Root(folder, INTERPRETER, (INTERPRETER, "-I", "-c", ""), (), there)


class Lab:
    """An executor, an echo server as its gateway, and short ways to run code in sandboxes."""

    GATEWAY = (LocalExecutor.CONTROL_ADDRESS, GATEWAY_PORT)
    echoing: Any

    def __init__(self, state: Path, runsc: Path, root: Root, ways: Ways) -> None:
        self.state, self.runsc, self.root, self.ways = state, runsc, root, ways
        self.executor = self.make(root)

    def make(self, root: Root) -> LocalExecutor:
        """Another executor on the same state folder."""
        return LocalExecutor(self.state, self.runsc, root, self.ways)

    async def start(self, code: str, *, warm: bool = False, executor: LocalExecutor | None = None, **unit: Any) -> str:
        """Starts `code` in a sandbox of its own; returns its id."""
        command = (INTERPRETER, "-I", "-c", HELPERS + textwrap.dedent(code))
        executor = executor or self.executor
        executor._root = dataclasses.replace(executor._root, command=command)
        made = unit_of(**unit)
        await (executor.warm if warm else executor.start)(made, lambda line: None)
        return made.invocation_id

    async def run(self, code: str, **unit: Any) -> Exit:
        """Runs `code` to its end, removes the sandbox, returns how it ended."""
        invocation_id = await self.start(code, **unit)
        try:
            return await asyncio.wait_for(self.executor.wait(invocation_id), 60)
        finally:
            await self.executor.remove(invocation_id)

    async def ask(self, code: str, **unit: Any) -> Any:
        """What `code` says."""
        return answer_of((await self.run(code, **unit)).log)

    async def said(self, invocation_id: str, text: str, executor: LocalExecutor | None = None) -> None:
        """Returns once the running sandbox has printed `text`."""
        executor = executor or self.executor
        deadline = asyncio.get_running_loop().time() + 120
        while text not in executor._running[invocation_id].output.text():
            assert asyncio.get_running_loop().time() < deadline, executor._running[invocation_id].output.text()
            await asyncio.sleep(0.02)


def unit_of(invocation_id: str = "", seconds: float = 120, owner: str = "test", **unit: Any) -> Unit:
    """A unit with a fresh id that lasts `seconds`."""
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    return Unit(invocation_id or new_id(), owner, deadline, unit.pop("tools", ()), **unit)


@contextlib.asynccontextmanager
async def echoing(text: str, host: str = "127.0.0.1") -> AsyncIterator[tuple[str, int]]:
    """A server that says `text` to whoever connects."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode())
        writer.close()

    server = await asyncio.start_server(greet, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


Lab.echoing = staticmethod(echoing)
LabRunner = Callable[..., Any]


@pytest.fixture
def lab(tmp_path: Path, runsc: Path, root: Root) -> LabRunner:
    """lab(scenario, tools={...}): runs the coroutine function `scenario(lab)` with its own executor and echo servers; every
    sandbox that it leaves is removed."""

    def run(scenario: Callable[[Lab], Any], tools: Mapping[str, tuple[str, int]] | None = None, **ways: Any) -> Any:
        async def whole() -> Any:
            async with echoing("gateway") as gateway:
                lab = Lab(tmp_path / "state", runsc, root, Ways(gateway, dict(tools or {}), **ways))
                try:
                    return await scenario(lab)
                finally:
                    for leftover in await lab.executor.leftovers():
                        await lab.executor.remove(leftover.invocation_id)

        return asyncio.run(whole())

    return run


@pytest.fixture
def outside() -> Callable[[str], Any]:
    """outside(code): what the same probe says as an ordinary child process: the protection taken away."""

    def ask(code: str) -> Any:
        words = [sys.executable, "-I", "-c", HELPERS + textwrap.dedent(code)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL)
        return answer_of(done.stdout + done.stderr)

    return ask
