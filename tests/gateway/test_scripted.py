"""The scripted model: plays its steps, and says everything that is wrong with a script at once."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import InputError
from ringfence.gateway import upstreams
from ringfence.gateway.scripted import MODEL, Scripted, load
from tests.gateway.conftest import chat

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"


def scripted(tmp_path: Path, text: str) -> tuple[Scripted]:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    return (Scripted(load(path)),)


def ask(number: int, **more: Any) -> dict[str, Any]:
    return chat(f"{number}", model=MODEL, **more)


async def test_steps_are_played_in_order_for_each_invocation_from_the_first(start: Any, tmp_path: Path) -> None:
    script = "- tool_calls: [{name: reports, arguments: {action: list}}]\n- say: Done.\n"
    async with start(upstreams=scripted(tmp_path, script)) as lab:
        for _ in range(2):
            _, client = await lab.sandbox(MODEL)
            first = (await client.post(PATH, json=ask(1))).json()["choices"][0]
            assert first["finish_reason"] == "tool_calls"
            call = first["message"]["tool_calls"][0]["function"]
            assert (call["name"], json.loads(call["arguments"])) == ("reports", {"action": "list"})
            second = (await client.post(PATH, json=ask(2))).json()["choices"][0]
            assert (second["finish_reason"], second["message"]["content"]) == ("stop", "Done.")
            beyond = await client.post(PATH, json=ask(3))
            assert (beyond.status_code, "no further step" in beyond.text) == (400, True)


async def test_streaming_says_the_same(start: Any, tmp_path: Path) -> None:
    script = "- say: A text that is longer than one piece of it.\n- tool_calls: [{name: a}, {name: b, arguments: 'not json'}]\n"
    async with start(upstreams=scripted(tmp_path, script)) as lab:
        _, client = await lab.sandbox(MODEL)
        answers = [(await client.post(PATH, json=ask(n, stream=True))).text for n in range(2)]
        chunks = [
            [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] for text in answers
        ]
        said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[0])
        assert said == "A text that is longer than one piece of it."
        calls = [call for chunk in chunks[1] for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
        assert [(call["index"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
            (0, "a", "{}"),
            (1, "b", "not json"),
        ]


async def test_a_runaway_script_is_stopped_at_ten_dollars(start: Any, tmp_path: Path) -> None:
    script = "steps:\n- tool_calls: [{name: a}]\n  repeat: forever\n  usage: {input_tokens: 100000, output_tokens: 20000}\nprice: {input: 2.5, output: 10}\n"
    async with start(upstreams=scripted(tmp_path, script)) as lab:
        invocation, client = await lab.sandbox(MODEL)
        codes = [(await client.post(PATH, json=ask(n))).status_code for n in range(30)]
        assert codes == [200] * 22 + [402] * 8
        assert lab.gateway.usage(invocation.id)[1] == Decimal("9.90")


async def test_failing_steps_open_the_breaker(start: Any, tmp_path: Path) -> None:
    async with start(upstreams=scripted(tmp_path, "- fail: 500\n  repeat: 9\n- say: never\n")) as lab:
        _, client = await lab.sandbox(MODEL)
        assert [(await client.post(PATH, json=ask(n))).status_code for n in range(7)] == [500] * 5 + [503] * 2


async def test_a_step_may_take_its_time(start: Any, tmp_path: Path) -> None:
    async with start(upstreams=scripted(tmp_path, "- say: late\n  delay: 30\n")) as lab:
        _, client = await lab.sandbox(MODEL, seconds=1)
        assert (await client.post(PATH, json=ask(1))).json()["error"]["code"] == "deadline"


def test_every_problem_of_a_script_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(
        "- say: fine\n- tool_calls: []\n- say: x\n  fail: 500\n- fail: 200\n- repeat: sometimes\n  say: x\n"
        "- tool_calls: [{nam: a}]\n- say: x\n  usage: {input_tokens: -1}\n- {}\n"
    )
    with pytest.raises(InputError) as caught:
        load(path)
    found = {(problem.line, problem.key.partition(".")[0]) for problem in caught.value.problems}
    assert {
        (2, "steps[1]"),
        (3, "steps[2]"),
        (5, "steps[3]"),
        (6, "steps[4]"),
        (8, "steps[5]"),
        (10, "steps[6]"),
        (11, "steps[7]"),
    } <= found
    assert all(problem.remedy for problem in caught.value.problems)


@pytest.mark.parametrize(("text", "said"), [
    ("", "is not a script"), ("hello", "is not a script"), ("[]", "at least 1"), ("{}", "is missing"), ("- say: a\n- say: [", "not YAML"),
    ("- say: &x a\n- say: *x\n", "anchors"), ("- say: a\n  repeat: forever\n- say: b\n", "never reached"), ("- say: a\n  repeat: 0\n", "from 1 to"),
    ("price: {input: -1, output: 1}\nsteps: [{say: a}]", "greater than or equal to 0"), ("steps: [{say: 5}]", "valid string"),
])  # fmt: skip
def test_a_bad_script_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load(path)


def test_the_environment_decides_which_upstreams_there_are(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text("- say: hi\n")
    environ = {"OPENAI_API_KEY": "k1", "ANTHROPIC_API_KEY": "k2", "RINGFENCE_BEDROCK_REGION": "us-east-1"}
    assert [upstream.name for upstream in upstreams(environ, path)] == [
        "scripted",
        "openai",
        "anthropic",
        "aws.bedrock",
    ]
    assert upstreams({}) == ()
    (openai,) = upstreams(environ := {"OPENAI_API_KEY": "k1"})
    environ["OPENAI_API_KEY"] = "rotated"
    assert openai.secrets() == ("rotated",)
    for base in ("http://example.com", "https://user@example.com", "nonsense", "https://x/?key=1"):
        with pytest.raises(InputError, match="https address"):
            upstreams({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": base})
