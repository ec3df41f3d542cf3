"""Exact secrets are masked in every spelling that they commonly travel in; ordinary text stays."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

import hypothesis
import pytest
from hypothesis import strategies as st

from ringfence.redaction import Redactor
from ringfence.redaction.redactor import spellings

SECRET = 'p/a+s"s wörd\\=xyz'
SPELLINGS = {
    "plain": SECRET,
    "reversed": SECRET[::-1],
    "URL": urllib.parse.quote(SECRET, safe=""),
    "form": urllib.parse.quote_plus(SECRET),
    "JSON": json.dumps(SECRET)[1:-1],
    "JSON in JSON": json.dumps(json.dumps({"a": SECRET})),
    "hexadecimal": SECRET.encode().hex(),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 inside of base64 text, 1": base64.b64encode(b"a" + SECRET.encode() + b"after it").decode(),
    "base64 inside of base64 text, 2": base64.b64encode(b"ab" + SECRET.encode() + b"after it").decode(),
    "base64 for URLs": base64.urlsafe_b64encode(b"abc" + SECRET.encode()).decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_an_exact_secret_is_masked(spelling: str):
    text = f"before {SPELLINGS[spelling]} after"
    masked = Redactor(lambda: [SECRET]).text(text)
    assert "[redacted:value]" in masked
    assert masked.startswith("before ") and masked.endswith(" after")
    # The middle of the spelling is gone, whatever its ends share with neighbours.
    middle = SPELLINGS[spelling][8:16]
    assert middle not in masked and middle in Redactor().text(text)


def test_secrets_are_asked_for_at_each_call():
    secrets: list[str] = []
    redactor = Redactor(lambda: secrets)
    assert redactor.text("correct horse") == "correct horse"
    secrets.append("correct horse")
    assert redactor.text("correct horse") == "[redacted:value]"
    secrets.clear()
    assert redactor.text("correct horse") == "correct horse"


def test_short_values_do_not_mask_ordinary_words():
    assert Redactor(lambda: ["", "a", "the"]).text("the cat") == "the cat"


def test_the_longer_of_two_secrets_goes_whole():
    assert Redactor(lambda: ["longsecret", "longsecret-and-more"]).text("longsecret-and-more") == "[redacted:value]"


def test_values_are_masked_at_every_depth_and_keys_too():
    redactor = Redactor(lambda: ["longsecret"])
    value = {"a longsecret": [{"b": ("longsecret", 1, None, True, 1.5)}], "c": {"longsecret"}}
    assert redactor.value(value) == {
        "a [redacted:value]": [{"b": ["[redacted:value]", 1, None, True, 1.5]}],
        "c": ["[redacted:value]"],
    }


def test_a_value_that_is_no_longer_in_use_is_no_longer_masked():
    values = ["first-secret", "other-secret"]
    redactor = Redactor(lambda: values)
    assert redactor.text("first-secret other-secret") == "[redacted:value] [redacted:value]"
    values.remove("first-secret")
    assert redactor.text("first-secret other-secret") == "first-secret [redacted:value]"


def test_a_spelling_of_two_values_stays_masked_until_both_are_gone():
    values = ["abcdefgh", "hgfedcba"]
    redactor = Redactor(lambda: values)
    assert redactor.text("abcdefgh") == "[redacted:value]"
    values.remove("abcdefgh")
    # The other's reversal.
    assert redactor.text("abcdefgh") == "[redacted:value]"
    values.clear()
    assert redactor.text("abcdefgh") == "abcdefgh"


@hypothesis.given(
    st.lists(st.text("ab", min_size=8, max_size=12), max_size=6), st.text("abc", max_size=120), st.integers(0, 5)
)
def test_what_is_masked_is_the_longest_spelling_at_each_place(values: list[str], text: str, gone: int):
    """As one expression of all spellings, the longest first, would do it; also after values have come and gone."""
    redactor = Redactor(lambda: values)
    redactor.text(text)
    del values[gone:]
    forms = sorted({form for value in values for form in spellings(value)}, key=lambda form: (-len(form), form))
    expected = re.sub("|".join(map(re.escape, forms)), "[redacted:value]", text) if forms else text
    assert redactor.text(text) == expected
