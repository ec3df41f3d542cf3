"""AWS Signature Version 4: what a request claims to be signed with, and whether the signature is right.

Reference: IAM User Guide, "Create a signed AWS API request"; S3 API Reference, "Authenticating Requests".
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

# How far a client's clock may be off, and so how long a recorded request could be sent again.
MAX_SKEW = timedelta(minutes=15)
# S3's limit of a presigned URL.
MAX_PRESIGNED_SECONDS = 7 * 24 * 3600
_HEADER = re.compile(
    r"^AWS4-HMAC-SHA256 Credential=([^/,\s]+)/(\d{8})/([^/,\s]+)/([^/,\s]+)/aws4_request,"
    r"\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{64})\Z"
)
_CREDENTIAL = re.compile(r"^([^/,\s]+)/(\d{8})/([^/,\s]+)/([^/,\s]+)/aws4_request\Z")
_STAMP = "%Y%m%dT%H%M%SZ"
_DIGEST = re.compile(r"^[0-9a-f]{64}\Z")
# S3's words for a body that the signature does not cover.
_UNSIGNED = ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")


class NotSigned(Exception):
    """The request carries no signature that could be checked. The message says what is wrong, fit for the client."""


class BadSignature(Exception):
    """The signature does not belong to the request, or is too old. The message is fit for the client."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request says about its own signature. headers: lower-case names of the signed headers."""

    access_key: str
    day: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str = field(repr=False)
    stamp: str
    token: str = field(repr=False)
    presigned_seconds: int = 0


def read(environ: Mapping[str, Any]) -> Signed:
    """The request's own account of its signature. Raises NotSigned."""
    text = str(environ.get("HTTP_AUTHORIZATION", ""))
    query = _query(environ)
    if not text:
        return _presigned(query)
    if any(name.lower().startswith("x-amz-") for name, _ in query):
        raise NotSigned("the request is signed both in its header and in its query string")
    match = _HEADER.match(text)
    if match is None:
        raise NotSigned("the Authorization header is not one of AWS Signature Version 4")
    return Signed(
        match[1],
        match[2],
        match[3],
        match[4],
        tuple(match[5].split(";")),
        match[6],
        str(environ.get("HTTP_X_AMZ_DATE", "")),
        str(environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")),
    )


def _presigned(query: list[tuple[str, str]]) -> Signed:
    values = dict(query)
    if len(values) != len(query):
        raise NotSigned("a query parameter is given twice")
    match = _CREDENTIAL.match(values.get("X-Amz-Credential", ""))
    seconds = values.get("X-Amz-Expires", "")
    if values.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" or match is None or not seconds.isdigit():
        raise NotSigned("the request is not signed")
    # moto would take a presigned request of any other service for one of S3's.
    if match[4] != "s3" or not 0 < int(seconds) <= MAX_PRESIGNED_SECONDS:
        raise NotSigned("only requests to S3 may be presigned, for at most seven days")
    return Signed(
        match[1],
        match[2],
        match[3],
        match[4],
        tuple(values.get("X-Amz-SignedHeaders", "").split(";")),
        values.get("X-Amz-Signature", ""),
        values.get("X-Amz-Date", ""),
        values.get("X-Amz-Security-Token", ""),
        int(seconds),
    )


def verify(signed: Signed, environ: Mapping[str, Any], body: bytes, secret: str, now: datetime) -> None:
    """Returns when `secret` signed exactly this request, recently. Raises BadSignature."""
    headers = _signed_headers(signed, environ)
    payload = _payload(signed, environ, body)
    canonical = "\n".join(
        (
            str(environ["REQUEST_METHOD"]),
            _path(signed, environ),
            _canonical_query(environ),
            "".join(f"{name}:{value}\n" for name, value in headers),
            ";".join(name for name, _ in headers),
            payload,
        )
    )
    scope = f"{signed.day}/{signed.region}/{signed.service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{signed.stamp}\n{scope}\n{hashlib.sha256(canonical.encode('latin-1')).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    expected = hmac.new(key, text.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected.encode(), signed.signature.encode("utf-8", "replace")):
        raise BadSignature("The request signature we calculated does not match the signature you provided.")
    _check_time(signed, now)


def _check_time(signed: Signed, now: datetime) -> None:
    try:
        made = datetime.strptime(signed.stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        raise BadSignature("The request's date is missing or malformed.") from None
    if not signed.stamp.startswith(signed.day):
        raise BadSignature("The date of the credential scope is not that of the request.")
    latest = made + (timedelta(seconds=signed.presigned_seconds) if signed.presigned_seconds else MAX_SKEW)
    if not made - MAX_SKEW <= now <= latest:
        raise BadSignature("The request was signed too long ago, or the client's clock is wrong.")


def _signed_headers(signed: Signed, environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each signed header and its value. What AWS's own headers say must be signed."""
    names = signed.headers
    if "host" not in names or list(names) != sorted(set(names)):
        raise BadSignature("The Host header is not signed, or the signed headers are not in order.")
    covered = {_variable(name) for name in names}
    loose = [name for name in environ if name.startswith("HTTP_X_AMZ_") and name not in covered]
    if loose:
        shown = loose[0].removeprefix("HTTP_").replace("_", "-").lower()
        raise BadSignature(f"There were headers present in the request which were not signed: {shown}")
    return [(name, " ".join(str(environ.get(_variable(name), "")).split())) for name in names]


def _variable(name: str) -> str:
    plain = name.upper().replace("-", "_")
    return plain if plain in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{plain}"


def _payload(signed: Signed, environ: Mapping[str, Any], body: bytes) -> str:
    """The body's digest as the signature has it, checked against the body."""
    if signed.presigned_seconds:
        return "UNSIGNED-PAYLOAD"
    claimed = str(environ.get("HTTP_X_AMZ_CONTENT_SHA256", ""))
    if signed.service == "s3" and claimed in _UNSIGNED:
        return claimed
    digest = hashlib.sha256(body).hexdigest()
    if claimed and not _DIGEST.match(claimed):
        raise BadSignature(f"The embedded target does not take bodies signed as {claimed[:40]}.")
    if claimed and claimed != digest:
        raise BadSignature("The provided 'x-amz-content-sha256' header does not match what was computed.")
    return digest


def _target(environ: Mapping[str, Any]) -> tuple[str, str]:
    path, _, query = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")
    return path, query


def _path(signed: Signed, environ: Mapping[str, Any]) -> str:
    """S3 signs the path as it is sent; every other service signs it normalised and encoded once more."""
    path = _target(environ)[0] or "/"
    if signed.service == "s3":
        return path
    normal = posixpath.normpath(re.sub("/+", "/", path))
    if path.endswith("/") and not normal.endswith("/"):
        normal += "/"
    return quote(normal.encode("latin-1"), safe="/-_.~")


def _query(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = (part.partition("=") for part in _target(environ)[1].split("&") if part)
    return [(unquote(name), unquote(value)) for name, _, value in pairs]


def _canonical_query(environ: Mapping[str, Any]) -> str:
    encoded = (
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in _query(environ)
        if name != "X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))
