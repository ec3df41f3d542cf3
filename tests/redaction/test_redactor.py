"""Exact secrets are masked in every spelling that they commonly travel in; ordinary text stays."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest

from ringfence.redaction import Redactor

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
