"""Refusals in the called service's own form: each protocol has its own codes for the same refusal.

Source: the services' API references, "Common errors" (S3: "Error responses").
"""

from __future__ import annotations

from ringfence.iam.evaluate import Evaluation
from ringfence.local.aws_server.wire import Call, Reply, refusal

# Kind → protocol family → (code, HTTP status). `json` is JSON 1.0 and 1.1; `rest` is REST-JSON.
_CODES: dict[str, dict[str, tuple[str, int]]] = {
    "denied": {
        "s3": ("AccessDenied", 403),
        "query": ("AccessDenied", 403),
        "ec2": ("UnauthorizedOperation", 403),
        "json": ("AccessDeniedException", 400),
        "rest": ("AccessDeniedException", 403),
    },
    "unsigned": {
        "s3": ("AccessDenied", 403),
        "query": ("MissingAuthenticationToken", 403),
        "ec2": ("MissingAuthenticationToken", 403),
        "json": ("MissingAuthenticationTokenException", 400),
        "rest": ("MissingAuthenticationTokenException", 403),
    },
    "unknown-key": {
        "s3": ("InvalidAccessKeyId", 403),
        "query": ("InvalidClientTokenId", 403),
        "ec2": ("AuthFailure", 401),
        "json": ("UnrecognizedClientException", 400),
        "rest": ("UnrecognizedClientException", 403),
    },
    "bad-token": {
        "s3": ("InvalidToken", 400),
        "query": ("InvalidClientTokenId", 403),
        "ec2": ("AuthFailure", 401),
        "json": ("UnrecognizedClientException", 400),
        "rest": ("UnrecognizedClientException", 403),
    },
    "expired": {
        "s3": ("ExpiredToken", 400),
        "query": ("ExpiredToken", 403),
        "ec2": ("RequestExpired", 400),
        "json": ("ExpiredTokenException", 400),
        "rest": ("ExpiredTokenException", 403),
    },
    "bad-signature": {
        "s3": ("SignatureDoesNotMatch", 403),
        "query": ("SignatureDoesNotMatch", 403),
        "ec2": ("AuthFailure", 401),
        "json": ("InvalidSignatureException", 400),
        "rest": ("InvalidSignatureException", 403),
    },
}
_FAMILIES = {"json": "json", "rest-json": "rest", "rest-xml": "s3", "query": "query", "ec2": "ec2"}
_LAYERS = {"identity": "identity-based policy", "boundary": "permissions boundary", "session": "session policy"}
_RESOURCE_LAYER = "resource-based policy"


def refuse(call: Call, kind: str, message: str) -> Reply:
    """A refusal of one of the kinds above."""
    code, status = _CODES[kind][_FAMILIES.get(call.protocol, "rest")]
    return refusal(call, status, code, message)


def denial(user: str, action: str, resource: str, evaluation: Evaluation) -> str:
    """AWS's sentence for a request that policies don't let through."""
    head = f"User: {user} is not authorized to perform: {action} on resource: {resource}"
    if evaluation.denied_by:
        layer = _LAYERS.get(evaluation.denied_by[0].layer, _RESOURCE_LAYER)
        return f"{head} with an explicit deny in {_article(layer)} {layer}"
    layer = _LAYERS.get(evaluation.missing[0], _RESOURCE_LAYER) if evaluation.missing else _LAYERS["identity"]
    return f"{head} because no {layer} allows the {action} action"


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
