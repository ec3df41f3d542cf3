"""From what the analyzer hands a policy to plain resources. Knows the shapes, not the SDK.

The SDK wraps properties in proxies that are neither dict nor list and that raise when an unknown is touched, which turns
a mandatory rule into an advisory remark. Everything is therefore copied out first, unknowns included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from ringfence.review.facts import AT_PREVIEW
from ringfence.review.resource import Resource, plain


class Analyzed(Protocol):
    """A resource as the SDK hands it over."""

    resource_type: str
    props: Mapping[str, Any]
    urn: str
    name: str


class AnalyzedInStack(Analyzed, Protocol):
    """The same with what its properties come from."""

    property_dependencies: Mapping[str, Sequence[Analyzed]]


def copied(value: Any, unknown_error: type[Exception]) -> Any:
    """Plain values out of proxies. unknown_error: what a proxy raises for an unknown."""
    if isinstance(value, Mapping):
        return {str(key): _item(value, key, unknown_error) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_item(value, index, unknown_error) for index in range(len(value))]
    return plain(value)


def _item(container: Any, key: Any, unknown_error: type[Exception]) -> Any:
    try:
        value = container[key]
    except unknown_error:
        return AT_PREVIEW
    return copied(value, unknown_error)


def resource_of(analyzed: Analyzed, unknown_error: type[Exception]) -> Resource:
    """One resource, without links: a rule on one resource sees no others."""
    props = copied(analyzed.props, unknown_error)
    return Resource(analyzed.resource_type, analyzed.name, analyzed.urn, props, id=_id(props))


def stack_of(analyzed: Iterable[AnalyzedInStack], unknown_error: type[Exception]) -> list[Resource]:
    """The resources of a stack, linked by what their properties come from."""
    listed = list(analyzed)
    bare = {item.urn: resource_of(item, unknown_error) for item in listed}
    for item in listed:
        for prop, others in item.property_dependencies.items():
            known = tuple(bare[other.urn] for other in others if other.urn in bare)
            if known:
                bare[item.urn].links[str(prop)] = known
    return list(bare.values())


def _id(props: Mapping[str, Any]) -> str:
    value = props.get("id")
    return value if isinstance(value, str) else ""
