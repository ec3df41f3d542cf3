"""The network of one sandbox: two namespaces joined by a veth pair, with no way out but sockets that the control side holds.

    control side's namespace      fence namespace                 sandbox namespace (gVisor's own stack on eth0)
    relay ── connects anywhere    listening sockets on control0 ═══ eth0 192.0.2.2/30, no other route

The fence namespace has no other interface and forwards nothing, so a sandbox reaches exactly the ports that are listened on
there. Nothing is named or mounted: the kernel takes both namespaces and the veth pair away with the last descriptor, socket
and process, also when the runner is killed. Trust zone: control side.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from ringfence.runner.executor import ExecutorError
from ringfence.runner.local_executor.netlink import Netlink

# TEST-NET-1 (RFC 5737): never routed, so it can't shadow a real address. The same in every sandbox: each has its own pair
# of namespaces.
CONTROL_ADDRESS = "192.0.2.1"
SANDBOX_ADDRESS = "192.0.2.2"
_PREFIX = 30
_MTU = 1500
CLONE_NEWNET = 0x40000000
# Connections that wait to be accepted, per port.
_BACKLOG = 64

_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def _call(function: str, *arguments: int) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def in_thread(work: Callable[[], _T]) -> _T:
    """Runs `work` in a thread that ends with it: a thread that has changed its namespace must do nothing else."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="ringfence-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Network:
    """Both namespaces of one sandbox. sandbox: file descriptor of the sandbox's; fence: of the other one; empty: of a
    namespace without any interface, for gVisor's file server. All are closed by `close`."""

    def __init__(self, sandbox: int, fence: int, empty: int) -> None:
        self.sandbox = sandbox
        self.fence = fence
        self.empty = empty
        self._open = True

    def listen(self, ports: Sequence[int]) -> list[socket.socket]:
        """Listening sockets on CONTROL_ADDRESS of the fence, one per port. Raises ExecutorError."""

        def work() -> list[socket.socket]:
            _call("setns", self.fence, CLONE_NEWNET)
            with contextlib.ExitStack() as made:
                sockets = []
                for port in ports:
                    listener = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                    listener.setblocking(False)
                    listener.bind((CONTROL_ADDRESS, port))
                    listener.listen(_BACKLOG)
                    sockets.append(listener)
                made.pop_all()
                return sockets

        try:
            return in_thread(work)
        except OSError as error:
            raise ExecutorError(f"ports {list(ports)} of a sandbox can't be opened: {error}") from None

    def close(self) -> None:
        """Lets go of the namespaces; the kernel removes those that nothing else holds."""
        if self._open:
            self._open = False
            for descriptor in (self.sandbox, self.fence, self.empty):
                os.close(descriptor)


def create() -> Network:
    """Makes the namespaces and joins them. Raises ExecutorError when this process may not."""

    def work() -> Network:
        with contextlib.ExitStack() as made:

            def fresh() -> int:
                _call("unshare", CLONE_NEWNET)
                descriptor = _own_namespace()
                made.callback(os.close, descriptor)
                return descriptor

            empty, sandbox, fence = fresh(), fresh(), fresh()
            with Netlink() as route:
                route.add_veth("control0", "eth0", sandbox, _MTU)
                route.add_address("control0", ipaddress.IPv4Interface(f"{CONTROL_ADDRESS}/{_PREFIX}"))
                route.without_ipv6("control0")
                route.up("control0")
            _call("setns", sandbox, CLONE_NEWNET)
            with Netlink() as route:
                route.up("lo")
                route.add_address("eth0", ipaddress.IPv4Interface(f"{SANDBOX_ADDRESS}/{_PREFIX}"))
                route.without_ipv6("eth0")
                route.up("eth0")
            made.pop_all()
            return Network(sandbox, fence, empty)

    try:
        return in_thread(work)
    except OSError as error:
        raise ExecutorError(
            f"a sandbox's network namespaces can't be made: {error}\n"
            "    remedy: run as root or as a user who may make user namespaces, on a kernel with veth"
        ) from None
