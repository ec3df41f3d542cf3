"""What the gateway answers when it says no: one code, one HTTP status, one sentence."""

from __future__ import annotations

from typing import Any

from ringfence.errors import RingfenceError
from ringfence.invocation import Refusal

# code → HTTP status. Codes are stable: the runtime image and the audit trail know them.
STATUS = {
    "unauthorized": 401,
    "budget_exhausted": 402,
    "model_unknown": 403,
    "tool_not_allowed": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "deadline": 408,
    "slow_request": 408,
    "conflict": 409,
    "too_large": 413,
    "unsupported_encoding": 415,
    "invalid_request": 400,
    "rate": 429,
    "upstream_failed": 502,
    "breaker_open": 503,
    "ledger_unavailable": 503,
    "internal": 500,
}


class ApiError(Exception):
    """An answer to the sandbox. code: a key of STATUS; message: for a person, never with a secret in it; subject: what
    was asked for, for the record."""

    def __init__(self, code: str, message: str, subject: str = ""):
        self.code, self.message, self.subject = code, message, subject
        super().__init__(f"{code}: {message}")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]

    def body(self) -> dict[str, Any]:
        """The JSON that the sandbox gets: `error` for all, what else Anthropic's and AWS's clients look for."""
        error = {"code": self.code, "type": self.code, "message": self.message}
        return {"type": "error", "error": error, "message": self.message}

    def refusal(self) -> Refusal:
        """The same for the audit trail."""
        return Refusal(self.code, self.subject, self.message)


class Refused(RingfenceError):
    """The gateway doesn't open a session. refusal.code: budget_exhausted, model_unknown or conversation_of_another_user."""

    def __init__(self, refusal: Refusal):
        self.refusal = refusal
        super().__init__(refusal.detail)


class LedgerError(RingfenceError):
    """The ledger can't be read or written. Whoever asked for money doesn't get it."""
