"""A gateway on a real port in front of a real server that speaks the providers' wire formats."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ringfence.gateway import Gateway
from ringfence.gateway.providers import Anthropic, Bedrock, OpenAI
from ringfence.gateway.serving import listening, serving
from ringfence.invocation import Invocation, Refusal, new_id

KEY = "sk-proj-THE0PROVIDERS0OWN0KEY0THAT0NOBODY0SEES"
AWS = Credentials(
    "AKIDEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "the-session-token-of-the-control-side"
)
REGION = "us-east-1"
OPENAI_MODEL, ANTHROPIC_MODEL = "gpt-4o", "claude-sonnet-4-5"
BEDROCK_MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def event_message(kind: str, payload: dict[str, Any]) -> bytes:
    """One message of an AWS event stream."""
    headers = b""
    for name, value in ((":message-type", "event"), (":event-type", kind), (":content-type", "application/json")):
        headers += (
            struct.pack("!B", len(name)) + name.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        )
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(headers) + len(body), len(headers))
    prelude += struct.pack("!I", binascii.crc32(prelude))
    return prelude + headers + body + struct.pack("!I", binascii.crc32(prelude + headers + body))


@dataclass
class Provider:
    """Plays OpenAI, Anthropic and Bedrock. usage: input and output tokens that it reports, None for none; hold: set to
    let requests that have arrived be answered; stop_after: pieces of a stream after which the connection breaks."""

    usage: tuple[int, int] | None = (1000, 100)
    status: int = 200
    error: str = "it failed"
    text: str = "hello from the model"
    gap: float = 0.0
    stop_after: int | None = None
    hold: asyncio.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.requests]

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        raw = await request.body()
        path = request.scope["raw_path"].decode()
        self.requests.append((path, dict(request.headers), raw))
        if path.startswith("/model/"):
            self._check_signature(request, path, raw)
        if self.hold is not None:
            await self.hold.wait()
        if self.status != 200:
            return JSONResponse({"error": {"message": self.error}}, self.status, self.headers)
        body = json.loads(raw)
        if path == "/v1/chat/completions":
            return self._openai(body)
        if path == "/v1/messages":
            return self._anthropic(body, body.get("stream", False), sse=True)
        if path.endswith("/converse"):
            return self._converse(streaming=False)
        if path.endswith("/converse-stream"):
            return self._converse(streaming=True)
        return self._anthropic(body, path.endswith("-stream"), sse=False)

    def _check_signature(self, request: Request, path: str, raw: bytes) -> None:
        signed = ("content-type", "accept", "x-amz-date", "x-amz-security-token")
        again = AWSRequest("POST", f"http://{request.headers['host']}{path}", {}, raw)
        for name in signed:
            if name in request.headers and not name.startswith("x-amz"):
                again.headers[name] = request.headers[name]
        auth = SigV4Auth(AWS, "bedrock", REGION)
        again.context["timestamp"] = request.headers["x-amz-date"]
        again.headers["X-Amz-Date"] = request.headers["x-amz-date"]
        again.headers["X-Amz-Security-Token"] = AWS.token
        signature = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
        if not request.headers["authorization"].endswith(f"Signature={signature}"):
            self.unsigned.append(path)

    def _stream(self, pieces: list[bytes], media: str) -> Response:
        async def sent() -> AsyncIterator[bytes]:
            for index, piece in enumerate(pieces):
                if index == self.stop_after:
                    raise ConnectionError("the provider breaks off")
                # Half-way cuts: what comes is never aligned to events.
                yield piece[: len(piece) // 2]
                await asyncio.sleep(self.gap)
                yield piece[len(piece) // 2 :]

        return StreamingResponse(sent(), media_type=media, headers=self.headers)

    def _openai(self, body: dict[str, Any]) -> Response:
        usage = self.usage and {"prompt_tokens": self.usage[0], "completion_tokens": self.usage[1]}
        head = {"id": "c1", "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": self.text}
            answer = head | {
                "object": "chat.completion",
                "created": 1,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            }
            return JSONResponse(answer | ({"usage": usage} if usage else {}), headers=self.headers)
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": part + " "}}]} for part in self.text.split()
        ]
        if usage and body.get("stream_options", {}).get("include_usage"):
            chunks.append({"choices": [], "usage": usage})
        events = [
            f"data: {json.dumps(head | {'object': 'chat.completion.chunk', 'created': 1} | chunk)}\n\n".encode()
            for chunk in chunks
        ]
        return self._stream([*events, b"data: [DONE]\n\n"], "text/event-stream")

    def _anthropic(self, body: dict[str, Any], streaming: bool, sse: bool) -> Response:
        start = {"input_tokens": self.usage[0], "output_tokens": 1} if self.usage else {}
        end = {"output_tokens": self.usage[1]} if self.usage else {}
        if not streaming:
            answer = {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "text", "text": self.text}],
                "usage": start | end,
            }
            return JSONResponse(answer, headers=self.headers)
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"usage": start}},
            *(
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": part + " "}}
                for part in self.text.split()
            ),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
            {"type": "message_stop"},
        ]
        if sse:
            return self._stream(
                [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events],
                "text/event-stream",
            )
        chunks = [{"bytes": base64.b64encode(json.dumps(event).encode()).decode()} for event in events]
        return self._stream([event_message("chunk", chunk) for chunk in chunks], "application/vnd.amazon.eventstream")

    def _converse(self, streaming: bool) -> Response:
        usage = (
            {"inputTokens": self.usage[0], "outputTokens": self.usage[1], "totalTokens": sum(self.usage)}
            if self.usage
            else {}
        )
        if not streaming:
            message = {"role": "assistant", "content": [{"text": self.text}]}
            return JSONResponse(
                {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}
            )
        messages = [
            event_message("messageStart", {"role": "assistant"}),
            *(
                event_message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": part + " "}})
                for part in self.text.split()
            ),
            event_message("messageStop", {"stopReason": "end_turn"}),
            event_message("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
        ]
        return self._stream(messages, "application/vnd.amazon.eventstream")


class Clock:
    """The time, moved by hand on top of the real one."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def forward(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@dataclass
class Lab:
    """One gateway, its address, and the provider behind it."""

    gateway: Gateway
    provider: Provider
    clock: Clock
    url: str
    recorded: list[tuple[Invocation | None, Refusal]]
    stack: AsyncExitStack

    def invocation(
        self, model: str = OPENAI_MODEL, seconds: float = 200, conversation: str = "", user: str = "ada"
    ) -> Invocation:
        now = self.clock()
        return Invocation(
            new_id(), user, "a prompt", ("web-fetch",), now, now + timedelta(seconds=seconds), conversation, model
        )

    async def client(self, token: str) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=200)
        client = httpx.AsyncClient(
            base_url=self.url, headers={"authorization": f"Bearer {token}"}, timeout=300, limits=limits
        )
        return await self.stack.enter_async_context(client)

    async def sandbox(
        self, model: str = OPENAI_MODEL, max_usd: str = "10", **invocation: Any
    ) -> tuple[Invocation, httpx.AsyncClient]:
        """An open invocation and a client with its token."""
        made = self.invocation(model, **invocation)
        return made, await self.client(self.gateway.open(made, {"prompt": made.prompt}, max_usd=Decimal(max_usd)))


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    """A body for OpenAI's shape."""
    return {"model": OPENAI_MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 1000} | more


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """An async context manager that gives a Lab; its arguments are the Gateway's."""

    @asynccontextmanager
    async def started(provider: Provider | None = None, upstreams: Any = None, **options: Any) -> AsyncIterator[Lab]:
        provider = provider or Provider()
        clock = Clock()
        recorded: list[tuple[Invocation | None, Refusal]] = []
        async with AsyncExitStack() as stack:
            host, port = await stack.enter_async_context(listening(provider.app(), "127.0.0.1"))
            base = f"http://{host}:{port}"
            made = upstreams or (
                OpenAI(lambda: KEY, base), Anthropic(lambda: KEY, base), Bedrock(lambda: AWS, REGION, base),
            )  # fmt: skip
            gateway = Gateway(
                tmp_path / "ledger.db", made, clock=clock, on_refusal=lambda *entry: recorded.append(entry), **options
            )
            stack.callback(gateway.stop)
            host, port = await stack.enter_async_context(serving(gateway, "127.0.0.1"))
            clients = await stack.enter_async_context(AsyncExitStack())
            yield Lab(gateway, provider, clock, f"http://{host}:{port}", recorded, clients)
            if provider.hold is not None:
                provider.hold.set()

    return started
