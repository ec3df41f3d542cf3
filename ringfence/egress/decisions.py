"""What the proxy of this machine decided, written into the audit trail: refusals as refused attempts, with tool, host and
invocation.

Each invocation is given a loopback address of its own that its connections come from, so that the proxy's log says whose
they were. A sandbox that floods the proxy is counted, not written down whole. Trust zone: control side.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.audit import Refusals, Trail
from ringfence.invocation import Invocation, Refusal

# Decisions of one invocation that are written down one by one; more are counted, and the counts written this often.
MOST_SINGLE, SETTLE_SECONDS = 100, 5.0
# Invocations whose decisions may still come: far more than run at once.
_MOST_SOURCES = 4096
# Loopback addresses that invocations get; every one of 127.0.0.0/8 is the machine itself (RFC 1122, 3.2.1.3).
_SOURCES = ipaddress.IPv4Network("127.64.0.0/10")
_TEXT = 300
_POLICY = re.compile(r"matched_policy\[([a-z0-9_]+)\]")
# What the proxy calls it: the code of the refusal, what happened, and the remedy.
_SAID = {
    "host_not_listed": ("the host is not among the tool's domains", "list it in the tool's egress.domains"),
    "low_version": ("it is older than HTTP/1.1", "say HTTP/1.1"),
    "method_is_not_connect": ("it is no CONNECT request", "send CONNECT host:443, then TLS"),
    "not_a_host_name": ("it is not a host name in lower case", "name the host, not an address"),
    "port_is_not_443": ("it is another port than 443", "only TLS on 443 goes out"),
    "server_name_is_not_the_connect_host": ("TLS names another server than CONNECT", "name the same host in both"),
    "tls_older_than_1_2": ("TLS is older than 1.2", "use TLS 1.2 or 1.3"),
    "no_tls_client_hello": ("no TLS followed", "send TLS only"),
    "address_is_not_public": ("the name leads to an address that is not public", "the proxy leads to the internet only"),
}  # fmt: skip
_NAMES = {"route_not_found": "host_not_listed"}


@dataclass(slots=True)
class _Source:
    """Who stands behind an address. single: decisions written down one by one."""

    invocation: Invocation | None
    single: int = 0


class Decisions:
    """Records decisions. who: the invocation of an id, None when it isn't known any more.

    `source` and the others may be called from different threads, each from one at a time.
    """

    def __init__(self, trail: Trail, refusals: Refusals, who: Callable[[str], Invocation | None]):
        self._trail = trail
        self._refusals = refusals
        self._who = who
        self._sources: dict[str, _Source] = {"": _Source(None)}
        self._numbers = itertools.count()
        self._more: Counter[tuple[str, str, str, str]] = Counter()
        self._settled = time.monotonic()

    def source(self, invocation_id: str) -> str:
        """A fresh loopback address that stands for the invocation from now on."""
        address = str(_SOURCES[1 + next(self._numbers) % (_SOURCES.num_addresses - 2)])
        self._sources[address] = _Source(self._who(invocation_id))
        while len(self._sources) > _MOST_SOURCES:
            # The first is for addresses that stand for nobody.
            del self._sources[next(itertools.islice(self._sources, 1, None))]
        return address

    def record(self, line: bytes) -> None:
        """Records one line of the proxy's log. Raises AuditError when it can't be recorded, ValueError for what is no
        decision."""
        said = json.loads(line)
        if not isinstance(said, dict) or said.get("decision") not in ("allowed", "refused", "failed"):
            raise ValueError(f"the proxy said what is no decision: {line[:_TEXT]!r}")
        address = str(said.get("source") or "").rpartition(":")[0]
        source = self._sources.get(address) or self._sources[""]
        source.single += 1
        if source.single <= MOST_SINGLE:
            self._one(said, source)
        else:
            self._more[address, _text(said, "tool"), said["decision"], _code(said)] += 1
        if time.monotonic() - self._settled > SETTLE_SECONDS:
            self.settle()

    def settle(self) -> None:
        """Records how many decisions of each kind were not written down one by one. Raises AuditError."""
        more, self._more = self._more, Counter()
        self._settled = time.monotonic()
        for (address, tool, decision, code), count in more.items():
            source = self._sources.get(address) or _Source(None)
            detail = f"{count} more {decision} connections of {tool} through the egress proxy"
            self._write(decision, code, tool, detail, source, count=count)

    def _one(self, said: Mapping[str, Any], source: _Source) -> None:
        tool, host, code = _text(said, "tool"), _text(said, "host") or "no host", _code(said)
        happened, remedy = _SAID.get(code, (code, ""))
        detail = {
            "allowed": f"{tool} was connected to {host}",
            "refused": f"{tool} was refused {host}: {happened}" + (f" | {remedy}" if remedy else ""),
            "failed": f"{tool} could not be connected to {host}: {code}",
        }[said["decision"]]
        carried = {key: said[key] for key in ("bytes_from_tool", "bytes_to_tool", "duration_ms") if key in said}
        self._write(said["decision"], code, tool, detail, source, resource=host, **carried)

    def _write(self, decision: str, code: str, tool: str, detail: str, source: _Source, **more: Any) -> None:
        kind, user = f"egress.{decision}", source.invocation.user if source.invocation else ""
        if decision == "refused":
            refusal = Refusal(code, tool, detail)
            self._refusals.record(
                refusal, user=user, tool=tool, source="sandbox", invocation=source.invocation, kind=kind
            )
            return
        fields = {"tool": tool, "detail": detail, "source": "sandbox", **more}
        if decision == "failed":
            fields["code"] = code
        self._trail.record(kind, source.invocation, **fields)


def _text(said: Mapping[str, Any], key: str) -> str:
    """A field as a record may hold it: cut, and without control characters."""
    text = str(said.get(key) or "")[:_TEXT]
    return "".join(char if char.isprintable() else "?" for char in text)


def _code(said: Mapping[str, Any]) -> str:
    """The reason as a stable code."""
    reason = _text(said, "reason")
    found = _POLICY.search(reason)
    name = found.group(1) if found else re.sub(r"[^a-z0-9_]+", "_", reason.lower())[:64].strip("_")
    return _NAMES.get(name, name or "unnamed")
