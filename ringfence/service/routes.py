"""The routes: who may call them, and what they answer."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import fastapi
from fastapi.responses import PlainTextResponse, StreamingResponse

from ringfence.access import Decision, decide
from ringfence.audit import Refusals, Trail
from ringfence.catalog.model import Catalog
from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.invocation import Refusal
from ringfence.names import Names
from ringfence.redaction import Redactor
from ringfence.runner.request import RunnerLimits, task_request
from ringfence.runner.scopes import checked
from ringfence.service.desk import Desk
from ringfence.service.guard import REQUEST_ID
from ringfence.service.identity import Caller, Oidc, Unauthenticated, certificate_caller
from ringfence.service.keys import KeysUnavailable
from ringfence.service.limits import Rate
from ringfence.service.metrics import CONTENT_TYPE, Metrics
from ringfence.service.models import (
    Health,
    InvocationList,
    InvocationOut,
    InvocationRequest,
    ToolList,
    ToolOut,
    problem_responses,
)
from ringfence.service.problems import ApiError, answer, unavailable
from ringfence.service.protocol import CERTIFICATE
from ringfence.service.store import ENDED, Store

# How long a stream of progress may stay silent, and a waiting call at most.
BEAT_S, MAX_WAIT_S = 15.0, 300
# Paths that only a known caller gets to, and where the application finds who that is.
PROTECTED, CALLER = "/v1/", "ringfence.caller"
router = fastapi.APIRouter()
_log = logging.getLogger("ringfence.service")


@dataclass(frozen=True, slots=True)
class Rates:
    """calls: each caller's, of every kind; runs: each caller's new tasks; unknown: failed proofs of identity that are
    recorded, for each source (the rest is only counted, so that nobody fills the trail)."""

    calls: Rate
    runs: Rate
    unknown: Rate

    @classmethod
    def default(cls) -> Rates:
        """Ten calls and one new task a second in the long run."""
        return cls(Rate(600, 200), Rate(60, 60), Rate(30, 30))


@dataclass(frozen=True, slots=True)
class Parts:
    """What the service is made of. oidc: None when only client certificates count; certificates: whether they do;
    more_metrics: what else `/metrics` shows; may block; names: of the environment, without which no scope is taken."""

    catalog: Catalog
    desk: Desk
    store: Store
    trail: Trail
    refusals: Refusals
    metrics: Metrics
    redactor: Redactor
    oidc: Oidc | None
    certificates: bool
    rates: Rates
    default_model: str = ""
    more_metrics: Callable[[], str] = str
    names: Names | None = None


class Gate:
    """ASGI middleware: finds out who calls before anything of the request is read any further, and keeps each caller's
    rate. Routes without a caller are the probes and the description."""

    def __init__(self, app: Any, parts: Parts):
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PROTECTED):
            try:
                scope[CALLER] = await self._admit(fastapi.Request(scope))
            except ApiError as error:
                await answer(error, scope.get(REQUEST_ID, ""))(scope, receive, send)
                return
            except RingfenceError as error:
                _log.error("nobody could be let in: %s", type(error).__name__)
                await answer(unavailable(), scope.get(REQUEST_ID, ""))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, request: fastapi.Request) -> Caller:
        source = request.client.host if request.client else ""
        try:
            caller = await self._caller(request, source)
        except Unauthenticated as error:
            await self._record(error, source)
            headers = {"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{error.code}"'}
            raise ApiError(401, error.code, str(error), headers=headers) from None
        except KeysUnavailable:
            text = "the identity provider's keys can't be had at the moment"
            raise ApiError(503, "keys_unavailable", text, headers={"Retry-After": "30"}) from None
        _limited(self._parts.rates.calls, caller)
        return caller

    async def _caller(self, request: fastapi.Request, source: str) -> Caller:
        given = request.headers.getlist("authorization")
        if given and self._parts.oidc:
            scheme, _, token = given[0].partition(" ")
            if len(given) > 1 or scheme.lower() != "bearer" or not token:
                raise Unauthenticated("authorization_malformed", "send one header: Authorization: Bearer <token>")
            # A key that isn't at hand is fetched, which blocks.
            return await asyncio.to_thread(self._parts.oidc.caller, token, source)
        certificate = request.scope.get(CERTIFICATE)
        if certificate and self._parts.certificates and not given:
            return certificate_caller(certificate, source)
        wanted = [
            word
            for word, on in (("a bearer token", self._parts.oidc), ("a client certificate", self._parts.certificates))
            if on
        ]
        raise Unauthenticated("identity_missing", f"prove who you are by {' or '.join(wanted)}")

    async def _record(self, error: Unauthenticated, source: str) -> None:
        self._parts.metrics.refused(error.code)
        if self._parts.rates.unknown.take(source):
            return
        refusal = Refusal(error.code, "", str(error))
        await asyncio.to_thread(
            self._parts.refusals.record, refusal, user="", source=source, kind="authentication.refused"
        )


def _limited(rate: Rate, caller: Caller) -> None:
    if wait := rate.take(f"{caller.how}:{caller.user}"):
        seconds = str(max(1, round(wait + 0.5)))
        raise ApiError(
            429, "rate_limited", f"too many calls; try again in {seconds} s", headers={"Retry-After": seconds}
        )


async def _refuse(parts: Parts, caller: Caller, decision: Decision) -> None:
    """Records every refusal and answers with 403. Nothing has been made."""
    for refusal in decision.refusals:
        parts.metrics.refused(refusal.code)
        await asyncio.to_thread(parts.refusals.record, refusal, user=caller.user, source=caller.source)
    said = [{"code": item.code, "subject": item.subject, "detail": item.detail} for item in decision.refusals]
    raise ApiError(403, decision.refusals[0].code, decision.refusals[0].detail, extra={"refusals": said})


async def _admitted(parts: Parts, caller: Caller, body: InvocationRequest) -> dict[str, Any]:
    """The task to write down. Raises ApiError when the caller may not, or the runner would not take it."""
    decision = decide(parts.catalog, caller.user, caller.groups, body.tools)
    if not decision.ok:
        await _refuse(parts, caller, decision)
    task = {
        "model": body.model or parts.default_model,
        "conversation": body.conversation,
        "max_usd": str(body.max_usd),
        "timeout_seconds": body.timeout_seconds,
    }
    if body.scopes:
        given = {tool: scope.model_dump(exclude_none=True) for tool, scope in body.scopes.items()}
        task["scopes"] = _scopes(parts, given, body.tools)
    task_request(caller.user, body.prompt, body.tools, {**task, "groups": caller.groups}, RunnerLimits())
    return {**task, "prompt": body.prompt, "tools": body.tools}


def _scopes(parts: Parts, given: dict[str, Any], tools: list[str]) -> dict[str, Any]:
    """Raises InputError for what isn't within the tools' grants."""
    if parts.names is None:
        raise InputError([Problem("task", "scopes", "are not taken here", "leave them out")])
    return checked(given, tools, parts.catalog, parts.names)


def _parts(request: fastapi.Request) -> Parts:
    return request.app.state.parts


def _caller(request: fastapi.Request) -> Caller:
    # Missing for a route that the gate doesn't guard: then it fails.
    return request.scope[CALLER]


PartsOf = Annotated[Parts, fastapi.Depends(_parts)]
CallerOf = Annotated[Caller, fastapi.Depends(_caller)]
RequestId = Annotated[str, fastapi.Path(pattern=r"^[a-z0-9]{12,26}$")]
_COMMON = problem_responses(401, 408, 413, 429, 503)


@router.post(
    "/v1/invocations",
    status_code=202,
    tags=["invocations"],
    responses={
        200: {"model": InvocationOut, "description": "it ended within `wait`"},
        **_COMMON,
        **problem_responses(400, 403, 422),
    },
)
async def invoke(
    parts: PartsOf,
    caller: CallerOf,
    body: InvocationRequest,
    response: fastapi.Response,
    wait: Annotated[int, fastapi.Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for the end")] = 0,
) -> InvocationOut:
    """Run one agent task. It has been written down when this answers."""
    _limited(parts.rates.runs, caller)
    task = await _admitted(parts, caller, body)
    row = await parts.desk.accept(caller, task)
    response.headers["Location"] = f"/v1/invocations/{row.id}"
    if wait:
        await parts.desk.wait(row.id, wait)
        row = await parts.desk.find(row.id, caller.user)
        response.status_code = 200 if row.state == ENDED else 202
    return InvocationOut.of(row)


@router.get("/v1/invocations", tags=["invocations"], responses={**_COMMON, **problem_responses(422)})
async def last_invocations(
    parts: PartsOf, caller: CallerOf, limit: Annotated[int, fastapi.Query(ge=1, le=100)] = 20
) -> InvocationList:
    """The caller's last tasks."""
    rows = await asyncio.to_thread(parts.store.list, caller.user, limit)
    return InvocationList(invocations=[InvocationOut.of(row) for row in rows])


@router.get("/v1/invocations/{id}", tags=["invocations"], responses={**_COMMON, **problem_responses(404, 422)})
async def invocation(parts: PartsOf, caller: CallerOf, id: RequestId) -> InvocationOut:
    """How a task stands."""
    return InvocationOut.of(await parts.desk.find(id, caller.user))


@router.delete(
    "/v1/invocations/{id}", status_code=202, tags=["invocations"], responses={**_COMMON, **problem_responses(404, 422)}
)
async def cancel(parts: PartsOf, caller: CallerOf, id: RequestId) -> InvocationOut:
    """Cancel a task. It ends once its sandbox and credentials are gone; one that has ended stays as it is."""
    row = await parts.desk.find(id, caller.user)
    await parts.desk.cancel(row)
    return InvocationOut.of(await parts.desk.find(id, caller.user))


@router.get(
    "/v1/invocations/{id}/events",
    tags=["invocations"],
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **_COMMON,
        **problem_responses(404, 422),
    },
)
async def events(
    parts: PartsOf,
    caller: CallerOf,
    id: RequestId,
    last_event_id: Annotated[
        str, fastapi.Header(pattern=r"^[0-9]{0,9}$", description="number of the last event seen")
    ] = "",
) -> StreamingResponse:
    """Progress as server-sent events; the last one, `ended`, is the task's representation."""
    row = await parts.desk.find(id, caller.user)

    async def stream() -> AsyncIterator[str]:
        async for item in parts.desk.watch(row, int(last_event_id or 0), BEAT_S):
            yield f"id: {item[0]}\nevent: progress\ndata: {json.dumps(item[1])}\n\n" if item else ": still here\n\n"
        last = InvocationOut.of(await parts.desk.find(id, caller.user))
        yield f"event: {'ended' if last.state == ENDED else 'interrupted'}\ndata: {last.model_dump_json()}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


@router.get("/v1/tools", tags=["access"], responses={**_COMMON, **problem_responses(403)})
async def tools(parts: PartsOf, caller: CallerOf) -> ToolList:
    """Who the caller is here, and the tools that its roles carry."""
    whole = decide(parts.catalog, caller.user, caller.groups, ())
    if not whole.ok:
        await _refuse(parts, caller, whole)
    names = [tool.name for tool in parts.catalog.tools]
    allowed = decide(parts.catalog, caller.user, caller.groups, names).allowed
    return ToolList(
        user=caller.user,
        roles=list(whole.roles),
        tools=[
            ToolOut(
                name=tool.name,
                description=tool.description,
                calls_per_minute=tool.limits.calls_per_minute,
                timeout_seconds=tool.limits.timeout_seconds,
                output=tool.output,
            )
            for tool in allowed
        ],
    )


@router.get("/healthz", tags=["probes"])
async def healthz() -> Health:
    """Whether the process lives."""
    return Health(status="ok")


@router.get("/readyz", tags=["probes"], responses={503: {"model": Health, "description": "not ready"}})
async def readyz(parts: PartsOf, response: fastapi.Response) -> Health:
    """Whether it takes requests."""
    reasons = ["draining"] if parts.desk.draining else []
    response.status_code = 503 if reasons else 200
    return Health(status="not ready" if reasons else "ok", reasons=reasons)


@router.get("/metrics", tags=["probes"], response_class=PlainTextResponse)
async def metrics(parts: PartsOf) -> PlainTextResponse:
    """Counters in Prometheus's text format."""
    text = parts.metrics.text(parts.desk.active, parts.desk.waiting, parts.desk.draining)
    text += await asyncio.to_thread(parts.more_metrics)
    return PlainTextResponse(text, media_type=CONTENT_TYPE)
