"""What the egress proxy lets through, checked: the tools' domains, the nodes' domains, and ranges that are never dialled."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.catalog.model import Tool
from ringfence.egress.aws_hosts import aws_hosts
from ringfence.egress.ports import PortClaim, assign_ports
from ringfence.errors import InputError, Problem
from ringfence.names import Names

# How logs call the listener of the nodes; no tool's name may contain an @.
NODES = "@nodes"

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label starts with a letter, which rules out every spelling of an IPv4 address (WHATWG URL, "ends in a number").
HOST_PATTERN = rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?"
_DOMAIN = re.compile(rf"^(?:\*\.)?{HOST_PATTERN}$")
# Reaching one of these means reaching any account's resources: an S3 name is one more way out.
_AWS_SUFFIXES = ("amazonaws.com", "amazonaws.com.cn", "api.aws", "on.aws")
# Names that only private resolvers answer for.
_PRIVATE_SUFFIXES = ("internal", "local", "localhost", "localdomain", "home.arpa")

# Everything that is not globally reachable (IANA IPv4 Special-Purpose Address Registry), multicast and reserved space.
# IPv6 is never asked for.
REFUSED_RANGES = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
)  # fmt: skip


@dataclass(frozen=True)
class ToolEgress:
    """One tool's way out. domains: ``api.example.com``, or ``*.example.com`` for everything below; port: as declared,
    else derived from the name; aws_domains: those of `domains` that may be AWS's; where: file, for messages."""

    name: str
    domains: tuple[str, ...]
    port: int | None = None
    aws_domains: tuple[str, ...] = ()
    where: str = "catalog"


def ways_out(tools: Iterable[Tool], names: Names | None = None) -> tuple[ToolEgress, ...]:
    """What the catalog's tools declare, and with `names` the hosts of AWS that their grants stand for; without, AWS is
    reached in another way. Raises InputError naming every grant that stands for no exact host."""
    made, problems = [], []
    for tool in tools:
        try:
            hosts = () if names is None else aws_hosts(tool, names)
        except InputError as error:
            problems += error.problems
        else:
            domains = (*tool.egress.domains, *hosts)
            made.append(ToolEgress(tool.name, domains, tool.egress.port, hosts, tool.source.file))
    if problems:
        raise InputError(problems)
    return tuple(made)


@dataclass(frozen=True)
class EgressPolicy:
    """Everything that the proxy may connect to. node_domains: what nodes need to boot and to pull images; AWS's names may
    be among them."""

    tools: tuple[ToolEgress, ...]
    node_domains: tuple[str, ...] = ()

    def ports(self) -> dict[str, int]:
        """Port of each tool that has a domain. Raises InputError when two tools fall on one."""
        return assign_ports(PortClaim(t.name, t.port, t.where) for t in self.tools if t.domains)

    def domains(self) -> tuple[str, ...]:
        """Every domain that a proxy must be able to resolve: what DNS Firewall's allow-list needs on its account."""
        return tuple(sorted({*self.node_domains, *(domain for tool in self.tools for domain in tool.domains)}))

    def check(self) -> None:
        """Raises InputError with everything that is wrong with names, domains and ports."""
        names = [tool.name for tool in self.tools]
        problems = [
            Problem("catalog", "name", f"{name!r} is declared twice", "give each tool its own name")
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        for tool in self.tools:
            problems += domain_problems(tool.where, "egress.domains", tool.domains, tool.aws_domains)
        problems += domain_problems("settings", "node domains", self.node_domains, self.node_domains)
        if not problems:
            try:
                self.ports()
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)


def _below(domain: str, suffixes: Iterable[str]) -> bool:
    return any(domain == suffix or domain.endswith(f".{suffix}") for suffix in suffixes)


def _is_address(domain: str) -> bool:
    try:
        ipaddress.ip_address(domain.strip("[]"))
    except ValueError:
        return False
    return True


def domain_problems(where: str, key: str, domains: tuple[str, ...], aws_allowed: tuple[str, ...]) -> list[Problem]:
    """What is wrong with an allow-list of domains; `aws_allowed` are those that may lie below AWS's own."""
    problems = []
    for domain in domains:
        bare = domain.removeprefix("*.")
        if _is_address(bare):
            message, remedy = "is an address", "name the host: an address can't be checked against a server name"
        elif not _DOMAIN.match(domain):
            message, remedy = "is not a domain", "write lower case without port, e.g. api.example.com or *.example.com"
        elif domain.startswith("*.") and "." not in bare:
            message, remedy = "covers a whole top-level domain", "name the domains"
        elif _below(bare, _PRIVATE_SUFFIXES):
            message, remedy = "is a private name", "the proxy leads to the internet only"
        elif _below(bare, _AWS_SUFFIXES) and domain not in aws_allowed:
            message, remedy = "reaches every AWS account", "use grants: a tool calls AWS with its own credentials"
        else:
            continue
        problems.append(Problem(where, key, f"{domain!r} {message}", remedy))
    for domain in sorted({domain for domain in domains if domains.count(domain) > 1}):
        problems.append(Problem(where, key, f"{domain!r} is listed twice", "list it once"))
    return problems
