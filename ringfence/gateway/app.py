"""What sandboxes reach: model calls, the assignment, events and the result. No other path exists."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ringfence import telemetry_names as names
from ringfence.gateway import anthropic_shape, bedrock_shape, calls, openai_shape
from ringfence.gateway.errors import ApiError
from ringfence.gateway.exchange import BodyBytes, Exchange, error_headers, read_body
from ringfence.gateway.gateway import Gateway
from ringfence.gateway.request import parse_json
from ringfence.gateway.sessions import SandboxEvent, SandboxResult, Session
from ringfence.invocation import MAX_SECONDS

_log = logging.getLogger(__name__)
LONG_POLL_SECONDS = 60
EVENT_TYPES = ("tool_call", "model_call", "refusal", "progress", "log")
MAX_EVENTS_BYTES = 256 * 1024
MAX_EVENT_BYTES = 16 * 1024
MAX_OUTPUT_BYTES = 1024 * 1024
MAX_ERROR_CHARACTERS = 4096
# JSON writes a character as six bytes at most.
_MAX_RESULT_BYTES = 6 * (MAX_OUTPUT_BYTES + MAX_ERROR_CHARACTERS) + 4096
_BEDROCK_ACTIONS = ("invoke", "converse", "invoke-with-response-stream", "converse-stream")


def application(gateway: Gateway) -> Starlette:
    """The ASGI application on a gateway. It closes the upstreams' connections when the server stops."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> Any:
        yield
        for upstream in gateway.upstreams:
            await upstream.close()

    routes = [
        Route("/v1/chat/completions", _Model(gateway, "openai", lambda _r, body: openai_shape.read(body))),
        Route("/v1/messages", _Model(gateway, "anthropic", lambda _r, body: anthropic_shape.read(body))),
        Route("/v1/assignment", _Plain(gateway, "GET", _assignment)),
        Route("/v1/events", _Plain(gateway, "POST", _events)),
        Route("/v1/result", _Plain(gateway, "POST", _result)),
        *(
            Route(f"/model/{{model:path}}/{name}", _Model(gateway, "bedrock", _bedrock(name)))
            for name in _BEDROCK_ACTIONS
        ),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: _nowhere})
    app.router.redirect_slashes = False
    return app


def _bedrock(action: str) -> Callable[[Request, dict[str, Any]], Any]:
    return lambda request, body: bedrock_shape.read(request.path_params["model"], action, body)


async def _nowhere(_request: Request, _exception: Exception) -> Response:
    error = ApiError("not_found", "this path doesn't exist")
    return JSONResponse(error.body(), error.status, error_headers(error))


def _token(request: Request) -> str:
    """The token of a request: a bearer token, or `x-api-key` as Anthropic's clients send it."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme:
        return token.strip() if scheme.lower() == "bearer" else ""
    return request.headers.get("x-api-key", "")


class _Endpoint:
    """Who asks, whether they may, and that every error is an answer. Subclasses answer."""

    method = "POST"
    api = ""

    def __init__(self, gateway: Gateway):
        self.gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        exchange = Exchange(send, self.api)
        session: Session | None = None
        try:
            if request.method != self.method:
                raise ApiError("method_not_allowed", f"only {self.method} is allowed here")
            session = self._session(request)
            await self.answer(session, request, exchange)
        except ApiError as error:
            self.gateway.refused(session, error, subject=scope["path"][:100])
            await exchange.refuse(error)
        except Exception:
            _log.exception("a request failed")
            await exchange.refuse(ApiError("internal", "the gateway failed; this is its own fault"))

    async def answer(self, session: Session, request: Request, exchange: Exchange) -> None:
        """Answers an authorised request. Raises ApiError."""
        raise NotImplementedError

    def _session(self, request: Request) -> Session:
        token = _token(request)
        session = self.gateway.sessions.by_token(token) if token else None
        if session is None:
            raise ApiError("unauthorized", "a valid bearer token of this invocation is needed")
        if session.expires <= self.gateway.clock():
            raise calls.deadline(session.expires)
        if session.invocation is None and request.url.path != "/v1/assignment":
            raise ApiError("unauthorized", "the sandbox has no invocation yet")
        return session


class _Model(_Endpoint):
    """A model call in one API's shape."""

    def __init__(self, gateway: Gateway, api: str, parse: Callable[[Request, dict[str, Any]], Any]):
        super().__init__(gateway)
        self.api = api
        self._parse = parse

    async def answer(self, session: Session, request: Request, exchange: Exchange) -> None:
        """See `_Endpoint`."""
        await calls.answer(self.gateway, session, request, exchange, lambda body: self._parse(request, body))


class _Plain(_Endpoint):
    """A request that is answered in one piece."""

    def __init__(
        self, gateway: Gateway, method: str, respond: Callable[[Gateway, Session, Request], Awaitable[Response]]
    ):
        super().__init__(gateway)
        self.method = method
        self._respond = respond

    async def answer(self, session: Session, request: Request, exchange: Exchange) -> None:
        """See `_Endpoint`."""
        response = await self._respond(self.gateway, session, request)
        headers = {name.decode(): value.decode() for name, value in response.raw_headers}
        await exchange.start(response.status_code, headers)
        await exchange.finish(response.body)


async def _assignment(gateway: Gateway, session: Session, _request: Request) -> Response:
    if session.assignment_taken:
        raise ApiError("conflict", "the assignment was taken before")
    left = (session.expires - gateway.clock()).total_seconds()
    try:
        async with asyncio.timeout(min(LONG_POLL_SECONDS, left)):
            assignment = await _either(session)
    except TimeoutError:
        return Response(status_code=204)
    if assignment is None:
        raise ApiError("unauthorized", "the session was closed")
    if session.assignment_taken:
        raise ApiError("conflict", "the assignment was taken before")
    session.assignment_taken = True
    return JSONResponse(assignment, headers={"cache-control": "no-store"})


async def _either(session: Session) -> Any:
    """The assignment, or None when the session ends first."""
    waits = [asyncio.ensure_future(signal.wait()) for signal in (session.assignment, session.ended)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return session.assignment.value if not session.ended.is_set else None
    finally:
        for wait in waits:
            wait.cancel()


async def _body(gateway: Gateway, session: Session, request: Request, most: int) -> bytes:
    """A statement's body, at a bounded rate."""
    if not session.posts.take(gateway.clock().timestamp()):
        raise ApiError("rate", f"more than {session.limits.posts_per_minute} posts in a minute")
    held = BodyBytes(session)
    try:
        return await read_body(request, held, most, gateway.limits.body_seconds)
    finally:
        held.release()


async def _events(gateway: Gateway, session: Session, request: Request) -> Response:
    raw = await _body(gateway, session, request, MAX_EVENTS_BYTES)
    lines = [line for line in raw.splitlines() if line.strip()]
    events = [_event(gateway, number, line) for number, line in enumerate(lines, 1)]
    for event in events:
        if not session.events.add(event):
            raise ApiError("rate", f"more than {session.limits.events} events in one invocation")
        if event.type == "tool_call":
            session.tool_calls += 1
            _measure(gateway, session, event)
    return JSONResponse({"accepted": len(events)}, 202)


def _measure(gateway: Gateway, session: Session, event: SandboxEvent) -> None:
    """Counts a tool call: its tool only by a name that the invocation has, its duration within an invocation's."""
    said, seconds = event.data.get("tool"), event.data.get("seconds")
    tool = said if said in session.invocation.tools else names.OTHER
    outcome = names.OK if event.data.get("outcome") == names.OK else names.ERROR
    known = type(seconds) in (int, float) and 0 <= seconds <= MAX_SECONDS
    gateway.metrics.tool_called(tool, outcome, float(seconds) if known else None)


def _event(gateway: Gateway, number: int, line: bytes) -> SandboxEvent:
    if len(line) > MAX_EVENT_BYTES:
        raise ApiError("too_large", f"line {number}: an event may have {MAX_EVENT_BYTES} bytes")
    try:
        value = parse_json(line)
    except ApiError as error:
        raise ApiError("invalid_request", f"line {number}: {error.message}") from None
    kind = value.pop("type", None)
    if kind not in EVENT_TYPES:
        raise ApiError("invalid_request", f"line {number}: type must be one of {', '.join(EVENT_TYPES)}")
    return SandboxEvent(kind, value, gateway.clock())


async def _result(gateway: Gateway, session: Session, request: Request) -> Response:
    raw = await _body(gateway, session, request, _MAX_RESULT_BYTES)
    value = await asyncio.to_thread(parse_json, raw)
    if unknown := sorted(set(value) - {"output", "status", "error"}):
        raise ApiError("invalid_request", f"{unknown[0][:100]}: is not a known key")
    output, status, error = value.get("output", ""), value.get("status"), value.get("error", "")
    if not isinstance(output, str) or not isinstance(error, str):
        raise ApiError("invalid_request", "output and error must be texts")
    if status not in ("succeeded", "failed"):
        raise ApiError("invalid_request", "status must be succeeded or failed")
    if len(output.encode("utf-8", "surrogatepass")) > MAX_OUTPUT_BYTES:
        raise ApiError("too_large", f"output may have {MAX_OUTPUT_BYTES} bytes")
    output, error = (text.encode("utf-8", "replace").decode() for text in (output, error[:MAX_ERROR_CHARACTERS]))
    if not session.result.set(SandboxResult(output, status, error)):
        raise ApiError("conflict", "the result was posted before; the first one counts")
    # Nothing is said after it: who follows the events has them all.
    session.events.end()
    return JSONResponse({"accepted": True}, 202)
