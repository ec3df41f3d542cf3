"""A model call from admission to settlement: breaker, rate, worst case reserved, forwarded, followed, settled.

Whatever ends a call (an error, the deadline, a reader that went away, the session's end), its money is settled from the
usage that the provider reported, or its whole reservation is spent. Trust zone: control side.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from starlette.requests import Request

from ringfence.gateway import usage
from ringfence.gateway.errors import ApiError, LedgerError
from ringfence.gateway.exchange import BodyBytes, Exchange, read_body
from ringfence.gateway.gateway import Gateway
from ringfence.gateway.ledger import BudgetExhausted, NotOpen
from ringfence.gateway.money import to_usd
from ringfence.gateway.prices import Price, Tokens, UnknownModel, UnpricedCache
from ringfence.gateway.request import MAX_BODY_BYTES, ModelCall, parse_json
from ringfence.gateway.sessions import Session
from ringfence.gateway.upstream import NotSent, Reply, Upstream, UpstreamFailed
from ringfence.gateway.uses import ModelUse

_log = logging.getLogger(__name__)
_FORWARDED_HEADERS = ("anthropic-version",)
_ANSWERED_HEADERS = ("request-id", "x-request-id", "x-amzn-requestid", "x-amzn-errortype", "retry-after")
_CONTENT_TYPES = ("application/json", "text/event-stream", "application/vnd.amazon.eventstream")
_MAX_ANSWER_BYTES = 32 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_LARGE = 64 * 1024
# Not the caller's fault, and they may say who the control side is at the provider.
_OURS = (401, 403, 407)

Parse = Callable[[dict], ModelCall]


class Account:
    """The money of one call: reserved when it is made, settled once, spent in full if nobody settles it."""

    def __init__(
        self,
        gateway: Gateway,
        session: Session,
        upstream: Upstream,
        price: Price,
        call: ModelCall,
        number: int,
        reserved: int,
    ):
        self._gateway, self._session, self._upstream, self._price = gateway, session, upstream, price
        self._api, self._model, self._number, self._reserved = call.api, call.model, number, reserved
        self._at, self._began = gateway.clock(), time.monotonic()
        self.open = True

    def settle(self, tokens: Tokens) -> None:
        """Books what was used. Counts that contradict each other are not believed: the reservation is spent."""
        try:
            cost = self._price.of(tokens)
        except ValueError:
            self.forfeit()
            return
        if not self.open:
            return
        self.open = False
        if cost > self._reserved:
            _log.error(
                "a call of model %s cost $%s, above its worst case of $%s: its price or limits are not what was assumed",
                self._model, to_usd(cost), to_usd(self._reserved),
            )  # fmt: skip
        self._write(self._settled, tokens, cost)

    def free(self) -> None:
        """Books nothing: the provider didn't do the work."""
        if self.open:
            self.open = False
            self._write(self._settled, Tokens(0, 0), 0)

    def forfeit(self) -> None:
        """Spends the whole reservation."""
        if self.open:
            self.open = False
            self._write(self._forfeited)

    def _write(self, work: Callable[..., None], *args: object) -> None:
        self._gateway.books.later(work, *args, seconds=time.monotonic() - self._began)

    def _settled(self, tokens: Tokens, cost: int, seconds: float) -> None:
        now = self._gateway.clock()
        self._gateway.books.ledger.settle(self._number, cost, tokens.input, tokens.output, now)
        self._measure(tokens, cost, seconds)

    def _forfeited(self, seconds: float) -> None:
        self._gateway.books.ledger.forfeit(self._number)
        self._measure(None, self._reserved, seconds)

    def _measure(self, tokens: Tokens | None, cost: int, seconds: float) -> None:
        spent = self._gateway.books.ledger.spent(self._session.invocation.conversation_id)
        # What the provider refused or never got is settled as nothing, and is no success.
        tokens = tokens if tokens and (tokens.input or tokens.output) else None
        self._gateway.metrics.call(self._upstream.name, tokens, cost, spent, seconds)
        used = (tokens.input, tokens.output) if tokens else (None, None)
        use = ModelUse(self._model, self._api, self._upstream.name, self._at, seconds, *used, to_usd(cost))
        self._gateway.used(self._session, use)


async def answer(gateway: Gateway, session: Session, request: Request, exchange: Exchange, parse: Parse) -> None:
    """Answers one model call. Raises ApiError for what is refused before anything is sent back."""
    _admit(gateway, session)
    held = BodyBytes(session)
    session.at_once += 1
    try:
        raw = await read_body(request, held, MAX_BODY_BYTES, gateway.limits.body_seconds)
        # In a thread when it is large: reading it must not hold up other sandboxes.
        call = await asyncio.to_thread(_read, session, raw, parse) if len(raw) > _LARGE else _read(session, raw, parse)
        del raw
        session.breaker.call(call.digest)
        headers = {name: request.headers[name] for name in _FORWARDED_HEADERS if name in request.headers}
        work = _forward(gateway, session, call, headers, exchange)
        error = await _until_stopped(work, session, request, _seconds_left(gateway, session))
        if error is not None:
            raise error
    finally:
        session.at_once -= 1
        held.release()


def _admit(gateway: Gateway, session: Session) -> None:
    session.breaker.check()
    if not session.calls.take(gateway.clock().timestamp()):
        raise ApiError("rate", f"more than {session.limits.calls_per_minute} model calls in a minute")
    if session.at_once >= session.limits.calls_at_once:
        raise ApiError("rate", f"more than {session.limits.calls_at_once} model calls at once")


def _seconds_left(gateway: Gateway, session: Session) -> float:
    left = (session.expires - gateway.clock()).total_seconds()
    if left <= 0:
        raise deadline(session.expires)
    return left


def deadline(expires: datetime) -> ApiError:
    """What is answered after an invocation's deadline."""
    return ApiError("deadline", f"the invocation ended at {expires.isoformat(timespec='seconds')}")


def _read(session: Session, raw: bytes, parse: Parse) -> ModelCall:
    """The call, if it is well-formed and for the session's own model. A malformed one is a failure to the breaker."""
    try:
        call = parse(parse_json(raw))
    except ApiError:
        session.breaker.failed()
        raise
    if call.model not in session.models:
        raise ApiError("model_unknown", "the invocation may not use this model", call.model[:100])
    return call.prepared()


async def _until_stopped(work: Awaitable[None], session: Session, request: Request, seconds: float) -> ApiError | None:
    """Does the work until it ends, the deadline passes, the session ends, or the reader goes away. Returns why it was
    cut; None when it wasn't, or nobody is left to tell."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    ended = asyncio.ensure_future(session.ended.wait())
    try:
        await asyncio.wait({task, gone, ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return None
        if gone.done() and not ended.done():
            return None
        return ApiError("unauthorized", "the session was closed") if ended.done() else deadline(session.expires)
    finally:
        for each in (task, gone, ended):
            each.cancel()
        await asyncio.gather(task, gone, ended, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _forward(
    gateway: Gateway, session: Session, call: ModelCall, headers: dict[str, str], exchange: Exchange
) -> None:
    upstream = gateway.upstream(call.api, call.model)
    account = await _reserve(gateway, session, upstream, call)
    succeeded = False
    try:
        async with upstream.send(call, headers, session.invocation_id) as reply:
            if not 200 <= reply.status < 300:
                await _pass_failure(gateway, reply, account, exchange)
            elif call.streaming:
                succeeded = await _pass_stream(call, reply, account, exchange)
            else:
                succeeded = await _pass_whole(call, reply, account, exchange)
    except ApiError:
        session.breaker.failed()
        raise
    except NotSent as error:
        account.free()
        session.breaker.failed()
        raise ApiError("upstream_failed", f"the provider can't be reached: {error}") from None
    except (UpstreamFailed, usage.StreamError) as error:
        session.breaker.failed()
        raise ApiError("upstream_failed", f"the provider's answer broke off: {error}") from None
    else:
        if succeeded:
            session.breaker.succeeded()
        else:
            session.breaker.failed()
    finally:
        account.forfeit()


async def _reserve(gateway: Gateway, session: Session, upstream: Upstream, call: ModelCall) -> Account:
    """Sets the call's worst case aside. Raises ApiError."""
    try:
        price = gateway.price(upstream, call.model)
        most = price.at_most(*upstream.most_tokens(call), call.cache_ttl)
    except UnknownModel as error:
        raise ApiError("model_unknown", str(error), call.model[:100]) from None
    except UnpricedCache as error:
        raise ApiError("invalid_request", str(error)) from None
    try:
        number = await gateway.books.reserve(session.invocation_id, most, gateway.clock())
    except BudgetExhausted as error:
        message = f"the call may cost ${to_usd(most):.4f} and the conversation has {error}; lower max_tokens or stop"
        raise ApiError("budget_exhausted", message) from None
    except NotOpen:
        raise deadline(session.expires) from None
    except LedgerError as error:
        _log.error("%s", error)
        raise ApiError("ledger_unavailable", "the budget can't be checked, so nothing is spent") from None
    session.goes_on()
    return Account(gateway, session, upstream, price, call, number, most)


def _headers(reply: Reply) -> dict[str, str]:
    """What the sandbox sees of a provider's headers."""
    shown = {name: reply.headers[name] for name in _ANSWERED_HEADERS if name in reply.headers}
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _CONTENT_TYPES or reply.headers.get("content-encoding", "identity") != "identity":
        raise UpstreamFailed("not a format of its API")
    return shown | {"content-type": kind, "cache-control": "no-store"}


async def _all(reply: Reply, most: int) -> bytes:
    content = bytearray()
    async for chunk in reply.content:
        content += chunk
        if len(content) > most:
            raise UpstreamFailed("too large")
    return bytes(content)


async def _pass_whole(call: ModelCall, reply: Reply, account: Account, exchange: Exchange) -> bool:
    """Passes a whole answer on; whether its usage is known."""
    headers = _headers(reply)
    content = await _all(reply, _MAX_ANSWER_BYTES)
    tokens = usage.of_response(call.api, content)
    if tokens:
        account.settle(tokens)
    else:
        account.forfeit()
    await exchange.start(reply.status, headers | {"content-length": str(len(content))})
    await exchange.finish(content)
    return tokens is not None


async def _pass_stream(call: ModelCall, reply: Reply, account: Account, exchange: Exchange) -> bool:
    """Passes a stream on, event by event; whether it came to its proper end with its usage."""
    reader = usage.stream_reader(call)
    await exchange.start(reply.status, _headers(reply))
    async for chunk in reply.content:
        passed = reader.feed(chunk)
        # Settled before the reader gets the end: a reader that stops there doesn't change what it cost.
        if account.open and (tokens := reader.used()):
            account.settle(tokens)
        await exchange.write(passed)
    if reader.used() is None:
        raise UpstreamFailed("the stream ended without its usage")
    await exchange.finish()
    return True


async def _pass_failure(gateway: Gateway, reply: Reply, account: Account, exchange: Exchange) -> None:
    """Passes on that the provider refused, or failed. What it refused costs nothing; a failure may have done the work."""
    if 400 <= reply.status < 500:
        account.free()
    if reply.status in _OURS or not 400 <= reply.status < 600:
        raise ApiError("upstream_failed", f"the provider doesn't accept the control side's call (HTTP {reply.status})")
    headers = _headers(reply)
    content = await _all(reply, _MAX_ERROR_BYTES)
    # In a thread: asking for credentials may block.
    shown = (await asyncio.to_thread(gateway.redacted, content.decode("utf-8", "replace"))).encode()
    await exchange.start(reply.status, headers | {"content-length": str(len(shown))})
    await exchange.finish(shown)
