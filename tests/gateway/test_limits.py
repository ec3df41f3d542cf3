"""Deadline, breaker, rates, and readers and writers that take their time."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from ringfence.gateway import Limits, serving
from ringfence.gateway.limits import Breaker, Rate
from ringfence.invocation import Status
from tests.gateway.conftest import chat

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"


async def test_a_retry_loop_is_stopped_at_the_breaker(start: Any) -> None:
    async with start() as lab:
        lab.provider.status = 500
        invocation, client = await lab.sandbox()
        codes = [(await client.post(PATH, json=chat(f"{n}"))).status_code for n in range(20)]
        assert codes == [500] * 5 + [503] * 15
        assert len(lab.provider.requests) == 5
        assert lab.gateway.stopped(invocation.id) == Status.BREAKER_OPEN


async def test_the_same_loop_runs_on_when_the_breaker_is_taken_out(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaker, "check", lambda _self: None)
    async with start() as lab:
        lab.provider.status = 500
        _, client = await lab.sandbox()
        assert [(await client.post(PATH, json=chat(f"{n}"))).status_code for n in range(20)] == [500] * 20


async def test_a_success_in_between_starts_the_count_anew(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        for number in range(12):
            lab.provider.status = 200 if number % 4 == 3 else 500
            assert (await client.post(PATH, json=chat(f"{number}"))).status_code == lab.provider.status


async def test_an_open_breaker_stays_open_for_that_invocation_alone(start: Any) -> None:
    async with start() as lab:
        lab.provider.status = 500
        _, client = await lab.sandbox()
        _, other = await lab.sandbox()
        for number in range(5):
            await client.post(PATH, json=chat(f"{number}"))
        lab.provider.status = 200
        refused = await client.post(PATH, json=chat("after"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "breaker_open")
        assert refused.headers["x-should-retry"] == "false"
        assert (await other.post(PATH, json=chat("after"))).status_code == 200


async def test_the_same_call_again_and_again_is_a_retry_loop_also_when_it_succeeds(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        codes = [(await client.post(PATH, json=chat("the same"))).status_code for _ in range(8)]
        assert codes == [200] * 5 + [503] * 3
        assert len(lab.provider.requests) == 5


async def test_malformed_calls_open_the_breaker_too(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        codes = [(await client.post(PATH, content=b"{nonsense")).status_code for _ in range(7)]
        assert codes == [400] * 5 + [503] * 2


async def test_a_key_that_the_provider_refuses_opens_the_breaker_too(start: Any) -> None:
    async with start() as lab:
        lab.provider.status = 401
        _, client = await lab.sandbox()
        assert [(await client.post(PATH, json=chat(f"{n}"))).status_code for n in range(7)] == [502] * 5 + [503] * 2


async def test_a_gateway_that_stops_cuts_what_is_under_way(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with start() as lab:
        lab.provider.hold = asyncio.Event()
        _, client = await lab.sandbox()
        call = asyncio.create_task(client.post(PATH, json=chat()))
        poll = asyncio.create_task((await lab.client(lab.gateway.open(lab.invocation()))).get("/v1/assignment"))
        while not lab.provider.requests:
            await asyncio.sleep(0.01)
        lab.gateway.stop()
        assert [(await call).status_code, (await poll).status_code] == [401, 401]
        assert "Traceback" not in caplog.text


async def test_calls_above_the_rate_are_refused_until_the_minute_is_over(start: Any) -> None:
    async with start(limits=Limits(calls_per_minute=3)) as lab:
        _, client = await lab.sandbox()
        codes = [(await client.post(PATH, json=chat(f"{n}"))).status_code for n in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        lab.clock.forward(61)
        assert (await client.post(PATH, json=chat("later"))).status_code == 200


async def test_calls_at_once_are_bounded(start: Any) -> None:
    async with start(limits=Limits(calls_at_once=2)) as lab:
        lab.provider.hold = asyncio.Event()
        _, client = await lab.sandbox()
        calls = [asyncio.create_task(client.post(PATH, json=chat(f"{n}"))) for n in range(3)]
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert [call.result().status_code for call in done] == [429]
        lab.provider.hold.set()
        assert sorted(answer.status_code for answer in await asyncio.gather(*calls)) == [200, 200, 429]


async def test_bodies_held_in_memory_are_bounded(start: Any) -> None:
    async with start(limits=Limits(bytes_at_once=100_000)) as lab:
        lab.provider.hold = asyncio.Event()
        _, client = await lab.sandbox()
        first = asyncio.create_task(client.post(PATH, json=chat("a" * 60_000)))
        while not lab.provider.requests:
            await asyncio.sleep(0.01)
        assert (await client.post(PATH, json=chat("b" * 60_000))).status_code == 429
        lab.provider.hold.set()
        assert (await first).status_code == 200
        assert (await client.post(PATH, json=chat("c" * 60_000))).status_code == 200


@pytest.mark.parametrize("streaming", [False, True])
async def test_the_deadline_cuts_a_call_under_way(start: Any, streaming: bool) -> None:
    async with start() as lab:
        lab.provider.gap = 30
        if not streaming:
            lab.provider.hold = asyncio.Event()
        invocation, client = await lab.sandbox(seconds=5)
        response = await client.post(PATH, json=chat(stream=streaming))
        if streaming:
            assert response.status_code == 200
            last = json.loads(response.text.strip().rpartition("data: ")[2])
            assert last["error"]["code"] == "deadline"
        else:
            assert (response.status_code, response.json()["error"]["code"]) == (408, "deadline")
        usage, cost = lab.gateway.usage(invocation.id)
        assert cost > 0
        assert usage.output_tokens == 0
        assert lab.gateway.stopped(invocation.id) == Status.TIMED_OUT


async def test_the_same_stream_runs_to_its_end_where_there_is_time(start: Any) -> None:
    async with start() as lab:
        lab.provider.gap = 0.4
        _, client = await lab.sandbox(seconds=60)
        assert (await client.post(PATH, json=chat(stream=True))).text.endswith("[DONE]\n\n")


async def test_nothing_is_answered_after_the_deadline(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox(seconds=100)
        assert (await client.post(PATH, json=chat())).status_code == 200
        lab.clock.forward(101)
        for method, path in (("POST", PATH), ("GET", "/v1/assignment"), ("POST", "/v1/events"), ("POST", "/v1/result")):
            response = await client.request(method, path, json=chat())
            assert (response.status_code, response.json()["error"]["code"]) == (408, "deadline")
        assert len(lab.provider.requests) == 1


async def test_closing_the_session_cuts_its_calls_and_ends_its_token(start: Any) -> None:
    async with start() as lab:
        lab.provider.hold = asyncio.Event()
        invocation, client = await lab.sandbox()
        call = asyncio.create_task(client.post(PATH, json=chat()))
        while not lab.provider.requests:
            await asyncio.sleep(0.01)
        _, cost = lab.gateway.close(invocation.id)
        assert cost > 0
        assert (await call).status_code == 401
        for path in (PATH, "/v1/events", "/v1/result"):
            assert (await client.post(path, json=chat())).status_code == 401
        assert lab.gateway.close(invocation.id)[1] == cost


async def test_a_body_that_comes_too_slowly_is_refused(start: Any) -> None:
    async with start(limits=Limits(body_seconds=0.3)) as lab:
        _, client = await lab.sandbox()

        async def slowly() -> Any:
            yield b'{"model":'
            await asyncio.sleep(5)
            yield b'"gpt-4o"}'

        response = await client.post(PATH, content=slowly())
        assert (response.status_code, response.json()["error"]["code"]) == (408, "slow_request")


async def test_a_connection_without_a_request_is_closed(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.gateway.serving.HEAD_SECONDS", 0.3)
    async with start() as lab:
        host, _, port = lab.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        await writer.drain()
        async with asyncio.timeout(120):
            assert await reader.read() == b""
        writer.close()


async def test_connections_of_one_address_are_bounded(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.gateway.serving.CONNECTIONS_PER_ADDRESS", 3)
    # Connections without a request are closed too, but later than this test waits.
    monkeypatch.setattr("ringfence.gateway.serving.HEAD_SECONDS", 600)
    async with start() as lab:
        host, _, port = lab.url.removeprefix("http://").rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
        ends = [asyncio.create_task(reader.read()) for reader, _ in opened]
        async with asyncio.timeout(60):
            while sum(end.done() for end in ends) < 2:
                await asyncio.sleep(0.05)
        done, _ = await asyncio.wait(ends, timeout=1, return_when=asyncio.ALL_COMPLETED)
        assert len(done) == 2
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_an_answers_body_does_not_wait_for_its_heads_acknowledgement(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Watched(serving._Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(serving, "_Protocol", Watched)
    async with start() as lab:
        _, client = await lab.sandbox()
        assert (await client.post(PATH, json=chat("hello"))).status_code == 200
    # The provider's connection and the sandbox's.
    assert len(seen) >= 2
    assert all(seen)


async def test_a_reader_that_takes_nothing_is_cut_at_the_deadline(start: Any) -> None:
    async with start() as lab:
        lab.provider.text = ("w" * 65_536 + " ") * 300
        invocation, client = await lab.sandbox(seconds=4)
        host, _, port = lab.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps(chat(stream=True)).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        while not lab.gateway.stopped(invocation.id):
            await asyncio.sleep(0.1)
        assert lab.gateway.stopped(invocation.id) == Status.TIMED_OUT
        assert lab.gateway.usage(invocation.id)[0].output_tokens == 0
        writer.close()
        del reader


def test_a_rate_counts_the_last_minute_only() -> None:
    rate = Rate(2)
    assert [rate.take(at) for at in (0, 30, 59, 60, 61, 89, 90)] == [True, True, False, True, False, False, True]
