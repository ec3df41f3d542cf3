"""What may be asked of the runner: every bound of a task, checked all at once before anything is made.

Trust zone: control side; the caller's values are not trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from ringfence.errors import InputError, Problem
from ringfence.invocation import ID_PATTERN, MAX_CONVERSATION_USD, MAX_SECONDS
from ringfence.runner.progress import Watch
from ringfence.runner.scopes import scopes_of

# One variable of a process's environment is at most 128 KiB, name included (execve(2), MAX_ARG_STRLEN).
MAX_PROMPT_BYTES = 120 << 10
MAX_TOOLS = 50
MAX_NAME_CHARACTERS = 200
_PLAIN = ("source", "model", "conversation")


@dataclass(frozen=True, slots=True)
class RunnerLimits:
    """max_concurrent: invocations at once; max_waiting: those that wait for a place before more are refused; model: of tasks
    that name none."""

    max_concurrent: int = 100
    max_waiting: int = 1000
    model: str = ""


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """A task as asked for, within bounds. groups: the user's claims; scopes: tool → what this call narrows it to."""

    user: str
    prompt: str = field(repr=False)
    tools: tuple[str, ...]
    groups: tuple[str, ...] = ()
    invocation_id: str = ""
    source: str = ""
    model: str = ""
    conversation: str = ""
    max_usd: Decimal = MAX_CONVERSATION_USD
    timeout_seconds: float = MAX_SECONDS
    scopes: Mapping[str, Any] = field(default_factory=dict)
    report: Watch | None = None


def task_request(
    user: str, prompt: str, tools: Sequence[str], options: Mapping[str, Any], limits: RunnerLimits
) -> TaskRequest:
    """A checked request.

    options: groups (the identity provider's claims), invocation_id (chosen by the caller, which rules a warm start out),
    source (where the call came from, for clusters of refusals), model, conversation (what the money is counted for),
    max_usd (at most $10), timeout_seconds (at most 300), scopes (tool → `ringfence.broker.Scope`, or as
    `ringfence.runner.scopes` says), report (a `Watch`).
    Raises InputError with every problem.
    """
    problems = [
        Problem("task", key, "is not an option", f"use: {', '.join(sorted(_OPTIONS))}")
        for key in sorted(set(options) - _OPTIONS)
    ]
    given = {key: value for key, value in options.items() if key in _OPTIONS}
    given["model"] = given.get("model") or limits.model
    problems += _text_problems("user_id", user) + _prompt_problems(prompt) + _tool_problems(tools, given)
    for key in _PLAIN:
        problems += _text_problems(key, given.get(key, ""), empty=True)
    groups = given.get("groups", ())
    scopes, wrong = scopes_of(given.get("scopes", {}))
    problems += wrong
    if not _is_names(groups):
        problems.append(Problem("task", "groups", f"is {type(groups).__name__}", "give a list of group names"))
    if (chosen := given.get("invocation_id", "")) and not ID_PATTERN.fullmatch(str(chosen)):
        problems.append(
            Problem("task", "invocation_id", f"{chosen!r} is no id", "12 to 26 lower-case letters and digits")
        )
    usd = _number(given.get("max_usd", MAX_CONVERSATION_USD), "max_usd", MAX_CONVERSATION_USD, problems)
    seconds = _number(given.get("timeout_seconds", MAX_SECONDS), "timeout_seconds", Decimal(MAX_SECONDS), problems)
    if problems:
        raise InputError(problems)
    checked = {**given, "groups": tuple(groups), "scopes": scopes, "max_usd": usd, "timeout_seconds": float(seconds)}
    return TaskRequest(user, prompt, tuple(tools), **checked)


_OPTIONS = {"groups", "invocation_id", *_PLAIN, "max_usd", "timeout_seconds", "scopes", "report"}


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and all(isinstance(item, str) and len(item) <= MAX_NAME_CHARACTERS for item in value)
    )


def _text_problems(key: str, value: Any, empty: bool = False) -> list[Problem]:
    if not isinstance(value, str):
        return [Problem("task", key, f"is {type(value).__name__}, not text", "give text")]
    if not value and not empty:
        return [Problem("task", key, "is empty", "say who asks")]
    if len(value) > MAX_NAME_CHARACTERS or not value.isprintable():
        return [Problem("task", key, "is too long or not printable", f"at most {MAX_NAME_CHARACTERS} characters")]
    return []


def _prompt_problems(prompt: Any) -> list[Problem]:
    if not isinstance(prompt, str) or not prompt.strip():
        return [Problem("task", "task_prompt", "is empty", "say what is to be done")]
    try:
        size = len(prompt.encode())
    except UnicodeEncodeError:
        return [Problem("task", "task_prompt", "holds half of a surrogate pair", "give valid Unicode text")]
    if size > MAX_PROMPT_BYTES:
        remedy = f"at most {MAX_PROMPT_BYTES}; hand larger inputs over by a tool"
        return [Problem("task", "task_prompt", f"has {size} bytes", remedy)]
    if "\0" in prompt:
        return [Problem("task", "task_prompt", "holds a NUL character", "remove it")]
    return []


def _tool_problems(tools: Any, options: Mapping[str, Any]) -> list[Problem]:
    if not _is_names(tools):
        return [Problem("task", "allowed_tools", f"is {type(tools).__name__}", "give a list of tool names")]
    if len(tools) > MAX_TOOLS:
        return [Problem("task", "allowed_tools", f"names {len(tools)} tools", f"at most {MAX_TOOLS}")]
    scopes = options.get("scopes", {})
    unused = sorted(set(scopes) - set(tools)) if isinstance(scopes, Mapping) else []
    return [Problem("task", f"scopes.{name}", "is for a tool that isn't asked for", "name the tool") for name in unused]


def _number(value: Any, key: str, most: Decimal, problems: list[Problem]) -> Decimal:
    """The value as a number above 0 and up to `most`; otherwise a problem more."""
    try:
        number = Decimal(str(value))
        if number.is_finite() and 0 < number <= most and not isinstance(value, bool):
            return number
    except InvalidOperation:
        pass
    problems.append(Problem("task", key, f"{value!r} is out of bounds", f"give a number above 0, at most {most}"))
    return Decimal(0)
