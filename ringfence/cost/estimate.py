"""The monthly cost of an environment, item by item, from its own settings, a dated price table and a stated usage."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from ringfence.errors import InputError, Problem
from ringfence.settings import Settings

# Disks in GB, as the components make them: system node, sandbox node, proxy, raft data of one replica, the service's volume.
SYSTEM_DISK_GB, SANDBOX_DISK_GB, PROXY_DISK_GB, VAULT_DISK_GB, SERVICE_DISK_GB = 30, 50, 8, 10, 4
# One key each: logs, cluster secrets, audit trail, alerts, unsealing.
KMS_KEYS = 5
# Custom metrics, and metrics that alarms watch, that CloudWatch bills nothing for.
FREE_METRICS = FREE_ALARM_METRICS = 10
# An alarm is billed for each metric that it reads: those of the whole environment, and those of one proxy.
ALARM_METRICS, ALARM_METRICS_PER_PROXY = 16, 3
# Names on the DNS Firewall's own lists, the hosts of the example tools' grants among them; more come from tools' domains
# and the settings.
BASE_DNS_NAMES = 26


@dataclass(frozen=True, slots=True)
class Usage:
    """What a month is assumed to bring.

    log_gb covers all log groups, masked_gb those that may hold secrets (the cluster's own audit log, most of a quiet
    environment's volume, is not among them); sandbox_spot_hours are node hours; metric_months: CloudWatch bills a custom
    metric by the hours in which it reports, and tools' metrics report while tools run.
    """

    log_gb: float
    masked_gb: float
    sandbox_spot_hours: float
    metric_months: float
    dns_million_queries: float = 1.0
    stored_gb: float = 10.0

    @staticmethod
    def of(profile: str) -> Usage:
        """The assumption for a profile: a quiet cluster's audit log alone makes about 9 GB a month."""
        if profile == "production":
            return Usage(log_gb=40, masked_gb=25, sandbox_spot_hours=200, metric_months=49)
        return Usage(log_gb=12, masked_gb=3, sandbox_spot_hours=0, metric_months=19)


@dataclass(frozen=True, slots=True)
class Line:
    """One item: quantity × unit price = usd a month."""

    item: str
    quantity: float
    unit: str
    unit_usd: float
    usd: float
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """All items, priced at `date` for `region`."""

    lines: tuple[Line, ...]
    date: str
    region: str
    usage: Usage

    @property
    def total_usd(self) -> float:
        """USD a month."""
        return sum(line.usd for line in self.lines)


@cache
def _table() -> dict[str, dict]:
    return yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text(encoding="utf-8"))


def _instance_price(key: str, instance_type: str) -> str:
    if instance_type not in _table()["prices"]:
        known = ", ".join(name for name in _table()["prices"] if "." in name)
        raise InputError([Problem("cost", key, f"no price for {instance_type!r}", f"price known for: {known}")])
    return instance_type


def _items(settings: Settings, usage: Usage, tool_domains: int) -> list[tuple[str, str, float]]:
    """(what, price key, quantity in the price's unit) of every item, zero quantities included."""
    hours = _table()["hoursPerMonth"]
    zones = len(settings.availability_zones)
    proxies = zones if settings.profile == "production" else 1
    # Several proxies, and the single one of an existing VPC, are found by name.
    named = proxies if proxies > 1 or settings.existing_vpc_id else 0
    alarms = ALARM_METRICS + proxies * ALARM_METRICS_PER_PROXY
    names = BASE_DNS_NAMES + len(settings.dns_allowed_domains) + tool_domains
    gateways = (zones if settings.profile == "production" else 1) if settings.nat == "gateway" else 0
    reserve = settings.sandbox_min_on_demand_nodes
    node_type = _instance_price("systemNodeType", settings.system_node_type)
    sandbox_type = _instance_price("sandboxNodeTypes", settings.sandbox_node_types[0])
    proxy_type = _instance_price("egressInstanceType", settings.egress_instance_type)
    return [
        ("EKS control plane", "eks-cluster", hours),
        (f"system nodes, {settings.system_nodes} × {node_type}", node_type, settings.system_nodes * hours),
        ("system nodes' disks", "gp3", settings.system_nodes * SYSTEM_DISK_GB),
        (f"sandbox nodes always on, {reserve} × {sandbox_type}", sandbox_type, reserve * hours),
        ("sandbox nodes' disks", "gp3", reserve * SANDBOX_DISK_GB),
        ("sandbox nodes on spot, when used", "spot-large", usage.sandbox_spot_hours),
        (f"egress proxy, {proxies} × {proxy_type}", proxy_type, proxies * hours),
        ("egress proxy's disks", "gp3", proxies * PROXY_DISK_GB),
        ("egress proxy's addresses", "ipv4", proxies * hours),
        ("egress proxy's private zone", "hosted-zone", 1 if named else 0),
        ("egress proxy's health checks", "health-check", named),
        ("NAT gateways", "nat-gateway", gateways * hours),
        ("NAT gateways' addresses", "ipv4", gateways * hours),
        ("Network Firewall endpoints", "network-firewall", zones * hours if settings.network_firewall else 0),
        ("interface endpoints", "interface-endpoint", len(settings.interface_endpoints) * zones * hours),
        ("KMS keys", "kms-key", KMS_KEYS),
        ("secrets store's disks", "gp3", settings.vault_replicas * VAULT_DISK_GB),
        ("the service's disk", "gp3", SERVICE_DISK_GB if settings.service_image else 0),
        ("logs taken in", "log-ingest", usage.log_gb),
        ("logs kept", "log-storage", usage.log_gb),
        ("logs masked", "log-masking", usage.masked_gb),
        ("custom metrics beyond the free ones", "metric", max(0.0, usage.metric_months - FREE_METRICS)),
        ("metrics that alarms watch, beyond the free ones", "alarm", max(0, alarms - FREE_ALARM_METRICS)),
        ("DNS Firewall queries", "dns-firewall-queries", usage.dns_million_queries),
        ("DNS Firewall names", "dns-firewall-names", names),
        ("audit trail and snapshots in S3", "s3", usage.stored_gb),
        ("images in ECR", "ecr", 2),
    ]


def estimate(settings: Settings, tool_domains: int = 0, usage: Usage | None = None) -> Estimate:
    """The monthly estimate for `settings`; `tool_domains` is the number of egress domains in the catalog.

    Raises InputError for an instance type without a price: an unknown price is never taken for zero.
    """
    usage = usage or Usage.of(settings.profile)
    table = _table()
    lines = []
    for what, key, quantity in _items(settings, usage, tool_domains):
        if quantity:
            price = table["prices"][key]
            usd = round(quantity * price["usd"], 2)
            lines.append(Line(what, quantity, price["unit"], price["usd"], usd, price["source"]))
    return Estimate(tuple(lines), str(table["date"]), table["region"], usage)


def summary_line(result: Estimate) -> str:
    """One line for the end of `up`."""
    return f"about ${result.total_usd:.0f} a month on AWS ({result.region} prices of {result.date}; `ringfence cost` itemises)"
