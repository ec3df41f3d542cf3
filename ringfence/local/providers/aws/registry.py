"""The resource types that the embedded provider knows, by Pulumi type token."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from ringfence.local.providers.aws import (
    autoscaling,
    cloudwatch,
    ec2_acl,
    ec2_compute,
    ec2_network,
    ec2_routing,
    ec2_security,
    eks,
    governance,
    iam,
    kms,
    logs,
    networkfirewall,
    route53,
    route53resolver,
    s3,
    sns,
    stores,
)
from ringfence.local.providers.aws.resource import Resource
from ringfence.local.providers.base import ProviderError

_MODULES = (
    autoscaling,
    cloudwatch,
    ec2_acl,
    ec2_compute,
    ec2_network,
    ec2_routing,
    ec2_security,
    eks,
    governance,
    iam,
    kms,
    logs,
    networkfirewall,
    route53,
    route53resolver,
    s3,
    sns,
    stores,
)


@cache
def all_types() -> Mapping[str, Resource]:
    """Every supported type by its token."""
    return {kind.pulumi_type: kind() for module in _MODULES for kind in module.RESOURCES}


def find(token: str) -> Resource:
    """The type `token`. Raises ProviderError, naming it, when the embedded provider doesn't have it."""
    found = all_types().get(token)
    if found is None:
        raise ProviderError(
            f"{token} is not among the {len(all_types())} types that the embedded aws provider supports: "
            f"deploy it with the official aws plugin, or add it under ringfence/local/providers/aws"
        )
    return found
