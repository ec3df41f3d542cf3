"""Errors as RFC 9457 problem details: a stable code, a sentence, a remedy; never a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"


class ApiError(Exception):
    """An answer that isn't a success. code: stable and machine-readable; extra: further members of the problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ):
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.extra = dict(headers or {}), dict(extra or {})


def problem(error: ApiError, request_id: str = "") -> dict[str, Any]:
    """The problem's JSON."""
    said = {
        "type": f"urn:ringfence:problem:{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
    }
    said |= {"code": error.code, "detail": error.detail}
    return said | error.extra | ({"request_id": request_id} if request_id else {})


def answer(error: ApiError, request_id: str = "") -> JSONResponse:
    """The response."""
    return JSONResponse(
        problem(error, request_id), status_code=error.status, headers=error.headers, media_type=MEDIA_TYPE
    )


def unavailable() -> ApiError:
    """What can't be recorded isn't done; where the trail lies is no caller's business."""
    text = "the service can't work at the moment; nothing was started"
    return ApiError(503, "unavailable", text, headers={"Retry-After": "30"})
