"""Every operation that is answered here instead of by moto, by service, and what the recorded layer holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from ringfence.local.aws_server.recorded.kinds import Table
from ringfence.local.aws_server.recorded.store import Context, Handler, Store
from ringfence.local.aws_server.wire import Reply

# Completes a successful reply of moto's with what is recorded.
Amendment = Callable[[Context, Reply], Reply]
# Modules with a TABLE of handlers, by botocore's service name; imported when the service is first called. A module may
# have AMENDMENTS of moto's replies, and `prepare`, which is called once, to put right what no reply could tell.
MODULES: dict[str, tuple[str, ...]] = {
    "accessanalyzer": ("access_analyzer",),
    "autoscaling": ("autoscaling",),
    "budgets": ("budgets",),
    "ce": ("cost_explorer",),
    "cloudtrail": ("events",),
    "cloudwatch": ("monitoring",),
    "ec2": ("ec2", "instances", "security_groups"),
    "eks": ("eks", "eks_cluster"),
    "logs": ("logs",),
    "network-firewall": ("network_firewall",),
    "route53": ("hosted_zones",),
    "route53resolver": ("resolver",),
    "xray": ("xray",),
}
# What moto keeps and shows but doesn't act on, though a reader might think so.
REMARKS: dict[str, tuple[str, ...]] = {
    "cloudtrail": (
        "LookupEvents tells of this server's own sessions: each authenticated call, data events included, the latest 20,000.",
    ),
    "iam": (
        "Requests of sessions are decided by our own evaluator (role, boundary, session policy), not by AWS's; what it "
        "has no mapping for is denied.",
        "The operator's key may do everything; only AssumeRole is decided for it, by the role's trust policy.",
    ),
    "kms": ("Key policies are stored and shown; no request is authorized by them.",),
    "s3": ("Bucket policies are stored and shown; no request is authorized by them.",),
}


@cache
def table(service: str) -> Table:
    """Handlers of one service by operation name; empty for a service that is moto's alone."""
    handlers: Table = {}
    for name in MODULES.get(service, ()):
        module = import_module(f"ringfence.local.aws_server.recorded.{name}")
        handlers |= module.TABLE
        if hasattr(module, "prepare"):
            module.prepare()
    return handlers


def handler(service: str, operation: str) -> Handler | None:
    """Who answers an operation here; None when nobody does."""
    return table(service).get(operation)


@cache
def _amendments(service: str) -> dict[str, Amendment]:
    found: dict[str, Amendment] = {}
    for module in MODULES.get(service, ()):
        found |= getattr(import_module(f"ringfence.local.aws_server.recorded.{module}"), "AMENDMENTS", {})
    return found


def amendment(service: str, operation: str) -> Amendment | None:
    """Who completes moto's successful reply to an operation; None when nobody does."""
    return _amendments(service).get(operation)


def report(store: Store) -> list[dict[str, Any]]:
    """What is recorded, not emulated: service, the operations answered here, the number of stored resources, remarks."""
    counts: Counter[tuple[str, str]] = Counter()
    for shelf, records in store.shelves():
        counts[(shelf.service, shelf.kind)] += len(records)
    return [
        {
            "service": service,
            "operations": sorted(table(service)),
            "resources": {kind: count for (owner, kind), count in sorted(counts.items()) if owner == service},
            "remarks": list(REMARKS.get(service, ())),
        }
        for service in sorted(MODULES | REMARKS)
    ]
