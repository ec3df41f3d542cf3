"""The random provider's values."""

from __future__ import annotations

import base64
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.local.providers.base import UNKNOWN
from ringfence.local.providers.random import BYTES, ID, NO_ID, PASSWORD, STRING, UUID, RandomBackend

URN = "urn:pulumi:s::p::t::n"
backend = RandomBackend()


def _create(type_: str, preview: bool = False, **declared: object) -> tuple[str, dict]:
    inputs, failures = backend.check(type_, URN, {}, declared, b"")
    assert failures == []
    return backend.create(type_, URN, inputs, preview)


@given(
    minimums=st.fixed_dictionaries(
        {key: st.integers(0, 4) for key in ("minLower", "minUpper", "minNumeric", "minSpecial")}
    ),
    extra=st.integers(1, 20),
)
def test_a_string_has_its_length_and_its_minimums(minimums: dict, extra: int) -> None:
    length = sum(minimums.values()) + extra
    id_, outputs = _create(STRING, length=length, overrideSpecial="-_", **minimums)
    result = outputs["result"]
    assert id_ == result
    assert len(result) == length
    counts = {
        "minLower": sum(c in string.ascii_lowercase for c in result),
        "minUpper": sum(c in string.ascii_uppercase for c in result),
        "minNumeric": sum(c in string.digits for c in result),
        "minSpecial": sum(c in "-_" for c in result),
    }
    assert sum(counts.values()) == length
    assert all(counts[key] >= minimum for key, minimum in minimums.items())


def test_classes_that_are_off_do_not_occur() -> None:
    _, outputs = _create(PASSWORD, length=200, special=False, upper=False, number=False)
    assert set(outputs["result"]) <= set(string.ascii_lowercase)


def test_two_passwords_differ_and_their_id_tells_nothing() -> None:
    (first_id, first), (second_id, second) = _create(PASSWORD, length=32), _create(PASSWORD, length=32)
    assert first["result"] != second["result"]
    assert first_id == second_id == NO_ID


def test_what_is_secret_is_named_secret() -> None:
    assert "result" in backend.secret_outputs(PASSWORD)
    assert backend.secret_outputs(BYTES) == {"base64", "hex"}
    assert backend.secret_outputs(STRING) == backend.secret_outputs(ID) == frozenset()


def test_an_id_is_the_same_number_in_every_notation() -> None:
    id_, outputs = _create(ID, byteLength=8, prefix="p-")
    raw = bytes.fromhex(outputs["hex"].removeprefix("p-"))
    assert len(raw) == 8
    assert base64.b64decode(outputs["b64Std"].removeprefix("p-")) == raw
    assert base64.urlsafe_b64decode(outputs["b64Url"].removeprefix("p-") + "=") == raw
    assert int(outputs["dec"].removeprefix("p-")) == int.from_bytes(raw)
    assert outputs["b64Url"] == f"p-{id_}"


def test_a_uuid_is_a_version_4_uuid() -> None:
    id_, outputs = _create(UUID)
    assert id_ == outputs["result"]
    assert uuid.UUID(id_).version == 4


def test_bytes_have_their_length() -> None:
    id_, outputs = _create(BYTES, length=48)
    assert id_ == NO_ID
    assert bytes.fromhex(outputs["hex"]) == base64.b64decode(outputs["base64"])
    assert len(base64.b64decode(outputs["base64"])) == 48


@pytest.mark.parametrize(("type_", "inputs"), [(PASSWORD, {"length": 8}), (ID, {"byteLength": 4}), (UUID, {})])
def test_a_preview_makes_up_no_value(type_: str, inputs: dict) -> None:
    id_, outputs = _create(type_, preview=True, **inputs)
    assert id_ == ""
    made = outputs.keys() - backend.check(type_, URN, {}, inputs, b"")[0].keys()
    assert made
    assert all(outputs[name] is UNKNOWN for name in made)


@pytest.mark.parametrize(
    ("type_", "inputs", "key"),
    [
        (PASSWORD, {}, "length"),
        (PASSWORD, {"length": 0}, "length"),
        (PASSWORD, {"length": "8"}, "length"),
        (ID, {"byteLength": -1}, "byteLength"),
        (STRING, {"length": 3, "minLower": 2, "minUpper": 2}, "length"),
        (STRING, {"length": 3, "lower": False, "upper": False, "numeric": False, "special": False}, "lower"),
        ("random:index/randomPet:RandomPet", {}, ""),
    ],
)
def test_inputs_that_cannot_be_met_are_refused(type_: str, inputs: dict, key: str) -> None:
    _, failures = backend.check(type_, URN, {}, inputs, b"")
    assert [failure.property for failure in failures] == [key]


def test_a_changed_keeper_replaces_and_equal_keepers_do_nothing() -> None:
    old, _ = backend.check(PASSWORD, URN, {}, {"length": 8, "keepers": {"a": "1"}}, b"")
    new, _ = backend.check(PASSWORD, URN, old, {"length": 8, "keepers": {"a": "2"}}, b"")
    assert backend.diff(PASSWORD, URN, NO_ID, old, old, new).replaces == ("keepers.a",)
    assert backend.diff(PASSWORD, URN, NO_ID, old, old, old).changed == ()
