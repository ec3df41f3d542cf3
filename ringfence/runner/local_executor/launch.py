"""Starts gVisor for one sandbox, and hands the environment and credentials to the process inside without a trace outside.

They travel in an anonymous, sealed file that is the process's standard input. No file system, argument list or runtime state
holds them, so nothing has to be wiped, and a killed runner leaves none behind. Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import fcntl
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringfence.runner.executor import CREDENTIALS_FOLDER, ExecutorError

# The end of its output that is kept.
LOG_BYTES = 64 << 10
PR_SET_PDEATHSIG = 1
# Ours, not the sandbox's: `--network=host`, a root overlay that keeps writes on disk, host sockets and FIFOs, raw sockets
# and huge debug logs are never wanted. directfs=false keeps every host file behind gVisor's file server, so that the
# sandbox process runs as nobody in a user namespace of its own without a right to open anything.
FLAGS = (
    "--platform=systrap",
    "--network=sandbox",
    "--overlay2=none",
    "--directfs=false",
    "--file-access=exclusive",
    "--file-access-mounts=exclusive",
    "--host-uds=none",
    "--host-fifo=none",
    "--net-raw=false",
    "--allow-packet-socket-write=false",
    "--host-settings=ignore",
)
# Runs inside. The command sees only its own environment, and /dev/null as its input.
UNPACK = f"""
import json, os
with open(0, "rb", closefd=False) as file:
    plan = json.load(file)
for name, content in plan["credentials"].items():
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(os.path.join({CREDENTIALS_FOLDER!r}, name), flags, 0o400), "wb") as file:
        file.write(bytes.fromhex(content))
null = os.open("/dev/null", os.O_RDWR)
os.dup2(null, 0)
os.close(null)
os.execve(plan["command"][0], plan["command"], plan["environment"])
"""
_libc = ctypes.CDLL(None, use_errno=True)


def arguments(interpreter: str) -> tuple[str, ...]:
    """What the sandbox starts with: the interpreter, isolated from its environment, running UNPACK."""
    return (interpreter, "-ISc", UNPACK)


def payload(command: Sequence[str], environment: Mapping[str, str], credentials: Mapping[str, bytes]) -> int:
    """Descriptor of the sealed, anonymous file that UNPACK reads. Raises ExecutorError for a name that is not a plain file
    name, or an environment that can't be one."""
    for name in credentials:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ExecutorError(f"credential file name {name!r} | use the tool's name and .json")
    for key, value in environment.items():
        if not key or "=" in key or "\0" in key + value:
            raise ExecutorError(f"environment variable {key!r} can't be set: a name without '=', no NUL in the value")
    plan = {
        "command": list(command),
        "environment": dict(environment),
        "credentials": {name: content.hex() for name, content in credentials.items()},
    }
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(json.dumps(plan).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Output:
    """The end of what a sandbox printed."""

    def __init__(self) -> None:
        self._chunks: collections.deque[bytes] = collections.deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        """Keeps the last LOG_BYTES."""
        self._chunks.append(data)
        self._size += len(data)
        while self._size - len(self._chunks[0]) >= LOG_BYTES:
            self._size -= len(self._chunks.popleft())

    def text(self) -> str:
        """What was kept, decoded; bytes that aren't UTF-8 are shown as such."""
        return b"".join(self._chunks)[-LOG_BYTES:].decode("utf-8", "backslashreplace")


def dies_with(parent: int) -> None:
    """In the new process: be killed when the runner is. gVisor does the same for its own processes in turn."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


def command_line(runsc: Path, folder: Path, name: str, gofer_namespace: str, more: Sequence[str] = ()) -> list[str]:
    """`runsc run` of the bundle in `folder`; its exit code is that of the process inside."""
    own = [f"--gofer-network-namespace={gofer_namespace}", *more]
    return [str(runsc), mark(folder), *FLAGS, *own, "run", f"--bundle={folder}", name]


def mark(folder: Path) -> str:
    """The argument that every process of the sandbox with this folder has."""
    return f"--root={folder / 'runsc'}"


async def spawn(words: Sequence[str], stdin: int, keep: Sequence[int] = ()) -> asyncio.subprocess.Process:
    """Starts a program that dies when the thread that calls this ends, with the runner at the latest.

    stdin: descriptor; its output goes to one pipe; keep: descriptors that it inherits. Raises ExecutorError.
    """
    parent = os.getpid()
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            cwd="/",
            start_new_session=True,
            pass_fds=keep,
            preexec_fn=lambda: dies_with(parent),
        )
    except OSError as error:
        raise ExecutorError(f"{words[0]} does not run: {error}\n    remedy: `ringfence doctor`") from None
