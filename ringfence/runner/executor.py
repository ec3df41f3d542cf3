"""What every executor does: make one invocation's unit, wait for it, take all of it away. Nothing else runs sandboxes.

Trust zone: control side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ringfence.catalog.model import Tool
from ringfence.errors import RingfenceError

# Where the sandbox finds the credentials of its tools: one file `<tool>.json` each, in the format of the AWS CLI's
# `credential_process` (docs.aws.amazon.com/cli/latest/topic/config-vars.html).
CREDENTIALS_FOLDER = "/var/run/ringfence/credentials"
# Promised environment of the container (design, "The interfaces that users were promised"), and the gateway's address.
TASK_PROMPT, ALLOWED_TOOLS, CREDENTIALS_TOKEN = "TASK_PROMPT", "ALLOWED_TOOLS", "CREDENTIALS_TOKEN"
GATEWAY_URL, MODEL, DEADLINE, INVOCATION_ID = (
    "RINGFENCE_GATEWAY_URL",
    "RINGFENCE_MODEL",
    "RINGFENCE_DEADLINE",
    "RINGFENCE_INVOCATION_ID",
)

Report = Callable[[str], None]


class ExecutorError(RingfenceError):
    """A sandbox could not be made, watched or removed. Never answered by running with less isolation."""


@dataclass(frozen=True, slots=True)
class Unit:
    """All that one sandbox is made from. owner: the runner's own id, for the reaper; deadline: aware, UTC, after which
    anyone may reap it; environment, credentials (file name → content): secret, so left out of repr."""

    invocation_id: str
    owner: str
    deadline: datetime
    tools: tuple[Tool, ...]
    cpu_millis: int = 500
    memory_mib: int = 512
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Exit:
    """How the sandbox's process ended. code: its exit code, None when it had none (killed, evicted, deadline); reason:
    one word, e.g. ``Completed``, ``Error``, ``OOMKilled``, ``DeadlineExceeded``; log: end of its output, redacted by
    the caller before anybody sees it."""

    code: int | None
    reason: str
    log: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A unit that exists. deadline: None when it can't be read, which counts as passed."""

    invocation_id: str
    owner: str
    deadline: datetime | None


class Executor(Protocol):
    """Makes and removes units. Every method may be called from many tasks at once; `remove` is idempotent and removes
    also what a killed `start` left half-made."""

    name: str

    async def start(self, unit: Unit, report: Report) -> None:
        """Makes the whole unit and starts its process. Raises ExecutorError; what was made by then is for `remove`."""

    async def warm(self, unit: Unit, report: Report) -> None:
        """As `start`, but without credentials and tools' ports; the process waits for its assignment at the gateway."""

    async def bind(self, unit: Unit) -> None:
        """Opens the tools' ports of a warm unit, once. Its assignment, credentials included, travels by the gateway."""

    async def wait(self, invocation_id: str) -> Exit:
        """Returns when the process has ended; immediately when there is none."""

    async def remove(self, invocation_id: str) -> None:
        """Removes process, network, secrets and namespace. Raises ExecutorError when anything is left after it."""

    async def leftovers(self) -> list[Leftover]:
        """Every unit that exists, whoever made it."""
