"""What a run of the engine answered: exit code, text, and its event stream as typed values."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ringfence.errors import RingfenceError

# Said for each embedded provider at each start: that it is found on PATH is as it should be.
EXPECTED = "using pulumi-resource-"
# Severity of what the program wrote to its error stream, line by line.
PROGRAM_OUTPUT = "info#err"
# What the engine adds to every failure, beside the reason.
BARE_FAILURE = re.compile(r"(update|preview|destroy|refresh) failed")
# How much of the engine's text goes into an error message.
TAIL_LINES = 40


class EngineError(RingfenceError):
    """The engine ended with another exit code than 0. `result` holds everything it said."""

    def __init__(self, message: str, result: Result):
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class Step:
    """What the engine does, or would do, with one resource.

    op: Pulumi's name: create, update, delete, same, replace, create-replacement, delete-replaced, read, refresh, import;
    keys: property paths that differ; replaces: those of them that force a replacement.
    """

    op: str
    urn: str
    type: str
    keys: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The resource's logical name, the last part of its URN."""
        return self.urn.rsplit("::", 1)[-1]


@dataclass(frozen=True, slots=True)
class Violation:
    """One violation that a policy pack reported. level: ``mandatory`` or ``advisory``; urn is empty for a stack policy."""

    pack: str
    policy: str
    level: str
    message: str
    urn: str


def step_of(event: Mapping[str, Any]) -> Step | None:
    """The step of a `resourcePreEvent`; None for any other event."""
    metadata = event.get("resourcePreEvent", {}).get("metadata")
    if not metadata:
        return None
    detailed: Mapping[str, Any] = metadata.get("detailedDiff") or {}
    keys = tuple(detailed) or tuple(metadata.get("diffs") or ())
    replaces = tuple(key for key, diff in detailed.items() if str(diff.get("diffKind", "")).endswith("-replace"))
    return Step(metadata["op"], metadata["urn"], metadata["type"], keys, replaces or tuple(metadata.get("keys") or ()))


def is_interruption(severity: str, text: str) -> bool:
    """Whether `text` is only the program's trace of being stopped, which the engine does once something else has failed."""
    return severity == PROGRAM_OUTPUT and text.startswith("Traceback") and text.endswith("\nKeyboardInterrupt")


@dataclass(frozen=True)
class Result:
    """One finished run of the engine. exit_code is negative when a signal ended it; elapsed_s in seconds."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    elapsed_s: float
    events: tuple[dict[str, Any], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the engine ended with exit code 0."""
        return self.exit_code == 0

    @cached_property
    def json(self) -> Any:
        """Standard output as JSON (commands that print it). Raises ValueError when it isn't JSON."""
        return json.loads(self.stdout)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every step in the order begun, unchanged resources included."""
        return tuple(step for event in self.events if (step := step_of(event)))

    @property
    def changes(self) -> dict[str, int]:
        """Count of resources by operation, as the engine sums up; empty when it didn't come that far."""
        for event in reversed(self.events):
            if "summaryEvent" in event:
                return dict(event["summaryEvent"].get("resourceChanges") or {})
        return {}

    @cached_property
    def changed_steps(self) -> tuple[Step, ...]:
        """The steps that change something."""
        return tuple(step for step in self.steps if step.op not in ("same", "read", "refresh"))

    @cached_property
    def violations(self) -> tuple[Violation, ...]:
        """What policy packs reported, in order."""
        return tuple(
            Violation(
                pack=event["policyPackName"],
                policy=event["policyName"],
                level=event["enforcementLevel"],
                message=event["message"].strip(),
                urn=event.get("resourceUrn", ""),
            )
            for outer in self.events
            if (event := outer.get("policyEvent"))
        )

    @cached_property
    def diagnostics(self) -> tuple[tuple[str, str], ...]:
        """(severity, message) of each diagnostic, without debug output and what is expected on the embedded target.

        Lines that the program wrote one after the other are one message.
        """
        found: list[tuple[str, str]] = []
        for outer in self.events:
            event = outer.get("diagnosticEvent")
            if (
                not event
                or event["severity"] == "debug"
                or event.get("ephemeral")
                or event["message"].startswith(EXPECTED)
            ):
                continue
            severity, message = event["severity"], event["message"].rstrip()
            if severity == PROGRAM_OUTPUT and found and found[-1][0] == severity:
                found[-1] = (severity, f"{found[-1][1]}\n{message}")
            else:
                found.append((severity, message))
        return tuple((severity, text.strip()) for severity, text in found if not is_interruption(severity, text))

    @property
    def errors(self) -> tuple[str, ...]:
        """Messages of diagnostics of severity error, each once; the bare fact of failure only when nothing else is said."""
        messages = tuple(dict.fromkeys(message for severity, message in self.diagnostics if severity == "error"))
        return tuple(message for message in messages if not BARE_FAILURE.fullmatch(message)) or messages

    def tail(self) -> str:
        """The last lines of what the engine printed."""
        lines = [line for line in f"{self.stdout}\n{self.stderr}".splitlines() if line.strip()]
        return "\n".join(lines[-TAIL_LINES:])

    def check(self) -> Result:
        """This result. Raises EngineError, with what the engine said, when it failed."""
        if self.ok:
            return self
        words = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), self.command))
        if self.exit_code < 0:
            raise EngineError(
                f"`pulumi {words}` was ended by signal {-self.exit_code}.\n"
                "    remedy: run the command again; what was begun is picked up where it stopped",
                self,
            )
        said = "\n".join(self.errors) or self.tail()
        raise EngineError(f"`pulumi {words}` failed with exit code {self.exit_code}:\n{said}", self)
