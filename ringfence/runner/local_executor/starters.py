"""Makes a sandbox's network and starts gVisor in it: directly as root, or through a user namespace as any other user.

Both give the same: gVisor with its own network stack, in namespaces of its own. There is no third way, and neither turns into
the other. Trust zone: control side.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ringfence.runner.executor import ExecutorError
from ringfence.runner.local_executor import fence, launch
from ringfence.runner.local_executor.fence import Fence
from ringfence.runner.local_executor.threads import in_own_thread, in_thread

# Started as a file, so that it doesn't wait for the project's imports.
_NEST = Path(__file__).with_name("nest.py")
# Making namespaces takes milliseconds.
_NEST_S = 10.0
_REMEDY = (
    "    remedy: run as root, or as a user who may make user namespaces (sysctl user.max_user_namespaces above 0, "
    "kernel.apparmor_restrict_unprivileged_userns=0), on a kernel with veth"
)


class Starter(Protocol):
    """Starts one sandbox in two steps, because its configuration names what the first one makes."""

    async def prepare(self, ports: Sequence[int], folder: Path, stdin: int) -> Fence:
        """The sandbox's network. Raises ExecutorError."""

    def paths(self, made: Fence, folder: Path) -> tuple[str, str]:
        """Where gVisor finds the sandbox's network namespace, and the empty one."""

    async def go(self, words: Sequence[str], stdin: int) -> asyncio.subprocess.Process:
        """Starts gVisor. Raises ExecutorError."""

    def abandon(self) -> None:
        """Ends what `prepare` started, when `go` won't follow."""


def starter() -> Starter:
    """The one for this process's user."""
    return Direct() if os.geteuid() == 0 else Nested()


class Direct:
    """As root."""

    async def prepare(self, ports: Sequence[int], folder: Path, stdin: int) -> Fence:
        """See Starter."""

        def make() -> Fence:
            try:
                return in_own_thread(lambda: fence.make(ports))
            except OSError as error:
                raise ExecutorError(f"a sandbox's network can't be made: {error}\n{_REMEDY}") from None

        return await in_thread(make, discard=lambda made: made.close())

    def paths(self, made: Fence, folder: Path) -> tuple[str, str]:
        """See Starter."""
        return f"/proc/{os.getpid()}/fd/{made.sandbox}", f"/proc/{os.getpid()}/fd/{made.empty}"

    async def go(self, words: Sequence[str], stdin: int) -> asyncio.subprocess.Process:
        """See Starter."""
        return await launch.spawn(words, stdin)

    def abandon(self) -> None:
        """Nothing runs yet."""


class Nested:
    """As an ordinary user: a helper enters a user namespace, makes the network there, hands it over, and becomes gVisor."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None

    async def prepare(self, ports: Sequence[int], folder: Path, stdin: int) -> Fence:
        """See Starter."""
        self._control, far = socket.socketpair()
        self._control.settimeout(_NEST_S)
        with far:
            listed = ",".join(map(str, ports))
            words = [str(_NEST), str(far.fileno()), str(os.getpid()), listed, str(folder), launch.mark(folder)]
            self._process = await launch.spawn([sys.executable, "-IS", *words], stdin, keep=[far.fileno()])
        control = self._control
        made = await in_thread(lambda: _receive(control, ports), discard=lambda got: got.close() if got else None)
        if made is None:
            said = b""
            if self._process.stdout is not None:
                with contextlib.suppress(TimeoutError):
                    said = await asyncio.wait_for(self._process.stdout.read(), 1.0)
            reason = said.decode("utf-8", "replace").strip() or "no answer"
            raise ExecutorError(f"a sandbox can't be made in a user namespace: {reason}\n{_REMEDY}")
        return made

    def paths(self, made: Fence, folder: Path) -> tuple[str, str]:
        """See Starter."""
        return str(folder / fence.SANDBOX_FILE), str(folder / fence.EMPTY_FILE)

    async def go(self, words: Sequence[str], stdin: int) -> asyncio.subprocess.Process:
        """See Starter."""
        if self._process is None or self._control is None:
            raise ExecutorError("a sandbox that was not prepared can't be started")
        try:
            self._control.sendall("\0".join(words).encode())
        except OSError as error:
            raise ExecutorError(f"the helper in the user namespace ended: {error}") from None
        finally:
            self._control.close()
        return self._process

    def abandon(self) -> None:
        """See Starter."""
        if self._control is not None:
            self._control.close()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


def _receive(control: socket.socket, ports: Sequence[int]) -> Fence | None:
    """The helper's descriptors; None when it ended or said nothing in time."""
    numbers = array.array("i")
    wanted = 2 + len(ports)
    try:
        _, ancillary, flags, _ = control.recvmsg(
            16, socket.CMSG_LEN(wanted * numbers.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        return None
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    if len(numbers) != wanted or flags & socket.MSG_CTRUNC:
        for number in numbers:
            os.close(number)
        return None
    sandbox, empty, *bound = numbers
    sockets = {port: socket.socket(fileno=number) for port, number in zip(ports, bound, strict=True)}
    for made in sockets.values():
        made.setblocking(False)
    return Fence(sandbox, empty, sockets)
