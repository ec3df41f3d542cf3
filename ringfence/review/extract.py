"""Which facts a declared resource states. Every IAM-bearing type that a preview may hold has a row here.

A resource whose type has no row but which carries a policy document is taken as a resource policy all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ringfence.review import extract_eks, extract_iam, extract_native, extract_policies
from ringfence.review.facts import Fact, Slot, plain_document
from ringfence.review.resource import Resource, document_of

Extractor = Callable[[Resource], Iterator[Fact]]
EXTRACTORS: dict[str, Extractor] = {
    **extract_iam.EXTRACTORS,
    **extract_eks.EXTRACTORS,
    **extract_policies.EXTRACTORS,
    **extract_native.EXTRACTORS,
}
# Documents that are no IAM policies although they hold statements or look alike.
_NOT_IAM = frozenset({"aws:iam/getPolicyDocument:getPolicyDocument"})


def may_grant(type_: str) -> bool:
    """Whether resources of a type can state facts at all."""
    return type_ in EXTRACTORS or _may_hold_policy(type_)


def _may_hold_policy(type_: str) -> bool:
    return type_.startswith(("aws:", "aws-native:")) and type_ not in _NOT_IAM


def facts_of(resource: Resource) -> list[Fact]:
    """The facts that one resource states; empty for one that grants nothing."""
    extractor = EXTRACTORS.get(resource.type)
    found = extractor(resource) if extractor else _any_policy(resource)
    return [Fact(f.subject, f.slot, f.key, f.value, resource.urn, resource.type, resource.secret) for f in found]


def facts_of_all(resources: Iterable[Resource]) -> list[Fact]:
    """The facts of all resources."""
    return [fact for resource in resources for fact in facts_of(resource)]


def _any_policy(resource: Resource) -> Iterator[Fact]:
    if not _may_hold_policy(resource.type):
        return
    for name, value in resource.props.items():
        document = document_of(value)
        if is_policy_document(document):
            subject = f"{resource.type}/{resource.text('name') or resource.name}"
            yield Fact(subject, Slot.RESOURCE_POLICY, name, document)


def is_policy_document(value: Any) -> bool:
    """Whether a value is an IAM policy document, as text or as a mapping."""
    if isinstance(value, str) and '"Statement"' not in value:
        return False
    mapping = plain_document(value)
    if not isinstance(mapping, dict) or "Statement" not in mapping:
        return False
    listed = mapping["Statement"] if isinstance(mapping["Statement"], list) else [mapping["Statement"]]
    return any(isinstance(statement, dict) and "Effect" in statement for statement in listed)
