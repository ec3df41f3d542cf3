"""Every setting of a stack: type, default, meaning and check. `Pulumi.yaml` declares the same keys; a test holds them equal."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

import pydantic

from ringfence.names import Names
from ringfence.validation import StrictModel

# What CloudWatch Logs accepts for retentionInDays (PutRetentionPolicy).
RETENTION_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
)  # fmt: skip
_ZONE = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d[a-z]$")
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+\.[^@\s]+$")
_PRINCIPAL = re.compile(r"^arn:aws(-[a-z]+)*:iam::\d{12}:(role|user)/.+$")
_ZONED_ID = re.compile(r"^(?P<zone>[a-z0-9-]+)=(?P<id>(subnet|rtb)-[0-9a-f]{8,17})$")
_REGISTRY = re.compile(r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._/-]+)?$")
_IMAGE = re.compile(r"^[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}$")
_ISSUER = re.compile(r"^https://[a-z0-9.-]+(:\d+)?(/[^\s?#]*)?$")
# Wider ranges, put side by side, are everywhere.
_WIDEST_CLIENTS = 8

# System nodes are in the first of the zones, as many as the secrets store has replicas: with each in a zone of its own, it
# outlives the loss of any. A node stays where it is when zones are added, since its volumes can't follow it.
NODE_ZONES = 3
# Each count left at 0 takes its profile's value.
PROFILES: dict[str, dict[str, int]] = {
    "lean": {
        "system_nodes": 1, "vault_replicas": 1, "audit_lock_days": 1, "monthly_budget_usd": 150, "audit_retention_days": 30,
        "application_retention_days": 14, "network_retention_days": 7,
    },
    "production": {
        "system_nodes": 3, "vault_replicas": 3, "audit_lock_days": 365, "monthly_budget_usd": 400,
        "audit_retention_days": 365, "application_retention_days": 90, "network_retention_days": 30,
    },
}  # fmt: skip


def _by_profile(key: str) -> str:
    return ", ".join(f"{profile} {values[key]}" for profile, values in PROFILES.items())


def _profiled(key: str, what: str, highest: int) -> Any:
    return pydantic.Field(
        default=0, ge=0, le=highest, description=f"{what}; 0 takes the profile's ({_by_profile(key)})"
    )


class Settings(StrictModel):
    """The settings of one stack, validated. Attributes are documented by their field's description."""

    account_id: Annotated[str, pydantic.Field(pattern=r"^\d{12}$")] = pydantic.Field(
        description="12-digit AWS account that the stack belongs to; no other is ever touched"
    )
    target: Literal["aws", "embedded"] = pydantic.Field(
        default="aws", description="aws: official plugins and a real account; embedded: this machine, through `make up`"
    )
    environment: Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9]{0,11}$")] = pydantic.Field(
        default="", description="name of the environment in every resource name; empty takes the stack's name"
    )
    prefix: Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9]{1,11}$")] = pydantic.Field(
        default="ringfence", description="first part of every resource name"
    )
    profile: Literal["lean", "production"] = pydantic.Field(
        default="lean", description="lean (about $120 a month) or production (about $320); sets the counts left at 0"
    )
    region: Annotated[str, pydantic.Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = pydantic.Field(
        default="us-east-1", description="AWS region"
    )
    availability_zones: tuple[str, ...] = pydantic.Field(
        default=("us-east-1a", "us-east-1b"),
        description="2 to 6 zones of the region; the control plane stays in the first two, so add new ones at the end",
    )
    vpc_cidr: str = pydantic.Field(
        default="10.42.0.0/16", description="private range of the VPC, /16 to /18; zones get fixed parts of it"
    )
    existing_vpc_id: Annotated[str, pydantic.Field(pattern=r"^(vpc-[0-9a-f]{8,17})?$")] = pydantic.Field(
        default="", description="bring your own VPC: its id; then the existing* lists name its parts, each `zone=id`"
    )
    existing_public_subnets: tuple[str, ...] = pydantic.Field(
        default=(), description="zone=subnet-id of public subnets"
    )
    existing_system_subnets: tuple[str, ...] = pydantic.Field(
        default=(), description="zone=subnet-id of system subnets"
    )
    existing_sandbox_subnets: tuple[str, ...] = pydantic.Field(
        default=(), description="zone=subnet-id of sandbox subnets, which must have no default route"
    )
    existing_system_route_tables: tuple[str, ...] = pydantic.Field(
        default=(), description="zone=rtb-id of the system subnets' route tables"
    )
    existing_sandbox_route_tables: tuple[str, ...] = pydantic.Field(
        default=(), description="zone=rtb-id of the sandbox subnets' route tables"
    )
    existing_public_route_tables: tuple[str, ...] = pydantic.Field(
        default=(), description="zone=rtb-id of the public subnets' route tables, which hold the proxies' way to AWS"
    )
    sandbox_acl_in_existing_vpc: bool = pydantic.Field(
        default=False,
        description="put an existing VPC's sandbox subnets under a network ACL of this stack, which takes their own's place",
    )
    nat: Literal["instance", "gateway"] = pydantic.Field(
        default="instance", description="the system subnets' way out: the egress instance, or a managed NAT gateway"
    )
    egress_instance_type: str = pydantic.Field(
        default="t4g.nano", description="instance type of the egress proxy (arm64)"
    )
    network_firewall: bool = pydantic.Field(
        default=False, description="add AWS Network Firewall ($288 a zone and month)"
    )
    interface_endpoints: tuple[str, ...] = pydantic.Field(
        default=(),
        description="AWS services reached by interface endpoint, e.g. sts, logs; none that tools or sandbox nodes use "
        "($7.30 a zone and month)",
    )
    dns_allowed_domains: tuple[str, ...] = pydantic.Field(
        default=(), description="domains that the DNS Firewall lets through besides those that the environment needs"
    )
    cluster_public_access_cidrs: tuple[str, ...] = pydantic.Field(
        default=(), description="addresses that may reach the Kubernetes API from outside; empty: private endpoint only"
    )
    cluster_admins: tuple[str, ...] = pydantic.Field(
        default=(), description="ARNs of IAM principals that administer the cluster"
    )
    deletion_protection: bool = pydantic.Field(
        default=True, description="protect cluster and stored data from deletion"
    )
    kubeconfig: str = pydantic.Field(
        default="", description="path of a kubeconfig to use; empty: the cluster that the stack makes"
    )
    system_node_type: str = pydantic.Field(
        default="t4g.medium", description="instance type of the system nodes (arm64)"
    )
    system_nodes: int = _profiled("system_nodes", "number of system nodes", 20)
    sandbox_node_types: tuple[str, ...] = pydantic.Field(
        default=("m7g.large", "m6g.large"), description="instance types of the gVisor pool, all arm64"
    )
    sandbox_max_spot_nodes: Annotated[int, pydantic.Field(ge=0, le=450)] = pydantic.Field(
        default=2, description="most spot nodes of the gVisor pool in each zone; the pool scales to zero"
    )
    sandbox_max_on_demand_nodes: Annotated[int, pydantic.Field(ge=0, le=450)] = pydantic.Field(
        default=1, description="most on-demand nodes of the gVisor pool in each zone"
    )
    sandbox_min_on_demand_nodes: Annotated[int, pydantic.Field(ge=0, le=450)] = pydantic.Field(
        default=0, description="on-demand nodes that always run in the first zone, for a start without waiting"
    )
    sandbox_max_concurrent: Annotated[int, pydantic.Field(ge=1, le=5000)] = pydantic.Field(
        default=100, description="most sandboxes at once"
    )
    allowed_registries: tuple[str, ...] = pydantic.Field(
        default=(), description="registries that sandbox images may come from; empty: the account's own"
    )
    sandbox_image: str = pydantic.Field(
        default="", description="image of sandboxes by digest, as `ringfence image push` prints it; runners need it"
    )
    service_image: str = pydantic.Field(
        default="",
        description="image of the control side by digest; empty: `ringfence serve` isn't made in the cluster",
    )
    service_client_cidrs: tuple[str, ...] = pydantic.Field(
        default=(), description="ranges that may call the service; empty: nobody"
    )
    service_tls_secret: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")] = (
        pydantic.Field(
            default="ringfence-service-tls",
            description="Secret in ringfence-system with the service's tls.crt and tls.key, made by the operator",
        )
    )
    oidc_issuer: str = pydantic.Field(
        default="", description="identity provider whose tokens the service takes, an https address"
    )
    oidc_audience: str = pydantic.Field(default="", description="what a token's aud must name")
    secrets_distribution: Literal["openbao", "vault"] = pydantic.Field(
        default="openbao", description="OpenBao (MPL 2.0) or HashiCorp Vault (BUSL 1.1)"
    )
    vault_replicas: int = _profiled("vault_replicas", "replicas of the secrets store, 1, 3 or 5", 5)
    vault_tls_rotation: Annotated[str, pydantic.Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] = pydantic.Field(
        default="2026-11-01",
        description="day from which the secrets store's certificate is valid, for 825 days; a new day makes a new one",
    )
    audit_lock_mode: Literal["COMPLIANCE", "GOVERNANCE"] = pydantic.Field(
        default="COMPLIANCE", description="S3 Object Lock mode of the audit bucket; nobody shortens COMPLIANCE"
    )
    audit_lock_days: int = _profiled("audit_lock_days", "days that an audit record can't be deleted", 3650)
    audit_retention_days: int = _profiled("audit_retention_days", "days that audit logs are kept", 3653)
    application_retention_days: int = _profiled(
        "application_retention_days", "days that application logs are kept", 3653
    )
    network_retention_days: int = _profiled(
        "network_retention_days", "days that flow, DNS and proxy logs are kept", 3653
    )
    monthly_budget_usd: int = _profiled(
        "monthly_budget_usd", "AWS Budget in USD, with alerts at 50, 80 and 100 %", 1_000_000
    )
    alert_emails: tuple[str, ...] = pydantic.Field(
        default=(), description="addresses that alarms and budget alerts go to"
    )
    catalog_path: str = pydantic.Field(default="catalog", description="folder of tools/*.yaml and roles.yaml")

    @property
    def names(self) -> Names:
        """The environment's names."""
        partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(self.region.rsplit("-", 2)[0], "aws")
        return Names(self.prefix, self.environment, self.account_id, self.region, partition)

    @property
    def sandbox_registries(self) -> tuple[str, ...]:
        """Where images of sandboxes may come from."""
        return self.allowed_registries or (self.names.registry,)

    def defaults_of(self, profile: str) -> Settings:
        """These settings with every profile-dependent count taken from `profile`."""
        return Settings.model_validate(self.model_dump() | PROFILES[profile] | {"profile": profile})

    @pydantic.field_validator("availability_zones")
    @classmethod
    def _zones(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not 2 <= len(set(values)) <= 6 or len(set(values)) != len(values):
            raise ValueError("needs 2 to 6 different zones | e.g. [us-east-1a, us-east-1b]")
        for value in values:
            if not _ZONE.match(value) or value[-1] > "h":
                raise ValueError(f"{value!r} is not a zone name | e.g. us-east-1a")
        return values

    @pydantic.field_validator("vpc_cidr")
    @classmethod
    def _vpc_cidr(cls, value: str) -> str:
        network = _network(value)
        if network.version != 4 or not network.is_private or not 16 <= network.prefixlen <= 18:
            raise ValueError("must be a private IPv4 range between /16 and /18 | e.g. 10.42.0.0/16")
        return value

    @pydantic.field_validator("cluster_public_access_cidrs")
    @classmethod
    def _public_cidrs(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if _network(value).prefixlen < 16:
                raise ValueError(f"{value!r} opens the Kubernetes API too wide | name ranges of /16 or smaller")
        return values

    @pydantic.field_validator("cluster_admins")
    @classmethod
    def _admins(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _PRINCIPAL.match(value):
                raise ValueError(f"{value!r} is not an IAM role or user | write arn:aws:iam::ACCOUNT:role/NAME")
        return values

    @pydantic.field_validator("alert_emails")
    @classmethod
    def _emails(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _EMAIL.match(value):
                raise ValueError(f"{value!r} is not an address | write name@example.com")
        return values

    @pydantic.field_validator("allowed_registries")
    @classmethod
    def _registries(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _REGISTRY.match(value):
                raise ValueError(
                    f"{value!r} is not a registry | write host or host/path in lower case, no scheme, no tag"
                )
        return values

    @pydantic.field_validator("sandbox_image", "service_image")
    @classmethod
    def _images(cls, value: str) -> str:
        if value and not _IMAGE.match(value):
            raise ValueError("names no image by digest | write registry/name@sha256:<64 hex digits>")
        return value

    @pydantic.field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str) -> str:
        if value and not _ISSUER.match(value):
            raise ValueError("is no https address of an issuer | e.g. https://id.example.com")
        return value

    @pydantic.field_validator("service_client_cidrs")
    @classmethod
    def _clients(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if _network(value).prefixlen < _WIDEST_CLIENTS:
                raise ValueError(
                    f"{value!r} opens the service too wide | name the callers' networks, /{_WIDEST_CLIENTS} or smaller"
                )
        return values

    @pydantic.field_validator(
        "existing_public_subnets", "existing_system_subnets", "existing_sandbox_subnets",
        "existing_system_route_tables", "existing_sandbox_route_tables", "existing_public_route_tables",
    )  # fmt: skip
    @classmethod
    def _zoned(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if not _ZONED_ID.match(value):
                raise ValueError(f"{value!r} is not zone=id | e.g. us-east-1a=subnet-0123456789abcdef0")
        return values

    @pydantic.field_validator("audit_retention_days", "application_retention_days", "network_retention_days")
    @classmethod
    def _retention(cls, value: int) -> int:
        if value and value not in RETENTION_DAYS:
            nearest = min(RETENTION_DAYS, key=lambda days: abs(days - value))
            raise ValueError(f"CloudWatch Logs can't keep logs that long | nearest: {nearest}")
        return value

    @pydantic.field_validator("vault_replicas")
    @classmethod
    def _replicas(cls, value: int) -> int:
        if value not in (0, 1, 3, 5):
            raise ValueError("a raft cluster needs an odd number | use 1, 3 or 5")
        return value


def _network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error} | write a range such as 10.42.0.0/16") from None


def zoned(values: tuple[str, ...]) -> dict[str, str]:
    """``("us-east-1a=subnet-0", …)`` → ``{"us-east-1a": "subnet-0", …}``."""
    return dict(value.split("=", 1) for value in values)
