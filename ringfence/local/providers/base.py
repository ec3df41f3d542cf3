"""What a resource backend (aws, kubernetes, random) implements, in plain Python values; and `serve`, which puts it
behind Pulumi's gRPC ResourceProvider protocol.

Nothing here or in a backend knows protobuf: conversion is in values.py, the protocol in server.py.

Values are what Pulumi sends: camelCase dicts, lists, str, int or float (a whole number arrives as int), bool, None,
and `UNKNOWN` where a value is not known yet (preview only). Secrets are unwrapped before a backend sees them; the server
marks every output as secret whose input of the same path was secret, and those that `Backend.secret_outputs` names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final


@final
class Unknown:
    """A value that is not known until something else has been created. There is one instance, `UNKNOWN`.

    It has no truth value, so that code which forgets it fails loudly instead of taking a branch.
    """

    _instance: Unknown | None = None

    def __new__(cls) -> Unknown:
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        raise TypeError("the value is not known yet: test with `value is UNKNOWN` first")

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Unknown:
        return self

    def __reduce__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()


def contains_unknown(value: Any) -> bool:
    """Whether `value`, or anything nested in it, is UNKNOWN."""
    if value is UNKNOWN:
        return True
    if isinstance(value, dict):
        return any(contains_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(contains_unknown(item) for item in value)
    return False


@dataclass(frozen=True, slots=True)
class CheckFailure:
    """An input that the backend refuses. property: path such as ``tags.Name``; reason: a sentence with the remedy."""

    property: str
    reason: str


@dataclass(frozen=True, slots=True)
class DiffResult:
    """What differs between the state and the new inputs.

    changed: property paths, top-level (``policy``) or nested (``tags.Name``, ``tags["a.b/c"]``, ``ingress[0].fromPort``:
    see paths.py, whose `changed_paths` computes them); replaces: those of them that can't be changed in place;
    delete_before_replace: old and new can't exist side by side (same fixed name).
    """

    changed: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    delete_before_replace: bool = False


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The live thing. inputs: what a program would have to declare to get it; outputs: everything known of it."""

    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class ProviderError(Exception):
    """A failure with a message fit for a terminal: what was refused, which key, the remedy. Shown as it is."""


class NotFound(ProviderError):
    """The thing that should be updated or deleted isn't there."""


@dataclass
class PartialCreate(Exception):
    """Creation (or an update) stopped half way: the thing exists and must be remembered, but isn't as declared.

    id: the id of what exists; outputs: what is known of it; message: what failed, with the remedy.
    """

    id: str
    outputs: dict[str, Any] = field(repr=False)
    message: str

    def __str__(self) -> str:
        return self.message


class Backend(Protocol):
    """One family of resource types. Methods are called from several threads at once.

    Any method may raise `ProviderError` for a failure that a user should read; other exceptions are reported by type
    and message with the resource they belong to. Texts that contain a secret input are shown with it blanked.
    A backend may also have `cancel() -> None`: called once when the user interrupts, to abandon waiting.
    """

    def configure(self, args: dict[str, Any]) -> None:
        """Take the provider's own configuration. Called once, before everything but `check` of the configuration."""

    def check(
        self, type_: str, urn: str, olds: dict[str, Any], news: dict[str, Any], random_seed: bytes
    ) -> tuple[dict[str, Any], list[CheckFailure]]:
        """Normalise declared inputs, defaults and automatic names included, and say what is wrong with them.

        olds: the inputs checked last time, empty at creation; random_seed: for automatic names, the same for every
        attempt at one resource.
        """

    def diff(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
    ) -> DiffResult:
        """Compare what stands with the new inputs. An UNKNOWN in `news` counts as a change."""

    def create(self, type_: str, urn: str, inputs: dict[str, Any], preview: bool) -> tuple[str, dict[str, Any]]:
        """Create, and return (id, outputs). At preview nothing is made, the id is "" and outputs may hold UNKNOWN.

        Raises PartialCreate when the thing exists but isn't complete.
        """

    def read(
        self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> ReadResult | None:
        """The live thing, or None when it is gone. Empty `inputs`: it is being imported."""

    def update(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
        preview: bool,
    ) -> dict[str, Any]:
        """Change in place and return the new outputs. At preview nothing is changed."""

    def delete(self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Delete, and wait until it is gone. Already gone is success."""

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a function call such as ``aws:index/getCallerIdentity:getCallerIdentity``."""

    def secret_outputs(self, type_: str) -> frozenset[str]:
        """Top-level output names of this type that are always secret."""


def serve(backend: Backend, name: str, version: str) -> None:
    """Serve `backend` as the plugin `name` until the engine goes away. Never returns before that.

    The address of the engine is read from the command line, as the engine passes it; the port is printed on stdout.
    """
    from ringfence.local.providers.server import run

    run(backend, name, version)
