"""Each API's shape, streaming and not, through the gateway to a provider that speaks its wire format."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import boto3
import openai
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer

from ringfence.invocation import Usage

pytestmark = pytest.mark.anyio
MESSAGES = [{"role": "user", "content": "hi"}]
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": 500}}
BEDROCK = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
INVOKE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 500, "messages": MESSAGES}
SHAPES: dict[str, tuple[str, str, dict[str, Any], Decimal]] = {
    # Price of 1,000 input and 100 output tokens of the model.
    "openai": ("gpt-4o", "/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES}, Decimal("0.0035")),
    "openai-stream": ("gpt-4o", "/v1/chat/completions", {"model": "gpt-4o", "messages": MESSAGES, "stream": True}, Decimal("0.0035")),
    "anthropic": ("claude-sonnet-4-5", "/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 500, "messages": MESSAGES}, Decimal("0.0045")),
    "anthropic-stream": (
        "claude-sonnet-4-5", "/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 500, "messages": MESSAGES, "stream": True}, Decimal("0.0045"),
    ),
    "converse": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", f"{BEDROCK}/converse", CONVERSE, Decimal("0.00495")),
    "converse-stream": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", f"{BEDROCK}/converse-stream", CONVERSE, Decimal("0.00495")),
    "invoke": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", f"{BEDROCK}/invoke", INVOKE, Decimal("0.00495")),
    "invoke-stream": ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", f"{BEDROCK}/invoke-with-response-stream", INVOKE, Decimal("0.00495")),
}  # fmt: skip


def said(content: bytes, media: str) -> str:
    """The model's text in a response, whatever its format."""
    if media == "application/vnd.amazon.eventstream":
        buffer = EventStreamBuffer()
        buffer.add_data(content)
        return " ".join(json.dumps(json.loads(message.payload)) for message in buffer)
    return content.decode()


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_answer_passes_through_and_is_settled_by_the_reported_usage(start: Any, shape: str) -> None:
    model, path, body, cost = SHAPES[shape]
    async with start() as lab:
        invocation, client = await lab.sandbox(model)
        response = await client.post(path, json=body)
        assert response.status_code == 200, response.text
        media = response.headers["content-type"]
        text = said(response.content, media)
        assert "hello" in text or "aGVsbG" in text or "bytes" in text
        assert lab.gateway.usage(invocation.id) == (Usage(1000, 100, 1, 0), cost)
        assert not lab.provider.unsigned
        assert lab.gateway.conversations()[0].reserved_usd == 0


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "stream" in shape])
async def test_a_stream_arrives_while_the_provider_still_writes(start: Any, shape: str) -> None:
    model, path, body, _ = SHAPES[shape]
    async with start() as lab:
        lab.provider.gap = 0.05
        _, client = await lab.sandbox(model)
        async with client.stream("POST", path, json=body) as response:
            pieces = [piece async for piece in response.aiter_raw()]
        assert len(pieces) > 2


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if "stream" in shape])
async def test_a_stream_that_breaks_off_counts_in_full(start: Any, shape: str) -> None:
    model, path, body, cost = SHAPES[shape]
    async with start() as lab:
        lab.provider.stop_after = 2
        invocation, client = await lab.sandbox(model)
        response = await client.post(path, json=body)
        assert "upstream_failed" in said(response.content, response.headers["content-type"])
        usage, spent = lab.gateway.usage(invocation.id)
        assert spent > cost
        assert usage.output_tokens == 0


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_answer_without_usage_counts_in_full(start: Any, shape: str) -> None:
    model, path, body, cost = SHAPES[shape]
    async with start() as lab:
        lab.provider.usage = None
        invocation, client = await lab.sandbox(model)
        response = await client.post(path, json=body)
        assert response.status_code == 200
        assert lab.gateway.usage(invocation.id)[1] > cost


async def test_a_stream_asks_for_usage_and_hides_it_from_who_did_not(start: Any) -> None:
    async with start() as lab:
        invocation, client = await lab.sandbox()
        body = {"model": "gpt-4o", "messages": MESSAGES, "stream": True}
        without = await client.post("/v1/chat/completions", json=body)
        asking = body | {"stream_options": {"include_usage": True}}
        with_usage = await client.post("/v1/chat/completions", json=asking)
        assert '"usage"' not in without.text
        assert without.text.endswith("data: [DONE]\n\n")
        assert '"usage"' in with_usage.text
        assert all(sent["stream_options"] == {"include_usage": True} for sent in lab.provider.bodies)
        assert lab.gateway.usage(invocation.id)[0].output_tokens == 200


async def test_a_limit_and_the_standard_tier_are_always_forwarded(start: Any) -> None:
    async with start() as lab:
        for shape in ("openai", "converse"):
            model, path, body, _ = SHAPES[shape]
            _, client = await lab.sandbox(model)
            body = {key: value for key, value in body.items() if key != "inferenceConfig"}
            assert (await client.post(path, json=body)).status_code == 200
        model, path, body, _ = SHAPES["anthropic"]
        _, client = await lab.sandbox(model)
        await client.post(path, json={key: value for key, value in body.items() if key != "max_tokens"})
        first, second, third = lab.provider.bodies
        assert (first["max_completion_tokens"], first["service_tier"]) == (4096, "default")
        assert second["inferenceConfig"] == {"maxTokens": 4096}
        assert (third["max_tokens"], third["service_tier"]) == (4096, "standard_only")


async def test_openais_own_client_works_against_the_gateway(start: Any) -> None:
    async with start() as lab:
        _, plain = await lab.sandbox()
        token = plain.headers["authorization"].removeprefix("Bearer ")
        async with openai.AsyncOpenAI(api_key=token, base_url=f"{lab.url}/v1", max_retries=0) as client:
            whole = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
            assert whole.choices[0].message.content == "hello from the model"
            stream = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
            assert "".join([chunk.choices[0].delta.content async for chunk in stream]) == "hello from the model "
            with pytest.raises(openai.PermissionDeniedError, match="may not use this model"):
                await client.chat.completions.create(model="gpt-4.1", messages=MESSAGES)


async def test_botos_own_client_works_against_the_gateway(start: Any) -> None:
    async with start() as lab:
        model = SHAPES["converse"][0]
        _, plain = await lab.sandbox(model)
        config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1})
        client = boto3.client("bedrock-runtime", region_name="eu-west-1", endpoint_url=lab.url, config=config)

        # boto3's own bearer tokens need TLS.
        def authorize(request: Any, **_: Any) -> None:
            request.headers["Authorization"] = plain.headers["authorization"]

        client.meta.events.register("before-sign.bedrock-runtime", authorize)

        def talk() -> tuple[str, str]:
            whole = client.converse(modelId=model, **CONVERSE)["output"]["message"]["content"][0]["text"]
            stream = client.converse_stream(modelId=model, **CONVERSE)["stream"]
            parts = [event["contentBlockDelta"]["delta"]["text"] for event in stream if "contentBlockDelta" in event]
            with pytest.raises(client.exceptions.ClientError, match="may not use this model"):
                client.converse(modelId="amazon.nova-pro-v1:0", **CONVERSE)
            return whole, "".join(parts)

        assert await asyncio.to_thread(talk) == ("hello from the model", "hello from the model ")
