"""Where the control side's images come from: each registry's hosts, and the S3 buckets that it sends clients to.

Nodes resolve what DNS Firewall lists, and reach S3 through the gateway endpoint, whose policy lists buckets: a registry that
redirects to a host or bucket that is missing here answers with NXDOMAIN or 403. The account's own registry and EKS's are
ECR's, whose names and layer bucket are listed anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ringfence.errors import InputError, Problem

# Regions where registry.k8s.io has a bucket of its own (kubernetes/registry.k8s.io, cmd/archeio/internal/app/buckets.go).
# Named one by one: a bucket that nobody has made yet could be anybody's.
_KUBERNETES_REGIONS = (
    "af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
    "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6",
    "ap-southeast-7", "ca-central-1", "ca-west-1", "eu-central-1", "eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2",
    "eu-west-1", "eu-west-3", "il-central-1", "me-central-1", "me-south-1", "mx-central-1", "sa-east-1", "us-east-1",
    "us-east-2", "us-west-1", "us-west-2",
)  # fmt: skip
_ECR_SUFFIXES = (".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True)
class Registry:
    """domains: hosts of its API and its layers. buckets: region → S3 bucket that clients in that region are sent to; the
    gateway endpoint carries traffic to its own region's buckets only."""

    domains: tuple[str, ...]
    buckets: Mapping[str, str] = field(default_factory=dict)


REGISTRIES: Mapping[str, Registry] = {
    # docs.docker.com/desktop/setup/allow-list. The bucket is where Hub sent clients in AWS
    # (github.com/docker/hub-feedback/issues/1318); caches of Hub's layers still list it beside the CDNs.
    "docker.io": Registry(
        (
            "registry-1.docker.io",
            "auth.docker.io",
            "production.cloudflare.docker.com",
            "production.cloudfront.docker.com",
            "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
        ),
        {"us-east-1": "docker-images-prod"},
    ),
    # OpenShift's list of hosts for a firewall names the bucket as Quay's image content in AWS: clients in us-east-1 are
    # sent there, all others to cdnNN.quay.io (docs.redhat.com, "Configuring your firewall for OpenShift").
    "quay.io": Registry(("quay.io", "*.quay.io"), {"us-east-1": "quayio-production-s3"}),
    # Manifests come from Artifact Registry, layers from the region's bucket, where there is none from the CDN. London's
    # has a name of its own (buckets.go, see above).
    "registry.k8s.io": Registry(
        ("registry.k8s.io", "cdn.registry.k8s.io", "*.pkg.dev"),
        {
            **{region: f"prod-registry-k8s-io-{region}" for region in _KUBERNETES_REGIONS},
            "eu-west-2": "767373bbdcb8270361b96548387bf2a9ad0d48758c35-eu-west-2",
        },
    ),
    # Layers come from CloudFront. EKS Anywhere's list of hosts for a firewall names both distributions
    # (anywhere.eks.amazonaws.com/docs/getting-started/vsphere/vsphere-prereq).
    "public.ecr.aws": Registry(("public.ecr.aws", "d2glxqk2uabbnd.cloudfront.net", "d5l0dvt14r5h8.cloudfront.net")),
}


def _registries(images: Iterable[str]) -> list[Registry]:
    hosts = dict.fromkeys(image.partition("/")[0] for image in images)
    outside = [host for host in hosts if not (".dkr.ecr." in host and host.endswith(_ECR_SUFFIXES))]
    problems = [
        Problem(
            "images", host, "is a registry whose layers' hosts are not known here", f"one of {', '.join(REGISTRIES)}"
        )
        for host in outside
        if host not in REGISTRIES
    ]
    if problems:
        raise InputError(problems)
    return [REGISTRIES[host] for host in outside]


def image_domains(images: Iterable[str]) -> tuple[str, ...]:
    """Hosts that nodes ask for these images, for the DNS allow-list. Raises InputError for an unknown registry."""
    return tuple(domain for registry in _registries(images) for domain in registry.domains)


def image_buckets(images: Iterable[str], region: str) -> tuple[str, ...]:
    """Buckets of other accounts that nodes in `region` read these images' layers from. Raises InputError as
    `image_domains` does."""
    return tuple(registry.buckets[region] for registry in _registries(images) if region in registry.buckets)
