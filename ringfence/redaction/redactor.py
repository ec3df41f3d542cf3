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


class Redactor:
    """Masks text. `secrets` gives the exact values in use at the time of each call; values under 8 characters are left
    to the patterns. May be used from many threads."""

    def __init__(self, secrets: Callable[[], Iterable[str]] = tuple):
        self._secrets = secrets
        self._known: frozenset[str] = frozenset()
        self._exact: re.Pattern[str] | None = None
        self._lock = threading.Lock()

    def _expression(self) -> re.Pattern[str] | None:
        now = frozenset(value for value in self._secrets() if len(value) >= MIN_SECRET_CHARACTERS)
        with self._lock:
            if now != self._known:
                forms = {form for value in now for form in spellings(value)}
                # The longest first, so that no rest of a longer spelling stays.
                ordered = sorted(forms, key=lambda form: (-len(form), form))
                self._exact = re.compile("|".join(map(re.escape, ordered))) if ordered else None
                self._known = now
            return self._exact

    def text(self, text: str) -> str:
        """`text` without secrets."""
        if exact := self._expression():
            text = exact.sub(_EXACT, text)
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
