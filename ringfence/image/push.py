"""Puts an image into a registry over its HTTP API (github.com/opencontainers/distribution-spec, v1.1), without an engine.

The credential goes to the registry's own address and nowhere else: redirects aren't followed, and an upload address on
another host is refused. Every digest that the registry answers is held against ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import httpx

from ringfence.errors import RingfenceError
from ringfence.image import oci

Report = Callable[[str], None]
TIMEOUT = httpx.Timeout(60.0, connect=15.0)
ATTEMPTS = 3
# A registry that is busy or restarting; anything else won't go away by asking again.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_CHUNK = 1 << 20
_HEARTBEAT_S = 10.0
_SHOWN = 300


class PushError(RingfenceError):
    """The registry didn't take the image."""


class _Passing(Exception):
    """What may go away by itself."""


@dataclass(frozen=True, slots=True)
class Registry:
    """One repository. base: the registry's address, e.g. ``https://123456789012.dkr.ecr.us-east-1.amazonaws.com``; name: of
    the repository; authorization: the header's value; pause: seconds before the second attempt, doubled after."""

    base: str
    name: str
    authorization: str = field(repr=False)
    report: Report
    pause: float = 1.0

    def push(self, made: oci.Archive, tag: str) -> str:
        """Uploads what isn't there yet and tags it; the digest that the image is pinned by. Raises PushError."""
        index = json.loads(made.blobs[made.digest])
        manifests = [item["digest"] for item in index["manifests"]]
        rest = [digest for digest in made.blobs if digest != made.digest and digest not in manifests]
        with httpx.Client(timeout=TIMEOUT, headers={"Authorization": self.authorization}) as client:
            for number, digest in enumerate(rest, 1):
                self._blob(client, digest, made.blobs[digest], f"{self.name}: part {number} of {len(rest)}")
            for digest in manifests:
                self._manifest(client, digest, digest, oci.MANIFEST, made.blobs[digest])
            # A tag, since what has none expires; by content, since tags can't be moved.
            self._manifest(client, tag, made.digest, oci.INDEX, made.blobs[made.digest])
        return made.digest

    def _blob(self, client: httpx.Client, digest: str, data: bytes, what: str) -> None:
        if self._there(client, f"blobs/{digest}", what) is not None:
            self.report(f"{what}: is there")
            return
        self.report(f"{what}: {_size(len(data))}")
        self._persist(what, lambda: self._upload(client, digest, data, what))

    def _upload(self, client: httpx.Client, digest: str, data: bytes, what: str) -> None:
        begun = self._ask(client, "POST", f"{self._root}/blobs/uploads/", what, {202})
        place = self._place(begun, what)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        sent = self._ask(client, "PATCH", place, what, {202}, headers=headers, content=self._pieces(data, what))
        place = self._place(sent, what)
        separator = "&" if "?" in place else "?"
        ended = self._ask(client, "PUT", f"{place}{separator}digest={digest}", what, {201})
        self._same(ended, digest, what)

    def _manifest(self, client: httpx.Client, reference: str, digest: str, kind: str, data: bytes) -> None:
        what = f"{self.name}: manifest {reference}"
        found = self._there(client, f"manifests/{reference}", what, kind)
        if found is not None:
            self._same(found, digest, what)
            return
        address = f"{self._root}/manifests/{reference}"

        def put() -> None:
            answer = self._ask(client, "PUT", address, what, {201}, headers={"Content-Type": kind}, content=data)
            self._same(answer, digest, what)

        self._persist(what, put)

    @property
    def _root(self) -> str:
        return f"{self.base}/v2/{self.name}"

    def _there(self, client: httpx.Client, path: str, what: str, accept: str = "*/*") -> httpx.Response | None:
        """The answer when it is there, else None."""
        made: list[httpx.Response] = []
        address, headers = f"{self._root}/{path}", {"Accept": accept}
        self._persist(
            what, lambda: made.append(self._ask(client, "HEAD", address, what, {200, 307, 404}, headers=headers))
        )
        return None if made[-1].status_code == 404 else made[-1]

    def _ask(
        self, client: httpx.Client, method: str, address: str, what: str, wanted: set[int], **more: object
    ) -> httpx.Response:
        try:
            answer = client.request(method, address, **more)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            # Never the error of the request itself, which could show its headers.
            raise _Passing(f"the connection failed: {type(error).__name__} {error}") from None
        if answer.status_code in wanted:
            return answer
        if answer.status_code in _PASSING:
            raise _Passing(f"{method} was answered {answer.status_code}{_said(answer)}")
        if answer.status_code in (401, 403):
            raise PushError(
                f"{what}: the registry refuses the credentials ({answer.status_code}){_said(answer)}\n"
                f"    remedy: let the caller's role use ecr:PutImage and the upload actions on {self.name}, and try again"
            )
        raise PushError(f"{what}: {method} was answered {answer.status_code}{_said(answer)}")

    def _persist(self, what: str, attempt: Callable[[], None]) -> None:
        """Does it, again where what failed may pass. Raises PushError."""
        for number in range(1, ATTEMPTS + 1):
            try:
                attempt()
                return
            except _Passing as error:
                if number == ATTEMPTS:
                    remedy = "try again: what has been uploaded is kept"
                    raise PushError(
                        f"{what}: {error}, {ATTEMPTS} times in a row at {self.base}\n    remedy: {remedy}"
                    ) from None
                self.report(f"{what}: {error}; trying again")
                time.sleep(self.pause * 2 ** (number - 1))

    def _place(self, answer: httpx.Response, what: str) -> str:
        """Where the upload goes on. Raises PushError when that is somewhere else than this registry."""
        if not (place := answer.headers.get("location")):
            raise PushError(f"{what}: the registry doesn't say where to upload to")
        whole = urljoin(f"{self.base}/", place)
        ours, theirs = urlsplit(self.base), urlsplit(whole)
        if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            raise PushError(f"{what}: the registry wants the upload at {theirs.netloc}, which gets no credentials")
        return whole

    def _same(self, answer: httpx.Response, digest: str, what: str) -> None:
        said = answer.headers.get("docker-content-digest", "")
        if said != digest:
            raise PushError(
                f"{what}: the registry answered digest {said or 'none'}, not {digest}\n"
                "    remedy: don't use what is there; see who else pushes to this repository"
            )

    def _pieces(self, data: bytes, what: str) -> Iterator[bytes]:
        said = time.monotonic()
        for start in range(0, len(data), _CHUNK):
            if time.monotonic() - said > _HEARTBEAT_S:
                said = time.monotonic()
                self.report(f"{what}: {_size(start)} of {_size(len(data))}")
            yield data[start : start + _CHUNK]


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def _said(answer: httpx.Response) -> str:
    """The registry's own words, shortened, after a space: its errors are JSON, a proxy's may be a page, a HEAD has none."""
    try:
        errors = answer.json()["errors"]
        text = "; ".join(f"{item.get('code', '')} {item.get('message', '')}".strip() for item in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        text = answer.text.strip()
    return f" {text[:_SHOWN]}" if text else ""
