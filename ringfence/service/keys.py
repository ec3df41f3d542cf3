"""The identity provider's signing keys (JWKS, RFC 7517): fetched seldom, kept briefly, never trusted when stale."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import jwt

from ringfence.errors import InputError, Problem, RingfenceError

# Asymmetric ones only: with a shared secret whoever can check a token can also make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
# A key set is fetched anew after REFRESH_S, at once for an unknown key id but at most every UNKNOWN_S (else any bad token
# would make us fetch), and not used any more after STALE_S without a fresh answer.
REFRESH_S, UNKNOWN_S, STALE_S = 600.0, 30.0, 3600.0
FETCH_S = 5.0
MAX_BYTES = 256 << 10
MAX_KEYS = 64


class KeysUnavailable(RingfenceError):
    """The key set can't be had: nobody can be let in, and nobody can be told that the token is wrong."""


class Keys(Protocol):
    """Finds a signing key by its id."""

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key, or None. Raises KeysUnavailable. May block for `FETCH_S` seconds."""


def parsed(text: bytes | str) -> dict[str, jwt.PyJWK]:
    """Key id → key of a JWKS document; keys without an id, for other uses or of symmetric kinds are left out.

    Raises ValueError when it is no key set.
    """
    document: Any = json.loads(text)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError("no list of keys")
    found: dict[str, jwt.PyJWK] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK.from_dict(entry)
        except jwt.PyJWTError:
            continue
        if key.algorithm_name in ALGORITHMS:
            found[entry["kid"]] = key
    return found


class FileKeys:
    """A key set in a file, read once. For providers without an address that the service can reach."""

    def __init__(self, path: Path):
        try:
            self._keys = parsed(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(
                [Problem(str(path), "", f"is not a JWKS file: {error}", "save the provider's key set there")]
            ) from None
        if not self._keys:
            raise InputError([Problem(str(path), "keys", "holds no signing key", "each needs kid, and use sig")])

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id."""
        return self._keys.get(key_id)


class RemoteKeys:
    """The key set at `url`; without one, at the `jwks_uri` of the issuer's discovery document. May be
    used from many threads."""

    def __init__(
        self,
        issuer: str,
        url: str = "",
        *,
        client: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._issuer, self._url = issuer, url
        self._client = client or httpx.Client(timeout=FETCH_S, follow_redirects=False)
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._lock = threading.Lock()
        self._fetched = self._tried = float("-inf")

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id, fetched when it is time to. Raises KeysUnavailable."""
        now = self._clock()
        due = now - self._fetched > REFRESH_S or key_id not in self._keys
        # One fetch at a time; who comes meanwhile takes the keys at hand, and waits only when there are none yet.
        if due and now - self._tried > UNKNOWN_S and self._lock.acquire(blocking=not self._keys):
            try:
                self._fetch(now)
            finally:
                self._lock.release()
        if now - self._fetched > STALE_S:
            raise KeysUnavailable(f"the signing keys of {self._issuer} can't be had\n    remedy: check its address")
        return self._keys.get(key_id)

    def _fetch(self, now: float) -> None:
        if now - self._tried <= UNKNOWN_S:
            return
        self._tried = now
        # An older answer goes on counting for a while.
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            self._keys, self._fetched = parsed(self._get(self._url or self._discovered())), now

    def _discovered(self) -> str:
        document = json.loads(self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"))
        if document["issuer"] != self._issuer:
            raise ValueError("the discovery document is another issuer's")
        return str(document["jwks_uri"])

    def _get(self, url: str) -> bytes:
        if not url.startswith("https://"):
            raise ValueError("not an https address")
        with self._client.stream("GET", url) as response:
            response.raise_for_status()
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError("too large")
        return body
