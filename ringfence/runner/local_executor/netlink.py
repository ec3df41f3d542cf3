"""The four rtnetlink requests that a sandbox's network is made of: a veth pair, an address, up, and who is there.

Written out because a netlink library costs a second at import and tens of milliseconds per sandbox. Messages as in
rtnetlink(7), veth(4) and linux/if_link.h; the socket works in the network namespace of the thread that opens it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator

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
