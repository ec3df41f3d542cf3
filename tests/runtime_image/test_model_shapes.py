"""The built-in agent against models of three APIs: through the real gateway, to a server that speaks each wire format."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from agent_runtime.shapes import SHAPES
from botocore.credentials import Credentials
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ringfence.catalog import load
from ringfence.gateway import Gateway
from ringfence.gateway.errors import Refused
from ringfence.gateway.providers import Anthropic, Bedrock, OpenAI
from ringfence.gateway.serving import listening, serving
from ringfence.invocation import Invocation, Usage, new_id
from ringfence.names import Names
from ringfence.runner.executor import Fit
from ringfence.runner.lifecycle import Work, assignment_of, unit_of

ROOT = Path(__file__).parents[2]
NAMES = Names(prefix="acme", environment="dev", account_id="123456789012", region="eu-west-1")
AWS = Credentials("AKIDEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "a-token")
MODELS = {
    "openai": "gpt-4o",
    "anthropic": "claude-sonnet-4-5",
    "bedrock-converse": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
}
URL = {"url": "https://docs.python.org/3/"}
NO_WAY_OUT = "the tool has no way out in this task"


@dataclass
class Provider:
    """Asks for two tool calls at once, then says something; refuses what its API would refuse."""

    bodies: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self.answer(self.openai), methods=["POST"]),
            Route("/v1/messages", self.answer(self.anthropic), methods=["POST"]),
            Route("/model/{model:path}/converse", self.answer(self.converse), methods=["POST"]),
        ]
        return Starlette(routes=routes)

    def answer(self, play: Any) -> Any:
        async def endpoint(request: Request) -> JSONResponse:
            body = await request.json()
            self.bodies.append(body)
            try:
                return JSONResponse(play(body, len(self.bodies)))
            except (AssertionError, KeyError, TypeError) as wrong:
                return JSONResponse({"error": {"message": f"{type(wrong).__name__}: {wrong}"}}, 400)

        return endpoint

    def openai(self, body: Mapping[str, Any], turn: int) -> dict[str, Any]:
        system, user, *rest = body["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        assert body["tools"][0]["function"]["name"] == "web-fetch"
        message: dict[str, Any] = {"role": "assistant", "content": "it is done"}
        if turn == 1:
            call = {
                "type": "function",
                "function": {"name": "web-fetch", "arguments": '{"url": "https://docs.python.org/3/"}'},
            }
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"} | call, {"id": "b"} | call]}
        else:
            assert [item["role"] for item in rest] == ["assistant", "tool", "tool"]
            assert [item["tool_call_id"] for item in rest[1:]] == ["a", "b"]
            assert all(item["content"] == NO_WAY_OUT for item in rest[1:])
        return {"choices": [{"message": message}], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}

    def anthropic(self, body: Mapping[str, Any], turn: int) -> dict[str, Any]:
        assert body["max_tokens"] > 0 and body["system"]
        tool = body["tools"][0]
        assert (tool["name"], tool["input_schema"]["type"]) == ("web-fetch", "object")
        content: list[dict[str, Any]] = [{"type": "text", "text": "it is done"}]
        if turn == 1:
            assert [item["role"] for item in body["messages"]] == ["user"]
            use = {"type": "tool_use", "name": "web-fetch", "input": URL}
            content = [{"type": "text", "text": "Let me see."}, use | {"id": "a"}, use | {"id": "b"}]
        else:
            assert [item["role"] for item in body["messages"]] == ["user", "assistant", "user"]
            assert [part["type"] for part in body["messages"][1]["content"]] == ["text", "tool_use", "tool_use"]
            assert body["messages"][1]["content"][1]["input"] == URL
            results = body["messages"][2]["content"]
            assert [part["tool_use_id"] for part in results] == ["a", "b"]
            assert all(part["content"] == NO_WAY_OUT for part in results)
        usage = {
            "input_tokens": 60,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 40,
            "output_tokens": 20,
        }
        return {"type": "message", "role": "assistant", "content": content, "usage": usage}

    def converse(self, body: Mapping[str, Any], turn: int) -> dict[str, Any]:
        assert body["inferenceConfig"]["maxTokens"] > 0 and body["system"][0]["text"]
        spec = body["toolConfig"]["tools"][0]["toolSpec"]
        assert (spec["name"], spec["inputSchema"]["json"]["type"]) == ("web-fetch", "object")
        content: list[dict[str, Any]] = [{"text": "it is done"}]
        if turn == 1:
            content = [{"toolUse": {"toolUseId": key, "name": "web-fetch", "input": URL}} for key in "ab"]
        else:
            assert [item["role"] for item in body["messages"]] == ["user", "assistant", "user"]
            assert [part["toolUse"]["input"] for part in body["messages"][1]["content"]] == [URL, URL]
            results = [part["toolResult"] for part in body["messages"][2]["content"]]
            assert [part["toolUseId"] for part in results] == ["a", "b"]
            assert all(part["content"] == [{"text": NO_WAY_OUT}] for part in results)
        usage = {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120}
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": "end_turn",
            "usage": usage,
        }


def work_for(model: str, api: str, token: str = "") -> Work:
    now = datetime.now(UTC)
    prompt = "Read https://docs.python.org/3/"
    invocation = Invocation(
        new_id(), "ana", prompt, ("web-fetch",), now, now + timedelta(seconds=60), model=model
    )  # fmt: skip
    tools = (load(ROOT / "catalog").tool("web-fetch"),)
    return Work(invocation, tools, Fit(500, 512), Decimal(10), "owner", token=token, model_api=api)


async def carry_out(tmp_path: Path, api: str, *, warm: bool = False, told: str | None = None) -> dict[str, Any]:
    """Runs the agent as the runner starts it. told: the shape that it is told instead of the gateway's."""
    provider = Provider()
    async with listening(provider.app(), "127.0.0.1") as (host, port):
        base = f"http://{host}:{port}"
        made = [
            OpenAI(lambda: "sk-key", base),
            Anthropic(lambda: "sk-key", base),
            Bedrock(lambda: AWS, "us-east-1", base),
        ]
        gateway = Gateway(tmp_path / "ledger.sqlite", made)
        async with serving(gateway, "127.0.0.1") as (host, port):
            work = work_for(MODELS[api], gateway.model_api(MODELS[api]) if told is None else told)
            environment = {
                "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "runtime-image"),
                "RINGFENCE_GATEWAY_URL": f"http://{host}:{port}",
            }  # fmt: skip
            if warm:
                work.token = gateway.warm(work.id, work.invocation.deadline)
                environment |= {"RINGFENCE_WARM": "1", "CREDENTIALS_TOKEN": work.token}
                gateway.open(work.invocation)
                gateway.assign(work.id, assignment_of(work, NAMES))
            else:
                work.token = gateway.open(work.invocation)
                environment |= unit_of(work, NAMES).environment
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "agent_runtime", env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            async with asyncio.timeout(60):
                log, _ = await process.communicate()
                result = await gateway.result(work.id)
            usage, _ = gateway.close(work.id)
        gateway.stop()
    return {"result": result, "log": log.decode(), "usage": usage, "bodies": provider.bodies}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("api", MODELS)
def test_a_task_with_tools_is_done_by_a_model_of_each_api(tmp_path: Path, api: str, warm: bool) -> None:
    done = asyncio.run(carry_out(tmp_path, api, warm=warm))
    assert (done["result"].output, done["result"].status) == ("it is done", "succeeded"), done["log"]
    # Web-fetch has no way out here, so that both calls fail, and are counted.
    assert done["usage"] == Usage(200, 40, 2, 2)
    assert len(done["bodies"]) == 2


@pytest.mark.parametrize("api", ["anthropic", "bedrock-converse"])
def test_without_the_control_sides_word_the_same_task_reaches_no_model(tmp_path: Path, api: str) -> None:
    done = asyncio.run(carry_out(tmp_path, api, told="openai"))
    assert done["result"].error.startswith("model_unknown:")
    assert done["bodies"] == []


def test_a_shape_that_nobody_speaks_is_a_problem_of_the_assignment(tmp_path: Path) -> None:
    done = asyncio.run(carry_out(tmp_path, "openai", told="carrier-pigeon"))
    assert done["result"].status == "failed"
    assert "model_api 'carrier-pigeon'" in done["result"].error
    assert done["bodies"] == []


@pytest.mark.parametrize("api", MODELS)
def test_a_model_that_no_configured_api_serves_is_refused_before_anything_starts(tmp_path: Path, api: str) -> None:
    base = "http://127.0.0.1:1"
    every = {
        "openai": OpenAI(lambda: "sk-key", base),
        "anthropic": Anthropic(lambda: "sk-key", base),
        "bedrock-converse": Bedrock(lambda: AWS, "us-east-1", base),
    }
    alone = Gateway(tmp_path / "one.sqlite", [every[api]])
    others = Gateway(tmp_path / "two.sqlite", [made for name, made in every.items() if name != api])
    work = work_for(MODELS[api], "")
    assert alone.model_api(MODELS[api]) == api
    assert alone.open(work.invocation)
    assert others.model_api(MODELS[api]) == ""
    with pytest.raises(Refused) as caught:
        others.open(work.invocation)
    assert caught.value.refusal.code == "model_unknown"
    alone.stop()
    others.stop()


def test_the_runtime_speaks_every_shape_that_the_gateway_names() -> None:
    from ringfence.gateway.gateway import _APIS

    assert set(SHAPES) == set(_APIS)


@pytest.mark.parametrize("api", ["anthropic", "bedrock-converse"])
@pytest.mark.parametrize(
    "answer", [{}, {"content": 1}, {"output": {"message": {"content": "x"}}}, {"output": []}], ids=str
)
def test_an_answer_that_is_none_of_its_api_is_an_error_of_the_gateway_not_a_crash(
    api: str, answer: dict[str, Any]
) -> None:
    from agent_runtime import GatewayError

    with pytest.raises(GatewayError):
        SHAPES[api].answer(answer)
