"""What every executor does: make one invocation's unit, wait for it, take all of it away. Nothing else runs sandboxes.

Trust zone: control side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from ringfence.catalog.model import Tool
from ringfence.errors import RingfenceError

# Where the sandbox finds the credentials of its tools: one file `<tool>.json` each, in the format of the AWS CLI's
# `credential_process` (docs.aws.amazon.com/cli/latest/topic/config-vars.html). A tool's other secrets are in a file
# `<tool>.secrets` beside it: a JSON object of names and texts.
CREDENTIALS_FOLDER = "/var/run/ringfence/credentials"
# Promised environment of the container (design, "The interfaces that users were promised"), and the gateway's address.
TASK_PROMPT, ALLOWED_TOOLS, CREDENTIALS_TOKEN = "TASK_PROMPT", "ALLOWED_TOOLS", "CREDENTIALS_TOKEN"
GATEWAY_URL, MODEL, MODEL_API, DEADLINE, INVOCATION_ID = (
    "RINGFENCE_GATEWAY_URL",
    "RINGFENCE_MODEL",
    "RINGFENCE_MODEL_API",
    "RINGFENCE_DEADLINE",
    "RINGFENCE_INVOCATION_ID",
)
# What the runtime is told of its tools (JSON), that it waits for its task at the gateway, and the region of AWS's tools.
TOOLS, WARM, REGION = "RINGFENCE_TOOLS", "RINGFENCE_WARM", "AWS_REGION"
# What only the executor knows: where tools connect.
TOOL_PORTS, PROXY_HOST, AWS_ENDPOINT = "RINGFENCE_TOOL_PORTS", "RINGFENCE_PROXY_HOST", "AWS_ENDPOINT_URL"
# The promised size of a sandbox (design); tools that declare more get more.
CPU_MILLIS, MEMORY_MIB = 500, 512

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
    cpu_millis: int = CPU_MILLIS
    memory_mib: int = MEMORY_MIB
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Fit:
    """What a sandbox for certain tools is made like. ports: sandbox-side port of each tool that needs a way out."""

    cpu_millis: int
    memory_mib: int
    ports: Mapping[str, int] = field(default_factory=dict)


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

    def fit(self, tools: Sequence[Tool]) -> Fit:
        """What a sandbox for these tools would be like; makes nothing. Raises ExecutorError, naming the tool, when it needs
        more than a sandbox may have or a port that the environment doesn't give."""

    async def start(self, unit: Unit, report: Report) -> None:
        """Makes the whole unit and starts its process. Raises ExecutorError; what was made by then is for `remove`.

        A cancelled call makes nothing more once it has raised.
        """

    async def warm(self, unit: Unit, report: Report) -> None:
        """As `start`, but without credentials and tools' ports; the process waits for its assignment at the gateway."""

    async def bind(self, unit: Unit) -> None:
        """Opens the tools' ports of a warm unit, once. Its assignment, credentials included, travels by the gateway.

        Raises ExecutorError when its process no longer runs.
        """

    async def wait(self, invocation_id: str) -> Exit:
        """Returns when the process has ended; immediately when there is none."""

    async def remove(self, invocation_id: str) -> None:
        """Removes process, network, secrets and namespace. Raises ExecutorError when anything is left after it."""

    async def leftovers(self) -> list[Leftover]:
        """Every unit that exists, whoever made it."""


def size_of(tools: Sequence[Tool], max_cpu_millis: int, max_memory_mib: int) -> tuple[int, int]:
    """CPU (thousandths of one) and memory (MiB) of a sandbox for `tools`, which share it: the most that any declares, and
    at least the promised size. Raises ExecutorError naming the first tool that declares more than the most there is."""
    for tool in tools:
        wanted = tool.limits
        if wanted.cpu_millis > max_cpu_millis or wanted.memory_mib > max_memory_mib:
            raise ExecutorError(
                f"tool {tool.name} wants {wanted.cpu_millis}m CPU and {wanted.memory_mib} MiB; a sandbox has at most "
                f"{max_cpu_millis}m and {max_memory_mib} MiB\n    remedy: lower the tool's limits or raise the unit's"
            )
    cpu = max([CPU_MILLIS, *(tool.limits.cpu_millis for tool in tools)])
    memory = max([MEMORY_MIB, *(tool.limits.memory_mib for tool in tools)])
    return min(cpu, max_cpu_millis), min(memory, max_memory_mib)
