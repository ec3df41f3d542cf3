"""The network of one sandbox: two namespaces joined by a veth pair, with no way out but sockets that the control side holds.

    control side's namespace      fence namespace                 sandbox namespace (gVisor's own stack on eth0)
    relay ── connects anywhere    sockets on 192.0.2.1 ═ control0 ═ eth0 192.0.2.2/30, no other route

The fence namespace has no other interface and forwards nothing, so a sandbox reaches exactly the ports whose sockets listen
there. A socket is made for every port that may ever be opened, and refuses connections until `listen` is called on it, which
needs no right to the namespace any more. Nothing is named or mounted: the kernel takes both namespaces and the veth pair away
with the last descriptor, socket and process, also when the runner is killed.

The netlink messages are written out because a netlink library costs a second at import and tens of milliseconds per sandbox;
they are as in rtnetlink(7), veth(4) and linux/if_link.h. Standard library alone: `nest` runs this in a user namespace, without
the project around it. Trust zone: control side.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# TEST-NET-1 (RFC 5737): never routed, so it can't shadow a real address. The same in every sandbox: each has its own pair
# of namespaces.
CONTROL_ADDRESS = "192.0.2.1"
SANDBOX_ADDRESS = "192.0.2.2"
_PREFIX = 30
# Names of the files in a sandbox's folder that its namespaces are mounted on in a user namespace; see `nest`.
SANDBOX_FILE, EMPTY_FILE = "sandbox.net", "empty.net"
_MTU = 1500
CLONE_NEWNET = 0x40000000

RTM_NEWLINK, RTM_NEWADDR = 16, 20
NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_NET_NS_FD = 3, 4, 18, 26, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFF_UP = 1
_REPLY_BYTES = 1 << 16


def _attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def _named(name: str, mtu: int) -> bytes:
    return _attribute(IFLA_IFNAME, name.encode() + b"\0") + _attribute(IFLA_MTU, struct.pack("=I", mtu))


class Netlink:
    """A route socket in the calling thread's network namespace. Use as a context manager; every call raises OSError with
    the kernel's own error number."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def add_veth(self, name: str, peer: str, peer_namespace: int, mtu: int) -> None:
        """A pair: `name` here, `peer` in the network namespace of the file descriptor `peer_namespace`. Both are down."""
        far = _link() + _named(peer, mtu) + _attribute(IFLA_NET_NS_FD, struct.pack("=I", peer_namespace))
        info = _attribute(IFLA_INFO_KIND, b"veth") + _attribute(IFLA_INFO_DATA, _attribute(VETH_INFO_PEER, far))
        self._request(
            RTM_NEWLINK, _link() + _named(name, mtu) + _attribute(IFLA_LINKINFO, info), NLM_F_CREATE | NLM_F_EXCL
        )

    def add_address(self, name: str, address: ipaddress.IPv4Interface) -> None:
        """Gives the interface an address; the route to its network comes with it, and no other."""
        packed = address.ip.packed
        head = struct.pack("=BBBBI", socket.AF_INET, address.network.prefixlen, 0, 0, socket.if_nametoindex(name))
        attributes = _attribute(IFA_LOCAL, packed) + _attribute(IFA_ADDRESS, packed)
        self._request(RTM_NEWADDR, head + attributes, NLM_F_CREATE | NLM_F_EXCL)

    def up(self, name: str) -> None:
        """Brings the interface up."""
        self._request(RTM_NEWLINK, _link(socket.if_nametoindex(name), IFF_UP, IFF_UP))

    def without_ipv6(self, name: str) -> None:
        """Keeps the kernel from giving the interface an IPv6 address of its own: the fence speaks IPv4 only."""
        mode = _attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
        family = _attribute(IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode))
        try:
            self._request(RTM_NEWLINK, _link(socket.if_nametoindex(name)) + family)
        except OSError as error:
            # A kernel without IPv6, or with it switched off, gives none.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                raise

    def _request(self, kind: int, body: bytes, flags: int = 0) -> None:
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK | flags, self._sequence, 0)
        self._socket.send(head + body)
        for kind_, payload in self._replies():
            if kind_ == NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return

    def _replies(self) -> Iterator[tuple[int, bytes]]:
        while True:
            data = self._socket.recv(_REPLY_BYTES)
            while len(data) >= 16:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                if sequence == self._sequence:
                    yield kind, data[16:length]
                data = data[(length + 3) & ~3 :]


_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: int) -> None:
    """Calls the C library's `function`. Raises OSError with its error number."""
    if getattr(_libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@dataclass(frozen=True, slots=True)
class Fence:
    """What holds a sandbox's network. sandbox: descriptor of its namespace; empty: of a namespace without any interface, for
    gVisor's file server; sockets: by port, bound in the fence namespace, not yet listening."""

    sandbox: int
    empty: int
    sockets: dict[int, socket.socket]

    def close(self) -> None:
        """Lets go of everything; the kernel removes the namespaces once the sandbox is gone too."""
        for made in self.sockets.values():
            made.close()
        os.close(self.sandbox)
        os.close(self.empty)


def make(ports: Sequence[int]) -> Fence:
    """Makes the namespaces, joins them and binds a socket per port. Raises OSError.

    Leaves the calling thread in another network namespace: it must end, or become another program, right after.
    """
    with contextlib.ExitStack() as made:

        def fresh() -> int:
            call("unshare", CLONE_NEWNET)
            descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            made.callback(os.close, descriptor)
            return descriptor

        empty, sandbox, fence = fresh(), fresh(), fresh()
        with Netlink() as route:
            route.add_veth("control0", "eth0", sandbox, _MTU)
            route.add_address("control0", ipaddress.IPv4Interface(f"{CONTROL_ADDRESS}/{_PREFIX}"))
            route.without_ipv6("control0")
            route.up("control0")
        sockets = {}
        for port in ports:
            bound = sockets[port] = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            bound.setblocking(False)
            bound.bind((CONTROL_ADDRESS, port))
        call("setns", sandbox, CLONE_NEWNET)
        with Netlink() as route:
            route.up("lo")
            route.add_address("eth0", ipaddress.IPv4Interface(f"{SANDBOX_ADDRESS}/{_PREFIX}"))
            route.without_ipv6("eth0")
            route.up("eth0")
        made.pop_all()
        # The sockets and the veth pair keep the fence namespace.
        os.close(fence)
        return Fence(sandbox, empty, sockets)
