"""From the analyzer protocol's protobuf values to plain resources, each value read once.

Numbers are floats, as the protocol has no others. Unknowns become `Unknown`; secrets arrive in plaintext and are marked
on their resource; assets and archives stay mappings, as in a preview's JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from google.protobuf.struct_pb2 import Struct, Value

from ringfence.review.facts import Unknown
from ringfence.review.resource import SECRET_SIGNATURE, SIGNATURE_KEY, Resource, plain

# Assets and archives (github.com/pulumi/pulumi, sdk/go/common/resource/sig/sig.go).
_OPAQUE_SIGNATURES = frozenset({"c44067f5952c0a294b673a41bacd8c17", "0def7320c3a5731c473e5ecbe6d01bc7"})

# Ends of properties that say which resource this is: those stay unknown, or it would seem to have no name.
_NAMING = ("id", "arn", "name", "url")


class Analyzed(Protocol):
    """A resource as the protocol hands it over: inputs to a check of one, outputs to a check of the stack."""

    type: str
    name: str
    urn: str
    properties: Struct


class AnalyzedInStack(Analyzed, Protocol):
    """The same with the URNs that each property's value comes from."""

    propertyDependencies: Mapping[str, Any]


def resource_of(analyzed: Analyzed) -> Resource:
    """One resource, without links: a rule on one resource sees no others. Raises ValueError for a value of no known
    kind."""
    values = _Values()
    props = values.mapping(analyzed.properties.fields)
    own_id = props.get("id")
    found_id = own_id if isinstance(own_id, str) else ""
    return Resource(analyzed.type, analyzed.name, analyzed.urn, props, id=found_id, secret=values.secret)


def stack_of(
    analyzed: Sequence[AnalyzedInStack],
    looked_at: Callable[[str], bool],
    given: Mapping[str, Collection[str]],
) -> list[Resource]:
    """The resources of a stack, linked by what their properties come from. looked_at: whether any rule reads resources
    of a type; the others are there for the links through them, without properties. given: URN → names of the properties
    that a resource was declared with, of those that were checked one by one."""
    bare = {
        item.urn: _as_declared(resource_of(item), given.get(item.urn)) if looked_at(item.type) else _bare(item)
        for item in analyzed
    }
    for item in analyzed:
        for prop, others in item.propertyDependencies.items():
            known = _known(bare, others.urns)
            if known:
                bare[item.urn].links[prop] = known
    return list(bare.values())


def _as_declared(resource: Resource, given: Collection[str] | None) -> Resource:
    """Without what the provider will fill in: unknown in a preview, and in no declaration, such as the policies that AWS
    attaches to a new role (none). The check of the declaration has judged a resource without it. One that was never
    checked stays as it is."""
    if given is None:
        return resource
    filled_in = {
        name
        for name, value in resource.props.items()
        if isinstance(value, Unknown) and name not in given and not name.lower().endswith(_NAMING)
    }
    return replace(resource, props={k: v for k, v in resource.props.items() if k not in filled_in})


def _bare(analyzed: Analyzed) -> Resource:
    return Resource(analyzed.type, analyzed.name, analyzed.urn, {})


def _known(resources: Mapping[str, Resource], urns: Iterable[str]) -> tuple[Resource, ...]:
    return tuple(resources[urn] for urn in urns if urn in resources)


class _Values:
    """Reads the values of one resource and remembers whether any was a secret."""

    __slots__ = ("secret",)

    def __init__(self) -> None:
        self.secret = False

    def mapping(self, fields: Mapping[str, Value]) -> dict[str, Any]:
        return {key: self.value(value) for key, value in fields.items()}

    def value(self, value: Value) -> Any:
        kind = value.WhichOneof("kind")
        if kind == "string_value":
            return plain(value.string_value)
        if kind == "struct_value":
            fields = value.struct_value.fields
            return self._special(fields) if SIGNATURE_KEY in fields else self.mapping(fields)
        if kind == "list_value":
            return [self.value(item) for item in value.list_value.values]
        if kind == "number_value":
            return value.number_value
        if kind == "bool_value":
            return value.bool_value
        if kind == "null_value":
            return None
        raise ValueError("a property has a value of no kind")

    def _special(self, fields: Mapping[str, Value]) -> Any:
        signature = fields[SIGNATURE_KEY].string_value
        if signature == SECRET_SIGNATURE and "value" in fields:
            self.secret = True
            return self.value(fields["value"])
        if signature in _OPAQUE_SIGNATURES:
            return self.mapping({key: value for key, value in fields.items() if key != SIGNATURE_KEY})
        raise ValueError("a property has a value of an unknown special kind")
