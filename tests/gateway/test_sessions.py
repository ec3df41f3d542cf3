"""Sessions: assignment, events, result, warm sandboxes, expiry; and what the control side sees of them."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any

import pytest

from ringfence.catalog.model import Grant
from ringfence.errors import RingfenceError
from ringfence.gateway import Limits, Refused, tool_models
from ringfence.gateway.app import MAX_EVENT_BYTES, MAX_OUTPUT_BYTES
from ringfence.invocation import MAX_SECONDS
from tests.gateway.conftest import BEDROCK_MODEL, chat

pytestmark = pytest.mark.anyio


async def test_an_assignment_is_handed_out_once(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        answers = await asyncio.gather(*(client.get("/v1/assignment") for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]


async def test_an_assignment_that_comes_later_is_waited_for(start: Any) -> None:
    async with start() as lab:
        invocation = lab.invocation()
        client = await lab.client(lab.gateway.open(invocation))
        polls = [asyncio.create_task(client.get("/v1/assignment")) for _ in range(2)]
        await asyncio.sleep(0.2)
        assert not any(poll.done() for poll in polls)
        lab.gateway.assign(invocation.id, {"prompt": "now", "credentials": {}})
        assert sorted([(await poll).status_code for poll in polls]) == [200, 409]
        with pytest.raises(RingfenceError, match="has its assignment"):
            lab.gateway.assign(invocation.id, {"prompt": "another"})


async def test_a_poll_without_an_assignment_says_ask_again(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.gateway.app.LONG_POLL_SECONDS", 0.1)
    async with start() as lab:
        client = await lab.client(lab.gateway.open(lab.invocation()))
        assert (await client.get("/v1/assignment")).status_code == 204


async def test_a_warm_sandbox_can_do_nothing_until_it_is_bound(start: Any) -> None:
    async with start() as lab:
        invocation = lab.invocation()
        client = await lab.client(lab.gateway.warm(invocation.id, lab.clock() + timedelta(seconds=MAX_SECONDS)))
        for path in ("/v1/chat/completions", "/v1/events", "/v1/result"):
            assert (await client.post(path, json=chat())).status_code == 401
        poll = asyncio.create_task(client.get("/v1/assignment"))
        await asyncio.sleep(0.1)
        assert lab.gateway.open(invocation) == ""
        lab.gateway.assign(invocation.id, {"prompt": "now"})
        assert (await poll).json() == {"prompt": "now"}
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        with pytest.raises(RingfenceError, match="session already"):
            lab.gateway.open(invocation)


async def test_a_refused_warm_sandbox_stays_unbound(start: Any) -> None:
    async with start() as lab:
        invocation = lab.invocation("no-such-model")
        client = await lab.client(lab.gateway.warm(invocation.id, lab.clock() + timedelta(seconds=100)))
        with pytest.raises(Refused):
            lab.gateway.open(invocation)
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 401


async def test_the_first_result_counts(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        waiting = asyncio.create_task(lab.gateway.result(invocation.id))
        assert (await client.post("/v1/result", json={"output": "one", "status": "succeeded"})).status_code == 202
        assert (await client.post("/v1/result", json={"output": "two", "status": "failed"})).status_code == 409
        result = await waiting
        assert result is not None
        assert (result.output, result.status, result.error) == ("one", "succeeded", "")


async def test_a_session_that_ends_without_a_result_has_none(start: Any) -> None:
    async with start() as lab:
        invocation, _ = await lab.sandbox()
        waiting = asyncio.create_task(lab.gateway.result(invocation.id))
        await asyncio.sleep(0)
        lab.gateway.close(invocation.id)
        assert await waiting is None
        assert await lab.gateway.result("nobody0000000") is None


@pytest.mark.parametrize("body", [
    {}, {"status": "ok"}, {"status": "succeeded", "output": 5}, {"status": "failed", "error": []}, {"status": "succeeded", "extra": 1}, [],
])  # fmt: skip
async def test_a_result_in_another_form_is_refused(start: Any, body: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        assert (await client.post("/v1/result", json=body)).status_code == 400
        assert not lab.gateway.sessions.of(invocation.id).result.is_set


async def test_a_result_is_bounded(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        too_much = {"status": "succeeded", "output": "é" * (MAX_OUTPUT_BYTES // 2 + 1)}
        assert (await client.post("/v1/result", json=too_much)).status_code == 413
        most = {"status": "succeeded", "output": "\ud800" + "x" * (MAX_OUTPUT_BYTES - 3), "error": "e" * 9000}
        assert (await client.post("/v1/result", content=json.dumps(most))).status_code == 202


async def test_events_are_followed_from_the_start_to_the_end(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()

        async def follow() -> list[tuple[str, Any]]:
            return [(event.type, event.data.get("n")) async for event in lab.gateway.events(invocation.id)]

        early = asyncio.create_task(follow())
        lines = [
            {"type": kind, "n": n}
            for n, kind in enumerate(("tool_call", "log", "tool_call", "refusal", "progress", "model_call"))
        ]
        for half in (lines[:3], lines[3:]):
            response = await client.post("/v1/events", content="\n".join(map(json.dumps, half)) + "\n\n")
            assert (response.status_code, response.json()) == (202, {"accepted": 3})
        late = asyncio.create_task(follow())
        await asyncio.sleep(0.05)
        assert lab.gateway.usage(invocation.id)[0].tool_calls == 2
        usage, _ = lab.gateway.close(invocation.id)
        assert usage.tool_calls == 2
        expected = [(line["type"], line["n"]) for line in lines]
        assert await early == await late == expected


@pytest.mark.parametrize("line", ['{"type": "made-up"}', '{"n": 1}', "[]", "nonsense", '{"type": ["log"]}'])
async def test_an_event_in_another_form_is_refused_with_its_line(start: Any, line: str) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        response = await client.post("/v1/events", content=f'{{"type": "log"}}\n{line}')
        assert response.status_code == 400
        assert response.json()["error"]["message"].startswith("line 2")
        assert len(lab.gateway.sessions.of(invocation.id).events) == 0


async def test_events_are_bounded_in_size_number_and_rate(start: Any) -> None:
    async with start(limits=Limits(events=3, posts_per_minute=4)) as lab:
        invocation, client = await lab.sandbox()
        big = json.dumps({"type": "log", "text": "x" * MAX_EVENT_BYTES})
        assert (await client.post("/v1/events", content=big)).status_code == 413
        assert (await client.post("/v1/events", content="\n".join(['{"type": "log"}'] * 5))).status_code == 429
        assert len(lab.gateway.sessions.of(invocation.id).events) == 3
        assert (await client.post("/v1/events", content="x" * 300_000)).status_code == 413
        assert (await client.post("/v1/events", content="")).status_code == 202
        assert (await client.post("/v1/events", content="")).status_code == 429


async def test_expire_ends_what_is_past_its_deadline_and_nothing_else(start: Any) -> None:
    async with start() as lab:
        short, client = await lab.sandbox(seconds=50)
        long, other = await lab.sandbox(seconds=150)
        lab.clock.forward(51)
        assert lab.gateway.expire() == [short.id]
        assert lab.gateway.expire() == []
        assert (await client.post("/v1/events")).status_code == 401
        assert (await other.post("/v1/chat/completions", json=chat())).status_code == 200
        assert lab.gateway.usage(long.id)[0].model_calls == 1


async def test_another_loop_may_wait_for_results_and_events(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        seen, events = threading.Event(), []

        def elsewhere() -> Any:
            async def wait() -> Any:
                result = await lab.gateway.result(invocation.id)
                async for event in lab.gateway.events(invocation.id):
                    events.append(event.type)
                    seen.set()
                return result

            return asyncio.run(wait())

        waiting = asyncio.create_task(asyncio.to_thread(elsewhere))
        await client.post("/v1/events", content='{"type": "log"}')
        await client.post("/v1/result", json={"status": "failed", "error": "e"})
        # A closed session has no more events for who asks late.
        assert await asyncio.to_thread(seen.wait, 60)
        lab.gateway.close(invocation.id)
        result = await waiting
        assert (result.error, events) == ("e", ["log"])


async def test_a_tools_own_model_may_be_called_and_no_other(start: Any) -> None:
    class Granted:
        grants = (
            Grant(
                actions=("bedrock:InvokeModel",),
                resources=(f"arn:${{partition}}:bedrock:${{region}}:${{account}}:inference-profile/{BEDROCK_MODEL}",),
                reason="r",
            ),
            Grant(
                actions=("bedrock:InvokeModel",),
                resources=("arn:${partition}:bedrock:*::foundation-model/amazon.*",),
                reason="r",
            ),
            Grant(
                actions=("s3:GetObject",), resources=("arn:${partition}:s3:::bucket/foundation-model/x",), reason="r"
            ),
        )

    models = tool_models([Granted()])  # type: ignore[list-item]
    assert models == (BEDROCK_MODEL,)
    async with start() as lab:
        client = await lab.client(lab.gateway.open(lab.invocation(), models=models))
        body = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
        assert (await client.post(f"/model/{BEDROCK_MODEL}/converse", json=body)).status_code == 200
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        assert (await client.post("/model/amazon.nova-pro-v1:0/converse", json=body)).status_code == 403


async def test_two_hundred_invocations_at_once_lose_nothing(start: Any) -> None:
    async with start() as lab:
        opened = [await lab.sandbox() for _ in range(200)]

        async def work(client: Any) -> None:
            assert (await client.get("/v1/assignment")).status_code == 200
            assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
            assert (await client.post("/v1/result", json={"status": "succeeded", "output": "x"})).status_code == 202

        await asyncio.gather(*(work(client) for _, client in opened))
        results = [await lab.gateway.result(invocation.id) for invocation, _ in opened]
        assert all(result is not None and result.output == "x" for result in results)
        usages = [lab.gateway.close(invocation.id) for invocation, _ in opened]
        assert all(usage.model_calls == 1 and cost == usages[0][1] for usage, cost in usages)
