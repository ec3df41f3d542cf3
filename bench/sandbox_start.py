"""How long a sandbox takes to start, cold and warm, beside runc in the same run; and how many fit in a gigabyte.

Peer: runc with the same bundle (same files, limits, network namespace and program), from PATH or built from its Go modules.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.report import machine, write_section
from ringfence.errors import RingfenceError
from ringfence.invocation import new_id
from ringfence.local import toolchain
from ringfence.local.toolchain import golang
from ringfence.runner.executor import Unit
from ringfence.runner.local_executor import LocalExecutor, Root, Ways, bundle, fence, image_root, launch
from ringfence.runner.local_executor.cgroups import Group, Limits
from ringfence.runner.local_executor.executor import BOOT_CPU_MILLIS, GATEWAY_PORT, PROCESSES
from ringfence.runner.local_executor.threads import in_own_thread

TITLE = "Sandboxes on one machine: start and memory"
RUNC = Path(__file__).with_name("runc")
ROUNDS, CROWD = 40, 8
# Bounds of the project: a bound sandbox is at work within this many milliseconds.
WARM_BOUND_MS = 100.0
Report = Callable[[str], None]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


# The runtimes alone


def find_runc(cache: Path, report: Report) -> Path:
    """runc from PATH, else from the cache, else built from the pinned modules. Raises RingfenceError."""
    if found := shutil.which("runc"):
        return Path(found)
    version = (RUNC / "go.mod").read_text().split("runc v")[1].split()[0]
    program = cache / "tools" / f"runc-{version}" / "runc"
    if program.exists():
        return program
    go = golang.find_go((1, 24), cache) or golang.fetch_go(cache)
    program.parent.mkdir(parents=True, exist_ok=True)
    report(f"building runc {version}")
    # runc enters its namespaces in C.
    environment = golang.build_environment(cache) | {"CGO_ENABLED": "1"}
    words = [str(go.path), "build", "-ldflags", "-s -w", "-o", str(program), "github.com/opencontainers/runc"]
    done = subprocess.run(words, cwd=RUNC, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RingfenceError(f"runc does not build here: {done.stderr[-500:]}")
    return program


def run_once(words: Sequence[str], root: Root, program: Sequence[str], folder: Path, name: str) -> float:
    """Seconds from the start of the runtime until the program in the container has ended."""
    group = Group(name)
    group.make(Limits(512 << 20, BOOT_CPU_MILLIS, PROCESSES))
    made = in_own_thread(lambda: fence.make([GATEWAY_PORT]))
    try:
        mine = f"/proc/{os.getpid()}/fd"
        config = bundle.configuration(root, program, f"{mine}/{made.sandbox}", group.path)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        filled = [word.format(folder=folder, empty=f"{mine}/{made.empty}", name=name) for word in words]
        began = time.perf_counter()
        done = subprocess.run(filled, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RingfenceError(f"{words[0]}: {done.stdout}{done.stderr}")
        return seconds
    finally:
        made.close()
        group.remove()


def runtimes(runsc: Path, runc: Path | None, root: Root) -> dict[str, list[float]]:
    """Seconds of every run, the runtimes taking turns."""
    program = (root.interpreter, "-ISc", "pass")
    words = {"runsc": launch.command_line(runsc, Path("{folder}"), "{name}", "{empty}")}
    if runc is not None:
        words["runc"] = [str(runc), "--root={folder}/runc", "run", "--bundle={folder}", "{name}"]
    found: dict[str, list[float]] = {name: [] for name in words}
    for _ in range(ROUNDS):
        for name, command in words.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(run_once(command, root, program, Path(folder), new_id()))
    return found


# The executor with the real runtime image


class Gateway:
    """Enough of the model gateway: holds the assignment until it is given, and notes when the first model call arrives."""

    def __init__(self) -> None:
        self.waiting, self.assigned, self.called = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.assignment: dict[str, object] = {}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[str, int]]:
        """Serves on a free port."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[:2]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            status, body = b"404 Not Found", b"{}"
            if head.startswith(b"GET /v1/assignment"):
                self.waiting.set()
                await self.assigned.wait()
                status, body = b"200 OK", json.dumps(self.assignment).encode()
            elif head.startswith(b"POST /v1/chat/completions"):
                self.called.set()
            length = b"%d" % len(body)
            writer.write(
                b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: " + length + b"\r\n\r\n" + body
            )
            await writer.drain()
        writer.close()


def unit(**more: str) -> Unit:
    """A unit for the runtime image, without tools."""
    deadline = datetime.now(UTC) + timedelta(seconds=250)
    environment = {"CREDENTIALS_TOKEN": "token", "RINGFENCE_MODEL": "scripted", "ALLOWED_TOOLS": "", **more}
    environment["RINGFENCE_DEADLINE"] = deadline.isoformat()
    made = Unit(new_id(), "bench", deadline, (), environment=environment)
    return dataclasses.replace(made, environment={**environment, "RINGFENCE_INVOCATION_ID": made.invocation_id})


@contextlib.asynccontextmanager
async def executing(runsc: Path, root: Root) -> AsyncIterator[tuple[LocalExecutor, Gateway]]:
    """An executor with a gateway of its own; removes what is left."""
    gateway = Gateway()
    with tempfile.TemporaryDirectory() as folder:
        async with gateway.serving() as address:
            executor = LocalExecutor(Path(folder), runsc, root, Ways(address))
            try:
                yield executor, gateway
            finally:
                gateway.assigned.set()
                for left in await executor.leftovers():
                    await executor.remove(left.invocation_id)


async def cold(runsc: Path, root: Root) -> tuple[float, float]:
    """Seconds from `start` to the runtime's first model call; of `remove`."""
    async with executing(runsc, root) as (executor, gateway):
        made = unit(TASK_PROMPT="bench")
        began = time.perf_counter()
        await executor.start(made, lambda line: None)
        await asyncio.wait_for(gateway.called.wait(), 60)
        ready = time.perf_counter()
        await executor.remove(made.invocation_id)
        return ready - began, time.perf_counter() - ready


async def warm(runsc: Path, root: Root) -> float:
    """Seconds from `bind` to the first model call of a sandbox that waits for its assignment."""
    async with executing(runsc, root) as (executor, gateway):
        made = unit(RINGFENCE_WARM="1")
        await executor.warm(made, lambda line: None)
        await asyncio.wait_for(gateway.waiting.wait(), 60)
        # A pool's sandbox has been idle for a while.
        await asyncio.sleep(0.3)
        gateway.assignment = {
            "prompt": "bench",
            "tools": [],
            "credentials": {},
            "deadline": made.deadline.isoformat(),
            "model": "scripted",
            "invocation": made.invocation_id,
        }
        began = time.perf_counter()
        await executor.bind(made)
        gateway.assigned.set()
        await asyncio.wait_for(gateway.called.wait(), 60)
        return time.perf_counter() - began


def proportional_kib(pid: int) -> int:
    """The process's memory, shared pages divided among who shares them."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def group_bytes(name: str) -> int:
    """What the sandbox's control group holds of memory, as the kernel counts it."""
    for folder in Group(name).folders():
        for file in ("memory.current", "memory.usage_in_bytes"):
            if (folder / file).exists():
                return int((folder / file).read_text())
    raise RingfenceError(f"no control group counts the memory of {name}")


async def crowd(runsc: Path, root: Root) -> float:
    """MiB per warm sandbox that waits, everything that runs for it counted, when CROWD of them wait."""
    async with executing(runsc, root) as (executor, gateway):
        names = []
        for _ in range(CROWD):
            gateway.waiting.clear()
            made = unit(RINGFENCE_WARM="1")
            await executor.warm(made, lambda line: None)
            await asyncio.wait_for(gateway.waiting.wait(), 60)
            names.append(made.invocation_id)
        await asyncio.sleep(2)
        # The group holds gVisor and its file server, each page once; runsc, which waits for them, stands outside of it.
        kib = sum(proportional_kib(running.process.pid) for running in executor._running.values())
        return (sum(map(group_bytes, names)) / 1024 + kib) / 1024 / CROWD


async def measure(runsc: Path, root: Root) -> tuple[list[float], list[float], list[float], float]:
    """Cold starts, removals, warm starts (seconds), MiB per waiting sandbox."""
    both = [await cold(runsc, root) for _ in range(ROUNDS)]
    bound = [await warm(runsc, root) for _ in range(ROUNDS)]
    return [start for start, _ in both], [gone for _, gone in both], bound, await crowd(runsc, root)


def main() -> None:
    """Measure everything and write the section."""
    runsc = toolchain.resolve(["runsc"]).path("runsc")
    root = image_root(print)
    note = "Peer: runc, same bundle, taking turns."
    try:
        runc: Path | None = find_runc(toolchain.cache_root(os.environ), print)
    except RingfenceError as error:
        runc, note = None, f"No peer: {error}"
    alone = runtimes(runsc, runc, root)
    starts, removals, bound, mib = asyncio.run(measure(runsc, root))
    rows = {
        **{f"`{name} run` of an empty Python program, to its end": values for name, values in alone.items()},
        "cold: `start` to the agent's first model call": starts,
        "warm: `bind` to the agent's first model call": bound,
        "`remove`": removals,
    }
    lines = [
        machine(),
        "",
        note,
        "",
        "| what | runs | p50 ms | p99 ms | fastest ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for what, values in rows.items():
        figures = [1000 * figure for figure in (statistics.median(values), percentile(values, 0.99), min(values))]
        lines.append(f"| {what} | {len(values)} | " + " | ".join(f"{figure:.0f}" for figure in figures) + " |")
    warm_ms = 1000 * statistics.median(bound)
    met = "met" if warm_ms <= WARM_BOUND_MS else "MISSED"
    lines += [
        "",
        f"A sandbox that waits for its task takes {mib:.0f} MiB (gVisor, its file server and the agent as their "
        "control group counts them, and runsc's PSS; "
        f"{CROWD} at once): {1024 / mib:.0f} in a gigabyte.",
        "",
        f"- {met}: warm p50 {warm_ms:.0f} ms (bound {WARM_BOUND_MS:.0f} ms)",
    ]
    write_section(TITLE, lines)


if __name__ == "__main__":
    main()
