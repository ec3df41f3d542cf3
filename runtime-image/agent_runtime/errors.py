"""What stops an agent, and what only refuses one call. Codes are those of the model gateway's answers."""

from __future__ import annotations


class RuntimeFault(Exception):
    """A failure of the runtime with a sentence fit for its user. code: stable, machine-readable."""

    code = "failed"


class AssignmentError(RuntimeFault):
    """The environment or the assignment can't be used; the message names every key, value and remedy."""

    code = "assignment_invalid"

    def __init__(self, problems: list[str]):
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


class Stopped(RuntimeFault):
    """The whole task ends here: no call after it is made."""


class BudgetExhausted(Stopped):
    """The worst case of a call doesn't fit into what is left of the conversation's money."""

    code = "budget_exhausted"


class DeadlineExceeded(Stopped):
    """The wall clock has run out."""

    code = "deadline"


class BreakerOpen(Stopped):
    """Too many calls failed in a row."""

    code = "breaker_open"


class ModelUnknown(Stopped):
    """Nobody knows what the model costs, so that no worst case can be reserved."""

    code = "model_unknown"


class GatewayError(RuntimeFault):
    """The gateway refused or could not be reached. status: HTTP status, 0 when there was no answer; code: its own;
    retry_after: seconds to wait before the same again, None when it doesn't say."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None):
        self.status = status
        self.code = code
        self.retry_after = retry_after
        super().__init__(message)


class ToolError(RuntimeFault):
    """A tool could not do what it was asked; the message is shown to the model, so it never holds a secret."""

    code = "tool_failed"


class ToolTimeout(ToolError):
    """A tool took longer than its limit or the task's deadline."""

    code = "tool_timeout"


class Refused(RuntimeFault):
    """One call was refused by the gate. decision: what and why."""

    code = "refused"

    def __init__(self, code: str, message: str):
        self.code = code
        super().__init__(message)
