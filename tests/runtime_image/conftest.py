"""The runtime on sys.path, as the image has it, and a gateway that plays a script over real HTTP."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "runtime-image"
sys.path[:0] = [str(SOURCE), str(Path(__file__).with_name("support"))]

TOKEN = "session-token-of-the-test-0123456789"


@dataclass
class ScriptedGateway:
    """Answers model calls from `steps`, in order, and keeps whatever the sandbox sends. results: what becomes of each post
    of a result before it is taken: ``cut`` off unread, ``lost``, which is taken and cut off, or a status to refuse it with."""

    url: str = ""
    steps: list[Any] = field(default_factory=list)
    assignment: dict[str, Any] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    results: list[str | int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        self.steps.append({"content": text})

    def call(self, name: str, arguments: object) -> None:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        call = {"id": f"call-{len(self.steps)}", "type": "function", "function": {"name": name, "arguments": text}}
        self.steps.append({"content": None, "tool_calls": [call]})

    def refuse(self, status: int, code: str) -> None:
        self.steps.append((status, code))

    def answers(self) -> list[str]:
        """What the tools' answers were, as the model saw them last."""
        return [item["content"] for item in self.requests[-1]["messages"] if item["role"] == "tool"]


def _handler(gateway: ScriptedGateway) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def _send(self, status: int, value: object = None) -> None:
            data = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            for name, text in gateway.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self._send(401, {"error": {"code": "unauthorized", "message": "bad token"}})
            given, gateway.assignment = gateway.assignment, None
            return self._send(200 if given else 204, given)

        def _result(self, body: bytes) -> None:
            fate = gateway.results.pop(0) if gateway.results else 202
            if fate in ("lost", 202):
                taken, gateway.result = gateway.result is None, gateway.result or json.loads(body)
                fate = fate if taken else 409
            if isinstance(fate, int):
                return self._send(fate, {"error": {"code": "scripted", "message": "scripted"}})
            self.close_connection = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self._send(401, {"error": {"code": "unauthorized", "message": "bad token"}})
            if self.path == "/v1/events":
                gateway.events += [json.loads(line) for line in body.splitlines()]
                return self._send(202)
            if self.path == "/v1/result":
                return self._result(body)
            gateway.requests.append(json.loads(body))
            step = gateway.steps.pop(0) if gateway.steps else (500, "script_over")
            if isinstance(step, tuple):
                return self._send(step[0], {"error": {"code": step[1], "message": "scripted"}})
            usage = {"prompt_tokens": 100, "completion_tokens": 20}
            return self._send(200, {"choices": [{"message": {"role": "assistant", **step}}], "usage": usage})

    return Handler


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    scripted = ScriptedGateway()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(scripted))
    scripted.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield scripted
    server.shutdown()
    server.server_close()
    thread.join()
