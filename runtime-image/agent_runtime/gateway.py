"""The sandbox's only counterpart: the model gateway on the control side, over plain HTTP/1.1 inside the fence.

Needs nothing beyond the standard library: importing an HTTP library would cost more than the whole call.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from agent_runtime.errors import GatewayError

# The gateway's own bound on a body; an answer above it is refused unread.
MAX_BODY_BYTES = 8 << 20
MAX_OUTPUT_BYTES = 1 << 20
# The gateway answers a long poll after at most 60 s.
POLL_TIMEOUT_S = 75.0
SHORT_TIMEOUT_S = 15.0


class GatewayClient:
    """Calls of one session. Every method opens its own connection, so that threads can share the client.

    url: ``http://host:port``; token: the session's bearer token, never shown. Raises ValueError for another URL.
    """

    def __init__(self, url: str, token: str):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"gateway URL {url!r} | write http://host:port")
        self._https = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._token = token

    def chat(self, body: Mapping[str, Any], timeout: float, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One chat completion in OpenAI's shape, not streamed. timeout: seconds. Raises GatewayError."""
        return self._object(*self._call("POST", "/v1/chat/completions", json.dumps(body).encode(), timeout, headers))

    def messages(
        self, body: Mapping[str, Any], timeout: float, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One call in the shape of Anthropic's Messages, not streamed. Raises GatewayError."""
        return self._object(*self._call("POST", "/v1/messages", json.dumps(body).encode(), timeout, headers))

    def converse(
        self, model: str, body: Mapping[str, Any], timeout: float, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """One call in the shape of Bedrock's Converse. Raises GatewayError."""
        path = f"/model/{quote(model, safe='')}/converse"
        return self._object(*self._call("POST", path, json.dumps(body).encode(), timeout, headers))

    def assignment(self, timeout: float = POLL_TIMEOUT_S) -> dict[str, Any] | None:
        """What this sandbox shall do; None when there is nothing yet. Raises GatewayError."""
        status, answer, wait = self._call("GET", "/v1/assignment", None, timeout)
        return None if status == 204 else self._object(status, answer, wait)

    def events(self, events: Iterable[Mapping[str, Any]], timeout: float = SHORT_TIMEOUT_S) -> None:
        """Hands over events, one JSON object a line. Raises GatewayError."""
        body = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode()
        self._check(*self._call("POST", "/v1/events", body, timeout, {"Content-Type": "application/x-ndjson"}))

    def result(self, output: str, status: str, error: str = "", timeout: float = SHORT_TIMEOUT_S) -> None:
        """Hands the result over; an output above 1 MiB is cut at a character. Raises GatewayError."""
        cut = output.encode()[:MAX_OUTPUT_BYTES].decode(errors="ignore")
        body = json.dumps({"output": cut, "status": status, "error": error[:2000]}).encode()
        self._check(*self._call("POST", "/v1/result", body, timeout))

    def _call(
        self, method: str, path: str, body: bytes | None, timeout: float, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, float | None]:
        """Status, body, and how long to wait before another try."""
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=max(timeout, 0.001))
        sent = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json", **(headers or {})}
        try:
            connection.request(method, self._prefix + path, body, sent)
            answer = connection.getresponse()
            data = answer.read(MAX_BODY_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise GatewayError(
                0, "gateway_unreachable", f"the gateway did not answer: {type(error).__name__}"
            ) from None
        finally:
            connection.close()
        if len(data) > MAX_BODY_BYTES:
            raise GatewayError(answer.status, "answer_too_large", f"the answer exceeds {MAX_BODY_BYTES} bytes")
        return answer.status, data, _seconds(answer.getheader("Retry-After"))

    def _object(self, status: int, answer: bytes, wait: float | None = None) -> dict[str, Any]:
        self._check(status, answer, wait)
        try:
            value = json.loads(answer)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise GatewayError(status, "answer_invalid", "the gateway's answer is no JSON object")
        return value

    @staticmethod
    def _check(status: int, answer: bytes, wait: float | None = None) -> None:
        if 200 <= status < 300:
            return
        code, message = "http_error", f"the gateway answered {status}"
        try:
            error = json.loads(answer)["error"]
            code, message = str(error["code"]), str(error["message"])[:500]
        except (ValueError, KeyError, TypeError):
            # Not the gateway's own form of an error: its text may be anything and isn't repeated.
            pass
        raise GatewayError(status, code, message, wait)


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; None without one, and for a date, which no model API sends."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None
