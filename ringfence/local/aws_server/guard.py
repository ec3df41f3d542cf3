"""What is refused before anything is looked at: foreign Host headers, oversize bodies, paths that aren't AWS's."""

from __future__ import annotations

import re
from typing import Any

# 64 MiB: an S3 part of the default multipart size is 8 MiB; a Lambda zip is at most 50 MB by API.
MAX_BODY = 64 * 1024 * 1024
# A browser page that rebinds its own domain to 127.0.0.1 still sends its domain as Host. An address can't be rebound;
# sandboxes use the one that their relay listens on.
_LOOPBACK_HOST = re.compile(
    r"^(([a-z0-9][a-z0-9.-]*\.)?localhost|\d{1,3}(\.\d{1,3}){3}|\[::1\])(:\d+)?$", re.IGNORECASE
)
_AWS_HOST = re.compile(r"^[a-z0-9][a-z0-9.-]*\.amazonaws\.com(\.cn)?(:\d+)?$", re.IGNORECASE)
# S3's virtual addressing below a loopback address that resolvers answer for any name, e.g. bucket.127.0.0.1:4566.
_VIRTUAL_LOOPBACK = re.compile(r"^[a-z0-9][a-z0-9.-]*\.127\.0\.0\.1(:\d+)?$", re.IGNORECASE)
# moto's own control paths and its instance metadata service: out of the stack's reach and of ours.
_CLOSED_PATHS = ("/moto-api", "/latest/meta-data", "/latest/api", "/latest/dynamic", "/latest/user-data")


class Refused(Exception):
    """A request refused at the door, with its HTTP status, error code and message."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def admit(environ: dict[str, Any]) -> bytes:
    """The whole request body of an admissible request; raises `Refused` for any other."""
    host = str(environ.get("HTTP_HOST", ""))
    if not any(pattern.match(host) for pattern in (_LOOPBACK_HOST, _AWS_HOST, _VIRTUAL_LOOPBACK)):
        raise Refused(
            403, "ForbiddenHost", f"Host '{host[:100]}' is neither an address, localhost nor an AWS endpoint's name."
        )
    if environ.get("HTTP_ORIGIN") or environ.get("HTTP_SEC_FETCH_SITE"):
        raise Refused(403, "ForbiddenOrigin", "Requests from web pages are refused.")
    path = str(environ.get("PATH_INFO", ""))
    if path.startswith(_CLOSED_PATHS):
        raise Refused(404, "NoSuchPath", f"{path[:100]} is not served here.")
    return _read(environ)


def _read(environ: dict[str, Any]) -> bytes:
    declared = str(environ.get("CONTENT_LENGTH") or "")
    chunked = "chunked" in str(environ.get("HTTP_TRANSFER_ENCODING", "")).lower()
    if declared and not declared.isdigit():
        raise Refused(400, "MalformedLength", "Content-Length is not a number.")
    if declared and int(declared) > MAX_BODY:
        raise Refused(413, "RequestEntityTooLarge", f"The body is larger than {MAX_BODY} bytes.")
    if not declared and not chunked:
        return b""
    stream = environ["wsgi.input"]
    body = bytes(stream.read(MAX_BODY + 1 if chunked else int(declared)))
    if len(body) > MAX_BODY:
        raise Refused(413, "RequestEntityTooLarge", f"The body is larger than {MAX_BODY} bytes.")
    if declared and not chunked and len(body) != int(declared):
        raise Refused(400, "IncompleteBody", "The body ended before Content-Length.")
    return body
