"""Memory, processes, /tmp, CPU and time: each limit ends or refuses what goes beyond it, and lets through what doesn't."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from ringfence.runner.executor import ExecutorError
from ringfence.runner.local_executor import cgroups, executor
from ringfence.runner.local_executor.bundle import TMP_MIB
from ringfence.runner.local_executor.cgroups import Group

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(os.geteuid() != 0, reason="control groups and every process's namespaces take root to look at"),
]

FILL = """
blocks = []
for _ in range(MIB):
    blocks.append(os.urandom(1 << 20))
say(len(blocks))
"""


def test_a_sandbox_that_wants_more_memory_than_it_has_is_ended(lab):
    exit = lab(lambda lab: lab.run(FILL.replace("MIB", "600"), memory_mib=256))
    assert (exit.code, exit.reason) == (None, "OOMKilled")
    assert "ANSWER" not in exit.log


def test_the_same_memory_is_there_when_the_limit_is_higher(lab):
    assert lab(lambda lab: lab.ask(FILL.replace("MIB", "600"), memory_mib=1024)) == 600


def test_a_fork_bomb_ends_its_sandbox_and_never_has_more_host_threads_than_the_limit(lab):
    bomb = """
    print("up", flush=True)
    while True:
        try:
            os.fork()
        except OSError:
            pass
    """

    async def scenario(lab):
        invocation_id = await lab.start(bomb, seconds=20)
        group, most = Group(invocation_id), 0
        ended = asyncio.ensure_future(lab.executor.wait(invocation_id))
        while not ended.done():
            for folder in group.folders():
                file = folder / "pids.current"
                if file.exists():
                    most = max(most, int(file.read_text()))
            await asyncio.sleep(0.02)
        return most, (await ended)

    most, exit = lab(scenario)
    assert 0 < most <= executor.PROCESSES
    assert exit.code != 0


def test_many_threads_within_the_limit_work(lab):
    code = """
    import threading
    event = threading.Event()
    threads = [threading.Thread(target=event.wait) for _ in range(50)]
    for thread in threads: thread.start()
    event.set()
    for thread in threads: thread.join()
    say(len(threads))
    """
    assert lab(lambda lab: lab.ask(code)) == 50


def test_tmp_holds_its_size_and_no_more(lab):
    code = """
    written, result = 0, "all"
    try:
        with open("/tmp/fill", "wb", buffering=0) as file:
            for _ in range(200):
                written += file.write(b"x" * (1 << 20))
    except OSError as error:
        result = os.strerror(error.errno)
    say([written >> 20, result])
    """
    written, result = lab(lambda lab: lab.ask(code))
    assert result == "No space left on device"
    assert TMP_MIB - 2 <= written <= TMP_MIB


def test_open_files_are_limited(lab):
    code = """
    held, result = [], "all"
    try:
        for _ in range(5000):
            held.append(open("/dev/null"))
    except OSError as error:
        result = os.strerror(error.errno)
    say([len(held), result])
    """
    held, result = lab(lambda lab: lab.ask(code))
    assert result == "Too many open files"
    assert 900 < held < 1024


def limits_of(group: Group) -> dict[str, str]:
    """The group's limits as the kernel has them, in version 2's terms."""
    found = {}
    for folder in group.folders():
        for file in ("memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max"):
            if (folder / file).exists():
                found[file.replace("limit_in_bytes", "max")] = (folder / file).read_text().strip()
        if (folder / "cpu.cfs_quota_us").exists():
            parts = [(folder / file).read_text().strip() for file in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
            found["cpu.max"] = " ".join(parts)
    return found


async def limits_after(group: Group, cpu: str, seconds: float = 30) -> dict[str, str]:
    """The group's limits once its processors' is `cpu`, or as they are after so long."""
    ends = time.monotonic() + seconds
    while limits_of(group)["cpu.max"] != cpu and time.monotonic() < ends:
        await asyncio.sleep(0.05)
    return limits_of(group)


def test_the_kernel_holds_every_limit_and_cpu_falls_to_the_units_own_once_it_has_called(lab, monkeypatch):
    # So that time alone doesn't lower it while this test looks.
    monkeypatch.setattr(executor, "BOOT_S", 600)
    code = """
    import time
    assert reach("192.0.2.1", 14000) == "reached gateway"
    print("called", flush=True)
    time.sleep(60)
    """

    async def scenario(lab):
        invocation_id = await lab.start(code, memory_mib=300, cpu_millis=250)
        group = Group(invocation_id)
        before = limits_of(group)
        await lab.said(invocation_id, "called")
        return before, await limits_after(group, "25000 100000"), len(group.processes())

    before, after, processes = lab(scenario)
    assert before["cpu.max"] == f"{executor.BOOT_CPU_MILLIS * 100} 100000"
    assert after == {"memory.max": str(300 << 20), "pids.max": str(executor.PROCESSES), "cpu.max": "25000 100000"}
    assert processes >= 2


def test_a_sandbox_that_never_calls_has_its_own_cpu_limit_after_a_while(lab, monkeypatch):
    monkeypatch.setattr(executor, "BOOT_S", 0.2)

    async def scenario(lab):
        invocation_id = await lab.start("import time; print('up', flush=True); time.sleep(60)", cpu_millis=250)
        await lab.said(invocation_id, "up")
        return await limits_after(Group(invocation_id), "25000 100000")

    assert lab(scenario)["cpu.max"] == "25000 100000"


def test_memory_and_processors_inside_are_the_limits_not_the_machines(lab):
    code = "say(int(next(line for line in open('/proc/meminfo') if line.startswith('MemTotal')).split()[1]) >> 10)"
    assert lab(lambda lab: lab.ask(code, memory_mib=300)) <= 300


def test_the_deadline_ends_a_sandbox_that_does_not_end_itself(lab):
    exit = lab(lambda lab: lab.run("import time; print('up', flush=True); time.sleep(600)", seconds=8))
    assert (exit.code, exit.reason) == (None, "DeadlineExceeded")
    assert "up" in exit.log


def test_a_deadline_that_has_passed_starts_nothing(lab):
    async def scenario(lab):
        with pytest.raises(ExecutorError, match="deadline"):
            await lab.start("say(1)", seconds=-1)
        return await lab.executor.leftovers()

    assert lab(scenario) == []


@pytest.mark.parametrize(
    ("code", "exit_code", "reason"), [("pass", 0, "Completed"), ("sys.exit(7)", 7, "Error"), ("1/0", 1, "Error")]
)
def test_the_exit_code_is_the_processes_own(lab, code, exit_code, reason):
    exit = lab(lambda lab: lab.run(code))
    assert (exit.code, exit.reason) == (exit_code, reason)


def test_only_the_end_of_a_flood_of_output_is_kept(lab):
    exit = lab(lambda lab: lab.run("for i in range(60000): print('line', i, 'x' * 50)\nprint('last')"))
    assert exit.code == 0
    assert len(exit.log) <= 64 << 10
    assert exit.log.endswith("last\n")


def test_where_nothing_can_be_limited_no_sandbox_starts(lab, monkeypatch):
    monkeypatch.setattr(cgroups, "_mounts", lambda: [])

    async def scenario(lab):
        with pytest.raises(ExecutorError, match=r"control group(.|\n)*remedy"):
            await lab.start("say(1)")
        (left,) = await lab.executor.leftovers()
        return left.owner, Path(lab.state / left.invocation_id / "config.json").exists()

    assert lab(scenario) == ("test", False)
