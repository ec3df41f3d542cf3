"""From an HTTP request to (service, operation, parameters), and from a result to the service's own response form."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, unquote

from botocore.exceptions import UnknownServiceError
from moto.core.exceptions import ServiceException
from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import SerializationContext, XFormedAttributePicker, get_serializer_class
from werkzeug.exceptions import NotFound

# Signing names that are not the service's name in botocore. Source: botocore's service models (`signingName`).
SIGNING_NAMES: dict[str, str] = {
    "access-analyzer": "accessanalyzer",
    "elasticfilesystem": "efs",
    "elasticloadbalancing": "elbv2",
    "elasticmapreduce": "emr",
    "es": "opensearch",
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "tagging": "resourcegroupstaggingapi",
}
# Calls that AWS accepts unsigned.
UNSIGNED_ACTIONS = {"AssumeRoleWithSAML": "sts", "AssumeRoleWithWebIdentity": "sts"}
# Bedrock's four services share one signing name; the paths tell them apart.
_BEDROCK_RUNTIME_PATH = re.compile(r"^/(model/|guardrail/[^/]+/version/[^/]+/apply|async-invoke)")
_SCOPE = re.compile(r"Credential=([^/,\s]+)/(\d{8})/([^/,\s]+)/([^/,\s]+)/aws4_request")


@dataclass(frozen=True, slots=True)
class Scope:
    """Who says to have signed, for which region and signing name. `authorization` checks it."""

    access_key: str
    region: str
    signing_name: str


class ApiError(ServiceException):
    """An error in the service's own form: `code` names an error shape of its model, members are the shape's others.

    A class of our own because moto looks up the error shapes of a service by the module of the exception's class.
    """

    def __init__(self, code: str, message: str, **members: Any):
        super().__init__(code, message)
        for name, value in members.items():
            setattr(self, name, value)


class Unidentified(Exception):
    """The request names no operation of a service that botocore knows. The message is fit for the client."""


@dataclass(eq=False)
class Call:
    """One identified API call. `environ` is the WSGI environment with the whole body already read into `body`."""

    environ: dict[str, Any]
    body: bytes
    scope: Scope | None
    service: str
    operation: OperationModel
    uri_params: Mapping[str, Any]
    account: str
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def name(self) -> str:
        """The operation's name, e.g. ``CreateVpc``."""
        return self.operation.name

    @property
    def region(self) -> str:
        """The region in the credential scope; ``us-east-1`` for unsigned calls."""
        return self.scope.region if self.scope else "us-east-1"

    @cached_property
    def request(self) -> Request:
        """A fresh request object over the buffered body."""
        return Request({**self.environ, "wsgi.input": BytesIO(self.body)})

    @cached_property
    def protocol(self) -> str:
        """``json``, ``rest-json``, ``rest-xml``, ``query`` or ``ec2``."""
        return determine_request_protocol(self.operation.service_model, self.request.content_type)

    @cached_property
    def params(self) -> dict[str, Any]:
        """The request's members by their name in the service model; raises ValueError or KeyError on malformed input."""
        request = self.request
        parsed = PROTOCOL_PARSERS[self.protocol](self.operation).parse(
            {
                "method": request.method,
                "values": request.values,
                "headers": request.headers,
                "body": self.body,
                "url_path": request.path,
                "url_params": self.uri_params,
            }
        )
        return parsed or {}

    def header(self, name: str) -> str:
        """A request header's value, or an empty string."""
        return str(self.environ.get(f"HTTP_{name.upper().replace('-', '_')}", ""))


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def json(cls, status: int, value: Any) -> Reply:
        """A JSON document of our own."""
        return cls(status, (("Content-Type", "application/json"),), json.dumps(value, indent=1).encode() + b"\n")


def identify(environ: dict[str, Any], body: bytes, account: str) -> Call:
    """Which operation a request calls. Raises `Unidentified` when that can't be told."""
    scope = _scope(environ)
    request = Request({**environ, "wsgi.input": BytesIO(body)})
    service = _service(scope, request)
    try:
        operation, uri_params = get_service_router(service).match(request)
    except UnknownServiceError:
        raise Unidentified(f"service '{service}' is not one that botocore knows") from None
    except (NotFound, NotImplementedError):
        called = (
            request.headers.get("X-Amz-Target") or request.values.get("Action") or f"{request.method} {request.path}"
        )
        raise Unidentified(f"{service} has no operation for {called}") from None
    return Call(environ, body, scope, service, operation, uri_params, account)


def _scope(environ: Mapping[str, Any]) -> Scope | None:
    """The credential scope of the Authorization header or of a presigned query string."""
    match = _SCOPE.search(str(environ.get("HTTP_AUTHORIZATION", "")))
    if match is None:
        query = parse_qs(str(environ.get("QUERY_STRING", "")))
        credential = unquote(query.get("X-Amz-Credential", [""])[0])
        match = _SCOPE.search(f"Credential={credential}") if credential else None
    return Scope(match[1], match[3], match[4].lower()) if match else None


def _service(scope: Scope | None, request: Request) -> str:
    """botocore's name of the called service. Unsigned calls are STS federation or S3, as in AWS."""
    if scope is None:
        form = request.content_type or ""
        action = request.values.get("Action", "") if form.startswith("application/x-www-form-urlencoded") else ""
        return UNSIGNED_ACTIONS.get(action, "s3")
    name = SIGNING_NAMES.get(scope.signing_name, scope.signing_name)
    if name == "s3" and (request.path.startswith("/v20180820/") or "s3-control" in request.host):
        return "s3control"
    if name == "ses" and request.path.startswith("/v2/"):
        return "sesv2"
    if name == "bedrock" and _BEDROCK_RUNTIME_PATH.match(request.path):
        return "bedrock-runtime"
    if name == "dynamodb" and request.headers.get("X-Amz-Target", "").startswith("DynamoDBStreams"):
        return "dynamodbstreams"
    return name


def serialize(call: Call, result: Any) -> Reply:
    """A handler's result (a mapping by output member) or a `ServiceException`, in the form the client expects."""
    serializer = get_serializer_class(call.service, call.protocol)(
        operation_model=call.operation,
        context=SerializationContext(call.request_id),
        value_picker=XFormedAttributePicker(),
    )
    rendered = serializer.serialize(result)
    body = rendered["body"]
    headers = {**rendered["headers"], "x-amzn-RequestId": call.request_id}
    payload = body if isinstance(body, bytes) else body.encode()
    return Reply(int(rendered["status_code"]), tuple((k, str(v)) for k, v in headers.items()), payload)


def refusal(call: Call | None, status: int, code: str, message: str) -> Reply:
    """An error of our own layer, in the form of the called service's errors, with a status of our choosing."""
    if call is None:
        document = {"__type": code, "message": message}
        return Reply(
            status, (("Content-Type", "application/json"), ("x-amzn-ErrorType", code)), json.dumps(document).encode()
        )
    reply = serialize(call, ApiError(code, message))
    return Reply(status, reply.headers, reply.body)


def load(service: str) -> None:
    """Reads a service's model ahead of its first call."""
    get_service_router(service)
