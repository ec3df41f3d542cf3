"""`InstrumentedAgentExecutor`: every tool and model call of an agent passes here, whichever framework makes it."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from agent_runtime import concurrency
from agent_runtime.audit import EventSink, NullSink
from agent_runtime.budget import MAX_SECONDS, MAX_USD, Breaker, Budget, Clock, Deadline, Rate
from agent_runtime.declaration import Declaration
from agent_runtime.errors import DeadlineExceeded, Stopped, ToolError, ToolTimeout
from agent_runtime.gate import Decision, Gate
from agent_runtime.model import ModelCall
from agent_runtime.policy import strings
from agent_runtime.prices import Prices
from agent_runtime.redaction import Redactor
from agent_runtime.taint import Provenance
from agent_runtime.telemetry import (
    AGENT_DURATION,
    CALL_ID,
    MODEL,
    MODEL_DURATION,
    OPERATION,
    TOOL,
    TOOL_DURATION,
    Telemetry,
)
from agent_runtime.tool import MAX_ANSWER_LENGTH, Outcome, Tool, as_text

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Call:
    """A tool call under way. timeout: seconds; started: `time.perf_counter`."""

    tool: str
    sent: Mapping[str, Any]
    call_id: str
    timeout: float
    started: float

    def fields(self) -> dict[str, Any]:
        """What its event says: names of the arguments, never their values."""
        seconds = round(time.perf_counter() - self.started, 6)
        return {"tool": self.tool, "call_id": self.call_id[:80], "arguments": sorted(self.sent), "seconds": seconds}


class InstrumentedAgentExecutor:
    """Wraps an agent's tools and model with the gate, budgets, tracing, metrics, masking and audit events.

    One executor serves one conversation of one user, from one thread or many. It never runs a call that the gate
    refuses: the model is told why instead, so that an honest agent can go another way. A stop (`Stopped`: money, wall
    clock, breaker, unknown model) is an exception and ends the task.

    prompt: the user's own words, which vouch for the values in them; allowed_tools: names that this user may use;
    declarations: the catalog's, for those tools; max_usd: US dollars, at most 10; max_seconds: at most 300; invocation:
    id for traces and logs; redactor: holds the exact secrets of this task; clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        prompt: str,
        allowed_tools: Iterable[str],
        declarations: Iterable[Declaration] = (),
        max_usd: Decimal = MAX_USD,
        max_seconds: float = MAX_SECONDS,
        prices: Prices | None = None,
        sink: EventSink | None = None,
        redactor: Redactor | None = None,
        telemetry: Telemetry | None = None,
        invocation: str = "",
        clock: Clock | None = None,
    ):
        self.prompt = prompt
        self.budget = Budget(max_usd)
        self._clock = {} if clock is None else {"clock": clock}
        self.deadline = Deadline(max_seconds, **self._clock)
        self.tool_breaker = Breaker()
        # Of its own: a model that answers each failed tool call must not close the tools' breaker.
        self.model_breaker = Breaker()
        self.prices = Prices() if prices is None else prices
        self.redact = Redactor() if redactor is None else redactor
        self.telemetry = Telemetry(invocation) if telemetry is None else telemetry
        self.provenance = Provenance(prompt)
        self.gate = Gate(declarations, allowed_tools, self.provenance, self.redact.holds)
        self._sink = NullSink() if sink is None else sink
        self._tools: dict[str, Tool] = {}
        self._rates: dict[str, Rate] = {}
        self._lock = threading.Lock()

    # Tools

    def register(self, tool: Tool) -> None:
        """Makes a tool callable, or replaces one that reads alike. Raises ValueError when another tool has its name, also
        the same one changed: a description that changes after it was read is how a tool server turns."""
        with self._lock:
            known = self._tools.get(tool.name)
            if known is not None and not known.reads_like(tool):
                raise ValueError(f"tool {tool.name!r} is registered already, as another | give each tool one name")
            self._tools[tool.name] = tool
        if not tool.trusted_schema:
            self.gate.saw_untrusted(f"{tool.description}\n{json.dumps(dict(tool.parameters), default=str)}")

    def tools(self) -> list[Tool]:
        """The registered tools that the task may use, in order of their registration."""
        return [tool for tool in self._tools.values() if self.gate.allows(tool.name)]

    def call(self, name: str, arguments: object, call_id: str = "") -> Outcome:
        """Calls a tool. arguments: an object, or its JSON text as models send it; call_id: the model's id of the call.
        Raises Stopped; whatever the tool raises comes back as an Outcome."""
        prepared = self._prepare(name, arguments, call_id)
        if isinstance(prepared, Outcome):
            return prepared
        tool, sent, timeout = prepared
        started = time.perf_counter()
        with self._tool_span(tool, call_id) as done:
            try:
                value = concurrency.run(lambda: tool.run(sent), timeout)
            except Exception as fault:
                return done(self._failed(_Call(name, sent, call_id, timeout, started), fault))
            return done(self._answered(_Call(name, sent, call_id, timeout, started), value))

    async def acall(self, name: str, arguments: object, call_id: str = "") -> Outcome:
        """As `call`, within an event loop."""
        prepared = self._prepare(name, arguments, call_id)
        if isinstance(prepared, Outcome):
            return prepared
        tool, sent, timeout = prepared
        started = time.perf_counter()
        with self._tool_span(tool, call_id) as done:
            try:
                in_loop = tool.arun is not None or inspect.iscoroutinefunction(tool.run)
                value = await concurrency.arun(lambda: (tool.arun or tool.run)(sent), timeout, in_loop)
            except Exception as fault:
                return done(self._failed(_Call(name, sent, call_id, timeout, started), fault))
            return done(self._answered(_Call(name, sent, call_id, timeout, started), value))

    def decide(self, name: str, arguments: Mapping[str, Any]) -> Decision:
        """What the gate would say to a call, without making it and without counting it."""
        tool = self._tools.get(name)
        if tool is None:
            return Decision(False, "tool_not_allowed", name[:80], "this task has no such tool")
        return self.gate.decide(name, arguments, tool.surface())

    def saw_untrusted(self, text: str) -> None:
        """Tells that untrusted text reached the model by another way than a registered tool, e.g. a retrieved document."""
        signal = self.gate.saw_untrusted(text)
        if signal.reasons:
            self._sink.emit("log", event="injection_signal", score=signal.score, reasons=list(signal.reasons))

    def _prepare(self, name: str, arguments: object, call_id: str) -> Outcome | tuple[Tool, Mapping[str, Any], float]:
        self.deadline.check()
        self.tool_breaker.check()
        sent = _object(arguments)
        if sent is None:
            decision = Decision(
                False, "arguments_invalid", name[:80], "the arguments are no JSON object | send one object"
            )
            return self._refused(name, decision, call_id)
        decision = self.decide(name, sent)
        if decision.allowed and not self._rate(name).take():
            limit = self.gate.declaration(name).calls_per_minute
            decision = Decision(False, "rate_limited", name, f"the tool had its {limit} calls of this minute | wait")
        if not decision.allowed:
            return self._refused(name, decision, call_id)
        self.telemetry.decision(name, True, "")
        if not self.provenance.tainted:
            # Chosen before anything untrusted was seen, so by the user's task alone.
            self.provenance.trusted("\n".join(strings(sent)))
        timeout = min(self.gate.declaration(name).timeout_seconds, self.deadline.remaining())
        return self._tools[name], sent, timeout

    def _rate(self, name: str) -> Rate:
        with self._lock:
            if name not in self._rates:
                self._rates[name] = Rate(self.gate.declaration(name).calls_per_minute, **self._clock)
            return self._rates[name]

    def _refused(self, name: str, decision: Decision, call_id: str) -> Outcome:
        self.tool_breaker.failed()
        known = name if name in self._tools else "_OTHER"
        self.telemetry.decision(known, False, decision.code)
        detail = self.redact(decision.detail)
        self._sink.emit(
            "refusal",
            tool=name[:80],
            code=decision.code,
            subject=decision.subject[:200],
            detail=detail,
            call_id=call_id[:80],
        )
        _log.warning("refused: %s", detail, extra={"tool": known, "code": decision.code})
        return Outcome(f"Refused ({decision.code}): {detail}", decision.code, refused=True)

    @contextlib.contextmanager
    def _tool_span(self, tool: Tool, call_id: str) -> Iterator[Callable[[Outcome], Outcome]]:
        attributes = {OPERATION: "execute_tool", TOOL: tool.name, **tool.attributes}
        if call_id:
            attributes[CALL_ID] = call_id[:80]
        with self.telemetry.span(f"execute_tool {tool.name}", attributes, TOOL_DURATION) as span:

            def done(outcome: Outcome) -> Outcome:
                if outcome.code:
                    span.fail(outcome.code)
                return outcome

            yield done

    def _failed(self, call: _Call, fault: Exception) -> Outcome:
        if isinstance(fault, Stopped):
            raise fault
        if isinstance(fault, TimeoutError) and not isinstance(fault, ToolError):
            fault = ToolTimeout(f"{call.tool} took longer than {call.timeout:.0f} s")
        if isinstance(fault, ToolError):
            code, text = fault.code, str(fault)
        else:
            # An exception's text may quote anything; the model gets its type, the log all of it, masked.
            code, text = "tool_failed", f"{call.tool} failed: {type(fault).__name__}"
            _log.error("tool failed", exc_info=fault, extra={"tool": call.tool})
        self.tool_breaker.failed()
        if not self.gate.declaration(call.tool).trusted_output:
            self.gate.saw_untrusted(text)
        self._sink.emit("tool_call", outcome="error", code=code, **call.fields())
        return Outcome(self.redact(text)[:MAX_ANSWER_LENGTH], code)

    def _answered(self, call: _Call, value: Any) -> Outcome:
        text = as_text(value)
        content = self.redact(text[:MAX_ANSWER_LENGTH])
        if len(text) > MAX_ANSWER_LENGTH:
            content += f"\n[cut: {len(text)} characters]"
        signal = self.gate.saw(call.tool, content, call.sent, value)
        self.tool_breaker.succeeded()
        if signal is not None and signal.reasons:
            self._sink.emit(
                "log", event="injection_signal", tool=call.tool, score=signal.score, reasons=list(signal.reasons)
            )
        self._sink.emit("tool_call", outcome="ok", characters=len(text), **call.fields())
        return Outcome(content, value=value)

    # Models

    @contextlib.contextmanager
    def model_call(self, model: str, request_bytes: int, max_output_tokens: int) -> Iterator[ModelCall]:
        """Brackets one model call: reserves its worst case before, settles after. The caller reports what was used with
        `ModelCall.used`; without that the worst case counts as spent.

        request_bytes: of the request as sent; a token is at least one byte, so this bounds its input tokens.
        Raises BudgetExhausted, DeadlineExceeded, BreakerOpen, ModelUnknown.
        """
        self.deadline.check()
        self.model_breaker.check()
        worst = self.prices.cost(model, request_bytes, max_output_tokens)
        call = ModelCall(model, self.budget.reserve(worst))
        attributes = {OPERATION: "chat", MODEL: model}
        try:
            with self.telemetry.span(f"chat {model}", attributes, MODEL_DURATION) as span:
                yield call
                if call.tokens is not None:
                    span.set_attribute("gen_ai.usage.input_tokens", call.tokens[0])
                    span.set_attribute("gen_ai.usage.output_tokens", call.tokens[1])
        except BaseException:
            # The gateway holds who asks too often; its own breaker counts what a provider fails.
            if not call.delayed:
                self.model_breaker.failed()
            raise
        else:
            self.model_breaker.succeeded()
        finally:
            self._settle(call)

    def _settle(self, call: ModelCall) -> None:
        cost = call.reservation.usd
        if call.unbilled:
            cost = Decimal(0)
        elif call.tokens is not None:
            cost = self.prices.cost(call.model, *call.tokens)
            self.telemetry.tokens(call.model, *call.tokens)
        self.budget.settle(call.reservation, cost)
        self.telemetry.cost(self.budget.spent_usd)
        used = call.tokens or (None, None)
        self._sink.emit("model_call", model=call.model, input_tokens=used[0], output_tokens=used[1], cost_usd=str(cost))

    # The agent as a whole

    def run(self, agent: Callable[[], T], name: str = "agent") -> T:
        """Runs an agent, in a thread of its own, until it returns or the wall clock runs out. Raises Stopped, and
        whatever the agent raises."""
        with self._agent_span(name):
            try:
                return concurrency.run(agent, self.deadline.remaining())
            except TimeoutError:
                raise self._overrun() from None

    async def arun(self, agent: Callable[[], Awaitable[T]], name: str = "agent") -> T:
        """As `run`, for a coroutine function, which is cancelled when the wall clock runs out."""
        with self._agent_span(name):
            try:
                return await concurrency.arun(agent, self.deadline.remaining(), True)
            except TimeoutError:
                raise self._overrun() from None

    def _overrun(self) -> Exception:
        """The wall clock's own error, or that of an agent whose time is not over."""
        # A wait may end a moment before the clock says so.
        if self.deadline.remaining() < 0.1:
            return DeadlineExceeded("the task's wall clock has run out | split the task")
        return TimeoutError("the agent gave up waiting")

    @contextlib.contextmanager
    def _agent_span(self, name: str) -> Iterator[None]:
        self.deadline.check()
        attributes = {OPERATION: "invoke_agent", "gen_ai.agent.name": name}
        with self.telemetry.span(f"invoke_agent {name}", attributes, AGENT_DURATION):
            yield


def _object(arguments: object) -> Mapping[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        return None
    return arguments
