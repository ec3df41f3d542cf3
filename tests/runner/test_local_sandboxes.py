"""The whole path on this machine: real gVisor, the runtime image, scoped credentials, the scripted model; and kill -9."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ringfence.invocation import Status
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.pool import WarmPool
from ringfence.runner.reaper import reap
from tests.runner import control
from tests.runner.test_reaper import alive
from tests.runner.test_warm_pool import until
from tests.runner.victim import written

ROOT = Path(__file__).resolve().parents[2]
TASK = {"groups": control.GROUPS, "model": "scripted"}
READ = f"""
steps:
  - tool_calls: [{{name: s3-report-reader, arguments: {{action: read, bucket: {control.REPORTS}, key: published/may.csv}}}}]
  - say: The report is read.
"""


def traces(folder: Path) -> list[str]:
    """Processes and mounts that have the control side's folder in them."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in " ".join(process.info["cmdline"] or []) and process.pid != psutil.Process().pid:
            found.append(f"process {process.pid}: {process.info['cmdline'][:3]}")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return found + [line for line in mounts if str(folder) in line]


@pytest.fixture
def successor(cloud, tmp_path: Path) -> Callable[[], control.Control]:
    """The dead runner's control side again, from what it left on disk."""

    def make() -> control.Control:
        executor = control.local(tmp_path, cloud.endpoint)
        return control.control(tmp_path, cloud.endpoint, executor, ("127.0.0.1", 1), control.gateway_of(tmp_path))

    return make


@pytest.fixture
def local_side(cloud, tmp_path: Path) -> Iterator[control.Control]:
    """A control side with real sandboxes; the scripted model reads the report once."""
    (tmp_path / "script.yaml").write_text(READ)
    gateway = control.gateway_of(tmp_path)
    with control.served(gateway) as address:
        yield control.control(tmp_path, cloud.endpoint, control.local(tmp_path, cloud.endpoint), address, gateway)


def test_a_task_reads_its_report_in_gvisor_and_leaves_nothing(local_side: control.Control, tmp_path: Path):
    with SecureAgentRunner(local_side.parts) as runner:
        result = runner.execute_agent_task("ann", "read the report", ["s3-report-reader"], **TASK)
    assert (result.status, result.error) == (Status.SUCCEEDED, "")
    assert "The report is read." in result.output
    assert result.usage.model_calls == 2
    assert asyncio.run(local_side.parts.executor.leftovers()) == []
    assert traces(tmp_path) == []


def test_a_waiting_sandbox_does_the_same_task(local_side: control.Control, tmp_path: Path):
    pool = WarmPool(local_side.parts, 1)
    with SecureAgentRunner(local_side.parts, pool=pool) as runner:
        runner.start()
        until(lambda: pool.waiting == 1, "one waits", 120)
        waiting = pool._units[0].id
        result = runner.execute_agent_task("ann", "read the report", ["s3-report-reader"], **TASK)
        assert result.invocation_id == waiting
        assert (result.status, result.error) == (Status.SUCCEEDED, "")
        assert "The report is read." in result.output
    assert asyncio.run(local_side.parts.executor.leftovers()) == []
    assert traces(tmp_path) == []


def check(point: str, cloud, successor: Callable[[], control.Control], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.runner.victim", str(tmp_path), cloud.endpoint, "-", point]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == -9, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == point
    issued = written(tmp_path)
    side = successor()
    asyncio.run(reap(side.parts))
    assert not any(alive(cloud, keys) for keys in issued)
    assert asyncio.run(side.parts.executor.leftovers()) == []
    assert side.parts.journal.entries() == []
    assert side.broker.list(active=True) == []
    assert traces(tmp_path) == []
    assert asyncio.run(reap(side.parts)) == []
    side.gateway.stop()


@pytest.mark.parametrize("point", ["sandbox:begin", "result:begin"])
def test_killed_with_a_real_sandbox_nothing_is_left(point: str, cloud, successor, tmp_path: Path):
    check(point, cloud, successor, tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "point",
    ["session:done", "credentials:done", "sandbox:done", "result:done", "credentials:undone", "sandbox:undoing",
     "sandbox:undone", "session:undone"],
)  # fmt: skip
def test_killed_anywhere_with_a_real_sandbox_nothing_is_left(point: str, cloud, successor, tmp_path: Path):
    check(point, cloud, successor, tmp_path)
