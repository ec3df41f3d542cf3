"""The control side as a service: `ringfence serve` in the cluster, for callers that prove who they are."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_kubernetes as k8s

from components import service_manifests as manifests
from ringfence.errors import InputError, Problem
from ringfence.names import SYSTEM_NAMESPACE, Names
from ringfence.runner.places import GATEWAY_PORT
from ringfence.runner.unit_settings import GatewayAddress

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
# Kubernetes gives out addresses of a service range from its end; the first ones are for whoever chooses
# (kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation). CoreDNS has the tenth.
_GATEWAY_PLACE = 20
# A ConfigMap's limit is 1 MiB, names included.
_MAX_FILES_BYTES = 900_000
# Trail, ledger and accepted tasks of the lean profile's months. The storage class lets it grow.
STATE_GIB = 4
# A node that is drained waits that long for the pod.
_MAX_DRAIN_S = 600


def gateway_address(service_cidr: str) -> GatewayAddress:
    """Where sandboxes reach the model gateway, known before anything is made."""
    address = ipaddress.ip_network(service_cidr)[_GATEWAY_PLACE]
    return GatewayAddress(str(address), GATEWAY_PORT, dict(manifests.LABELS))


@dataclass(frozen=True)
class ServiceArgs:
    """stack: whose settings the service reads; image: of this project, by digest; files: path below the project's folder →
    text (Pulumi.yaml, the stack's file, the catalog); unit: what sandboxes are made from, as `components.sandbox` writes it;
    storage_class: of the volume; service_cidr: of the cluster's Services; vault_address: of the secrets store, empty for AWS
    Secrets Manager; otlp_endpoint: of the collector, empty for no traces and metrics; oidc_issuer, oidc_audience: whose
    tokens are taken, and whom they must be for; client_ca: whether client certificates are taken, whose authority is
    `ca.crt` in the Secret; tls_secret: Secret in `ringfence-system` with tls.crt and tls.key, made and renewed by the
    operator; client_cidrs: where callers may come from, none: from nowhere."""

    names: Names
    stack: str
    image: str
    files: Mapping[str, str]
    storage_class: str
    service_cidr: str
    unit: pulumi.Input[str] = ""
    vault_address: str = ""
    otlp_endpoint: str = ""
    oidc_issuer: str = ""
    oidc_audience: str = ""
    client_ca: bool = False
    tls_secret: str = "ringfence-service-tls"  # noqa: S105 (a name)
    client_cidrs: tuple[str, ...] = ()
    state_gib: int = STATE_GIB
    drain_seconds: int = 300
    keep: bool = True
    cluster_ready: tuple[pulumi.Resource, ...] = field(default=())


def _check(args: ServiceArgs) -> None:
    found = []
    if not _DIGEST.fullmatch(args.image):
        found.append(
            Problem("service", "image", f"{args.image!r} names no digest", "write <name>@sha256:<64 hex digits>")
        )
    if not args.oidc_issuer and not args.client_ca:
        found.append(
            Problem("service", "oidcIssuer", "nobody could prove who they are", "name an issuer, or take certificates")
        )
    if bool(args.oidc_issuer) != bool(args.oidc_audience):
        found.append(Problem("service", "oidcAudience", "goes with the issuer", "set both"))
    if args.oidc_issuer and not args.oidc_issuer.startswith("https://"):
        found.append(
            Problem("service", "oidcIssuer", f"{args.oidc_issuer!r} is no https address", "give the issuer's own")
        )
    if not 0 <= args.drain_seconds <= _MAX_DRAIN_S:
        found.append(Problem("service", "drainSeconds", f"is {args.drain_seconds}", f"0 to {_MAX_DRAIN_S}"))
    if sum(len(text.encode()) for text in args.files.values()) > _MAX_FILES_BYTES:
        found.append(Problem("service", "files", "are too large for a ConfigMap", "shorten the catalog's texts"))
    for cidr in args.client_cidrs:
        if ipaddress.ip_network(cidr).prefixlen == 0:
            found.append(Problem("service", "clientCidrs", f"{cidr} is everywhere", "name the networks of the callers"))
    if found:
        raise InputError(found)


class Service(pulumi.ComponentResource):
    """`ringfence serve` as a Deployment. Needs a Kubernetes provider, and `components.sandbox` for namespace and rights.

    Makes: in `ringfence-system` the project's files as a ConfigMap, the volume, the Deployment with the runner's service
    account, a Service for callers and one with a fixed address for sandboxes, the NetworkPolicy and the
    PodDisruptionBudget.
    Protects against: callers that don't prove who they are (no other way to listen than TLS with tokens or certificates);
    a sandbox that reaches more of the control side than the model gateway's port; a pod that is taken over gaining root,
    writing to its own files, or reaching the instance metadata; an update that drops tasks (drained first).
    Trust zone: control side.

    Outputs, known at preview: address (of the API, inside of the cluster); gateway (for `components.sandbox`).
    """

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Service", name, None, opts)
        _check(args)
        self._name, self._args = name, args
        self._child = pulumi.ResourceOptions(parent=self, depends_on=list(args.cluster_ready))
        self.gateway: GatewayAddress = gateway_address(args.service_cidr)
        self.address: str = f"https://{manifests.NAME}.{SYSTEM_NAMESPACE}.svc"
        first = self._first()
        given = manifests.arguments(
            args.stack, args.oidc_issuer, args.oidc_audience, args.drain_seconds, args.client_ca
        )
        k8s.apps.v1.Deployment(
            f"{name}-deployment",
            metadata=self._meta(manifests.NAME),
            spec=manifests.deployment_spec(
                args.image,
                given,
                args.names.region,
                args.files,
                args.tls_secret,
                args.drain_seconds,
                args.vault_address,
                self._read_at_start(),
                args.otlp_endpoint,
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=first),
        )
        self.register_outputs({})

    def _read_at_start(self) -> pulumi.Input[str]:
        files, unit = self._args.files, self._args.unit
        if isinstance(unit, str):
            return manifests.digest(files, unit)
        return pulumi.Output.from_input(unit).apply(lambda text: manifests.digest(files, text))

    def _meta(self, name: str) -> dict[str, object]:
        return {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": dict(self._args.names.labels(manifests.NAME))}

    def _first(self) -> list[pulumi.Resource]:
        """What the pod needs, its fence before all."""
        name, args = self._name, self._args
        keys = manifests.file_keys(args.files)
        return [
            k8s.networking.v1.NetworkPolicy(
                f"{name}-network",
                metadata=self._meta(manifests.NAME),
                spec=manifests.network_policy_spec(args.client_cidrs),
                opts=self._child,
            ),
            k8s.core.v1.ConfigMap(
                f"{name}-project",
                metadata=self._meta(manifests.CONFIG),
                data={keys[path]: text for path, text in args.files.items()},
                opts=self._child,
            ),
            k8s.core.v1.PersistentVolumeClaim(
                f"{name}-state",
                metadata=self._meta(manifests.STATE)
                # It is bound once the pod that needs it is there, and that one waits for this.
                | {"annotations": {"pulumi.com/skipAwait": "true"}},
                spec=manifests.state_spec(args.storage_class, args.state_gib),
                opts=pulumi.ResourceOptions.merge(self._child, pulumi.ResourceOptions(protect=args.keep)),
            ),
            k8s.core.v1.Service(
                f"{name}-api", metadata=self._meta(manifests.NAME), spec=manifests.api_service_spec(), opts=self._child
            ),
            k8s.core.v1.Service(
                f"{name}-gateway",
                metadata=self._meta(f"{manifests.NAME}-gateway"),
                spec=manifests.gateway_service_spec(self.gateway.address),
                opts=self._child,
            ),
            k8s.policy.v1.PodDisruptionBudget(
                f"{name}-disruption",
                metadata=self._meta(manifests.NAME),
                spec=manifests.disruption_budget_spec(),
                opts=self._child,
            ),
        ]
