"""Which facts a declared resource states. The IAM-bearing types that a preview may hold have a row here.

Every other AWS resource states the policy documents that it holds all the same, those too that can't be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ringfence.review import extract_access, extract_eks, extract_iam, extract_native, extract_policies
from ringfence.review.extract_generic import IS_GENERIC, listed_type, named_type
from ringfence.review.extract_other import any_policy, may_hold_policy
from ringfence.review.facts import Fact, Slot
from ringfence.review.resource import Resource

Extractor = Callable[[Resource], Iterator[Fact]]
EXTRACTORS: dict[str, Extractor] = {
    **extract_iam.EXTRACTORS,
    **extract_eks.EXTRACTORS,
    **extract_policies.EXTRACTORS,
    **extract_native.EXTRACTORS,
    **extract_access.EXTRACTORS,
}
# Names by which a provider bridged from Terraform at will knows the types that have a row.
_BRIDGED = {listed_type(token): token for token in EXTRACTORS if token.startswith("aws:")}


def may_grant(type_: str) -> bool:
    """Whether resources of a type can state facts at all."""
    return type_ in EXTRACTORS or may_hold_policy(type_)


def facts_of(resource: Resource) -> list[Fact]:
    """The facts that one resource states; empty for one that grants nothing."""
    extractor = EXTRACTORS.get(resource.type)
    found = extractor(resource) if extractor else _without_row(resource)
    return [Fact(f.subject, f.slot, f.key, f.value, resource.urn, resource.type, resource.secret) for f in found]


def _without_row(resource: Resource) -> Iterator[Fact]:
    if resource.type in IS_GENERIC:
        named = named_type(resource)
        if not isinstance(named, Resource):
            yield Fact(f"{resource.type}/{resource.name}", Slot.RESOURCE_POLICY, "", named)
            return
        yield from EXTRACTORS.get(named.type, any_policy)(named)
    else:
        yield from EXTRACTORS.get(_BRIDGED.get(resource.type, ""), any_policy)(resource)


def facts_of_all(resources: Iterable[Resource]) -> list[Fact]:
    """The facts of all resources."""
    return [fact for resource in resources for fact in facts_of(resource)]
