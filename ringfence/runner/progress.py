"""What the caller of an invocation may watch, one step at a time. Trust zone: control side; every text is redacted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ringfence.invocation import Result


class State(StrEnum):
    """What happened to a step. A step is undone whether it was done or not."""

    BEGIN = "begin"
    DETAIL = "detail"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    NOT_UNDONE = "not undone"
    EVENT = "event"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of one invocation. step: see `ringfence.runner.lifecycle.STEPS`; detail: one sentence, of an event the
    sandbox's own untrusted word; at: aware, UTC; result: in the last one only."""

    invocation_id: str
    step: str
    state: State
    detail: str
    at: datetime
    result: Result | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.step}: {self.detail or self.state}"


Watch = Callable[[Progress], None]
