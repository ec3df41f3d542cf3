"""An OCI registry that keeps the distribution specification: digests checked, uploads in one PATCH, tags that don't move."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

AUTHORIZATION = "Basic QVdTOnNlY3JldA=="


@dataclass
class Shelf:
    """What the registry holds, what it was asked, and how it misbehaves: faults maps a method to what it does once or more."""

    base: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    elsewhere: str = ""


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: Shelf

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refused(self, status: int, code: str) -> None:
        self._answer(status, b'{"errors":[{"code":"%s","message":"said the registry"}]}' % code.encode())

    def _begin(self) -> str | None:
        """The path, or None when a fault or a missing credential has been answered."""
        self.shelf.asked.append((self.command, self.path))
        waiting = self.shelf.faults.get(self.command, [])
        fault = waiting.pop(0) if waiting else ""
        if fault == "cut":
            self.rfile.read(min(10, int(self.headers.get("Content-Length", 0))))
            self.close_connection = True
            self.connection.close()
        elif fault:
            self._body()
            self._refused(int(fault), "BUSY" if fault.startswith("5") else "DENIED")
        elif self.headers.get("Authorization") != AUTHORIZATION:
            self._body()
            self._refused(401, "UNAUTHORIZED")
        else:
            return urlsplit(self.path).path
        return None

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_HEAD(self) -> None:
        if (path := self._begin()) is None:
            return
        name = path.rsplit("/", 1)[1]
        found = self.shelf.blobs.get(name) if "/blobs/" in path else self.shelf.manifests.get(name, ("", None))[1]
        if found is None:
            self._answer(404)
        else:
            self._answer(200, found, Docker_Content_Digest=digest_of(found))

    def do_POST(self) -> None:
        if (path := self._begin()) is None:
            return
        name = f"upload-{len(self.shelf.uploads)}"
        self.shelf.uploads[name] = b""
        self._answer(202, Location=f"{self.shelf.elsewhere}{path}{name}?state=x")

    def do_PATCH(self) -> None:
        if (path := self._begin()) is None:
            return
        data = self._body()
        self.shelf.uploads[path.rsplit("/", 1)[1]] += data
        self._answer(202, Location=f"{path}?state=y", Range=f"0-{len(data) - 1}")

    def do_PUT(self) -> None:
        if (path := self._begin()) is None:
            return
        data, query = self._body(), parse_qs(urlsplit(self.path).query)
        if "/manifests/" in path:
            self._manifest(path.rsplit("/", 1)[1], data)
            return
        wanted, kept = query["digest"][0], self.shelf.uploads.pop(path.rsplit("/", 1)[1])
        if digest_of(kept) != wanted:
            self._refused(400, "DIGEST_INVALID")
            return
        self.shelf.blobs[wanted] = kept
        self._answer(201, Docker_Content_Digest=wanted)

    def _manifest(self, reference: str, data: bytes) -> None:
        made = digest_of(data)
        if reference in self.shelf.manifests or (reference.startswith("sha256:") and reference != made):
            self._refused(400, "TAG_INVALID")
            return
        self.shelf.manifests[reference] = (self.headers["Content-Type"], data)
        self.shelf.manifests[made] = (self.headers["Content-Type"], data)
        lie = self.shelf.faults.pop("lie", None)
        self._answer(201, Docker_Content_Digest=f"sha256:{'0' * 64}" if lie else made)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """A registry at `shelf.base`."""
    made = Shelf()
    handler = type("Handler", (_Handler,), {"shelf": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    made.base = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()
