"""The application: routes, errors, OpenAPI description, life."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ringfence.errors import InputError, RingfenceError
from ringfence.service.guard import BODY_S, MAX_BODY_BYTES, REQUEST_ID, Guard
from ringfence.service.models import ProblemOut, problem_responses
from ringfence.service.problems import ApiError, answer, unavailable
from ringfence.service.routes import PROTECTED, Gate, Parts, router

_DESCRIPTION = "Runs agent tasks, each in a sandbox of its own with credentials of its own."
_log = logging.getLogger("ringfence.service")


def _errors(app: fastapi.FastAPI) -> None:
    def said(request: fastapi.Request, error: ApiError) -> JSONResponse:
        return answer(error, request.scope.get(REQUEST_ID, ""))

    @app.exception_handler(ApiError)
    async def api_error(request: fastapi.Request, error: ApiError) -> JSONResponse:
        return said(request, error)

    @app.exception_handler(InputError)
    async def input_error(request: fastapi.Request, error: InputError) -> JSONResponse:
        found = [{"key": item.key, "message": item.message, "remedy": item.remedy} for item in error.problems]
        return said(request, ApiError(422, "invalid_request", "the task is not valid", extra={"problems": found}))

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: fastapi.Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not sent back: it may hold secrets.
        found = [{"key": ".".join(map(str, item["loc"])), "message": item["msg"]} for item in error.errors()]
        if any(item["type"] == "json_invalid" for item in error.errors()):
            return said(request, ApiError(400, "not_json", "the body is not JSON", extra={"problems": found}))
        return said(request, ApiError(422, "invalid_request", "the request is not valid", extra={"problems": found}))

    @app.exception_handler(HTTPException)
    async def http_error(request: fastapi.Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return said(request, ApiError(error.status_code, code, str(error.detail), headers=error.headers))

    @app.exception_handler(RingfenceError)
    async def own_error(request: fastapi.Request, error: RingfenceError) -> JSONResponse:
        _log.error("request failed: %s", type(error).__name__)
        return said(request, unavailable())

    @app.exception_handler(Exception)
    async def any_error(request: fastapi.Request, error: Exception) -> JSONResponse:
        # The guard logs it.
        return said(
            request, ApiError(500, "internal_error", "something failed here; the request id finds it in the log")
        )


def _described(app: fastapi.FastAPI, parts: Parts) -> Callable[[], dict[str, Any]]:
    def described() -> dict[str, Any]:
        if not app.openapi_schema:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {})["ProblemOut"] = ProblemOut.model_json_schema()
            schemes: dict[str, Any] = {}
            if parts.oidc:
                schemes["bearer"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            if parts.certificates:
                schemes["certificate"] = {"type": "mutualTLS"}
            components["securitySchemes"] = schemes
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    # FastAPI's own form of 422 isn't ours.
                    if "422" in operation["responses"]:
                        operation["responses"] |= {"422": problem_responses(422)[422]}
                    if path.startswith(PROTECTED):
                        operation["security"] = [{name: []} for name in schemes]
            app.openapi_schema = schema
        return app.openapi_schema

    return described


def application(parts: Parts, *, max_body_bytes: int = MAX_BODY_BYTES, body_s: float = BODY_S) -> Guard:
    """The ASGI application. body_s: seconds that a body may take to arrive.

    Raises ValueError when there is no way to prove who one is.
    """
    if not parts.oidc and not parts.certificates:
        raise ValueError("nobody could prove who they are | configure OIDC or client certificates")

    @contextlib.asynccontextmanager
    async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(parts.trail.record, "service.started")
        await parts.desk.recover()
        yield
        await parts.desk.drain(0)
        await asyncio.to_thread(parts.trail.record, "service.stopped")

    app = fastapi.FastAPI(
        title="Ringfence", version="1", description=_DESCRIPTION, docs_url=None, redoc_url=None, lifespan=lifespan,
        redirect_slashes=False,
    )  # fmt: skip
    app.state.parts = parts
    app.include_router(router)
    _errors(app)
    app.openapi = _described(app, parts)  # type: ignore[method-assign]
    return Guard(Gate(app, parts), parts.metrics, parts.redactor, max_body_bytes, body_s)
