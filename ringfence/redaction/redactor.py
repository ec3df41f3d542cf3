"""Masks secrets in text: first the exact values that are in use, in every spelling they commonly travel in, then shapes.

Trust zone: control side. A mask only: who must not know a secret must not be given it.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ringfence.redaction.patterns import PATTERNS

# What stands in the place of a secret; `what` is the pattern's name, or "value" for an exact one.
MASK = "[redacted:{what}]"
# Shorter values would mask ordinary words.
MIN_SECRET_CHARACTERS = 8
_EXACT = MASK.format(what="value")
_PATTERNS = tuple((re.compile(pattern.regex), MASK.format(what=pattern.name)) for pattern in PATTERNS)


def _base64_forms(raw: bytes) -> set[str]:
    """How `raw` looks inside of longer base64 text, at each of the three alignments; characters that share bits with
    neighbours left out (RFC 4648, section 4)."""
    forms = set()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        first = (before * 8 + 5) // 6
        last = (before + len(raw)) * 8 // 6
        forms |= {encoded[first:last], encoded[first:last].translate(str.maketrans("+/", "-_"))}
    return forms


def spellings(secret: str) -> frozenset[str]:
    """`secret` as it is, URL-encoded, JSON-escaped, base64 (both alphabets, all alignments), hexadecimal, reversed."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {
        secret,
        secret[::-1],
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote(secret),
        urllib.parse.quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(json.dumps(secret)[1:-1])[1:-1],
        raw.hex(),
        raw.hex().upper(),
    }
    return frozenset(form for form in forms | _base64_forms(raw) if len(form) >= MIN_SECRET_CHARACTERS)


class _Exact:
    """Exact values, found by the first characters of their spellings: adding one costs the same however many there are,
    and so does looking for them."""

    def __init__(self) -> None:
        self._spellings: dict[str, frozenset[str]] = {}
        # First characters → spellings that begin so, the longest first, so that no rest of a longer one stays.
        self._begin: dict[str, tuple[str, ...]] = {}

    def keep(self, secrets: frozenset[str]) -> None:
        """Makes these the values that are looked for."""
        if secrets == self._spellings.keys():
            return
        for secret in secrets - self._spellings.keys():
            self._spellings[secret] = forms = spellings(secret)
            for form in forms:
                self._change(form, add=True)
        for secret in self._spellings.keys() - secrets:
            gone = self._spellings.pop(secret)
            for form in gone:
                self._change(form, add=False)

    def _change(self, form: str, *, add: bool) -> None:
        start = form[:MIN_SECRET_CHARACTERS]
        # A spelling that two values share is listed twice, and leaves with the second.
        forms = list(self._begin.get(start, ()))
        if add:
            forms.append(form)
        else:
            forms.remove(form)
        if forms:
            self._begin[start] = tuple(sorted(forms, key=lambda one: (-len(one), one)))
        else:
            del self._begin[start]

    def mask(self, text: str) -> str:
        """`text` with every spelling masked; the longest at each place, from left to right."""
        begin = self._begin
        if not begin:
            return text
        parts: list[str] = []
        done = index = 0
        last = len(text) - MIN_SECRET_CHARACTERS
        while index <= last:
            forms = begin.get(text[index : index + MIN_SECRET_CHARACTERS])
            found = next((form for form in forms if text.startswith(form, index)), None) if forms else None
            if found is None:
                index += 1
                continue
            parts += [text[done:index], _EXACT]
            done = index = index + len(found)
        return "".join([*parts, text[done:]]) if parts else text


class Redactor:
    """Masks text. `secrets` gives the exact values in use at the time of each call; values under 8 characters are left
    to the patterns. May be used from many threads."""

    def __init__(self, secrets: Callable[[], Iterable[str]] = tuple):
        self._secrets = secrets
        self._exact = _Exact()
        self._lock = threading.Lock()

    def text(self, text: str) -> str:
        """`text` without secrets."""
        now = frozenset(value for value in self._secrets() if len(value) >= MIN_SECRET_CHARACTERS)
        # Also around the masking: what another thread knows to be gone may be in this one's text.
        with self._lock:
            self._exact.keep(now)
            text = self._exact.mask(text)
        for pattern, mask in _PATTERNS:
            text = pattern.sub(mask, text)
        return text

    def value(self, value: Any) -> Any:
        """JSON-able `value` with every text in it masked, keys of mappings included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            items = sorted(value) if isinstance(value, (set, frozenset)) else value
            return [self.value(item) for item in items]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.text(str(value))
