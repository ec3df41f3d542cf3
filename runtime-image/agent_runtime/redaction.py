"""Masks secrets in whatever leaves the process: exact values that were handed to it first, then shapes of secrets.

Exact values are looked for raw, URL-encoded, JSON-escaped, in hexadecimal and in base64 at each of its three alignments.
Trust zone: sandbox; the collector masks again what gets past a process that means to leak.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import threading
from collections.abc import Iterable, Iterator
from typing import TextIO
from urllib.parse import quote, quote_plus

from agent_runtime.secret_patterns import PATTERNS

MASK = "[redacted:held-credential]"
# A shorter value would mask ordinary words.
MIN_SECRET_LENGTH = 8
# A line longer than this is let go of before it ends. Characters.
MAX_LINE = 65_536
_KEY_BEGINS = re.compile("-----BEGIN [A-Z0-9 ]{0,60}PRIVATE KEY")
_KEY_ENDS = re.compile("-----END [A-Z0-9 ]{0,60}PRIVATE KEY[A-Z ]{0,10}-----")
# What every match of a shape holds, case folded, so that text without it is not searched: looking for a word is a
# hundred times faster than trying an expression at each character. A shape without an entry is always searched.
HINTS: dict[str, tuple[str, ...]] = {
    "private-key": ("private key",),
    "aws-access-key-id": ("akia", "asia", "abia", "acca"),
    "aws-secret-access-key": ("secret",),
    "aws-session-token": ("fwogzxivyxdz", "fqogzxivyxdz", "iqojb3jpz2lu"),
    "json-web-token": ("eyj",),
    "github-token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    "slack-token": ("xox", "xapp-"),
    "slack-webhook": ("hooks.slack.com",),
    "anthropic-key": ("sk-ant-",),
    "openai-key": ("sk-",),
    "google-api-key": ("aiza",),
    "vault-token": ("hvb.", "hvs.", "hvr."),
    "openbao-token": ("b.", "s.", "r."),
    "url-password": ("://",),
    "authorization": ("author", "bearer"),
    "assigned-secret": ("passw", "key", "secret", "token"),
}
_SHAPES = tuple((HINTS.get(item.name, ("",)), re.compile(item.regex), f"[redacted:{item.name}]") for item in PATTERNS)


def _forms(secret: str) -> Iterator[str]:
    raw = secret.encode()
    yield secret
    yield quote(secret, safe="")
    yield re.sub("%[0-9A-F]{2}", lambda match: match.group().lower(), quote(secret, safe=""))
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1].replace("/", "\\/")
    hexadecimal = binascii.hexlify(raw).decode()
    yield hexadecimal
    yield hexadecimal.upper()
    for shift in range(3):
        # Characters that hold bits of whatever stands beside the secret are left off at both ends.
        encoded = base64.b64encode(b"\0" * shift + raw).decode().rstrip("=")
        inner = encoded[(0, 2, 3)[shift] :]
        inner = inner if (len(raw) + shift) % 3 == 0 else inner[:-1]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")


class Redactor:
    """Masks what it was given with `add`, and every shape of `secret_patterns`. Safe to share by threads."""

    def __init__(self, secrets: Iterable[str] = ()):
        self._lock = threading.Lock()
        self._forms: set[str] = set()
        self._ordered: tuple[str, ...] = ()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Masks these values from now on. Values shorter than MIN_SECRET_LENGTH are left to the patterns."""
        with self._lock:
            for secret in secrets:
                if len(secret) >= MIN_SECRET_LENGTH:
                    self._forms.update(form for form in _forms(secret) if len(form) >= MIN_SECRET_LENGTH)
            # Longest first: a form may begin with another.
            self._ordered = tuple(sorted(self._forms, key=lambda form: (-len(form), form)))

    def holds(self, text: str) -> bool:
        """Whether the text holds one of the exact values, in any form."""
        return any(form in text for form in self._ordered)

    def __call__(self, text: str) -> str:
        """The text with every secret replaced by ``[redacted:<what>]``."""
        # Plain searches: an alternation of hundreds of literals is tried at every character.
        for form in self._ordered:
            if form in text:
                text = text.replace(form, MASK)
        folded = text.casefold()
        for hints, shape, mask in _SHAPES:
            if any(hint in folded for hint in hints):
                text = shape.sub(mask, text)
        return text


class RedactingStream(io.TextIOBase):
    """A text stream that masks whole lines, so that a secret written piece by piece is masked too.

    A private key is held back until it ends. `flush` writes finished lines only; `close` writes the rest.
    """

    def __init__(self, inner: TextIO, redactor: Redactor):
        self._inner = inner
        self._redactor = redactor
        self._lock = threading.RLock()
        self._held = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            self._held += text
            end = self._held.rfind("\n") + 1
            keys = [match.start() for match in _KEY_BEGINS.finditer(self._held)]
            if keys and not _KEY_ENDS.search(self._held, keys[-1]):
                end = min(end, keys[-1])
            if len(self._held) - end > MAX_LINE:
                end = len(self._held)
            if end:
                self._inner.write(self._redactor(self._held[:end]))
                self._held = self._held[end:]
        return len(text)

    def flush(self) -> None:
        with self._lock:
            self._inner.flush()

    def finish(self) -> None:
        """Writes what is held back."""
        with self._lock:
            if self._held:
                self._inner.write(self._redactor(self._held))
                self._held = ""
            self._inner.flush()
