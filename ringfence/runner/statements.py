"""What a sandbox says of itself on its way into the record: tool calls, refusals, signs of an injection.

Trust zone: control side. It is the sandbox's word: bounded, masked, marked as such, and nothing is decided by it. What a
model call used and cost is the gateway's word and is recorded there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ringfence.invocation import MAX_SECONDS, Refusal
from ringfence.redaction import Redactor
from ringfence.runner.ports import SandboxEvent

# What a sandbox that floods the record gets written down of one invocation; the gateway counts the rest.
MAX_REFUSALS, MAX_TOOL_CALLS, MAX_SIGNALS = 100, 1000, 100
# Of a text, of a name, of a list.
TEXT_CHARACTERS, NAME_CHARACTERS, LIST_ITEMS = 500, 80, 20
# At or above, a signal is an alert: where the sandbox's own gate turns strict.
ALERT_SCORE = 0.5
# An event may wait so long in the sandbox.
_BATCH_SECONDS = 10
# Refusals that say that the agent went for what untrusted text named.
_FOLLOWED = frozenset({"argument_tainted", "argument_suspicious", "secret_in_arguments"})
# In every record that rests on a sandbox's word alone.
UNTRUSTED: Mapping[str, Any] = {"stated_by": "sandbox", "trusted": False}

Audit = Callable[..., Awaitable[None]]
Refuse = Callable[[Refusal], Awaitable[None]]
# A tool call or refusal as recorded, and when it was told.
Trace = Callable[[Mapping[str, Any], datetime], None]


@dataclass(slots=True)
class Statements:
    """One invocation's. audit: records an event, by kind and fields; refuse: records a refusal; both raise when they
    can't; trace: gets tool calls and refusals once they are recorded. unrecorded: why something that arrived is not on
    record, which fails the task."""

    redactor: Redactor
    audit: Audit
    refuse: Refuse
    trace: Trace = lambda said, at: None
    unrecorded: str = ""
    _counts: dict[str, int] = field(default_factory=dict)
    _alerted: set[str] = field(default_factory=set)

    async def take(self, event: SandboxEvent) -> None:
        """Records one event, if it is of a kind that is recorded. Raises nothing."""
        try:
            if event.type == "refusal":
                await self._refusal(event)
            elif event.type == "tool_call":
                await self._tool_call(event)
            elif event.type == "log" and event.data.get("event") == "injection_signal":
                await self._signal(event.data)
        except Exception as error:
            what = "a refusal" if event.type == "refusal" else "what the sandbox did"
            self.unrecorded = f"{what} could not be recorded: {str(error) or type(error).__name__}"

    async def _within(self, kind: str, most: int) -> bool:
        """Whether one more is written down. The first that isn't leaves a record that says so."""
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count == most + 1:
            detail = f"more than {most} statements of this kind in one invocation; the rest is not written down"
            await self.audit("sandbox.statements_cut", code=kind, detail=detail, **UNTRUSTED)
        return count <= most

    async def _refusal(self, event: SandboxEvent) -> None:
        data = event.data
        if not await self._within("refusal", MAX_REFUSALS):
            return
        code, subject, detail = (self._text(data.get(key, "")) for key in ("code", "tool", "detail"))
        await self.refuse(Refusal(code or "unnamed", subject, detail))
        said = {"tool": subject, "code": code or "unnamed", "call_id": self._name(data.get("call_id")), "refused": True}
        self.trace(said, _told(event))
        if "signal" in self._alerted and code in _FOLLOWED:
            await self._alert(
                "followed", f"after text that looks like an instruction: {detail}", tool=subject, code=code
            )

    async def _tool_call(self, event: SandboxEvent) -> None:
        data = event.data
        if not await self._within("tool_call", MAX_TOOL_CALLS):
            return
        succeeded = data.get("outcome") == "ok"
        said = {
            "tool": self._name(data.get("tool")),
            "outcome": "success" if succeeded else "failure",
            "code": "" if succeeded else self._name(data.get("code")) or "unnamed",
            "call_id": self._name(data.get("call_id")),
            "arguments": self._names(data.get("arguments")),
            "seconds": _number(data.get("seconds"), MAX_SECONDS),
            "characters": _number(data.get("characters"), 1 << 30),
        }
        await self.audit("tool.called", **said, **UNTRUSTED)
        self.trace(said, _told(event))

    async def _signal(self, data: Mapping[str, Any]) -> None:
        if not await self._within("injection_signal", MAX_SIGNALS):
            return
        score = _number(data.get("score"), 1)
        fields = {"tool": self._name(data.get("tool")), "score": score, "reasons": self._names(data.get("reasons"))}
        await self.audit("injection.signal", **fields, **UNTRUSTED)
        # A score that can't be read is no reason to be calm.
        if score is None or score >= ALERT_SCORE:
            await self._alert("signal", "a tool's output looks like an instruction to the agent", **fields)

    async def _alert(self, what: str, detail: str, **fields: Any) -> None:
        """One alert of each kind for an invocation: who reads a poisoned text once reads it again."""
        if what not in self._alerted:
            self._alerted.add(what)
            await self.audit("alert.injection", detail=detail, **fields, **UNTRUSTED)

    def _text(self, value: object) -> str:
        return self.redactor.text(str(value))[:TEXT_CHARACTERS]

    def _name(self, value: object) -> str:
        return self.redactor.text(value)[:NAME_CHARACTERS] if isinstance(value, str) else ""

    def _names(self, value: object) -> list[str]:
        return [self._name(item) for item in value[:LIST_ITEMS]] if isinstance(value, list) else []


def _told(event: SandboxEvent) -> datetime:
    """When the sandbox told it, by its own clock where that lies just before its arrival: events come in batches."""
    arrived = event.at
    try:
        said = datetime.fromisoformat(str(event.data.get("time")))
        late = (arrived - said).total_seconds()
    except (ValueError, TypeError):
        return arrived
    return said if 0 <= late <= _BATCH_SECONDS else arrived


def _number(value: object, most: float) -> int | float | None:
    """A number from 0 to `most`; None for anything else."""
    return value if type(value) in (int, float) and 0 <= value <= most else None  # type: ignore[operator,return-value]
