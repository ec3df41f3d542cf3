"""Ten dollars are ten dollars, also for a sandbox that ignores everything and calls the gateway itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from ringfence.errors import RingfenceError
from ringfence.gateway import Refused, conversations
from ringfence.gateway.ledger import Ledger
from ringfence.invocation import Status
from tests.gateway.conftest import OPENAI_MODEL, chat

pytestmark = pytest.mark.anyio
# One call is $1.0049 at most and costs $1.0025: nine fit into ten dollars.
EXPENSIVE = {"max_tokens": 100_000}


async def fifty_at_once(lab: Any, client: httpx.AsyncClient) -> list[httpx.Response]:
    """Fifty different calls, all of them decided before the provider answers any."""
    lab.provider.hold = asyncio.Event()
    lab.provider.usage = (1000, 100_000)
    calls = [
        asyncio.create_task(client.post("/v1/chat/completions", json=chat(f"call {n}", **EXPENSIVE))) for n in range(50)
    ]
    while len(lab.provider.requests) + sum(call.done() for call in calls) < 50:
        await asyncio.sleep(0.01)
    lab.provider.hold.set()
    return await asyncio.gather(*calls)


async def test_fifty_concurrent_calls_never_cost_more_than_ten_dollars(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        answers = await fifty_at_once(lab, client)
        codes = [answer.status_code for answer in answers]
        assert (codes.count(200), codes.count(402)) == (9, 41)
        assert len(lab.provider.requests) == 9
        _, cost = lab.gateway.usage(invocation.id)
        assert cost == Decimal("9.0225")
        assert lab.gateway.stopped(invocation.id) == Status.BUDGET_EXHAUSTED
        assert answers[codes.index(402)].json()["error"]["code"] == "budget_exhausted"


async def test_a_call_that_is_too_large_does_not_stop_a_task_whose_next_one_fits(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox(max_usd="0.5")
        path = "/v1/chat/completions"
        assert (await client.post(path, json=chat("too much", **EXPENSIVE))).status_code == 402
        assert lab.gateway.stopped(invocation.id) == Status.BUDGET_EXHAUSTED
        assert (await client.post(path, json=chat("less"))).status_code == 200
        assert lab.gateway.stopped(invocation.id) is None
        assert (await client.post(path, json=chat("too much again", **EXPENSIVE))).status_code == 402
        assert lab.gateway.stopped(invocation.id) == Status.BUDGET_EXHAUSTED


async def test_without_the_reservation_the_same_calls_cost_fifty_dollars(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure that the reservation prevents: check what was spent, then call, as many gateways do."""
    reserve = Ledger.reserve

    def check_only(ledger: Ledger, invocation: str, amount: int, now: datetime) -> int:
        assert ledger.usage(invocation)[1] <= 10 * 10**9
        return reserve(ledger, invocation, 0, now)

    monkeypatch.setattr(Ledger, "reserve", check_only)
    async with start() as lab:
        invocation, client = await lab.sandbox()
        answers = await fifty_at_once(lab, client)
        assert [answer.status_code for answer in answers] == [200] * 50
        assert lab.gateway.usage(invocation.id)[1] == Decimal("50.125")


async def test_one_conversation_has_one_budget_over_all_of_its_invocations(start: Any) -> None:
    async with start() as lab:
        _, first = await lab.sandbox(conversation="talk")
        second_invocation, second = await lab.sandbox(conversation="talk")
        lab.provider.usage = (0, 100_000)
        for number, client in enumerate([first, second] * 4):
            assert (await client.post("/v1/chat/completions", json=chat(f"{number}", **EXPENSIVE))).status_code == 200
        assert (await first.post("/v1/chat/completions", json=chat("9", **EXPENSIVE))).status_code == 200
        assert (await second.post("/v1/chat/completions", json=chat("10", **EXPENSIVE))).status_code == 402
        assert (await second.post("/v1/chat/completions", json=chat("11"))).status_code == 200
        assert lab.gateway.usage(second_invocation.id)[1] == 5


async def test_a_smaller_cap_holds_as_well(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox(max_usd="0.05")
        assert (await client.post("/v1/chat/completions", json=chat(max_tokens=4000))).status_code == 200
        assert (await client.post("/v1/chat/completions", json=chat(max_tokens=5000))).status_code == 402


@pytest.mark.parametrize("max_usd", ["0", "-1", "10.01"])
async def test_a_cap_outside_of_the_conversations_limit_is_refused(start: Any, max_usd: str) -> None:
    async with start() as lab:
        with pytest.raises(RingfenceError, match="max_usd"):
            lab.gateway.open(lab.invocation(), max_usd=Decimal(max_usd))


async def test_an_exhausted_conversation_opens_no_further_invocation(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox(conversation="talk", max_usd="0.02")
        lab.provider.usage = (1000, 2000)
        await client.post("/v1/chat/completions", json=chat(max_tokens=1000))
        with pytest.raises(Refused) as caught:
            lab.gateway.open(lab.invocation(conversation="talk"))
        assert caught.value.refusal.code == "budget_exhausted"


@pytest.mark.parametrize(("status", "free"), [(400, True), (429, True), (500, False), (503, False)])
async def test_what_the_provider_refused_is_free_and_what_it_failed_at_is_not(
    start: Any, status: int, free: bool
) -> None:
    async with start() as lab:
        lab.provider.status = status
        invocation, client = await lab.sandbox()
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == status
        assert (lab.gateway.usage(invocation.id)[1] == 0) is free


async def test_a_provider_that_can_not_be_reached_costs_nothing(start: Any) -> None:
    from ringfence.gateway.providers import OpenAI

    async with start(upstreams=(OpenAI(lambda: "k", "http://127.0.0.1:9"),)) as lab:
        invocation, client = await lab.sandbox()
        response = await client.post("/v1/chat/completions", json=chat())
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_failed")
        assert lab.gateway.usage(invocation.id)[1] == 0


async def test_a_reader_that_goes_away_has_spent_its_reservation(start: Any) -> None:
    async with start() as lab:
        lab.provider.gap = 0.3
        invocation, client = await lab.sandbox()
        async with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
            async for _ in response.aiter_raw():
                break
        while lab.gateway.conversations()[0].reserved_usd:
            await asyncio.sleep(0.02)
        usage, cost = lab.gateway.usage(invocation.id)
        assert cost > Decimal("0.01")
        assert usage.output_tokens == 0


async def test_a_usage_that_is_no_count_is_not_believed(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        for usage in ((-5, 1), (True, 1), (1.5, 1), ("7", 1), (10**15, 1)):
            lab.provider.usage = usage
            before = lab.gateway.usage(invocation.id)[1]
            assert (await client.post("/v1/chat/completions", json=chat(f"{usage}"))).status_code in (200, 503)
            assert lab.gateway.usage(invocation.id)[1] - before > Decimal("0.01")


async def test_a_killed_gateways_calls_stay_spent(start: Any, tmp_path: Path) -> None:
    """A gateway of its own process is killed while a call is under way; the next one counts the call in full."""
    async with start() as lab:
        lab.provider.hold = asyncio.Event()
        ledger = tmp_path / "killed.db"
        provider = str(lab.gateway.upstreams[0]._base_url)
        program = textwrap.dedent("""
            import asyncio, sys
            from datetime import UTC, datetime, timedelta
            from pathlib import Path
            import httpx
            from ringfence.gateway import Gateway
            from ringfence.gateway.providers import OpenAI
            from ringfence.gateway.serving import serving
            from ringfence.invocation import Invocation

            async def main():
                gateway = Gateway(Path(sys.argv[1]), [OpenAI(lambda: "k", sys.argv[2])])
                now = datetime.now(UTC)
                token = gateway.open(Invocation("killedkilled", "ada", "p", (), now, now + timedelta(seconds=200), "talk", "gpt-4o"))
                async with serving(gateway, "127.0.0.1") as (host, port), httpx.AsyncClient(timeout=300) as client:
                    body = {"model": "gpt-4o", "messages": [], "max_tokens": 100000}
                    await client.post(f"http://{host}:{port}/v1/chat/completions", json=body, headers={"x-api-key": token})

            asyncio.run(main())
        """)
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen([sys.executable, "-c", program, str(ledger), provider], env=environment)
        until = time.monotonic() + 120
        while not lab.provider.requests and time.monotonic() < until:
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [(entry.reserved_usd > 1, entry.spent_usd) for entry in conversations(ledger)] == [(True, 0)]
        later = Ledger(ledger)
        lab.clock.forward(201)
        assert later.expire(lab.clock()) == ["killedkilled"]
        assert conversations(ledger)[0].spent_usd > 1


async def test_an_unusable_ledger_spends_nothing(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        with closing(sqlite3.connect(lab.gateway.books.ledger.path)) as other:
            other.execute("DROP TABLE calls")
        response = await client.post("/v1/chat/completions", json=chat())
        assert (response.status_code, response.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert not lab.provider.requests
        monkeypatch.setattr(lab.gateway, "close", lambda _id: None)


async def test_several_answers_are_each_reserved(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        assert (await client.post("/v1/chat/completions", json=chat(n=9, **EXPENSIVE))).status_code == 200
        assert (await client.post("/v1/chat/completions", json=chat(n=10, **EXPENSIVE))).status_code == 402
        assert lab.provider.bodies[0]["model"] == OPENAI_MODEL
