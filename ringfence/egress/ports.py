"""Which port of the egress proxy belongs to which tool: a NetworkPolicy opens exactly these, so a port is an identity.

A tool's port is the one it declares, or else follows from its name alone. So it never moves when other tools come and go;
two names that fall on one port are reported instead of being moved apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.catalog.model import EGRESS_PORT_FIRST, EGRESS_PORT_LAST
from ringfence.errors import InputError, Problem
from ringfence.names import Names

# The listener for the nodes' own traffic (image pulls); below every tool's port.
NODE_PORT = 14999


def private_zone(names: Names) -> str:
    """The environment's private DNS zone, in the top-level domain that is reserved for private use (ICANN, 2024)."""
    return f"{names.environment}.{names.prefix}.internal"


@dataclass(frozen=True)
class PortClaim:
    """A tool that needs a port. declared: the catalog's `egress.port`; where: its file, for messages."""

    tool: str
    declared: int | None = None
    where: str = "catalog"


def derived_port(tool: str) -> int:
    """The port that follows from the tool's name."""
    digest = hashlib.sha256(tool.encode()).digest()
    return EGRESS_PORT_FIRST + int.from_bytes(digest[:8], "big") % (EGRESS_PORT_LAST - EGRESS_PORT_FIRST + 1)


def assign_ports(claims: Iterable[PortClaim]) -> dict[str, int]:
    """Tool → port. Raises InputError naming every port outside of the range and every collision, with a free port."""
    wanted = sorted(claims, key=lambda claim: (claim.declared is None, claim.tool))
    problems: list[Problem] = []
    taken: dict[int, str] = {}
    every = {claim.declared or derived_port(claim.tool) for claim in wanted}
    free = iter(port for port in range(EGRESS_PORT_FIRST, EGRESS_PORT_LAST + 1) if port not in every)
    for claim in wanted:
        port = derived_port(claim.tool) if claim.declared is None else claim.declared
        if not EGRESS_PORT_FIRST <= port <= EGRESS_PORT_LAST:
            remedy = f"use {EGRESS_PORT_FIRST} to {EGRESS_PORT_LAST}, or leave it out"
            problems.append(Problem(claim.where, "egress.port", f"{port} of {claim.tool} is out of range", remedy))
        elif port in taken:
            clash = f"{claim.tool} and {taken[port]} share port {port}"
            remedy = f"declare another in {claim.tool}: egress.port: {next(free, 'none is free')}"
            problems.append(Problem(claim.where, "egress.port", clash, remedy))
        else:
            taken[port] = claim.tool
    if problems:
        raise InputError(problems)
    return {tool: port for port, tool in sorted(taken.items(), key=lambda item: item[1])}
