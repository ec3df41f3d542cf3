"""The gateway as the control side uses it: sessions of invocations, their money, what their sandboxes say.

Trust zone: control side. Every limit here holds when each byte that the sandbox sends is hostile.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from ringfence.errors import RingfenceError
from ringfence.gateway.books import Books
from ringfence.gateway.errors import ApiError, Refused
from ringfence.gateway.ledger import Conversation, Ledger
from ringfence.gateway.limits import Limits, Rate
from ringfence.gateway.metrics import SHOWN, Metrics
from ringfence.gateway.money import to_nano, to_usd
from ringfence.gateway.prices import Price, Prices, UnknownModel
from ringfence.gateway.sessions import MOST_REFUSALS, SandboxEvent, SandboxResult, Session, Sessions
from ringfence.gateway.upstream import Upstream
from ringfence.gateway.uses import ModelUse
from ringfence.invocation import MAX_CONVERSATION_USD, MAX_SECONDS, Invocation, Refusal, Status, Usage
from ringfence.redaction.redactor import Redactor

_log = logging.getLogger(__name__)
# Refusals without a valid token that are recorded per minute: whoever has none could otherwise fill the audit trail.
_STRANGERS_PER_MINUTE = 60
_STOPS = {
    "budget_exhausted": Status.BUDGET_EXHAUSTED,
    "breaker_open": Status.BREAKER_OPEN,
    "deadline": Status.TIMED_OUT,
}
_APIS = ("openai", "anthropic", "bedrock-converse")

OnRefusal = Callable[[Invocation | None, Refusal], None]
OnUse = Callable[[Invocation, ModelUse], None]


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


class Gateway:
    """Sessions, ledger and upstreams of one process. Methods are thread-safe and, where not `async`, block for about a
    millisecond. on_refusal: called in a thread of its own for each refusal, with None for a request without a token;
    on_use: the same for each model call that ended.

    Raises LedgerError when the ledger can't be used.
    """

    def __init__(
        self,
        ledger_path: Path,
        upstreams: Sequence[Upstream],
        prices: Prices | None = None,
        clock: Callable[[], datetime] = utc_now,
        on_refusal: OnRefusal | None = None,
        on_use: OnUse | None = None,
        limits: Limits | None = None,
    ):
        self.clock = clock
        self.limits = limits or Limits()
        self.sessions = Sessions()
        self.metrics = Metrics()
        self.books = Books(Ledger(ledger_path))
        self.upstreams = tuple(upstreams)
        self._prices = prices or Prices()
        self._on_refusal, self._on_use = on_refusal, on_use
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="gateway-records")
        self._strangers = Rate(_STRANGERS_PER_MINUTE)
        self._stopped = False

    def warm(self, invocation_id: str, expires: datetime) -> str:
        """A token for a sandbox that waits for its invocation; it can ask for its assignment and nothing else."""
        return self.sessions.add(invocation_id, expires, self.limits)[1]

    def open(
        self,
        invocation: Invocation,
        assignment: Mapping[str, Any] | None = None,
        *,
        max_usd: Decimal = MAX_CONVERSATION_USD,
        models: Iterable[str] = (),
    ) -> str:
        """Opens the invocation's budget and session, or binds its warm one. Returns the token, "" for a warm session.

        models: what its tools may call besides the invocation's own model (`tool_models`).

        Raises Refused: nothing is left of the conversation's money, it is another user's, or the model has no
        upstream or no price.
        """
        self._check(invocation, max_usd)
        now = self.clock()
        warm = self.sessions.of(invocation.id)
        if warm is not None and warm.invocation is not None:
            raise RingfenceError(f"invocation {invocation.id} has a session already; each runs once")
        self.books.now(
            self.books.ledger.open, invocation.id, invocation.conversation_id, invocation.user, invocation.model,
            cap=to_nano(max_usd), now=now, deadline=invocation.deadline,
        )  # fmt: skip
        token = ""
        session = warm
        if session is None:
            session, token = self.sessions.add(invocation.id, invocation.deadline, self.limits)
        session.bind(invocation, models)
        if assignment is not None:
            session.assignment.set(dict(assignment))
        return token

    def admit(self, invocation: Invocation, *, max_usd: Decimal = MAX_CONVERSATION_USD) -> None:
        """Raises what `open` would raise now, and opens nothing."""
        self._check(invocation, max_usd)
        self.books.now(self.books.ledger.admit, invocation.conversation_id, invocation.user, cap=to_nano(max_usd))

    def _check(self, invocation: Invocation, max_usd: Decimal) -> None:
        if not Decimal(0) < max_usd <= MAX_CONVERSATION_USD:
            raise RingfenceError(f"max_usd {max_usd} | more than 0 and at most {MAX_CONVERSATION_USD}")
        if not self.model_api(invocation.model):
            detail = f"model {invocation.model!r} has no upstream here, or no known price; name one that has"
            raise Refused(Refusal("model_unknown", invocation.model, detail))

    def assign(self, invocation_id: str, assignment: Mapping[str, Any]) -> None:
        """Hands an open session its assignment, once."""
        session = self.sessions.of(invocation_id)
        if session is None or session.invocation is None:
            raise RingfenceError(f"invocation {invocation_id} has no open session")
        if not session.assignment.set(dict(assignment)):
            raise RingfenceError(f"invocation {invocation_id} has its assignment already")

    def invocation(self, invocation_id: str) -> Invocation | None:
        """The invocation of an open session; None while it is warm or when there is none."""
        session = self.sessions.of(invocation_id)
        return session.invocation if session else None

    async def result(self, invocation_id: str) -> SandboxResult | None:
        """What the sandbox says came out, as soon as it says so; None when its session ends without."""
        session = self.sessions.of(invocation_id)
        return await session.result.wait() if session else None

    async def events(self, invocation_id: str) -> AsyncIterator[SandboxEvent]:
        """What the sandbox says it does, from the start until its session ends."""
        session = self.sessions.of(invocation_id)
        if session is not None:
            async for event in session.events.follow():
                yield event

    def usage(self, invocation_id: str) -> tuple[Usage, Decimal]:
        """What the invocation used, and what it cost with reservations in it."""
        usage, cost = self.books.now(self.books.ledger.usage, invocation_id)
        session = self.sessions.of(invocation_id)
        return (usage + Usage(tool_calls=session.tool_calls) if session else usage), to_usd(cost)

    def close(self, invocation_id: str) -> tuple[Usage, Decimal]:
        """Ends the session: its token is worth nothing, calls under way are cut and counted in full, unless they settle
        later. Twice is the same as once."""
        session = self.sessions.remove(invocation_id)
        for upstream in self.upstreams:
            upstream.forget(invocation_id)
        tool_calls = session.tool_calls if session else 0
        usage, cost = self.books.now(self.books.ledger.close, invocation_id, self.clock(), tool_calls)
        if session and session.invocation:
            self.metrics.closed(cost)
        return usage, to_usd(cost)

    def expire(self) -> list[str]:
        """Closes whatever is past its deadline, of this process and of killed ones. Returns the invocations' ids."""
        now = self.clock()
        ids = self.sessions.expired(now)
        for invocation_id in ids:
            self.close(invocation_id)
        return sorted({*ids, *self.books.now(self.books.ledger.expire, now)})

    def conversations(self, limit: int = 100) -> list[Conversation]:
        """Live cost per conversation, the last changed first."""
        return self.books.now(self.books.ledger.conversations, limit)

    def metrics_text(self) -> str:
        """What is measured, live cost of the last changed conversations included, in Prometheus' text form. Blocks."""
        return self.metrics.text(self.conversations(SHOWN))

    def stopped(self, invocation_id: str) -> Status | None:
        """Why the gateway stopped an open session's model calls, if it did. Ask before `close`."""
        session = self.sessions.of(invocation_id)
        return session.stopped if session else None

    def refusals(self, invocation_id: str) -> tuple[Refusal, ...]:
        """What an open session was refused, the first hundred. Ask before `close`."""
        session = self.sessions.of(invocation_id)
        return tuple(session.refusals) if session else ()

    def stop(self) -> None:
        """Ends every session and writes what is to be written."""
        for invocation_id in self.sessions.expired(datetime.max.replace(tzinfo=UTC)):
            self.close(invocation_id)
        # The books first: calls that were cut settle there, and are recorded then.
        self.books.stop()
        self._stopped = True
        self._recorder.shutdown(wait=True)

    def upstream(self, api: str, model: str) -> Upstream:
        """Where a model's calls in one shape go. Raises ApiError when nowhere."""
        for upstream in self.upstreams:
            if upstream.serves(api, model):
                return upstream
        raise ApiError("model_unknown", "this model is not served in this API's shape", model[:100])

    def redacted(self, text: str) -> str:
        """A text without the upstreams' keys, or anything that looks like one."""
        return Redactor(lambda: [secret for upstream in self.upstreams for secret in upstream.secrets()]).text(text)

    def price(self, upstream: Upstream, model: str) -> Price:
        """What a model costs now and until the longest invocation ends. Raises UnknownModel."""
        if own := upstream.prices.get(model):
            return own
        now = self.clock()
        return self._prices.of(upstream.price_list, model, now, now + timedelta(seconds=MAX_SECONDS))

    def model_api(self, model: str) -> str:
        """The shape of the API that serves a model whose price is known, which its sandbox must speak; "" for none."""
        for api in _APIS:
            try:
                self.price(self.upstream(api, model), model)
            except (ApiError, UnknownModel):
                continue
            return api
        return ""

    def refused(self, session: Session | None, error: ApiError, subject: str = "") -> None:
        """Records a refused request: counted, kept with its session, handed on. Failures are none."""
        if error.code in ("upstream_failed", "internal"):
            return
        self.metrics.refused(error.code)
        refusal = Refusal(error.code, error.subject or subject, error.message)
        if session is None:
            if not self._strangers.take(self.clock().timestamp()):
                return
        else:
            session.stopped = session.stopped or _STOPS.get(error.code)
            if len(session.refusals) >= MOST_REFUSALS:
                return
            session.refusals.append(refusal)
        if self._on_refusal is not None and not self._stopped:
            self._recorder.submit(self._record, self._on_refusal, session.invocation if session else None, refusal)

    def used(self, session: Session, use: ModelUse) -> None:
        """Hands a call that ended on to be recorded."""
        if self._on_use is not None and not self._stopped:
            self._recorder.submit(self._record, self._on_use, session.invocation, use)

    @staticmethod
    def _record(write: Callable[..., None], invocation: Invocation | None, what: Refusal | ModelUse) -> None:
        try:
            write(invocation, what)
        except Exception:
            _log.exception("a %s could not be recorded", type(what).__name__)
