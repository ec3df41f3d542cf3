"""The egress proxy of one control side on this machine: the real Envoy with the rules that the environment's proxies have.

It listens on loopback, one port per tool, and sandboxes come to it through their relays. Nothing of it lies on a disk: its
configuration is handed over in memory, its log comes through a pipe. The kernel ends it with the control side, also when that
is killed. Started by root it runs as a user of its own. Without it, or when it can't record, tools with domains are refused.
Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from ringfence.egress import envoy, program
from ringfence.egress.decisions import SETTLE_SECONDS, Decisions
from ringfence.egress.policy import EgressPolicy, ToolEgress
from ringfence.errors import RingfenceError
from ringfence.runner.executor import ExecutorError, Report
from ringfence.runner.local_executor import fence, launch
from ringfence.runner.local_executor.relay import Address
from ringfence.runner.local_executor.threads import in_thread

# Envoy is there within half a second; a machine that swaps takes longer.
START_S, STOP_S = 20.0, 5.0
# Between the unexpected end of Envoy and its next start.
_RESTART_S = 1.0
_POLL_S = 0.02
# So long a decision may wait in Envoy; what a killed control side had not read by then is lost.
_FLUSH_MS = 20
_LINE_BYTES = 1 << 20
# Who Envoy is when the control side is root: nobody else, neither a sandbox's nor a person's. From the range that systemd
# gives to services while they run (systemd.exec(5), DynamicUser).
_USER = 64747
_PR_SET_NO_NEW_PRIVS = 38


class Proxy:
    """The way out of tools with domains. find, resolvers: where Envoy and the machine's DNS servers are found."""

    def __init__(
        self,
        tools: Iterable[ToolEgress],
        find: Callable[[], program.Program | None] = program.find,
        resolvers: Callable[[], Sequence[str]] = program.resolvers,
    ) -> None:
        self._policy = EgressPolicy(tuple(tool for tool in tools if tool.domains))
        self._find = find
        self._resolvers = resolvers
        self._held: dict[str, socket.socket] = {}
        self._why = "the egress proxy is not running"
        self._decisions: Decisions | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    @property
    def listeners(self) -> dict[str, Address]:
        """Where each tool's listener is."""
        return {tool: held.getsockname() for tool, held in self._held.items()}

    @property
    def pid(self) -> int | None:
        """Envoy's process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    def closed(self) -> str:
        """Why there is no way out at the moment, with the remedy; empty when there is one."""
        return self._why

    def source(self, invocation_id: str) -> str:
        """The loopback address that the invocation's connections to its tools' listeners are to come from."""
        if self._decisions is None:
            raise ExecutorError(self._why)
        return self._decisions.source(invocation_id)

    @contextlib.asynccontextmanager
    async def serving(self, decisions: Decisions, report: Report) -> AsyncIterator[None]:
        """Runs it while the context is open, when any tool has domains. That it can't run is reported, and is what `closed`
        says from then on; it is started again when it ends by itself."""
        if not self._policy.tools:
            yield
            return
        self._decisions = decisions
        keeper: asyncio.Task[None] | None = None
        try:
            try:
                self._hold()
                await self._start()
            except (RingfenceError, OSError) as error:
                self._why = str(error)
                report(f"tools with egress domains are refused: {error}")
            else:
                keeper = asyncio.create_task(self._keep(report))
            yield
        finally:
            if keeper is not None:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
            await self._stop()
            self._decisions = None
            self._why = "the egress proxy is not running any more"
            for held in self._held.values():
                held.close()
            self._held.clear()

    def _hold(self) -> None:
        """Takes a free port for each tool and keeps it for Envoy: only its user can listen there, and only by saying so."""
        for tool in self._policy.tools:
            held = self._held[tool.name] = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if os.geteuid() == 0:
                os.fchown(held.fileno(), _USER, _USER)
            held.bind((envoy.LOOPBACK, 0))

    async def _start(self) -> None:
        """Starts Envoy and returns when it listens for every tool. Raises RingfenceError, OSError."""
        found = await in_thread(self._find)
        if found is None:
            raise ExecutorError(f"this machine has no Envoy for the egress proxy\n    remedy: {program.REMEDY}")
        ports = {tool: address[1] for tool, address in self.listeners.items()}
        rules = envoy.on_this_machine(self._policy, ports, await in_thread(self._resolvers))
        self._process = process = await _spawn(found, envoy.text(rules))
        said = launch.Output()
        self._readers = [
            asyncio.create_task(self._read(process)),
            asyncio.create_task(_collect(process, said)),
        ]
        try:
            await asyncio.wait_for(_listening(process, list(ports.values())), START_S)
        except TimeoutError:
            why = f"Envoy was not ready after {START_S:.0f} s"
        except ExecutorError as error:
            why = str(error)
        else:
            self._why = ""
            return
        await self._stop()
        raise ExecutorError(
            f"{why}: {said.text()[-1000:].strip() or 'it said nothing'}\n    remedy: `ringfence doctor`"
        )

    async def _keep(self, report: Report) -> None:
        """Starts Envoy again whenever it has ended; its listeners refuse connections meanwhile."""
        while True:
            if self._process is not None:
                code = await self._process.wait()
                self._why = self._why or f"the egress proxy ended ({code}) and is being started again"
                report(self._why)
                await self._stop()
            await asyncio.sleep(_RESTART_S)
            try:
                await self._start()
            except (RingfenceError, OSError) as error:
                self._why = str(error)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Records what Envoy decides. It is ended when a decision can't be recorded."""
        stream, decisions = process.stdout, self._decisions
        if stream is None or decisions is None:
            return
        try:
            while True:
                try:
                    line = await asyncio.wait_for(stream.readline(), SETTLE_SECONDS)
                except TimeoutError:
                    await in_thread(decisions.settle)
                    continue
                if not line:
                    return await in_thread(decisions.settle)
                await in_thread(lambda line=line: decisions.record(line))
        except (RingfenceError, ValueError) as error:
            self._why = f"a decision of the egress proxy could not be recorded: {error}"
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _stop(self) -> None:
        """Ends Envoy, and records what it still had to say."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)


async def _collect(process: asyncio.subprocess.Process, said: launch.Output) -> None:
    """Keeps the end of what Envoy says about itself."""
    while process.stderr is not None and (data := await process.stderr.read(1 << 16)):
        said.add(data)


async def _listening(process: asyncio.subprocess.Process, ports: Sequence[int]) -> None:
    """Returns when Envoy listens at every port. Whoever answers there is Envoy: the ports are held. Raises ExecutorError
    when it ends."""
    for port in ports:
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection(envoy.LOOPBACK, port)
            except OSError:
                await asyncio.sleep(_POLL_S)
            else:
                writer.close()
                break
        else:
            raise ExecutorError(f"Envoy ended with exit code {process.returncode} before it was ready")


async def _spawn(found: program.Program, configuration: str) -> asyncio.subprocess.Process:
    """Starts Envoy. Raises ExecutorError."""
    parent = os.getpid()

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        fence.call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # After the change of user, which would undo it.
        launch.dies_with(parent)

    with contextlib.ExitStack() as held:
        rules = os.memfd_create("egress", os.MFD_CLOEXEC)
        held.callback(os.close, rules)
        try:
            with open(rules, "w", encoding="utf-8", closefd=False) as file:
                file.write(configuration)
            # By descriptor: that user may not look into the folder that it lies in.
            binary = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, binary)
            who = {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}
            return await asyncio.create_subprocess_exec(
                *("ringfence-egress", "-c", f"/dev/fd/{rules}", "--concurrency", "1", "--disable-hot-restart"),
                *("--log-level", "warning", "--file-flush-interval-msec", str(_FLUSH_MS)),
                executable=f"/proc/self/fd/{binary}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES,
                env={},
                cwd="/",
                start_new_session=True,
                pass_fds=(rules, binary),
                preexec_fn=prepare,
                **who,
            )
        except OSError as error:
            raise ExecutorError(f"{found.path} does not run: {error}\n    remedy: {program.REMEDY}") from None
