"""Values on the wire ⇄ plain values."""

from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from ringfence.local.providers.base import UNKNOWN, ProviderError, contains_unknown
from ringfence.local.providers.values import (
    OUTPUT,
    RESOURCE,
    SECRET,
    SIGNATURE,
    UNKNOWN_TOKENS,
    decode,
    decode_with_mask,
    encode,
    join_masks,
    secret_texts,
)

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | st.text()
    | st.just(UNKNOWN)
)
_KEYS = st.text().filter(lambda key: key != SIGNATURE)
_VALUES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4))


def _struct(**fields: Value) -> Value:
    return Value(struct_value=Struct(fields=fields))


@given(st.dictionaries(_KEYS, _VALUES, max_size=5))
def test_plain_and_unknown_values_come_back_as_they_went(values: dict) -> None:
    decoded, mask = decode_with_mask(encode(values))
    assert decoded == values
    assert mask is None


def test_types_survive_the_wire_that_has_only_floats() -> None:
    decoded = decode(encode({"port": 443, "ratio": 0.5, "on": True, "off": False, "none": None}))
    assert decoded == {"port": 443, "ratio": 0.5, "on": True, "off": False, "none": None}
    assert [type(decoded[key]) for key in ("port", "ratio", "on", "off", "none")] == [
        int,
        float,
        bool,
        bool,
        type(None),
    ]


@pytest.mark.parametrize("token", sorted(UNKNOWN_TOKENS))
def test_every_unknown_of_the_engine_is_unknown(token: str) -> None:
    decoded = decode(Struct(fields={"a": Value(list_value=ListValue(values=[Value(string_value=token)]))}))
    assert decoded == {"a": [UNKNOWN]}
    assert contains_unknown(decoded)


def test_a_nested_secret_is_unwrapped_and_only_its_own_path_is_secret() -> None:
    secret = _struct(**{SIGNATURE: Value(string_value=SECRET), "value": Value(string_value="hunter22")})
    wire = Struct(fields={"login": _struct(user=Value(string_value="root"), password=secret)})
    values, mask = decode_with_mask(wire)
    assert values == {"login": {"user": "root", "password": "hunter22"}}
    assert mask == {"login": {"password": True}}
    assert encode(values, mask) == wire


def test_a_secret_in_a_list_makes_the_whole_list_secret() -> None:
    secret = _struct(**{SIGNATURE: Value(string_value=SECRET), "value": Value(string_value="two")})
    wire = Struct(fields={"items": Value(list_value=ListValue(values=[Value(string_value="one"), secret]))})
    values, mask = decode_with_mask(wire)
    assert (values, mask) == ({"items": ["one", "two"]}, {"items": True})
    again = encode(values, mask).fields["items"].struct_value.fields
    assert again[SIGNATURE].string_value == SECRET


def test_a_secret_that_is_not_known_yet_stays_secret_and_unknown() -> None:
    values, mask = decode_with_mask(encode({"key": UNKNOWN}, {"key": True}))
    assert values["key"] is UNKNOWN
    assert mask == {"key": True}


def test_an_object_mask_on_a_value_that_became_text_hides_all_of_it() -> None:
    _, mask = decode_with_mask(encode({"policy": "{...}"}, {"policy": {"inner": True}}))
    assert mask == {"policy": True}


def test_output_values_are_read() -> None:
    known = _struct(
        **{SIGNATURE: Value(string_value=OUTPUT), "value": Value(string_value="v"), "secret": Value(bool_value=True)}
    )
    unknown = _struct(**{SIGNATURE: Value(string_value=OUTPUT)})
    values, mask = decode_with_mask(Struct(fields={"known": known, "unknown": unknown}))
    assert values == {"known": "v", "unknown": UNKNOWN}
    assert mask == {"known": True}


def test_a_resource_reference_is_its_id_or_its_urn() -> None:
    signature = Value(string_value=RESOURCE)
    custom = _struct(**{SIGNATURE: signature, "urn": Value(string_value="urn:x"), "id": Value(string_value="vpc-1")})
    component = _struct(**{SIGNATURE: signature, "urn": Value(string_value="urn:y")})
    new = _struct(**{SIGNATURE: signature, "urn": Value(string_value="urn:x"), "id": Value(string_value="")})
    values = decode(Struct(fields={"custom": custom, "component": component, "new": new}))
    assert values == {"custom": "vpc-1", "component": "urn:y", "new": UNKNOWN}


def test_an_asset_is_refused_with_the_remedy() -> None:
    asset = _struct(**{SIGNATURE: Value(string_value="c44067f5952c0a294b673a41bacd8c17")})
    with pytest.raises(ProviderError, match="pass the content as a string"):
        decode(Struct(fields={"source": asset}))


def test_joined_masks_hide_what_either_hides() -> None:
    assert join_masks({"a": {"x": True}}, {"a": {"y": True}, "b": True}, None) == {
        "a": {"x": True, "y": True},
        "b": True,
    }
    assert join_masks({"a": True}, {"a": {"x": True}}) == {"a": True}
    assert join_masks({"a": True}, True) is True


def test_secret_texts_are_found_at_any_depth() -> None:
    values = {"open": "plain", "login": {"user": "root", "keys": ["one", {"k": "two"}]}}
    assert secret_texts(values, {"login": {"keys": True}}) == {"one", "two"}
    assert secret_texts(values, True) == {"plain", "root", "one", "two"}
