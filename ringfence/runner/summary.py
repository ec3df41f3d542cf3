"""What a person sees of a task: progress line by line, then what ran, what it cost, what was refused, where the record is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.invocation import Result, Status
from ringfence.local.console import Clock
from ringfence.runner.progress import Progress, State

_SHOWN = 400
# What a sandbox says that it refused; more is in the record.
_MAX_REFUSED = 50
# Steps as a person reads them.
_STEPS = {
    "record": "record",
    "session": "budget",
    "credentials": "credentials",
    "sandbox": "sandbox",
    "result": "task",
}


def plain(text: str) -> str:
    """`text` on one line, unable to steer a terminal, and short."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"


class Watched:
    """Shows each step as it happens, and keeps what the sandbox says that it refused itself."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.refused: list[str] = []

    def __call__(self, progress: Progress) -> None:
        """Takes one step."""
        if progress.state is State.EVENT:
            self._event(progress.detail)
        elif line := step_line(progress):
            self.clock.say(line)

    def _event(self, detail: str) -> None:
        """What the sandbox says of itself: its calls and its own refusals."""
        kind, _, text = detail.partition(" ")
        try:
            data = json.loads(text)
        except ValueError:
            return
        if not isinstance(data, dict):
            return
        tool = data.get("tool", "?")
        if kind == "tool_call" and data.get("outcome") != "refused":
            self.clock.say(plain(f"    {tool}: {data.get('outcome', '')} {data.get('code') or ''}".rstrip()))
        elif kind == "refusal":
            said = plain(f"{data.get('code', '')} {tool}: {data.get('detail', '')}")
            self.clock.say(f"    refused: {said}")
            if len(self.refused) < _MAX_REFUSED:
                self.refused.append(said)


def step_line(progress: Progress) -> str | None:
    """One line for a step of the control side; None for what says nothing new."""
    step = _STEPS.get(progress.step, progress.step)
    if progress.state in (State.BEGIN, State.UNDOING, State.ENDED):
        return None
    if progress.state is State.DETAIL:
        return f"{step}: {plain(progress.detail)}"
    said = {State.DONE: "ready", State.UNDONE: "gone"}.get(progress.state, str(progress.state))
    return f"{step}: {said}{f' ({plain(progress.detail)})' if progress.detail else ''}"


def as_dict(result: Result, trail: Path, refused: list[str]) -> dict[str, Any]:
    """The result as JSON. refused: in the sandbox, by its own word."""
    said = dataclasses.asdict(result) | {"status": result.status.value, "cost_usd": str(result.cost_usd)}
    return said | {"audit_trail": str(trail), "refused_in_sandbox": refused}


def show(result: Result, trail: Path, refused: list[str], echo: Callable[[str], None]) -> None:
    """Prints the summary. refused: in the sandbox, by its own word."""
    usage = result.usage
    echo(f"status    {result.status.value} after {result.duration_seconds:.1f} s")
    if result.error:
        echo(f"error     {plain(result.error)}")
    echo(
        f"ran       {usage.tool_calls} tool calls, {usage.model_calls} model calls,"
        f" {usage.input_tokens} + {usage.output_tokens} tokens"
    )
    echo(f"cost      ${result.cost_usd:.6f}")
    lines = [f"{refusal.code} {refusal.subject}: {refusal.detail}" for refusal in result.refusals]
    lines += [f"in the sandbox: {line}" for line in refused]
    echo(f"refused   {len(lines) or 'nothing'}")
    for line in lines:
        echo(f"          {plain(line)}")
    echo(f"audit     {result.audit_id} in {trail}")
    if result.invocation_id:
        echo(f"          ringfence audit show --invocation {result.invocation_id}")
    if result.status is Status.SUCCEEDED:
        echo("output")
        for line in result.output.splitlines() or [""]:
            echo(f"    {''.join(char if char.isprintable() else ' ' for char in line)}")
