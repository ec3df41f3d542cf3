"""Protobuf Structs as Pulumi fills them ⇄ plain Python values with a mask of what is secret.

The wire marks special values by a signature key inside a struct, and unknown values by reserved strings; the constants
are those of the engine (sdk/go/common/resource: properties.go and plugin/rpc.go).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from ringfence.local.providers.base import UNKNOWN, ProviderError

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (a marker of the protocol, not a secret)
OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
ASSETS = frozenset({"c44067f5952c0a294b673a41bacd8c17", "0def7320c3a5731c473e5ecbe6d01bc7"})
UNKNOWN_STRING = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# The engine tells unknown values apart by their type; here an unknown is an unknown.
UNKNOWN_TOKENS = frozenset(
    {
        UNKNOWN_STRING,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # array
        "030794c1-ac77-496b-92df-f27374a8bd58",  # asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # object
    }
)
# Whole numbers up to here are exact in a float, which is all that the wire has.
_EXACT = 2**53

# What is secret in a value: all of it (True), parts of an object by key, or nothing (None). A list is secret as a whole
# when one of its elements is, since providers may return it in another order.
Mask = bool | dict[str, Any] | None


def decode(struct: Struct | None) -> dict[str, Any]:
    """The plain values of a struct; secrets are unwrapped, resource references become the id (or the URN)."""
    return decode_with_mask(struct)[0]


def decode_with_mask(struct: Struct | None) -> tuple[dict[str, Any], Mask]:
    """The plain values of a struct and the mask of the secret ones. Raises ProviderError for assets and archives."""
    if struct is None:
        return {}, None
    return _decode_fields(struct)


def _decode_fields(struct: Struct) -> tuple[dict[str, Any], Mask]:
    values: dict[str, Any] = {}
    mask: dict[str, Any] = {}
    # A protobuf map has no order of its own: sorted, so that messages and requests are the same every time.
    for key, field in sorted(struct.fields.items()):
        values[key], part = _decode(field)
        if part is not None:
            mask[key] = part
    return values, mask or None


def _decode(field: Value) -> tuple[Any, Mask]:
    kind = field.WhichOneof("kind")
    if kind == "string_value":
        text = field.string_value
        return (UNKNOWN, None) if text in UNKNOWN_TOKENS else (text, None)
    if kind == "number_value":
        number = field.number_value
        return (int(number) if number.is_integer() and abs(number) <= _EXACT else number), None
    if kind == "bool_value":
        return field.bool_value, None
    if kind == "list_value":
        pairs = [_decode(item) for item in field.list_value.values]
        return [value for value, _ in pairs], True if any(part is not None for _, part in pairs) else None
    if kind == "struct_value":
        return _decode_struct(field.struct_value)
    return None, None


def _decode_struct(struct: Struct) -> tuple[Any, Mask]:
    if SIGNATURE not in struct.fields:
        return _decode_fields(struct)
    signature = struct.fields[SIGNATURE].string_value
    if signature == SECRET:
        return _decode(struct.fields["value"])[0], True
    if signature == OUTPUT:
        value, mask = _decode(struct.fields["value"]) if "value" in struct.fields else (UNKNOWN, None)
        return value, True if "secret" in struct.fields and struct.fields["secret"].bool_value else mask
    if signature == RESOURCE:
        if "id" not in struct.fields:
            return struct.fields["urn"].string_value, None
        return _decode(struct.fields["id"])[0] or UNKNOWN, None
    if signature in ASSETS:
        raise ProviderError("files as assets or archives aren't supported here: pass the content as a string")
    raise ProviderError(
        f"a value of an unknown kind arrived (signature {signature}): the engine is newer than this plugin"
    )


def encode(values: dict[str, Any], mask: Mask = None) -> Struct:
    """A struct of plain values, with what `mask` says marked as secret."""
    parts = mask if isinstance(mask, dict) else dict.fromkeys(values, mask)
    return Struct(fields={key: _encode(value, parts.get(key)) for key, value in values.items()})


def _encode(value: Any, mask: Mask) -> Value:
    if mask and not (isinstance(mask, dict) and isinstance(value, dict)):
        wrapped = Struct(fields={SIGNATURE: Value(string_value=SECRET), "value": _encode(value, None)})
        return Value(struct_value=wrapped)
    if isinstance(value, str):
        return Value(string_value=value)
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=value)
    if value is None:
        return Value(null_value=0)
    if value is UNKNOWN:
        return Value(string_value=UNKNOWN_STRING)
    if isinstance(value, dict):
        return Value(struct_value=encode(value, mask))
    if isinstance(value, list | tuple):
        return Value(list_value=ListValue(values=[_encode(item, None) for item in value]))
    raise TypeError(f"a backend returned a {type(value).__name__}, which has no form on the wire")


def join_masks(*masks: Mask) -> Mask:
    """The mask of everything that any of `masks` says is secret."""
    joined: dict[str, Any] = {}
    for mask in masks:
        if mask is True:
            return True
        if isinstance(mask, dict):
            joined = {key: join_masks(joined.get(key), mask.get(key)) for key in {*joined, *mask}}
    return joined or None


def mask_of(names: Iterable[str]) -> Mask:
    """The mask that makes the top-level properties `names` secret."""
    return dict.fromkeys(names, True) or None


def secret_texts(value: Any, mask: Mask) -> set[str]:
    """Every string inside `value` that `mask` says is secret, so that it can be blanked in messages."""
    if not mask:
        return set()
    if isinstance(value, str):
        return {value}
    if isinstance(value, dict):
        parts = mask if isinstance(mask, dict) else dict.fromkeys(value, True)
        return {text for key, item in value.items() for text in secret_texts(item, parts.get(key))}
    if isinstance(value, list):
        return {text for item in value for text in secret_texts(item, True)}
    return set()
