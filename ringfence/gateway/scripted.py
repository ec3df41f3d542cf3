"""A model that plays the steps of a file, so that the whole path runs without a provider, a key or a cent.

    price: {input: 3, output: 15}        # USD per million tokens; this is the default
    steps:
      - tool_calls: [{name: s3-report-reader, arguments: {action: list}}]
      - tool_calls: [{name: s3-report-reader, arguments: {action: read}}]
        repeat: 3                        # or forever
        usage: {input_tokens: 200000, output_tokens: 60000}
      - fail: 500
      - say: "The first tool said: ${tool_result:1}"
        delay: 2.5

Steps are played in order, one per call, for each invocation from the first; `steps` alone may be the whole file.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pydantic

from ringfence import strict_yaml, validation
from ringfence.errors import InputError, Problem
from ringfence.gateway.prices import FixedPrice
from ringfence.gateway.request import ModelCall
from ringfence.gateway.upstream import Reply

MODEL = "scripted"
# In the range of a large model's list price.
DEFAULT_PRICE = FixedPrice(Decimal(3), Decimal(15))
_CHARACTERS_PER_TOKEN = 4
_PIECE = 24
_RESULT = re.compile(r"\$\{tool_result:([0-9]{1,3})\}")


class _Plain(validation.StrictModel):
    """Keys as OpenAI's API writes them."""

    model_config = pydantic.ConfigDict(alias_generator=None, strict=True)


class ToolCall(_Plain):
    """One call of a tool. arguments: an object; a text is passed on as it is, to play a model that errs."""

    name: str = pydantic.Field(min_length=1, max_length=64)
    arguments: dict[str, Any] | str = pydantic.Field(default_factory=dict)


class StepUsage(_Plain):
    """What the step claims to have used."""

    input_tokens: int = pydantic.Field(ge=0, le=10_000_000)
    output_tokens: int = pydantic.Field(ge=0, le=10_000_000)


class Step(_Plain):
    """One answer. delay: seconds before it."""

    say: str | None = None
    tool_calls: list[ToolCall] | None = pydantic.Field(default=None, min_length=1)
    fail: int | None = pydantic.Field(default=None, ge=400, le=599)
    usage: StepUsage | None = None
    repeat: int | Literal["forever"] = 1
    delay: float = pydantic.Field(default=0, ge=0, le=600)

    @pydantic.field_validator("repeat")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= 1_000_000:
            raise ValueError("must be from 1 to 1000000, or forever | write how often, or forever")
        return value

    @pydantic.field_validator("delay", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return float(value) if type(value) is int else value

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Step:
        if (self.fail is not None) == (self.say is not None or self.tool_calls is not None):
            raise ValueError("a step says something, calls tools, or fails | write say, tool_calls or fail")
        return self


class ScriptPrice(_Plain):
    """USD per million tokens."""

    input: int | float = pydantic.Field(ge=0, le=1_000_000)
    output: int | float = pydantic.Field(ge=0, le=1_000_000)


class Script(_Plain):
    """The whole file."""

    steps: list[Step] = pydantic.Field(min_length=1)
    price: ScriptPrice | None = None


def load(path: Path) -> Script:
    """The script in a file. Raises InputError with every problem and its line."""
    data, lines = strict_yaml.read(path)
    where = str(path)
    if isinstance(data, list):
        lines = {("steps", *position) if position else ("steps",): line for position, line in lines.items()}
        data = {"steps": data}
    if not isinstance(data, dict):
        raise InputError([Problem(where, "", "is not a script", "write a list of steps", 1)])
    try:
        script = Script.model_validate(data)
    except pydantic.ValidationError as error:
        raise InputError(validation.problems(error, where, lines)) from None
    endless = [index for index, step in enumerate(script.steps[:-1]) if step.repeat == "forever"]
    if endless:
        line = lines.get(("steps", endless[0] + 1), 0)
        message = f"is never reached: step {endless[0]} repeats forever"
        raise InputError([Problem(where, f"steps[{endless[0] + 1}]", message, "put it before, or remove it", line)])
    return script


class Scripted:
    """The upstream that plays a script; OpenAI's shape, model ``scripted``."""

    name = MODEL
    price_list = ""

    def __init__(self, script: Script):
        self._script = script
        price = script.price
        fixed = FixedPrice(Decimal(str(price.input)), Decimal(str(price.output))) if price else DEFAULT_PRICE
        self.prices = {MODEL: fixed}
        self._lock = threading.Lock()
        self._playing: dict[str, Iterator[Step]] = {}

    def serves(self, api: str, model: str) -> bool:
        """The model of that name, in OpenAI's shape."""
        return api == "openai" and model == MODEL

    def most_tokens(self, call: ModelCall) -> tuple[int, int]:
        """Usage that the script claims is part of the worst case: which step comes is not known before the call."""
        claimed = [step.usage for step in self._script.steps if step.usage]
        return (
            max([call.input_tokens, *(usage.input_tokens for usage in claimed)]),
            max([call.output_tokens, *(usage.output_tokens for usage in claimed)]),
        )

    def secrets(self) -> tuple[str, ...]:
        """Has none."""
        return ()

    def forget(self, invocation_id: str) -> None:
        """Forgets where the invocation was."""
        with self._lock:
            self._playing.pop(invocation_id, None)

    async def close(self) -> None:
        """Holds nothing."""

    @asynccontextmanager
    async def send(self, call: ModelCall, headers: Mapping[str, str], invocation_id: str) -> AsyncIterator[Reply]:
        """Plays the next step."""
        with self._lock:
            steps = self._playing.setdefault(invocation_id, _played(self._script.steps))
            step = next(steps, None)
        if step is None:
            yield _failure(400, "the script has no further step")
            return
        await asyncio.sleep(step.delay)
        if step.fail is not None:
            yield _failure(step.fail, f"the script fails here with {step.fail}")
            return
        answer = _Answer(call, step)
        if call.streaming:
            yield Reply(200, {"content-type": "text/event-stream"}, _pieces(list(answer.chunks())))
        else:
            yield _json(200, answer.whole())


def _played(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        played = 0
        while step.repeat == "forever" or played < step.repeat:
            yield step
            played += 1


def _json(status: int, body: Mapping[str, Any]) -> Reply:
    return Reply(status, {"content-type": "application/json"}, _pieces([json.dumps(body).encode()]))


def _failure(status: int, message: str) -> Reply:
    return _json(status, {"error": {"type": "scripted", "message": message}})


async def _pieces(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _filled(text: str, call: ModelCall) -> str:
    """`text` with ``${tool_result:N}`` replaced by what the N-th tool message of the conversation says."""
    results = [str(item.get("content", "")) for item in call.body.get("messages", ()) if item.get("role") == "tool"]

    def result(found: re.Match[str]) -> str:
        index = int(found.group(1))
        return results[index - 1] if 0 < index <= len(results) else "(nothing)"

    return _RESULT.sub(result, text)


class _Answer:
    """One step in OpenAI's form."""

    def __init__(self, call: ModelCall, step: Step):
        self._step = step
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": 0, "model": MODEL}
        self._text = _filled(step.say or "", call)[: call.output_tokens * _CHARACTERS_PER_TOKEN]
        self._reason = "tool_calls" if step.tool_calls else "stop"
        self._calls = [
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {
                    "name": tool.name,
                    "arguments": tool.arguments if isinstance(tool.arguments, str) else json.dumps(tool.arguments),
                },
            }
            for tool in step.tool_calls or ()
        ]
        self._usage = self._used(call)

    def _used(self, call: ModelCall) -> dict[str, int]:
        if self._step.usage:
            used = self._step.usage.input_tokens, self._step.usage.output_tokens
        else:
            written = len(self._text) + len(json.dumps(self._calls)) if self._calls else len(self._text)
            used = (
                min(len(call.content) // _CHARACTERS_PER_TOKEN, call.input_tokens),
                min(max(written // _CHARACTERS_PER_TOKEN, 1), call.output_tokens),
            )
        return {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)}

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        message: dict[str, Any] = {"role": "assistant", "content": self._text or None}
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "finish_reason": self._reason}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": self._usage}

    def chunks(self) -> Iterator[bytes]:
        """The answer as server-sent events."""
        yield self._chunk({"role": "assistant", "content": ""})
        for start in range(0, len(self._text), _PIECE):
            yield self._chunk({"content": self._text[start : start + _PIECE]})
        for index, tool in enumerate(self._calls):
            yield self._chunk({"tool_calls": [{"index": index} | tool]})
        yield self._chunk({}, self._reason)
        yield self._event({"choices": [], "usage": self._usage})
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        return self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def _event(self, body: Mapping[str, Any]) -> bytes:
        return f"data: {json.dumps(self._head | {'object': 'chat.completion.chunk'} | body)}\n\n".encode()
