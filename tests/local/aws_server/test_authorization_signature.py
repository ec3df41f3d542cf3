"""Signatures: real boto3 as the signer, and every part of a request that a signature must cover."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ringfence.local.aws_server.authorization.signature import BadSignature, NotSigned, read, verify

SECRET = "s3cr3t/key+with=signs"


def environ(method: str, url: str, headers: dict[str, str]) -> dict[str, Any]:
    """The WSGI environment that the server makes of a request."""
    parts = urlsplit(url)
    raw = parts.path + (f"?{parts.query}" if parts.query else "")
    made = {
        "REQUEST_METHOD": method,
        "RAW_URI": raw,
        "PATH_INFO": unquote(parts.path),
        "QUERY_STRING": parts.query,
        "HTTP_HOST": parts.netloc,
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        made[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return made


def signed(
    method: str = "POST",
    path: str = "/",
    body: bytes = b"{}",
    service: str = "dynamodb",
    token: str | None = "tok/en==",
) -> dict[str, Any]:
    url = f"http://127.0.0.1:4566{path}"
    request = AWSRequest(method, url, {"X-Amz-Target": "DynamoDB.GetItem", "Content-Type": "application/json"}, body)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials("ASIA1", SECRET, token), service, "us-east-1").add_auth(request)
    return environ(method, url, dict(request.headers))


def check(request: dict[str, Any], body: bytes = b"{}", secret: str = SECRET, later: timedelta = timedelta(0)) -> None:
    """Verifies as if the request arrived so much later than now."""
    verify(read(request), request, body, secret, datetime.now(UTC) + later)


@pytest.mark.parametrize(
    ("method", "path", "service"),
    [
        ("POST", "/", "dynamodb"),
        ("GET", "/model/anthropic.claude-v1%3A0/invoke", "bedrock"),
        ("GET", "/bucket/a%20b%2Bc/%C3%A9~_-.csv?versionId=1%2F2&x-id=GetObject", "s3"),
        ("GET", "/bucket?list-type=2&prefix=published%2F&delimiter=%2F&acl", "s3"),
        ("PUT", "/bucket/double//slash/../dots", "s3"),
        ("GET", "/v2/../v2//things/", "ses"),
    ],
)
def test_what_boto3_signs_is_accepted_and_the_wrong_key_is_not(method: str, path: str, service: str) -> None:
    request = signed(method, path, service=service)
    check(request)
    with pytest.raises(BadSignature):
        check(request, secret=SECRET + "x")


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "method": lambda request: request.update(REQUEST_METHOD="PUT"),
    "path": lambda request: request.update(RAW_URI="/other"),
    "query": lambda request: request.update(RAW_URI="/?a=1"),
    "target": lambda request: request.update(HTTP_X_AMZ_TARGET="DynamoDB.DeleteTable"),
    "token": lambda request: request.update(HTTP_X_AMZ_SECURITY_TOKEN="another"),
    "host": lambda request: request.update(HTTP_HOST="bucket.s3.amazonaws.com"),
    "date": lambda request: request.update(
        HTTP_X_AMZ_DATE=(datetime.now(UTC) + timedelta(seconds=5)).strftime("%Y%m%dT%H%M%SZ")
    ),
    "unsigned header": lambda request: request.update(HTTP_X_AMZ_ACL="public-read"),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_signed_request_can_t_be_changed(change: str) -> None:
    request = signed()
    check(request)
    CHANGES[change](request)
    with pytest.raises(BadSignature):
        check(request)


def test_the_body_is_covered() -> None:
    for service in ("dynamodb", "s3"):
        request = signed(service=service)
        with pytest.raises(BadSignature):
            check(request, body=b'{"TableName":"other"}')
    # A client may leave S3's body unsigned, which its signature then says; another service's it may not.
    request = signed(service="s3")
    request["HTTP_X_AMZ_CONTENT_SHA256"] = "UNSIGNED-PAYLOAD"
    with pytest.raises(BadSignature):
        check(request)


def test_a_body_signed_piece_by_piece_is_refused() -> None:
    request = signed(service="s3")
    request["HTTP_X_AMZ_CONTENT_SHA256"] = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    with pytest.raises(BadSignature, match="does not take"):
        check(request)


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_request_is_good_for_fifteen_minutes(minutes: int) -> None:
    request = signed()
    check(request, later=timedelta(minutes=minutes * 14 / 16))
    with pytest.raises(BadSignature, match="too long ago"):
        check(request, later=timedelta(minutes=minutes))


@pytest.mark.parametrize(
    "change",
    [
        {"HTTP_AUTHORIZATION": ""},
        {"HTTP_AUTHORIZATION": "Bearer token"},
        {"HTTP_AUTHORIZATION": "AWS ASIA1:c2lnbmF0dXJl"},
        {"HTTP_AUTHORIZATION": "AWS4-HMAC-SHA256 Credential=A/20260101/r/s/aws4_request, Signature=0"},
        {"RAW_URI": "/?X-Amz-Credential=OTHER/20260101/us-east-1/s3/aws4_request"},
    ],
)
def test_what_is_not_signed_or_signed_twice_is_said_so(change: dict[str, str]) -> None:
    with pytest.raises(NotSigned):
        read(signed() | change)


def test_the_host_must_be_signed() -> None:
    request = signed()
    request["HTTP_AUTHORIZATION"] = request["HTTP_AUTHORIZATION"].replace(";host", "")
    with pytest.raises(BadSignature, match="Host"):
        check(request)


def presigned(service: str = "s3", seconds: int = 60) -> dict[str, Any]:
    request = AWSRequest("GET", "http://127.0.0.1:4566/bucket/key%20x", {})
    S3SigV4QueryAuth(Credentials("ASIA1", SECRET, "tok/en=="), service, "us-east-1", seconds).add_auth(request)
    return environ("GET", request.url, {})


def test_a_presigned_url_of_s3_works_until_its_end_and_only_as_it_is() -> None:
    request = presigned()
    assert read(request).token == "tok/en=="
    check(request, b"")
    with pytest.raises(BadSignature):
        check(request, b"", later=timedelta(seconds=120))
    request["RAW_URI"] = request["RAW_URI"].replace("key%20x", "other")
    with pytest.raises(BadSignature):
        check(request, b"")


def test_only_s3_is_presigned() -> None:
    with pytest.raises(NotSigned, match="S3"):
        read(presigned("bedrock"))
