"""The guard by itself: what an application fails after its body arrived is never taken for a body that didn't arrive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ringfence.redaction import Redactor
from ringfence.service.guard import Guard
from ringfence.service.metrics import Metrics
from ringfence.service.problems import ApiError

SCOPE = {"type": "http", "method": "POST", "path": "/v1/invocations", "headers": [(b"content-length", b"2")]}


def conversation(app: Any, body_delay: float = 0.0) -> tuple[list[dict[str, Any]], Metrics, BaseException | None]:
    """What was sent, what was counted, and what reached the server."""
    sent: list[dict[str, Any]] = []
    metrics = Metrics()

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(body_delay)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def run() -> BaseException | None:
        try:
            await Guard(app, metrics, Redactor(), body_s=0.2)(dict(SCOPE), receive, send)
        except Exception as error:
            return error
        return None

    return sent, metrics, asyncio.run(run())


def failing(error: Exception) -> Any:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise error

    return app


@pytest.mark.parametrize(
    "error", [TimeoutError("of a tool"), ApiError(409, "conflict", "x"), ValueError("x")], ids=repr
)
def test_an_answer_that_broke_off_gets_no_second_head(error: Exception):
    sent, metrics, raised = conversation(failing(error))
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [200]
    assert b"body_too_slow" not in b"".join(message.get("body", b"") for message in sent)
    assert isinstance(raised, ConnectionAbortedError)
    assert 'status="200"' in metrics.text(0, 0, False)
    assert 'status="408"' not in metrics.text(0, 0, False)


def test_a_body_that_is_late_is_still_answered_with_408():
    sent, metrics, raised = conversation(failing(ValueError("never reached")), body_delay=5)
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [408]
    assert raised is None
    assert 'status="408"' in metrics.text(0, 0, False)
