"""The words that everything at run time shares: an invocation, how it ended, what it used, what it was refused.

An invocation is one agent task of one user in one sandbox. Trust zone: control side.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

# The wall clock of an invocation and the money of a conversation (mission: a hard 5-minute timeout, a $10 cap).
MAX_SECONDS = 300
MAX_CONVERSATION_USD = Decimal(10)
# Failures in a row after which the breaker opens (design, decision 8).
BREAKER_FAILURES = 5
# Part of a namespace's and a session's name: DNS label, and within STS's 64 characters beside a tool's name.
ID_PATTERN = re.compile(r"[a-z0-9]{12,26}")


class Status(StrEnum):
    """How an invocation ended. Only `SUCCEEDED` has an output to rely on."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    BUDGET_EXHAUSTED = "budget_exhausted"
    BREAKER_OPEN = "breaker_open"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused attempt. code: stable and machine-readable, e.g. ``tool_not_allowed``; subject: what was asked for;
    detail: the sentence that a person reads, with the remedy. Never holds a secret or a whole argument."""

    code: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What an invocation used, as the control side counted it."""

    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.model_calls + other.model_calls,
            self.tool_calls + other.tool_calls,
        )


@dataclass(frozen=True, slots=True)
class Invocation:
    """One agent task. id: see `new_id`; conversation: what the money is counted for, by default the invocation itself;
    tools: names from the catalog, in the caller's order; started, deadline: aware, UTC."""

    id: str
    user: str
    prompt: str = field(repr=False)
    tools: tuple[str, ...]
    started: datetime
    deadline: datetime
    conversation: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        if not ID_PATTERN.fullmatch(self.id):
            raise ValueError(f"invocation id {self.id!r} | 12 to 26 lower-case letters and digits")
        if self.started.tzinfo is None or self.deadline.tzinfo is None:
            raise ValueError("started and deadline must carry a time zone")
        if not timedelta(0) < self.deadline - self.started <= timedelta(seconds=MAX_SECONDS):
            raise ValueError(f"an invocation lasts more than 0 s and at most {MAX_SECONDS} s")

    @property
    def conversation_id(self) -> str:
        """What the budget is counted for."""
        return self.conversation or self.id


@dataclass(frozen=True, slots=True)
class Result:
    """How an invocation ended. cost_usd: settled by the model gateway; audit_id: names its records in the audit trail;
    error: one sentence with the remedy when it did not succeed."""

    invocation_id: str
    status: Status
    output: str
    usage: Usage
    cost_usd: Decimal
    audit_id: str
    duration_seconds: float
    refusals: tuple[Refusal, ...] = ()
    error: str = ""


def new_id() -> str:
    """A fresh invocation id: 80 random bits, so that nobody guesses another's."""
    return secrets.token_hex(10)
