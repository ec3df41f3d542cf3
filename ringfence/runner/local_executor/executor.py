"""Sandboxes on this machine: each a gVisor sandbox of its own with its own files, network and limits.

Trust zone: control side. What keeps a sandbox in is gVisor's kernel, a network without a way out but this process's relays,
a control group, and that nothing of the host is mounted but one read-only root. There is no switch for less: where one of
these can't be had, `start` fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ringfence.catalog.model import Tool
from ringfence.egress.aws_hosts import calls_aws
from ringfence.runner.executor import (
    AWS_ENDPOINT,
    GATEWAY_URL,
    PROXY_HOST,
    TOOL_PORTS,
    ExecutorError,
    Exit,
    Fit,
    Leftover,
    Report,
    Unit,
    size_of,
)
from ringfence.runner.local_executor import bundle, launch, starters, watchdog
from ringfence.runner.local_executor.bundle import Root
from ringfence.runner.local_executor.cgroups import Group, Limits
from ringfence.runner.local_executor.fence import CONTROL_ADDRESS, Fence
from ringfence.runner.local_executor.records import Records
from ringfence.runner.local_executor.relay import Address, Relay
from ringfence.runner.local_executor.threads import in_thread

# Sandbox-side ports: the model gateway's, the AWS endpoint's, and from the third on one per tool that goes out.
GATEWAY_PORT, AWS_PORT, TOOL_PORT = 14000, 14001, 15001
# The most that one sandbox may have, as in a namespace on the cluster (runner.manifests.UnitLimits).
MAX_CPU_MILLIS, MAX_MEMORY_MIB = 1000, 1024
# gVisor's own threads (some 40) and one host thread per thread inside; a fork bomb ends the sandbox, not the machine.
PROCESSES = 256
# gVisor and the interpreter start with more CPU than the unit's own, until the sandbox first calls the gateway, or this long:
# at half a CPU the start alone takes almost twice as long.
BOOT_CPU_MILLIS, BOOT_S = 2000, 3.0
_READ_BYTES = 1 << 16


class ToolsProxy(Protocol):
    """The egress proxy as the executor sees it; see `proxy.Proxy`."""

    def closed(self) -> str:
        """Why there is no way out at the moment, with the remedy; empty when there is one."""

    def source(self, invocation_id: str) -> str:
        """The address that the invocation's connections to its tools' listeners come from."""


@dataclass(frozen=True, slots=True)
class Ways:
    """Control-side addresses that sandboxes are relayed to. gateway: the model gateway; tools: each tool's own listener
    (of the egress proxy) by tool name; aws: where tools with grants reach AWS's API, None when through their listener;
    proxy: whose listeners those are, when this control side runs it."""

    gateway: Address
    tools: Mapping[str, Address] = field(default_factory=dict)
    aws: Address | None = None
    proxy: ToolsProxy | None = None

    def ports(self) -> dict[int, Address]:
        """Sandbox-side port → control-side address of all of them."""
        found = {GATEWAY_PORT: self.gateway} | {self.port(name): address for name, address in self.tools.items()}
        return found if self.aws is None else found | {AWS_PORT: self.aws}

    def port(self, tool: str) -> int:
        """Sandbox-side port of a tool that has a listener. Raises KeyError for another."""
        if tool not in self.tools:
            raise KeyError(tool)
        return TOOL_PORT + sorted(self.tools).index(tool)


@dataclass(slots=True)
class _Running:
    """What this process holds of a sandbox that it started."""

    fence: Fence
    relay: Relay
    process: asyncio.subprocess.Process
    unit: Unit
    deadline: datetime
    bound: bool
    output: launch.Output = field(default_factory=launch.Output)
    killed: str = ""
    ended: asyncio.Task[Exit] | None = None


class LocalExecutor:
    """Implements `ringfence.runner.executor.Executor` with gVisor on this machine.

    state_folder: kept for every runner of this user that shares it, so that any may remove what a killed one left; runsc:
    the program; root: what is inside; ways: where the relays lead.
    """

    name = "local"
    CONTROL_ADDRESS = CONTROL_ADDRESS
    GATEWAY_URL = f"http://{CONTROL_ADDRESS}:{GATEWAY_PORT}"

    def __init__(self, state_folder: Path, runsc: Path, root: Root, ways: Ways) -> None:
        self._records = Records(state_folder)
        self._runsc = runsc
        self._root = root
        self._ways = ways
        self._running: dict[str, _Running] = {}

    def fit(self, tools: Sequence[Tool]) -> Fit:
        """Size and sandbox-side ports for these tools. Raises ExecutorError for a tool that needs more, or has domains but no
        listener here."""
        cpu, memory = size_of(tools, MAX_CPU_MILLIS, MAX_MEMORY_MIB)
        return Fit(cpu, memory, self._ports(tools))

    def _ports(self, tools: Sequence[Tool]) -> dict[str, int]:
        """Sandbox-side port of each tool with egress."""
        through_proxy = calls_aws if self._ways.aws is None else lambda tool: False
        going_out = [tool for tool in tools if tool.egress.domains or through_proxy(tool)]
        closed = self._ways.proxy.closed() if self._ways.proxy and going_out else ""
        for tool in going_out:
            if closed or tool.name not in self._ways.tools:
                remedy = "    remedy: start the proxy with this tool's listener, or take the domains out of the catalog"
                raise ExecutorError(
                    f"tool {tool.name} has {'egress domains' if tool.egress.domains else 'grants'}, but no listener of the "
                    "egress proxy is running for it here" + (f": {closed}" if closed else f"\n{remedy}")
                )
        return {tool.name: self._ways.port(tool.name) for tool in going_out}

    async def start(self, unit: Unit, report: Report) -> None:
        """Makes the sandbox and starts its process. Raises ExecutorError; what was made by then is for `remove`."""
        await self._start(unit, report, dict(unit.credentials), self._open_to(unit.tools), bound=True)

    async def warm(self, unit: Unit, report: Report) -> None:
        """As `start`, with only the gateway in reach and without credentials, whatever the unit holds of them."""
        await self._start(unit, report, {}, self._open_to(()), bound=False)

    async def bind(self, unit: Unit) -> None:
        """Opens the ports of the unit's tools in a warm sandbox, once. Raises ExecutorError when it no longer runs, is smaller
        than the unit, or was bound or started with its tools before."""
        running = self._running.get(unit.invocation_id)
        if running is None or running.process.returncode is not None or running.killed:
            raise ExecutorError(f"the sandbox of invocation {unit.invocation_id} no longer runs, so it can't be bound")
        if running.bound:
            raise ExecutorError(
                f"the sandbox of invocation {unit.invocation_id} is bound already; it is never used twice"
            )
        made = running.unit
        if unit.memory_mib > made.memory_mib or unit.cpu_millis > made.cpu_millis:
            raise ExecutorError(
                f"the warm sandbox {unit.invocation_id} has {made.cpu_millis}m CPU and {made.memory_mib} MiB; the unit wants "
                f"{unit.cpu_millis}m and {unit.memory_mib} MiB\n    remedy: start it cold"
            )
        ports = self._open_to(unit.tools) - set(running.relay.ports)
        running.bound = True
        running.deadline = unit.deadline
        await self._open(running.relay, running.fence, ports, unit.invocation_id)

    def _open_to(self, tools: Sequence[Tool]) -> set[int]:
        """Sandbox-side ports that a sandbox with these tools may reach."""
        ports = {GATEWAY_PORT, *self._ports(tools).values()}
        if self._ways.aws is not None and any(map(calls_aws, tools)):
            ports.add(AWS_PORT)
        return ports

    async def _open(self, relay: Relay, fence: Fence, ports: Iterable[int], invocation_id: str) -> None:
        targets = self._ways.ports()
        ways = {port: (fence.sockets[port], targets[port]) for port in sorted(ports)}
        tools = {port: way for port, way in ways.items() if port >= TOOL_PORT}
        # From one address for all, four hostile sandboxes would take up what the gateway grants an address.
        await relay.open({port: way for port, way in ways.items() if port == GATEWAY_PORT}, relay.address)
        await relay.open({port: way for port, way in ways.items() if port not in (GATEWAY_PORT, *tools)})
        if tools:
            # The proxy knows by it whose connections these are.
            source = self._ways.proxy.source(invocation_id) if self._ways.proxy else ""
            await relay.open(tools, source)

    def _environment(self, unit: Unit) -> dict[str, str]:
        ports = json.dumps(self._ports(unit.tools))
        own = {GATEWAY_URL: self.GATEWAY_URL, PROXY_HOST: self.CONTROL_ADDRESS, TOOL_PORTS: ports}
        if self._ways.aws is not None:
            own[AWS_ENDPOINT] = f"http://{self.CONTROL_ADDRESS}:{AWS_PORT}"
        return dict(self._root.environment) | dict(unit.environment) | own

    async def _start(
        self, unit: Unit, report: Report, credentials: Mapping[str, bytes], ports: Iterable[int], *, bound: bool
    ) -> None:
        name = unit.invocation_id
        if datetime.now(UTC) >= unit.deadline:
            raise ExecutorError(f"the deadline of invocation {name} has passed already")
        environment = self._environment(unit)
        folder = await in_thread(lambda: self._records.make(name, unit.owner, unit.deadline))
        report("making the network")
        async with contextlib.AsyncExitStack() as undo:
            with contextlib.ExitStack() as held:
                stdin = launch.payload(self._root.command, environment, credentials)
                held.callback(os.close, stdin)
                starter = starters.starter()
                undo.callback(starter.abandon)
                fence = await starter.prepare(sorted(self._ways.ports()), folder, stdin)
                undo.callback(fence.close)
                relay = Relay()
                undo.callback(relay.close)
                await self._open(relay, fence, ports, name)
                group = await self._group(unit)
                sandbox, empty = starter.paths(fence, folder)
                start = launch.arguments(self._root.interpreter)
                config = bundle.configuration(self._root, start, sandbox, group.path if group else None)
                await in_thread(lambda: (folder / "config.json").write_text(json.dumps(config), encoding="utf-8"))
                report("starting gVisor")
                more = () if group else ("--ignore-cgroups",)
                words = launch.command_line(self._runsc, folder, name, empty, more)
                process = await starter.go(words, stdin)
            running = _Running(fence, relay, process, unit, unit.deadline, bound)
            self._running[name] = running
            running.ended = asyncio.create_task(self._watch(running, group))
            undo.pop_all()

    async def _group(self, unit: Unit) -> Group | None:
        """The sandbox's control group with its limits; None for an ordinary user, whose sandboxes a watchdog limits."""
        if os.geteuid() != 0:
            return None
        group = Group(unit.invocation_id)
        limits = dataclasses.replace(_limits(unit), cpu_millis=max(unit.cpu_millis, BOOT_CPU_MILLIS))
        await in_thread(lambda: group.make(limits))
        return group

    async def _watch(self, running: _Running, group: Group | None) -> Exit:
        """Reads the output until the process ends; meanwhile keeps it to its limits and its deadline."""
        keepers = [asyncio.create_task(_kill_at_deadline(running))]
        if group is None:
            keepers.append(asyncio.create_task(_kill_beyond_limits(running)))
        else:
            keepers.append(asyncio.create_task(_settle(running, group)))
        try:
            stream = running.process.stdout
            while stream is not None and (data := await stream.read(_READ_BYTES)):
                running.output.add(data)
            code = await running.process.wait()
        finally:
            for keeper in keepers:
                keeper.cancel()
            running.relay.close()
        log = running.output.text()
        if running.killed:
            return Exit(None, running.killed, log)
        if group is not None and await in_thread(group.out_of_memory):
            return Exit(None, "OOMKilled", log)
        # A negative code is the signal that ended runsc itself: the sandbox had no exit code then.
        return Exit(code if code >= 0 else None, "Completed" if code == 0 else "Error", log)

    async def wait(self, invocation_id: str) -> Exit:
        """Returns when the process has ended; immediately, with the reason ``NotFound``, when this executor has none."""
        running = self._running.get(invocation_id)
        if running is None or running.ended is None:
            return Exit(None, "NotFound")
        return await asyncio.shield(running.ended)

    async def remove(self, invocation_id: str) -> None:
        """Kills and removes everything of the sandbox, whoever started it. Raises ExecutorError when anything is left."""
        running = self._running.get(invocation_id)
        if running is not None:
            _end(running, "Removed")
        try:
            await in_thread(lambda: self._records.erase(invocation_id))
        finally:
            if running is not None:
                if running.ended is not None:
                    await asyncio.shield(running.ended)
                running.fence.close()
                self._running.pop(invocation_id, None)

    async def leftovers(self) -> list[Leftover]:
        """Every sandbox in the state folder, whoever made it."""
        return await in_thread(self._records.leftovers)


def _limits(unit: Unit) -> Limits:
    return Limits(unit.memory_mib << 20, unit.cpu_millis, PROCESSES)


def _end(running: _Running, reason: str) -> None:
    """Cuts the sandbox off and kills runsc, and with it everything that it started: its processes die with it."""
    running.killed = running.killed or reason
    running.relay.close()
    if running.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()


async def _kill_at_deadline(running: _Running) -> None:
    while (left := (running.deadline - datetime.now(UTC)).total_seconds()) > 0:
        # A warm sandbox gets a new deadline when it is bound: look again at least every second.
        await asyncio.sleep(min(left, 1.0))
    _end(running, "DeadlineExceeded")


async def _kill_beyond_limits(running: _Running) -> None:
    _end(running, await watchdog.watch(running.process.pid, _limits(running.unit)))


async def _settle(running: _Running, group: Group) -> None:
    """Gives a sandbox that has started its own CPU limit; one that can't be limited is killed."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(running.relay.used.wait(), BOOT_S)
    try:
        group.limit_cpu(running.unit.cpu_millis)
    except OSError:
        if running.process.returncode is None:
            _end(running, "Unlimited")
