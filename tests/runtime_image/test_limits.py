"""Money, wall clock, breaker, rate: each stops a run, and the run goes on where the limit is taken away."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from agent_runtime import (
    BreakerOpen,
    Budget,
    BudgetedModel,
    BudgetExhausted,
    DeadlineExceeded,
    Declaration,
    GatewayError,
    InstrumentedAgentExecutor,
    ModelUnknown,
    Prices,
    Rate,
    Tool,
    ToolError,
    loop,
)
from agent_runtime.budget import Breaker
from agent_runtime.gateway import GatewayClient
from hypothesis import given
from hypothesis import strategies as st

TOKEN = "session-token-of-the-test-0123456789"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def executor(run=lambda sent: "ok", clock=None, declaration=None, **more) -> InstrumentedAgentExecutor:
    made = InstrumentedAgentExecutor(
        prompt="do 1",
        allowed_tools=["work"],
        declarations=[Declaration.parse({"name": "work", **(declaration or {})})],
        clock=clock,
        **more,
    )
    made.register(Tool("work", "Works.", SCHEMA, run))
    return made


def answer(tokens: int = 0) -> dict:
    usage = {"prompt_tokens": 0, "completion_tokens": tokens}
    return {"choices": [{"message": {"content": "x"}}], "usage": usage}


# Money


def test_fifty_calls_at_once_never_pass_the_cap_together():
    made = executor(max_usd=Decimal("1"))
    together = threading.Barrier(50, timeout=300)
    spent = []

    def complete(body, timeout, headers):
        spent.append(made.budget.spent_usd)
        return answer(4096)

    model = BudgetedModel(made, complete, "scripted")

    def call(_: int) -> str:
        together.wait()
        try:
            model([{"role": "user", "content": "x"}])
        except BudgetExhausted:
            return "stopped"
        return "answered"

    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(call, range(50)))
    # A call's worst case is 4,096 output tokens at $15 per million, and its request: 16 of them fit into $1.
    assert outcomes.count("answered") == 16
    assert max(spent) <= Decimal(1)
    assert made.budget.spent_usd <= Decimal(1)


@given(st.lists(st.tuples(st.decimals(0, 3, places=4), st.decimals(0, 1, places=4), st.booleans()), max_size=60))
def test_settled_and_open_reservations_never_exceed_the_cap(calls):
    budget = Budget()
    for worst, share, settles in calls:
        try:
            reservation = budget.reserve(worst)
        except BudgetExhausted:
            continue
        if settles:
            budget.settle(reservation, worst * share)
            budget.settle(reservation, Decimal(5))
        assert budget.spent_usd <= budget.max_usd


def test_a_call_that_never_answers_is_paid_for_in_full():
    made = executor()

    def complete(body, timeout, headers):
        raise GatewayError(0, "gateway_unreachable", "no answer")

    with pytest.raises(GatewayError):
        BudgetedModel(made, complete, "scripted")([])
    assert made.budget.spent_usd >= Decimal("0.06144")


def test_a_call_that_the_gateway_refused_costs_nothing():
    made = executor()

    def complete(body, timeout, headers):
        raise GatewayError(429, "rate", "slow down")

    with pytest.raises(GatewayError):
        BudgetedModel(made, complete, "scripted")([])
    assert made.budget.spent_usd == 0


def test_an_answer_without_usage_costs_its_worst_case():
    made = executor()
    BudgetedModel(made, lambda body, timeout, headers: {"choices": []}, "scripted", max_output_tokens=1000)([])
    assert made.budget.spent_usd >= Decimal("0.015")


def test_a_cap_above_ten_dollars_is_refused():
    with pytest.raises(ValueError, match="at most 10"):
        Budget(Decimal("10.01"))


def test_a_known_model_is_priced_by_the_table_and_an_unknown_one_refused():
    prices = Prices({"house-model": {"input": "1", "output": "2"}})
    assert prices.cost("house-model", 1_000_000, 500_000) == Decimal(2)
    assert prices.cost("gpt-4o", 1_000_000, 0) > 0
    with pytest.raises(ModelUnknown, match="no-such-model-anywhere"):
        prices.cost("no-such-model-anywhere", 1, 1)


@pytest.mark.parametrize(
    "price",
    [
        {},
        {"input": "1"},
        {"input": "-1", "output": "1"},
        {"input": "x", "output": "1"},
        "free",
        {"input": "NaN", "output": 1},
    ],
)
def test_a_price_that_is_none_is_refused(price):
    with pytest.raises(ValueError, match="house-model"):
        Prices({"house-model": price})


# Wall clock


def test_no_call_is_made_after_the_deadline():
    clock = Clock()
    made = executor(clock=clock, max_seconds=300)
    assert made.call("work", {"n": 1}).ok
    clock.now = 300.1
    for attempt in (lambda: made.call("work", {"n": 1}), lambda: BudgetedModel(made, None, "scripted")([])):
        with pytest.raises(DeadlineExceeded):
            attempt()


def test_nobody_gets_more_than_five_minutes():
    clock = Clock()
    assert executor(clock=clock, max_seconds=10_000).deadline.remaining() == 300


def test_an_agent_that_never_returns_is_left_at_the_deadline():
    stop = threading.Event()
    with pytest.raises(DeadlineExceeded):
        executor(max_seconds=0.2).run(lambda: stop.wait(30))
    stop.set()


def test_a_coroutine_agent_is_cancelled_at_the_deadline():
    cancelled = []

    async def agent() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(DeadlineExceeded):
        asyncio.run(executor(max_seconds=0.2).arun(agent))
    assert cancelled == [True]


def test_a_tool_that_overruns_its_own_limit_is_left_and_counts_as_failed():
    stop = threading.Event()
    made = executor(lambda sent: stop.wait(30), declaration={"limits": {"timeoutSeconds": 1}})
    assert made.call("work", {"n": 1}).code == "tool_timeout"
    stop.set()


def test_a_coroutine_tool_that_overruns_is_cancelled():
    async def work(sent):
        await asyncio.sleep(30)

    made = executor(work, declaration={"limits": {"timeoutSeconds": 1}})
    assert asyncio.run(made.acall("work", {"n": 1})).code == "tool_timeout"


# Breaker


def _fail(sent):
    raise ToolError("no")


def test_a_loop_of_failures_is_stopped_at_the_fifth():
    made = executor(_fail)
    for _ in range(5):
        assert made.call("work", {"n": 1}).code == "tool_failed"
    with pytest.raises(BreakerOpen):
        made.call("work", {"n": 1})


def test_a_loop_of_refusals_is_stopped_too():
    made = executor()
    for _ in range(5):
        assert made.call("delete-everything", {}).refused
    with pytest.raises(BreakerOpen):
        made.call("work", {"n": 1})


def test_a_model_that_answers_doesnt_close_the_tools_breaker():
    made = executor(_fail)
    model = BudgetedModel(made, lambda body, timeout, headers: answer(), "scripted")
    with pytest.raises(BreakerOpen):
        for _ in range(6):
            model([])
            made.call("work", {"n": 1})


def test_a_success_in_between_starts_the_count_again():
    outcomes = iter([0, 0, 0, 0, 1, 0, 0, 0, 0, 1])

    def work(sent):
        return "ok" if next(outcomes) else _fail(sent)

    made = executor(work)
    assert [made.call("work", {"n": 1}).ok for _ in range(10)] == [False] * 4 + [True] + [False] * 4 + [True]


def test_a_model_that_only_fails_opens_a_breaker_of_its_own():
    made = executor()

    def complete(body, timeout, headers):
        raise GatewayError(502, "upstream", "bad gateway")

    model = BudgetedModel(made, complete, "scripted", max_output_tokens=10)
    for _ in range(5):
        with pytest.raises(GatewayError):
            model([])
    with pytest.raises(BreakerOpen):
        model([])


def test_an_open_breaker_stays_open():
    breaker = Breaker(1)
    breaker.failed()
    breaker.succeeded()
    with pytest.raises(BreakerOpen):
        breaker.check()


# Rate


def test_a_tool_gets_its_calls_of_a_minute_and_no_more():
    clock = Clock()
    made = executor(clock=clock, declaration={"limits": {"callsPerMinute": 3}})
    assert [made.call("work", {"n": 1}).code for _ in range(4)] == ["", "", "", "rate_limited"]
    clock.now = 59.9
    assert made.call("work", {"n": 1}).code == "rate_limited"
    clock.now = 60.0
    assert made.call("work", {"n": 1}).ok


@given(st.integers(1, 20), st.lists(st.floats(0, 30), max_size=80))
def test_no_sixty_seconds_ever_hold_more_calls_than_allowed(limit, waits):
    clock = Clock()
    rate = Rate(limit, clock)
    taken = []
    for wait in waits:
        clock.now += wait
        if rate.take():
            taken.append(clock.now)
    assert all(sum(start <= moment < start + 60 for moment in taken) <= limit for start in taken)


def test_calls_at_once_share_one_rate():
    made = executor(lambda sent: time.sleep(0.01), declaration={"limits": {"callsPerMinute": 10}})
    with ThreadPoolExecutor(20) as pool:
        codes = list(pool.map(lambda _: made._rate("work").take(), range(40)))
    assert sum(codes) == 10


def test_what_was_chosen_before_anything_untrusted_was_read_may_be_used_again():
    made = executor()
    assert made.call("work", {"n": 7}).ok
    assert made.provenance.tainted
    assert made.call("work", {"n": 7}).ok
    assert made.call("work", {"n": 8}).code == "argument_tainted"


# A rate limit of models


class Busy:
    """A model behind a rate limit that ends at a time of the clock."""

    def __init__(self, clock: Clock, until: float, retry_after: float | None):
        self.clock, self.until, self.retry_after = clock, until, retry_after
        self.asked: list[float] = []

    def __call__(self, body, timeout, headers):
        self.asked.append(self.clock.now)
        if self.clock.now < self.until:
            raise GatewayError(429, "rate", "more than 60 model calls in a minute", self.retry_after)
        return answer()


def _run(monkeypatch, until: float, retry_after: float | None, max_seconds: float = 300) -> tuple[Busy, Clock]:
    clock = Clock()
    made = InstrumentedAgentExecutor(prompt="go", allowed_tools=[], clock=clock, max_seconds=max_seconds)
    busy = Busy(clock, until, retry_after)
    monkeypatch.setattr(loop.time, "sleep", lambda seconds: setattr(clock, "now", clock.now + seconds))
    loop.run(made, BudgetedModel(made, busy, "scripted"), lambda text: None)
    return busy, clock


@pytest.mark.parametrize("retry_after", [None, 5.0, 30.0])
def test_a_whole_window_of_a_rate_limit_is_waited_out(monkeypatch, retry_after):
    busy, clock = _run(monkeypatch, 59.9, retry_after)
    assert 59.9 <= clock.now < 95
    waits = [after - before for before, after in itertools.pairwise(busy.asked)]
    assert min(waits) >= (retry_after or 0.5)
    assert len(busy.asked) < 20


def test_waiting_ends_before_the_deadline_does(monkeypatch):
    with pytest.raises(GatewayError) as caught:
        _run(monkeypatch, 1000, 5.0, max_seconds=60)
    assert caught.value.status == 429


def test_a_wait_longer_than_the_time_left_is_not_begun(monkeypatch):
    with pytest.raises(GatewayError):
        _run(monkeypatch, 1000, 90.0, max_seconds=60)


def test_the_gateways_word_on_when_to_ask_again_arrives(gateway):
    gateway.steps.append((429, "rate"))
    gateway.headers["Retry-After"] = "7"
    with pytest.raises(GatewayError) as caught:
        GatewayClient(gateway.url, TOKEN).chat({"model": "scripted", "messages": []}, 5)
    assert (caught.value.status, caught.value.retry_after) == (429, 7.0)


@pytest.mark.parametrize("text", ["soon", "-1", "1e9", "9999999", "Fri, 31 Dec 1999 23:59:59 GMT", "٣"])
def test_a_time_to_wait_that_is_no_number_of_seconds_is_none(gateway, text):
    gateway.steps.append((429, "rate"))
    gateway.headers["Retry-After"] = text.encode().decode("latin-1")
    with pytest.raises(GatewayError) as caught:
        GatewayClient(gateway.url, TOKEN).chat({"model": "scripted", "messages": []}, 5)
    assert caught.value.retry_after is None
