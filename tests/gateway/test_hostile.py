"""What a hostile sandbox may try: foreign tokens and models, bodies that two readers understand differently, dear fields."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from decimal import Decimal
from typing import Any

import httpx
import pytest

from ringfence.gateway import Limits, Refused
from ringfence.gateway.request import MAX_BODY_BYTES
from tests.gateway.conftest import AWS, BEDROCK_MODEL, KEY, chat

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"
# For tests that fail on purpose more often than the breaker allows.
PATIENT = Limits(failures=1000, calls_per_minute=1000, posts_per_minute=1000)
IMAGE = "data:image/png;base64,iVBORw0KGgo="


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def claude(**more: Any) -> dict[str, Any]:
    return {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]} | more


def nova(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"text": "hi"}]}]} | more


@pytest.mark.parametrize("headers", [
    {}, {"authorization": "Bearer"}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic {token}"},
    {"authorization": "{token}"}, {"x-api-key": "nonsense"}, {"authorization": "Bearer x", "x-api-key": "{token}"},
    {"cookie": "token={token}"},
])  # fmt: skip
async def test_without_the_invocations_token_nothing_is_answered(start: Any, headers: dict[str, str]) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        token = client.headers["authorization"].removeprefix("Bearer ")
        shown = {name: value.replace("{token}", token) for name, value in headers.items()}
        async with httpx.AsyncClient(base_url=lab.url, headers=shown) as stranger:
            for method, path in (
                ("POST", PATH),
                ("GET", "/v1/assignment"),
                ("POST", "/v1/events"),
                ("POST", "/v1/result"),
            ):
                response = await stranger.request(method, path, json=chat())
                assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
        assert (await client.post(PATH, json=chat())).status_code == 200
        assert len(lab.provider.requests) == 1


async def test_anthropics_header_carries_the_token_too(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox("claude-sonnet-4-5")
        token = client.headers["authorization"].removeprefix("Bearer ")
        async with httpx.AsyncClient(base_url=lab.url, headers={"x-api-key": token}) as sdk:
            assert (await sdk.post("/v1/messages", json=claude())).status_code == 200


async def test_a_token_is_good_for_its_own_invocation_and_model_alone(start: Any) -> None:
    async with start() as lab:
        first_invocation, first = await lab.sandbox()
        second_invocation, second = await lab.sandbox("claude-sonnet-4-5")
        assert (await second.post(PATH, json=chat())).status_code == 403
        assert (await first.post("/v1/messages", json=claude())).status_code == 403
        assert (await first.get("/v1/assignment")).json() == {"prompt": "a prompt"}
        assert (await first.post("/v1/result", json={"status": "succeeded"})).status_code == 202
        assert not lab.gateway.sessions.of(second_invocation.id).result.is_set
        lab.gateway.close(first_invocation.id)
        assert (await first.post(PATH, json=chat())).status_code == 401
        assert (await second.post("/v1/messages", json=claude())).status_code == 200


async def test_tokens_have_256_bits_and_are_not_kept(start: Any) -> None:
    async with start() as lab:
        token = lab.gateway.open(lab.invocation())
        assert len(token) >= 43
        session = lab.gateway.sessions.by_token(token)
        assert token not in repr(vars(session)) + repr(vars(lab.gateway.sessions))
        assert token not in (lab.gateway.books.ledger.path).read_bytes().decode("latin-1")


@pytest.mark.parametrize("model", ["gpt-4o-mini", "GPT-4o", "gpt-4o ", "gpt-4.1", "scripted", "no-such-model"])
async def test_every_other_model_is_refused(start: Any, model: str) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        response = await client.post(PATH, json=chat(model=model))
        assert (response.status_code, response.json()["error"]["code"]) == (403, "model_unknown")
        assert not lab.provider.requests


@pytest.mark.parametrize("model", ["", "no-such-model", "text-embedding-3-small", "whisper-1", "scripted"])
async def test_a_model_without_a_price_per_token_opens_no_session(start: Any, model: str) -> None:
    async with start() as lab:
        with pytest.raises(Refused) as caught:
            lab.gateway.open(lab.invocation(model))
        assert caught.value.refusal.code == "model_unknown"
        assert lab.gateway.conversations() == []


DEAR: list[tuple[str, dict[str, Any]]] = [
    ("gpt-4o", chat(service_tier="priority")),
    ("gpt-4o", chat(service_tier="auto")),
    ("gpt-4o", chat(store=True)),
    ("gpt-4o", chat(web_search_options={})),
    ("gpt-4o", chat(prediction={"type": "content", "content": "x"})),
    ("gpt-4o", chat(modalities=["text", "audio"])),
    ("gpt-4o", chat(audio={"voice": "x"})),
    ("gpt-4o", chat(tools=[{"type": "web_search"}])),
    ("gpt-4o", chat(tools=[{"type": "function", "function": {"name": "x"}, "extra": 1}])),
    ("gpt-4o", chat(**user({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}))),
    ("gpt-4o", chat(**user({"type": "image_url", "image_url": {"url": "data:application/pdf;base64,AAAA"}}))),
    ("gpt-4o", chat(**user({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}))),
    ("gpt-4o", chat(**user({"type": "file", "file": {"file_id": "f"}}))),
    ("gpt-4o", chat(max_completion_tokens=5)),
    ("gpt-4o", chat(max_tokens=0)),
    ("gpt-4o", chat(max_tokens=-1)),
    ("gpt-4o", chat(max_tokens=True)),
    ("gpt-4o", chat(max_tokens=1.5)),
    ("gpt-4o", chat(max_tokens="10")),
    ("gpt-4o", chat(max_tokens=10**30)),
    ("gpt-4o", chat(n=0)),
    ("gpt-4o", chat(n="2")),
    ("gpt-4o", chat(stream=1)),
    ("gpt-4o", chat(stream="true")),
    ("gpt-4o", chat(Max_Tokens=5)),
    ("gpt-4o", chat(unheard_of=1)),
    ("gpt-4o", chat(messages="hi")),
    ("gpt-4o", chat(messages=[["role", "user"]])),
    ("gpt-4o", {"model": "gpt-4o"}),
    ("gpt-4o", chat(model=["gpt-4o"])),
    ("claude-sonnet-4-5", claude(service_tier="auto")),
    ("claude-sonnet-4-5", claude(inference_geo="us")),
    ("claude-sonnet-4-5", claude(speed="fast")),
    ("claude-sonnet-4-5", claude(tools=[{"type": "web_search_20250305", "name": "web_search"}])),
    ("claude-sonnet-4-5", claude(tools=[{"type": "code_execution_20250825", "name": "code_execution"}])),
    ("claude-sonnet-4-5", claude(mcp_servers=[])),
    ("claude-sonnet-4-5", claude(container="c")),
    ("claude-sonnet-4-5", claude(thinking={"type": "enabled", "budget_tokens": 100})),
    ("claude-sonnet-4-5", claude(thinking={"type": "enabled"})),
    ("claude-sonnet-4-5", claude(**user({"type": "document", "source": {"type": "base64", "data": "AAAA"}}))),
    (
        "claude-sonnet-4-5",
        claude(**user({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}})),
    ),
    ("claude-sonnet-4-5", claude(**user({"type": "image", "source": {"type": "base64", "data": "no base64!"}}))),
    (
        "claude-sonnet-4-5",
        claude(**user({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "7d"}})),
    ),
    ("claude-sonnet-4-5", claude(max_tokens=None, unheard_of=None)),
    (BEDROCK_MODEL, nova(additionalModelRequestFields={"max_tokens": 10**6})),
    (BEDROCK_MODEL, nova(guardrailConfig={"guardrailIdentifier": "g"})),
    (BEDROCK_MODEL, nova(performanceConfig={"latency": "optimized"})),
    (BEDROCK_MODEL, nova(serviceTier={"type": "priority"})),
    (BEDROCK_MODEL, nova(promptVariables={})),
    (BEDROCK_MODEL, nova(inferenceConfig={"maxTokens": 10, "maxOutput": 9})),
    (BEDROCK_MODEL, nova(inferenceConfig=[])),
    (BEDROCK_MODEL, nova(messages=[{"role": "user", "content": [{"document": {"name": "d"}}]}])),
    (
        BEDROCK_MODEL,
        nova(messages=[{"role": "user", "content": [{"image": {"format": "png", "source": {"s3Location": {}}}}]}]),
    ),
]
ROUTES = {"gpt-4o": PATH, "claude-sonnet-4-5": "/v1/messages", BEDROCK_MODEL: f"/model/{BEDROCK_MODEL}/converse"}


async def test_a_field_that_could_cost_more_than_was_reserved_is_refused(start: Any) -> None:
    async with start(limits=PATIENT) as lab:
        opened = {model: await lab.sandbox(model) for model in ROUTES}
        for model, body in DEAR:
            invocation, client = opened[model]
            response = await client.post(ROUTES[model], json=body)
            assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request"), body
            assert not lab.provider.requests
            assert lab.gateway.usage(invocation.id)[1] == 0


@pytest.mark.parametrize(("model", "body"), [
    ("gpt-4o", chat(service_tier="default", store=False, n=2, tools=[{"type": "function", "function": {"name": "x"}}], user=None)),
    ("gpt-4o", chat(**user({"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": IMAGE}}))),
    ("claude-sonnet-4-5", claude(service_tier="standard_only", tools=[{"name": "x", "input_schema": {}}], system="be brief")),
    ("claude-sonnet-4-5", claude(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024})),
    ("claude-sonnet-4-5", claude(**user({"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}))),
    ("claude-sonnet-4-5", claude(**user({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]}))),
    (BEDROCK_MODEL, nova(system=[{"text": "x"}, {"cachePoint": {"type": "default"}}], toolConfig={"tools": [{"toolSpec": {"name": "x"}}]})),
])  # fmt: skip
async def test_what_agents_really_send_passes(start: Any, model: str, body: dict[str, Any]) -> None:
    async with start() as lab:
        _, client = await lab.sandbox(model)
        response = await client.post(ROUTES[model], json=body)
        assert response.status_code == 200, response.text


MALFORMED = [
    b"", b"null", b"[]", b'"text"', b"{", b"\xff\xfe{}", b'{"model": NaN}', b"[" * 100_000, b'{"a":' * 50_000,
    b'{"model":"gpt-4o","messages":[],"max_tokens":' + b"9" * 5000 + b"}",
]  # fmt: skip


async def test_a_malformed_body_is_an_answer_and_no_crash(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with start(limits=PATIENT) as lab:
        _, client = await lab.sandbox()
        for path, body in itertools.product((PATH, "/v1/result"), MALFORMED):
            response = await client.post(path, content=body)
            assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")
        assert not lab.provider.requests
        assert "Traceback" not in caplog.text


async def test_of_doubled_keys_the_provider_sees_the_one_that_was_priced(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        raw = b'{"model":"gpt-4o","max_tokens":900000,"messages":[],"max_tokens":10}'
        assert (await client.post(PATH, content=raw)).status_code == 200
        (_, _, forwarded), *_ = lab.provider.requests
        assert forwarded.count(b"max_tokens") == 1
        assert lab.provider.bodies[0]["max_tokens"] == 10


async def test_a_body_above_the_limit_is_refused_however_it_is_sent(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        too_much = b'{"a":"' + b"x" * MAX_BODY_BYTES + b'"}'

        async def chunked() -> Any:
            for offset in range(0, len(too_much), 100_000):
                yield too_much[offset : offset + 100_000]

        for content in (too_much, chunked()):
            try:
                response = await client.post(PATH, content=content)
            except httpx.WriteError:
                continue
            assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
        assert not lab.provider.requests
        assert (await client.post(PATH, json=chat("x" * 1_000_000, max_tokens=1))).status_code == 200


async def test_a_compressed_body_is_refused(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        response = await client.post(PATH, content=b"x", headers={"content-encoding": "gzip"})
        assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_encoding")


async def test_text_that_grows_when_it_is_tokenized_is_priced_grown(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox(max_usd="0.02")
        # U+FDFA is 3 bytes, and 33 in its compatibility form.
        assert (await client.post(PATH, json=chat("\ufdfa" * 200, max_tokens=1))).status_code == 402
        assert (await client.post(PATH, json=chat("abc" * 200, max_tokens=1))).status_code == 200


NOWHERE = [
    ("GET", "/"), ("GET", "/metrics"), ("GET", "/docs"), ("POST", "/v1/embeddings"), ("POST", "/v1/responses"), ("GET", "/v1/models"),
    ("POST", "/v1/batches"), ("POST", "/v1/chat/completions/"), ("POST", "/v1/messages/batches"), ("POST", "/model/x/count-tokens"),
    ("POST", "//v1/chat/completions"), ("POST", "/v1/../v1/chat/completions/x"), ("POST", "/v1/messages/count_tokens"),
]  # fmt: skip


async def test_no_other_path_exists(start: Any) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        for method, path in NOWHERE:
            response = await client.request(method, f"{lab.url}{path}", json=chat())
            assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
        assert not lab.provider.requests


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("PUT", PATH), ("HEAD", "/v1/assignment"), ("POST", "/v1/assignment"), ("GET", "/v1/result")],
)
async def test_other_methods_are_refused_and_take_nothing(start: Any, method: str, path: str) -> None:
    async with start() as lab:
        _, client = await lab.sandbox()
        assert (await client.request(method, path)).status_code == 405
        assert (await client.get("/v1/assignment")).status_code == 200


async def test_only_listed_headers_travel_in_either_direction(start: Any) -> None:
    async with start() as lab:
        lab.provider.headers = {
            "set-cookie": "a=b",
            "openai-organization": "acme",
            "x-request-id": "r1",
            "x-ratelimit-remaining-requests": "5",
        }
        _, client = await lab.sandbox()
        evil = {
            "x-evil": "1",
            "openai-organization": "other",
            "openai-beta": "x",
            "cookie": "c",
            "x-forwarded-for": "1.2.3.4",
            "user-agent": "evil",
        }
        response = await client.post(PATH, json=chat(), headers=evil)
        assert response.headers["x-request-id"] == "r1"
        assert not {"set-cookie", "openai-organization", "x-ratelimit-remaining-requests", "server"} & set(
            response.headers
        )
        _, headers, _ = lab.provider.requests[0]
        assert headers["authorization"] == f"Bearer {KEY}"
        assert not {"x-evil", "openai-organization", "openai-beta", "cookie", "x-forwarded-for"} & set(headers)
        assert "evil" not in headers.get("user-agent", "")
        _, other = await lab.sandbox("claude-sonnet-4-5")
        await other.post(
            "/v1/messages", json=claude(), headers={"anthropic-version": "2023-06-01", "anthropic-beta": "x"}
        )
        _, headers, _ = lab.provider.requests[1]
        assert headers["anthropic-version"] == "2023-06-01"
        assert "anthropic-beta" not in headers


@pytest.mark.parametrize("model", list(ROUTES))
async def test_the_providers_key_appears_nowhere(start: Any, model: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="botocore")
    secrets = (KEY, AWS.secret_key, AWS.token)
    async with start(limits=PATIENT) as lab:
        lab.provider.error = f"Incorrect API key provided: {KEY}; {AWS.secret_key} {AWS.token}"
        invocation, client = await lab.sandbox(model)
        body = {"gpt-4o": chat(), "claude-sonnet-4-5": claude(), BEDROCK_MODEL: nova()}[model]
        seen = []
        for status in (400, 401, 403, 404, 429, 500, 200):
            lab.provider.status = status
            response = await client.post(ROUTES[model], json=body)
            assert (response.status_code == 200) is (status == 200)
            seen += [response.text, str(response.headers)]
        lab.gateway.close(invocation.id)
        seen += [
            caplog.text, repr(lab.recorded), lab.gateway.metrics.text(lab.gateway.conversations()),
            repr([event async for event in lab.gateway.events(invocation.id)]),
            lab.gateway.books.ledger.path.read_bytes().decode("latin-1"),
        ]  # fmt: skip
        assert not [secret for secret in secrets for text in seen if secret in text]
        sent = "".join(str(headers) for _, headers, _ in lab.provider.requests)
        assert any(secret in sent for secret in secrets), "the provider itself must get it"


async def test_a_token_and_a_prompt_are_in_no_log(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with start() as lab:
        _, client = await lab.sandbox()
        await client.post(PATH, json=chat("a very private question"))
        await client.post(PATH, content=b'{"a very private question')
        ours = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpcore"))
        assert client.headers["authorization"].removeprefix("Bearer ") not in ours
        assert "private" not in ours


async def test_refusals_are_recorded_with_their_invocation_and_bounded(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        for number in range(150):
            await client.post("/v1/result", content=b"{" + str(number).encode())
        async with httpx.AsyncClient(base_url=lab.url) as stranger:
            await stranger.post(PATH)
        assert len(lab.gateway.refusals(invocation.id)) == 100
        lab.gateway._recorder.submit(lambda: None).result()
        codes = [(made.id if made else None, refusal.code) for made, refusal in lab.recorded]
        assert codes.count((invocation.id, "invalid_request")) == 100
        assert codes[-1] == (None, "unauthorized")


async def test_an_attack_of_everything_at_once_keeps_the_books(start: Any) -> None:
    """Fifty connections: streams, cuts, garbage, foreign models, giant limits. The cap holds and every call is accounted."""
    async with start() as lab:
        lab.provider.usage = (2000, 30_000)
        invocation, client = await lab.sandbox()

        async def one(number: int) -> None:
            body = chat(f"{number}", max_tokens=30_000 if number % 3 else 100_000, stream=number % 2 == 0)
            if number % 7 == 0:
                await client.post(PATH, content=b"{")
            elif number % 5 == 0:
                async with client.stream("POST", PATH, json=body) as response:
                    async for _ in response.aiter_raw():
                        break
            else:
                await client.post(PATH, json=body)

        await asyncio.gather(*(one(number) for number in range(50)))
        while lab.gateway.conversations()[0].reserved_usd:
            await asyncio.sleep(0.02)
        _, cost = lab.gateway.usage(invocation.id)
        assert Decimal(0) < cost <= 10
        assert json.loads(json.dumps(lab.provider.bodies[0]))["model"] == "gpt-4o"
