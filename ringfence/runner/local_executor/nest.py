"""Started by an ordinary user's runner for one sandbox: enters a user namespace, makes the fence there, becomes gVisor.

    python -IS nest.py SOCKET PARENT PORT,PORT... FOLDER MARK

It mounts the sandbox's network namespaces on files in FOLDER, which only processes in here see, sends the fence's descriptors
through the Unix socket with the descriptor number SOCKET, receives gVisor's command line, its words separated by NUL, and
becomes that. MARK is for finding this process by its arguments.

It runs with the capabilities of a user namespace that maps nobody but its user, so nothing here is more than that user may do.
Standard library alone, started as a file. Trust zone: control side.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import fence

CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
MS_BIND = 4096
PR_SET_PDEATHSIG, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 47, 2
_CAPABILITY_VERSION_3 = 0x20080522
# The sandbox's own uid, so that what is hers outside (runner.local_executor.bundle.UID) is hers here. It must not be 0:
# as any other user gVisor takes a user namespace of its own for each of its processes.
UID = 1000


def enter() -> None:
    """A user namespace in which this user is UID and holds every capability over what is made inside."""
    uid, gid = os.geteuid(), os.getegid()
    fence.call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{UID} {uid} 1"), ("gid_map", f"{UID} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(line)


def mount(descriptor: int, path: str) -> None:
    """Gives the namespace of the descriptor a path in this process's mount namespace: gVisor opens it by path, and may not
    look into the runner's descriptors from in here."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(f"/proc/self/fd/{descriptor}".encode(), path.encode(), None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), f"mount of a network namespace: {os.strerror(ctypes.get_errno())}")


def keep_capabilities() -> None:
    """Lets the program that this becomes have the capabilities, although its user is not root."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last = int(file.read())
    every = (1 << (last + 1)) - 1
    low, high = every & 0xFFFFFFFF, every >> 32
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = struct.pack("=6I", low, low, low, high, high, high)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    for capability in range(last + 1):
        fence.call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def main(words: list[str]) -> None:
    """See the module. Ends with a message on standard error when the kernel refuses."""
    control = socket.socket(fileno=int(words[0]))
    parent, ports = int(words[1]), [int(port) for port in words[2].split(",")]
    try:
        enter()
        # Entering cleared it, and the runner may have died meanwhile.
        fence.call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)
        made = fence.make(ports)
        mount(made.sandbox, os.path.join(words[3], fence.SANDBOX_FILE))
        mount(made.empty, os.path.join(words[3], fence.EMPTY_FILE))
        keep_capabilities()
    except OSError as error:
        sys.exit(f"nest: {error.strerror or error}")
    descriptors = [made.sandbox, made.empty, *(made.sockets[port].fileno() for port in ports)]
    socket.send_fds(control, [b"fence"], descriptors)
    made.close()
    command = control.recv(1 << 16).decode().split("\0")
    control.close()
    if len(command) < 2:
        sys.exit("nest: the runner went away")
    os.execv(command[0], command)  # noqa: S606 - the runner's own words


if __name__ == "__main__":
    main(sys.argv[1:])
