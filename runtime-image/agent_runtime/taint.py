"""Where a conversation's text came from, and which values text that can be trusted vouches for.

Trusted: the user's prompt and the output of tools that the catalog calls trusted. Everything else, the model's own words
included, taints: an instruction hidden in it, encoded however, ends in values that no trusted text holds.
"""

from __future__ import annotations

import collections
import threading
import unicodedata
from collections.abc import Iterable

# Trusted text beyond this is not kept, so that it vouches for nothing. Characters.
MAX_TRUSTED_LENGTH = 4 << 20
# Characters that go on a name: an address, a file, a number. A value must not begin or end in the middle of one.
_WITHIN = frozenset("_@-%+~")
# A value that came in through a call and is echoed by a trusted tool's answer is not vouched for by the echo.
_BLANK = "\0"
# Texts that a new one is compared with before it is kept.
RECENT = 16


class Provenance:
    """What a conversation has seen. Safe to share by threads."""

    def __init__(self, prompt: str):
        self._lock = threading.Lock()
        self._trusted = [prompt]
        self._length = len(prompt)
        # Trusted text only grows, so what was vouched for stays so.
        self._vouched: set[str] = {""}
        self._tainted = False
        self._recent: collections.deque[str] = collections.deque(maxlen=RECENT)

    @property
    def tainted(self) -> bool:
        """Whether anything untrusted has been seen."""
        return self._tainted

    def untrusted(self) -> None:
        """Something untrusted was seen. Nothing takes that back."""
        self._tainted = True

    def trusted(self, text: str, echoes: Iterable[str] = ()) -> None:
        """Text that vouches from now on for the values in it. echoes: what the call itself had sent, which may come back
        in the answer; that part vouches for nothing that was not vouched for before."""
        for echo in echoes:
            if echo and self._tainted and not self.vouches(echo):
                text = text.replace(echo, _BLANK)
        with self._lock:
            # A tool that is asked again says the same again.
            if text not in self._recent and self._length + len(text) <= MAX_TRUSTED_LENGTH:
                self._recent.append(text)
                self._trusted.append(text)
                self._length += len(text)

    def vouches(self, value: str) -> bool:
        """Whether trusted text holds exactly this value as a whole word: same case, same letters, not a part of another
        name. The empty value says nothing and needs nobody to vouch for it."""
        if value in self._vouched:
            return True
        with self._lock:
            texts = tuple(self._trusted)
        if any(_holds(text, value) for text in texts):
            self._vouched.add(value)
            return True
        return False


def _holds(text: str, value: str) -> bool:
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        if _ends_before(text, start) and _ends_after(text, end):
            return True
        start = text.find(value, start + 1)
    return False


def _within(char: str) -> bool:
    # Marks and invisible characters change what is read without being letters.
    return char.isalnum() or char in _WITHIN or (unicodedata.category(char)[0] in "MC" and char not in "\n\r\t")


def _ends_before(text: str, start: int) -> bool:
    if start == 0:
        return True
    before = text[start - 1]
    if before == ".":
        # `evil.example.com` doesn't vouch for `example.com`; the end of a sentence is no part of a name.
        return start >= 2 and not _within(text[start - 2])
    return not _within(before)


def _ends_after(text: str, end: int) -> bool:
    if end == len(text):
        return True
    after = text[end]
    if after in ".:":
        return end + 1 == len(text) or not _within(text[end + 1])
    return not _within(after)
