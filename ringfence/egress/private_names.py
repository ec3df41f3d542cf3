"""Interface endpoints against the proxy: with private DNS an endpoint's names lead into the VPC, where the proxy dials nobody.

So a service that sandboxes or their nodes reach by the proxy can't have an interface endpoint. A direct way instead would
open the sandboxes' security group to the endpoints, and with it AWS's APIs to whoever gets around a NetworkPolicy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ringfence.egress.policy import NODES, EgressPolicy
from ringfence.errors import Problem
from ringfence.names import Names

# What sandbox nodes call, whatever the catalog holds: their instance, its identity, their images.
NODE_SERVICES = frozenset({"ec2", "ecr.api", "ecr.dkr", "eks-auth"})
REMEDY = "leave it out: it would be reached inside the VPC, where the proxy dials no address"


def endpoint_names(service: str, names: Names) -> tuple[str, ...]:
    """Names that an interface endpoint answers for with private DNS, themselves and everything below: ``ecr.api`` is
    ``api.ecr.REGION.amazonaws.com``, and so for every service, with AWS's newer suffix too."""
    base = ".".join((*reversed(service.split(".")), names.region))
    suffixes = ("amazonaws.com.cn", "api.amazonwebservices.com.cn") if names.partition == "aws-cn" else ()
    return tuple(f"{base}.{suffix}" for suffix in ("amazonaws.com", "api.aws", *suffixes))


def endpoint_problems(services: Iterable[str], policy: EgressPolicy, names: Names) -> list[Problem]:
    """Every endpoint that would take a host from the proxy, with whom it is taken from."""
    listeners = {NODES: policy.node_domains, **{tool.name: tool.domains for tool in policy.tools}}
    return [
        Problem("settings", "interfaceEndpoints", f"{service} takes {host} from {_who(listener)}", REMEDY)
        for service in services
        for listener, domains in listeners.items()
        for host in _taken(domains, endpoint_names(service, names))
    ]


def _who(listener: str) -> str:
    return "sandbox nodes" if listener == NODES else f"tool {listener}"


def _taken(domains: Iterable[str], private: tuple[str, ...]) -> Iterator[str]:
    for domain in domains:
        bare = domain.removeprefix("*.")
        if any(bare == name or bare.endswith(f".{name}") for name in private):
            yield domain
