"""Which facts a declared resource states. The IAM-bearing types that a preview may hold have a row here.

Every other AWS resource states the policy documents that it holds all the same, those too that can't be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ringfence.review import extract_eks, extract_iam, extract_native, extract_policies
from ringfence.review.extract_other import any_policy, may_hold_policy
from ringfence.review.facts import Fact
from ringfence.review.resource import Resource

Extractor = Callable[[Resource], Iterator[Fact]]
EXTRACTORS: dict[str, Extractor] = {
    **extract_iam.EXTRACTORS,
    **extract_eks.EXTRACTORS,
    **extract_policies.EXTRACTORS,
    **extract_native.EXTRACTORS,
}


def may_grant(type_: str) -> bool:
    """Whether resources of a type can state facts at all."""
    return type_ in EXTRACTORS or may_hold_policy(type_)


def facts_of(resource: Resource) -> list[Fact]:
    """The facts that one resource states; empty for one that grants nothing."""
    found = EXTRACTORS.get(resource.type, any_policy)(resource)
    return [Fact(f.subject, f.slot, f.key, f.value, resource.urn, resource.type, resource.secret) for f in found]


def facts_of_all(resources: Iterable[Resource]) -> list[Fact]:
    """The facts of all resources."""
    return [fact for resource in resources for fact in facts_of(resource)]
