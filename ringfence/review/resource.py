"""A resource as Pulumi declares it, in plain values, whichever way it was obtained: analyzer, preview or state."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.review.facts import AT_PREVIEW, ENCRYPTED, Unknown, last_part

# What the engine writes in place of values unknown at preview: one sentinel per type of value
# (github.com/pulumi/pulumi, sdk/go/common/resource/plugin/rpc.go).
UNKNOWN_SENTINELS = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
# The key that marks a value of a special kind, and the mark of a secret (same repository, resource/properties.go).
SIGNATURE_KEY = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (a marker, not a secret)
SECRET_PLACEHOLDER = "[secret]"  # noqa: S105 (what `pulumi preview --json` prints instead of one)


@dataclass(frozen=True)
class Resource:
    """One declared resource. name: its Pulumi name; props: its inputs (for a state its outputs over its inputs), with
    `Unknown` where a value can't be reviewed; links: property → the resources that its value comes from, filled in once
    all resources are there; secret: whether any property is, or holds, a value marked secret but readable."""

    type: str
    name: str
    urn: str
    props: Mapping[str, Any]
    links: dict[str, tuple[Resource, ...]] = field(default_factory=dict)
    id: str = ""
    secret: bool = False

    def get(self, *names: str) -> Any:
        """The first of these properties that is set, None when none is."""
        return next((self.props[name] for name in names if self.props.get(name) is not None), None)

    def text(self, *names: str) -> str | Unknown:
        """A property as text; an empty string when it isn't set."""
        value = self.get(*names)
        return value if isinstance(value, Unknown) else "" if value is None else str(value)

    def items(self, name: str) -> tuple[Any, ...]:
        """A list property's entries; a single `Unknown` when the list is unknown; empty when it isn't set."""
        value = self.props.get(name)
        if value is None:
            return ()
        return tuple(value) if isinstance(value, list | tuple) else (value,)

    def origins(self, name: str, *types: str) -> tuple[Resource, ...]:
        """The resources of these types that a property's value comes from, also through other resources."""
        found: dict[str, Resource] = {}
        waiting, seen = list(self.links.get(name, ())), {self.urn}
        while waiting:
            other = waiting.pop(0)
            if other.urn in seen:
                continue
            seen.add(other.urn)
            if other.type in types:
                found[other.urn] = other
            else:
                waiting += [source for sources in other.links.values() for source in sources]
        return tuple(found.values())

    def linked(self, name: str, *types: str) -> Resource | None:
        """The resource of one of these types that a property's value itself is of."""
        return next((other for other in self.links.get(name, ()) if other.type in types), None)

    def target(self, name: str, types: tuple[str, ...], namer: Callable[[Resource], str]) -> str | Unknown:
        """The bare name of what a property refers to: from the resource that it comes from, else from its value."""
        other = self.linked(name, *types)
        if other is not None:
            return namer(other)
        value = self.text(name)
        return value if isinstance(value, Unknown) else last_part(value)


def plain(value: Any) -> Any:
    """JSON values of a preview or state with sentinels and secrets replaced by `Unknown`."""
    if isinstance(value, str):
        if value in UNKNOWN_SENTINELS:
            return AT_PREVIEW
        if value == SECRET_PLACEHOLDER:
            return ENCRYPTED
        if len(value) > 36 and any(sentinel in value for sentinel in UNKNOWN_SENTINELS):
            return AT_PREVIEW
        return value
    if isinstance(value, Mapping):
        if SIGNATURE_KEY in value:
            if value[SIGNATURE_KEY] == SECRET_SIGNATURE:
                return plain_secret(value)
            return dict(value)
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def plain_secret(value: Mapping[str, Any]) -> Any:
    """The value of a secret that was exported in the clear, else `Unknown`: nobody can review a ciphertext."""
    if "plaintext" in value:
        try:
            return plain(json.loads(value["plaintext"]))
        except ValueError:
            return ENCRYPTED
    return plain(value["value"]) if "value" in value else ENCRYPTED


def holds_secret(value: Any) -> bool:
    """Whether JSON values of a preview or state hold a secret anywhere."""
    if isinstance(value, Mapping):
        return value.get(SIGNATURE_KEY) == SECRET_SIGNATURE or any(map(holds_secret, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_secret, value))


def first_unknown(value: Any) -> Unknown | None:
    """The first `Unknown` anywhere in a value."""
    if isinstance(value, Unknown):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((found for part in parts if (found := first_unknown(part)) is not None), None)


def document_of(value: Any) -> Any:
    """A document property for a fact: `Unknown` when any part of it is."""
    return first_unknown(value) or value
