"""Property paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.local.providers.base import UNKNOWN
from ringfence.local.providers.paths import (
    MISSING,
    changed_paths,
    format_path,
    get_path,
    ignored,
    parse_path,
    restore_paths,
)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("name", ("name",)),
        ("spec.replicas", ("spec", "replicas")),
        ('tags["a.b/c"]', ("tags", "a.b/c")),
        ("ingress[0].fromPort", ("ingress", 0, "fromPort")),
        ("rules[*].verbs", ("rules", "*", "verbs")),
        ("tags.*", ("tags", "*")),
        ('["a\\"b"].c', ('a"b', "c")),
    ],
)
def test_a_path_is_read(text: str, path: tuple) -> None:
    assert parse_path(text) == path


@given(st.lists(st.text(min_size=1).filter(lambda key: key != "*") | st.integers(0, 99), min_size=1, max_size=5))
def test_a_written_path_is_read_back(path: list) -> None:
    assert parse_path(format_path(path)) == tuple(path)


@pytest.mark.parametrize("text", ["a[", "a[x]", 'a["b', "a..b]"])
def test_text_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a property path"):
        parse_path(text)


def test_differences_are_found_at_their_innermost_path() -> None:
    old = {"spec": {"a": 1, "list": [{"n": 1}, {"n": 2}]}, "gone": 1, "null": None}
    new = {"spec": {"a": 1, "list": [{"n": 1}, {"n": 3}]}, "come": 1}
    assert changed_paths(old, new) == [("spec", "list", 1, "n"), ("gone",), ("come",)]


def test_a_list_of_another_length_differs_as_a_whole() -> None:
    assert changed_paths({"l": [1]}, {"l": [1, 2]}) == [("l",)]


def test_an_unknown_differs_from_everything() -> None:
    assert changed_paths({"a": "x", "b": UNKNOWN}, {"a": UNKNOWN, "b": UNKNOWN}) == [("a",), ("b",)]


def test_true_is_not_one_but_one_is_one_point_nought() -> None:
    assert changed_paths({"a": True}, {"a": 1}) == [("a",)]
    assert changed_paths({"a": 1.0}, {"a": 1}) == []


def test_what_is_inside_an_unknown_is_unknown() -> None:
    assert get_path({"spec": UNKNOWN}, ("spec", "a")) is UNKNOWN
    assert get_path({"spec": {}}, ("spec", "a")) is MISSING


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("size", {"size": 1, "tags": {"a": "new", "c": "new"}, "list": [{"n": 9, "m": 9}]}),
        ("tags.a", {"size": 2, "tags": {"a": "old", "c": "new"}, "list": [{"n": 9, "m": 9}]}),
        ("tags.b", {"size": 2, "tags": {"a": "new", "b": "old", "c": "new"}, "list": [{"n": 9, "m": 9}]}),
        ("tags.c", {"size": 2, "tags": {"a": "new"}, "list": [{"n": 9, "m": 9}]}),
        ("tags.*", {"size": 2, "tags": {"a": "old", "b": "old"}, "list": [{"n": 9, "m": 9}]}),
        ("list[*].n", {"size": 2, "tags": {"a": "new", "c": "new"}, "list": [{"n": 1, "m": 9}]}),
        ("list[0].n", {"size": 2, "tags": {"a": "new", "c": "new"}, "list": [{"n": 1, "m": 9}]}),
        ("list[", {"size": 2, "tags": {"a": "new", "c": "new"}, "list": [{"n": 9, "m": 9}]}),
    ],
)
def test_ignored_changes_are_as_they_were(path: str, expected: dict) -> None:
    old = {"size": 1, "tags": {"a": "old", "b": "old"}, "list": [{"n": 1, "m": 1}]}
    new = {"size": 2, "tags": {"a": "new", "c": "new"}, "list": [{"n": 9, "m": 9}]}
    assert restore_paths(new, old, [path]) == expected
    assert new["size"] == 2


def test_an_ignored_property_that_was_never_declared_keeps_its_state() -> None:
    declared, state = {"a": 1, "map": {"x": 1}}, {"a": 2, "b": False, "map": {"x": 2}}
    assert ignored({"a": 3, "b": True}, declared, state, ["a", "b"]) == {"a": 1, "b": False}
    assert ignored({"c": 1}, declared, state, ["b", "c", "map.x"]) == {"b": False}
