"""What a guardrail is, and small helpers to read properties in a way that fails closed."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.review.facts import Unknown
from ringfence.review.resource import Resource

# A check yields what is wrong, a sentence each. A stack check also says with which resource.
ResourceCheck = Callable[[Resource], Iterator[str]]
StackCheck = Callable[[Sequence[Resource]], Iterator[tuple[Resource, str]]]


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One rule. id: names it in exceptions; topic: groups rules into one policy; types: prefixes of the type tokens
    that it looks at; check or stack_check: exactly one of them."""

    id: str
    topic: str
    why: str
    fix: str
    types: tuple[str, ...]
    check: ResourceCheck | None = None
    stack_check: StackCheck | None = None

    def text(self, what: str) -> str:
        """A violation in full."""
        return (
            f"{what}.\n    Why it matters: {self.why}.\n    Fix: {self.fix}.\n    Approve: add an exception for rule "
            f"{self.id} and this one resource, with a reason and an end, to catalog/exceptions.yaml."
        )


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a resource breaks. text: what a pull request shows."""

    rule: str
    text: str
    urn: str


def at(value: Any, *path: str) -> Any:
    """The value at a path of keys, None where something is missing, the `Unknown` on the way where there is one. A list
    on the way stands for its only entry, as bridged providers have it."""
    for key in path:
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, Unknown):
            return value
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def entries(value: Any) -> list[Any]:
    """A list property's entries; a single value counts as one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def is_true(value: Any) -> bool:
    """Whether a flag is known to be set. An unknown flag isn't."""
    return value is True or value == "true"


def is_set(value: Any) -> bool:
    """Whether a reference is given at all; one that only the update tells counts as given."""
    return isinstance(value, Unknown) or bool(value)


def open_to_everybody(cidr: Any) -> bool:
    """Whether a CIDR covers the internet, also when it is cut in two halves. An unknown one does."""
    if isinstance(cidr, Unknown):
        return True
    try:
        return ipaddress.ip_network(str(cidr), strict=False).prefixlen <= 1
    except ValueError:
        return False


def name_tag(resource: Resource) -> str:
    """Pulumi name, AWS name and Name tag together in lower case: what a resource is known by."""
    tags = resource.get("tags")
    tag = tags.get("Name") if isinstance(tags, Mapping) else ""
    parts = (resource.name, resource.text("name"), resource.text("bucket"), tag)
    return " ".join(part for part in parts if isinstance(part, str)).lower()


def is_sandbox(resource: Resource) -> bool:
    """Whether a network resource belongs to the sandbox: by name, Name tag, or a tag key that says so."""
    tags = resource.get("tags")
    tagged = isinstance(tags, Mapping) and any("sandbox" in str(key).lower() for key in tags)
    return tagged or "sandbox" in name_tag(resource)
