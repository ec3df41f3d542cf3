"""The runner's small parts, each on its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ringfence.errors import InputError, RingfenceError
from ringfence.invocation import new_id
from ringfence.names import Names
from ringfence.runner import manifests, pod, unit_settings
from ringfence.runner.executor import ExecutorError, Unit, size_of
from ringfence.runner.journal import SqliteJournal
from ringfence.runner.kubernetes_client import CallError
from ringfence.runner.kubernetes_executor import _exit, _leftover
from ringfence.runner.local_executor import LocalExecutor, Ways
from ringfence.runner.owners import ProcessOwners
from ringfence.runner.ports import Entry
from ringfence.runner.threads import LoopThread, in_thread
from ringfence.runner.unit_settings import GatewayAddress, UnitSettings, parse
from tests.runner.control import IMAGE, catalog

NOW = datetime(2026, 11, 23, tzinfo=UTC)
NAMES = Names("ringfence", "test", "123456789012", "us-east-1")


# Threads


def test_a_cancelled_call_is_waited_for():
    ended = threading.Event()

    def slow() -> None:
        time.sleep(0.2)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(in_thread(slow))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()

    asyncio.run(main())


def test_a_calls_error_is_raised_and_hidden_by_a_cancellation():
    def fails() -> None:
        time.sleep(0.1)
        raise OSError("disk")

    async def main() -> None:
        with pytest.raises(OSError, match="disk"):
            await in_thread(fails)
        task = asyncio.create_task(in_thread(fails))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_stopped_loop_ends_its_thread():
    before = threading.active_count()
    loop = LoopThread("trial")
    assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "x"), loop.running()).result() == "x"
    loop.stop()
    loop.stop()
    assert threading.active_count() == before


# Owners


def test_this_process_lives_and_one_that_ended_does_not():
    code = "from ringfence.runner.owners import ProcessOwners; print(ProcessOwners().id)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    owners = ProcessOwners()
    assert owners.alive(owners.id)
    assert not owners.alive(ended)


def test_a_process_that_nobody_has_waited_for_does_not_live():
    code = "from ringfence.runner.owners import ProcessOwners; print(ProcessOwners().id, flush=True)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    owner = child.stdout.readline().strip()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not ProcessOwners().alive(owner)
    child.wait()


def test_a_reused_number_is_another_owner():
    pid, start, boot = ProcessOwners().id.split("-")[1:]
    assert not ProcessOwners().alive(f"process-{pid}-{int(start) - 1}-{boot}")
    assert not ProcessOwners().alive(f"process-{pid}-{start}-{'0' * 12}")


@pytest.mark.parametrize("owner", ["", "runner-abc", "process-1", "process--1-2-3", "process-1-1-zzzzzzzzzzzz"])
def test_an_owner_that_can_not_be_read_does_not_live(owner: str):
    assert not ProcessOwners().alive(owner)


def test_an_owner_is_a_label_value():
    assert len(ProcessOwners().id) <= 63
    assert ProcessOwners().id.replace("-", "").isalnum()


# Journal


def test_the_journal_survives_the_process(tmp_path: Path):
    path = tmp_path / "journal.sqlite"
    entry = Entry("abcdefghijkl", "owner", NOW)
    SqliteJournal(path).begin(entry)
    assert SqliteJournal(path).entries() == [entry]
    assert path.stat().st_mode & 0o077 == 0


def test_an_id_is_begun_once(tmp_path: Path):
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    journal.begin(Entry("abcdefghijkl", "owner", NOW))
    with pytest.raises(RingfenceError, match="can't be used"):
        journal.begin(Entry("abcdefghijkl", "other", NOW))
    assert journal.entries()[0].owner == "owner"


def test_ending_twice_is_fine(tmp_path: Path):
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    journal.begin(Entry("abcdefghijkl", "owner", NOW))
    journal.end("abcdefghijkl")
    journal.end("abcdefghijkl")
    assert journal.entries() == []


def test_many_threads_write_at_once(tmp_path: Path):
    journal = SqliteJournal(tmp_path / "journal.sqlite")
    ids = [new_id() for _ in range(64)]

    async def main() -> None:
        await asyncio.gather(*(in_thread(journal.begin, Entry(name, "owner", NOW)) for name in ids))
        await asyncio.gather(*(in_thread(journal.end, name) for name in ids[:32]))

    asyncio.run(main())
    assert {entry.invocation_id for entry in journal.entries()} == set(ids[32:])


def test_a_broken_journal_is_an_error_not_an_empty_one(tmp_path: Path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"no database at all, but long enough to look like one" * 50)
    with pytest.raises(RingfenceError, match="can't be used"):
        SqliteJournal(path)


# Sizes


def test_a_sandbox_is_as_large_as_its_largest_tool_and_at_least_as_promised():
    tools = catalog().tools
    assert size_of((), 1000, 1024) == (500, 512)
    assert size_of(tools, 1000, 1024) == (500, 512)
    large = tools[0].model_copy(update={"limits": tools[0].limits.model_copy(update={"memory_mib": 900})})
    assert size_of((tools[1], large), 1000, 1024) == (500, 900)
    with pytest.raises(ExecutorError, match=f"tool {large.name} wants"):
        size_of((large,), 1000, 800)


# Settings of units


def settings(**changes: object) -> UnitSettings:
    values = {"image": IMAGE, "gateway": GatewayAddress("10.100.0.20", 8080), "registries": ("r",)} | changes
    return UnitSettings(**values)


def test_settings_are_read_as_they_were_written():
    written = settings(tool_ports={"b": 15002, "a": 15001}, proxy_cidrs=("10.0.0.5/32",), max_concurrent=7)
    assert parse(written.render(), "test") == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "can't be read"),
        ("[]", "can't be read"),
        ("{}", "KeyError 'gateway'"),
        (settings(image="agent:latest").render(), "names no image by digest"),
        (settings(gateway=None).render(), "names no model gateway"),
        (settings(gateway=GatewayAddress("gateway.local", 80)).render(), "is not an IPv4 address"),
        (settings(limits=manifests.UnitLimits(memory="lots")).render(), "not a memory quantity"),
    ],
)
def test_settings_that_make_no_sandbox_are_refused(text: str, said: str):
    with pytest.raises(InputError) as caught:
        parse(text, "ConfigMap x")
    assert said in str(caught.value)


def test_room_is_kept_for_the_runtime_itself():
    assert settings().max_memory_mib == 1024 - unit_settings.OVERHEAD_MEMORY_MIB
    assert settings().max_cpu_millis == 1000 - unit_settings.OVERHEAD_CPU_MILLIS


# The pod


def test_nothing_secret_stands_in_the_pod():
    unit = Unit("abcdefghijkl", "owner", NOW, (), environment={"TASK_PROMPT": "pssst"}, credentials={"t.json": b"key"})
    made = pod.pod(unit, IMAGE, unit.environment, 300, warm=False)
    assert "pssst" not in str(made)
    assert "key" not in str(made["spec"]["containers"][0]["volumeMounts"])
    secret = pod.secret(unit, "sandbox-abcdefghijkl", unit.environment)
    assert set(secret["data"]) == {"TASK_PROMPT", "t.json"}
    assert secret["immutable"] is True


def test_a_waiting_pod_says_so_and_mounts_no_secret():
    unit = Unit("abcdefghijkl", "owner", NOW, (), environment={"A": "b"})
    made = pod.pod(unit, IMAGE, unit.environment, 900, warm=True)
    assert made["metadata"]["labels"][manifests.WARM_LABEL] == "true"
    assert not [volume for volume in made["spec"]["volumes"] if "secret" in volume]


# What the API server says


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]},
         0, "Completed"),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
         137, "OOMKilled"),
        ({"phase": "Failed", "reason": "DeadlineExceeded",
          "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}, None, "DeadlineExceeded"),
        ({"phase": "Failed", "reason": "Evicted"}, None, "Evicted"),
        ({"phase": "Failed"}, None, "Failed"),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
         None, "ImagePullBackOff"),
    ],
)  # fmt: skip
def test_an_ended_pod_is_told_with_its_reason(status: dict, code: int | None, reason: str):
    ended = _exit({"status": status})
    assert (ended.code, ended.reason) == (code, reason)


@pytest.mark.parametrize(
    "status",
    [{}, {"phase": "Pending"}, {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]},
     {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}],
)  # fmt: skip
def test_a_pod_that_may_go_on_has_not_ended(status: dict):
    assert _exit({"status": status}) is None


def test_a_refusal_of_the_cluster_is_final_and_what_settles_is_not():
    def passing(status: int, reason: str, message: str) -> bool:
        return CallError("x", status, reason, message).passing

    assert passing(0, "", "no answer")
    assert passing(503, "ServiceUnavailable", "")
    assert passing(429, "TooManyRequests", "")
    assert passing(409, "Conflict", "the object has been modified")
    assert passing(403, "Forbidden", 'pods "agent" is forbidden: error looking up service account x/default: not found')
    assert not passing(409, "AlreadyExists", "")
    assert not passing(403, "Forbidden", "a sandbox runs under gVisor: set runtimeClassName to gvisor")
    assert not passing(404, "NotFound", "")


def test_what_a_namespace_does_not_say_counts_against_it():
    assert _leftover({"name": "sandbox-a"}) == _leftover({"name": "sandbox-a", "labels": {}, "annotations": {}})
    assert _leftover({"name": "sandbox-a"}).deadline is None
    late = (NOW + timedelta(seconds=5)).isoformat()
    read = _leftover({"name": "sandbox-a", "annotations": {manifests.DEADLINE_ANNOTATION: late}})
    assert read.deadline == NOW + timedelta(seconds=5)


AWS_TOOLS = ("email-notifier", "s3-report-reader", "ticket-store")


@pytest.mark.parametrize("name", AWS_TOOLS)
def test_on_one_machine_a_tool_that_calls_aws_has_the_embedded_endpoint_or_a_listener_or_is_refused(
    name: str, tmp_path: Path
):
    """As in a cluster (`KubernetesExecutor.fit`), where there is no endpoint, only the listener."""

    def executor(**ways: object) -> LocalExecutor:
        return LocalExecutor(tmp_path / "state", Path("/none"), None, Ways(("127.0.0.1", 1), **ways))

    tool = catalog().tool(name)
    assert executor(aws=("127.0.0.1", 2)).fit([tool]).ports == {}
    assert list(executor(tools={name: ("127.0.0.1", 3)}).fit([tool]).ports) == [name]
    with pytest.raises(ExecutorError, match=f"tool {name} has grants, but no listener"):
        executor().fit([tool])
    assert executor().fit([catalog().tool("model-call")]).ports == {}
