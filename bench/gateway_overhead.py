"""What the model gateway adds to a model call, beside the same call made directly.

    python -m bench.gateway_overhead [--calls 300] [--at-once 1 16]

Both go over HTTP to the same server, which answers at once in the provider's wire format; it runs in a process of its
own, and so does the gateway. Direct and through the gateway take turns, so that load on the machine meets both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bench.report import machine, write_section
from ringfence.gateway import Gateway, Limits
from ringfence.gateway.providers import OpenAI
from ringfence.gateway.serving import listening, serving
from ringfence.invocation import MAX_CONVERSATION_USD, MAX_SECONDS, Invocation, new_id

# Milliseconds that the median call may take longer (issue: gate, budget and redaction together 2 ms a tool call).
BOUND_MS = 25.0
MODEL = "gpt-4o-mini"
PATH = "/v1/chat/completions"
CHUNKS = 20
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
# Of a conversation that has gone on for a while.
TEXT = "All work and no play makes a model a dull one. " * 200


async def provider(request: Request) -> Response:
    """Answers at once, as OpenAI would."""
    body = await request.json()
    head = {"id": "c", "created": 0, "model": MODEL}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "word " * CHUNKS}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse(head | {"object": "chat.completion", "choices": [choice], "usage": USAGE})

    async def chunks() -> AsyncIterator[str]:
        for _ in range(CHUNKS):
            yield f"data: {json.dumps(head | {'choices': [{'index': 0, 'delta': {'content': 'word '}}]})}\n\n"
        yield f"data: {json.dumps(head | {'choices': [], 'usage': USAGE})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(chunks(), media_type="text/event-stream")


def serve_provider(ready: Connection) -> None:
    """Serves the provider until the other end closes."""

    async def serve() -> None:
        async with listening(Starlette(routes=[Route(PATH, provider, methods=["POST"])]), "127.0.0.1") as address:
            ready.send(address)
            await asyncio.to_thread(_closed, ready)

    asyncio.run(serve())


def serve_gateway(ready: Connection, upstream: str, ledger: Path, sessions: int) -> None:
    """Serves a gateway with open sessions until the other end closes. Sends its address and the tokens."""
    limits = Limits(calls_per_minute=10**6, calls_at_once=10**3, failures=10**6)
    gateway = Gateway(ledger, [OpenAI(lambda: "key-of-the-provider", upstream)], limits=limits)

    def token() -> str:
        now = datetime.now(UTC)
        deadline = now + timedelta(seconds=MAX_SECONDS)
        return gateway.open(
            Invocation(new_id(), "bench", "", (), now, deadline, model=MODEL), max_usd=MAX_CONVERSATION_USD
        )

    async def serve() -> None:
        async with serving(gateway, "127.0.0.1") as address:
            ready.send((address, [token() for _ in range(sessions)]))
            await asyncio.to_thread(_closed, ready)
            gateway.stop()

    asyncio.run(serve())


def _closed(connection: Connection) -> None:
    with contextlib.suppress(EOFError):
        connection.recv()


@contextlib.contextmanager
def process(target: Any, *args: Any) -> Iterator[Any]:
    """Runs a server in a process of its own; gives what it sends when it is ready."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=target, args=(theirs, *args), daemon=True)
    child.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        child.join(15)


async def once(client: httpx.AsyncClient, number: int, streaming: bool) -> float:
    """Seconds of one call, until its last byte."""
    body = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": f"{number} {TEXT}"}]}
    began = time.perf_counter()
    response = await client.post(PATH, json=body | ({"stream": True} if streaming else {}))
    taken = time.perf_counter() - began
    if response.status_code != 200 or b"word" not in response.content:
        raise RuntimeError(f"HTTP {response.status_code}: {response.text[:200]}")
    return taken


async def measure(
    direct: str, through: str, tokens: list[str], calls: int, at_once: int
) -> dict[tuple[str, bool], list[float]]:
    """Seconds of each call by way and by streaming. The ways take turns in blocks of `at_once` calls."""
    taken: dict[tuple[str, bool], list[float]] = {}
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=direct, limits=limits) as plain, contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=through, limits=limits, headers={"authorization": f"Bearer {token}"}, timeout=30
                )
            )
            for token in tokens
        ]
        number = 0
        for block in range(-2, calls // at_once):
            for streaming in (False, True):
                for way in ("direct", "gateway"):
                    numbers = range(number, number + at_once)
                    number += at_once
                    pick = [plain] * at_once if way == "direct" else [clients[n % len(clients)] for n in numbers]
                    times = await asyncio.gather(*(once(c, n, streaming) for c, n in zip(pick, numbers, strict=True)))
                    # The first blocks open connections.
                    if block >= 0:
                        taken.setdefault((way, streaming), []).extend(times)
    return taken


def percentile(times: list[float], share: int) -> float:
    """Milliseconds."""
    return statistics.quantiles(times, n=100, method="inclusive")[share - 1] * 1000


def main() -> None:
    """Measures, writes the section, and exits with 1 when the bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300, help="of each kind")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    lines = [
        machine(),
        "",
        f"{options.calls} calls of each kind with {len(TEXT) // 1000} kB of text to a server that answers at once, in ms:",
        "",
        "| calls at once | answer | direct p50 | p99 | gateway p50 | p99 | added p50 | added p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    added = Decimal(0)
    with tempfile.TemporaryDirectory() as folder, process(serve_provider) as (host, port):
        direct = f"http://{host}:{port}"
        for at_once in options.at_once:
            ledger = Path(folder) / f"{at_once}.sqlite"
            with process(serve_gateway, direct, ledger, 20) as ((gateway_host, gateway_port), tokens):
                through = f"http://{gateway_host}:{gateway_port}"
                taken = asyncio.run(measure(direct, through, tokens, options.calls, at_once))
            for streaming in (False, True):
                first, second = taken["direct", streaming], taken["gateway", streaming]
                row = [percentile(times, share) for times in (first, second) for share in (50, 99)]
                lines.append(
                    f"| {at_once} | {'stream' if streaming else 'whole'} | "
                    + " | ".join(f"{value:.1f}" for value in (*row, row[2] - row[0], row[3] - row[1]))
                    + " |"
                )
                if at_once == options.at_once[0]:
                    added = max(added, Decimal(row[2] - row[0]))
    met = added <= Decimal(BOUND_MS)
    lines += [
        "",
        f"- {'met' if met else 'MISSED'}: one call at a time takes {added:.1f} ms longer in the median (bound {BOUND_MS:g} ms);"
        " each reservation and settlement is on disk (`synchronous=FULL`)",
    ]
    write_section("What the model gateway adds to a call", lines)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
