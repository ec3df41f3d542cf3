"""A sandbox leaves nothing: not when it is removed, not when its runner is killed at any point, and not its secrets anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ringfence.invocation import new_id
from ringfence.runner.executor import ExecutorError
from ringfence.runner.local_executor import cgroups, records
from ringfence.runner.local_executor.cgroups import Group

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(os.geteuid() != 0, reason="control groups and every process's namespaces take root to look at"),
]

SECRET = "wJalrXUtnFEMI-the-secret-key"
RUNNING = """
import time
print("up", flush=True)
time.sleep(300)
"""


def namespaces(state: Path) -> set[str]:
    """Network namespaces that this process or any process of a sandbox in `state` is in or holds open, and mounted ones."""
    found: set[str] = set()
    for entry in Path("/proc").iterdir():
        # A process or descriptor that is gone by now.
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and (
                entry.name == str(os.getpid()) or str(state).encode() in (entry / "cmdline").read_bytes()
            ):
                for path in (entry / "ns" / "net", *_descriptors(entry)):
                    with contextlib.suppress(OSError):
                        found.add(os.readlink(path))
    found = {link for link in found if link.startswith("net:")}
    return found | {line for line in Path("/proc/self/mounts").read_text().splitlines() if line.startswith("nsfs")}


def _descriptors(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []


def descriptors() -> Counter[str]:
    """What this process holds open. What it is, not how many: the collector may close what an earlier test forgot."""
    found: Counter[str] = Counter()
    for path in _descriptors(Path("/proc/self")):
        with contextlib.suppress(OSError):
            found[os.readlink(path)] += 1
    return found


def links() -> set[str]:
    """Names of the host's network interfaces."""
    return set(os.listdir("/sys/class/net"))


def traces(state: Path, invocation_id: str) -> dict[str, object]:
    """Everything on the machine that belongs to the sandbox; empty when nothing does."""
    folder = state / invocation_id
    words = str(folder).encode()
    processes = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and entry.name != str(os.getpid()):
            try:
                if words in (entry / "cmdline").read_bytes():
                    processes.append(int(entry.name))
            except OSError:
                continue
    found = {
        "processes": processes,
        "groups": [str(path) for path in Path("/sys/fs/cgroup").rglob(f"{cgroups.PREFIX}{invocation_id}")],
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(state) in line],
        "files": sorted(str(path) for path in state.glob(f"*{invocation_id}*")),
    }
    return {what: which for what, which in found.items() if which}


def settled(state: Path, before: set[str]) -> set[str]:
    """Network namespaces that weren't there before; killed processes take a moment to be gone."""
    deadline = time.monotonic() + 120
    while (new := namespaces(state) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return new


def test_a_removed_sandbox_leaves_nothing_and_removing_twice_is_the_same(lab, tmp_path):
    before, before_links = namespaces(tmp_path), links()

    async def scenario(lab):
        await lab.run("say(1)")
        open_before = descriptors()
        invocation_id = await lab.start(RUNNING)
        await lab.said(invocation_id, "up")
        during, new = traces(lab.state, invocation_id), len(namespaces(tmp_path) - before)
        assert links() == before_links
        assert descriptors() - open_before
        await lab.executor.remove(invocation_id)
        await lab.executor.remove(invocation_id)
        deadline = time.monotonic() + 120
        while (left := descriptors() - open_before) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return during, new, traces(lab.state, invocation_id), await lab.executor.wait(invocation_id), left

    during, new, after, exit, left = lab(scenario)
    assert left == Counter()
    assert set(during) == {"processes", "groups", "files"}
    # The fence's own namespace is held by its sockets alone.
    assert new >= 2
    assert after == {}
    assert exit.reason == "NotFound"
    assert settled(tmp_path, before) == set()


def test_a_sandbox_that_ended_by_itself_leaves_nothing_once_removed(lab):
    async def scenario(lab):
        invocation_id = await lab.start("say(1)")
        exit = await lab.executor.wait(invocation_id)
        await lab.executor.remove(invocation_id)
        return exit.code, traces(lab.state, invocation_id)

    assert lab(scenario) == (0, {})


def test_waiting_for_a_sandbox_that_is_removed_ends(lab):
    async def scenario(lab):
        invocation_id = await lab.start(RUNNING)
        waiting = asyncio.ensure_future(lab.executor.wait(invocation_id))
        await lab.said(invocation_id, "up")
        await lab.executor.remove(invocation_id)
        return await asyncio.wait_for(waiting, 10)

    assert lab(scenario).reason == "Removed"


# A runner of its own that kills itself with SIGKILL at a chosen point. POINT is the name of a function; the runner dies right
# before it is called, or right after, or some time after the sandbox runs.
RUNNER = """
import asyncio, os, signal, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
sys.path.insert(0, {project!r})
from ringfence.runner.executor import Unit
from ringfence.runner.local_executor import LocalExecutor, ReadOnlyMount, Root, Ways, bundle, fence, launch, records, relay, starters
from ringfence.runner.local_executor.cgroups import Group

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def at(owner, name, when):
    real = getattr(owner, name)
    if asyncio.iscoroutinefunction(real):
        async def replaced(*words, **more):
            if when == "before":
                die()
            result = await real(*words, **more)
            die()
    else:
        def replaced(*words, **more):
            if when == "before":
                die()
            result = real(*words, **more)
            die()
    setattr(owner, name, replaced)

point, when = {point!r}, {when!r}
PLACES = {{"record": (records.Records, "make"), "fence": (fence, "make"), "network": (starters.Direct, "prepare"),
          "relay": (relay.Relay, "open"), "group": (Group, "make"), "payload": (launch, "payload"),
          "config": (bundle, "configuration"), "gvisor": (starters.Direct, "go"), "erase": (records.Records, "erase"),
          "kill": (records, "_kill_all"), "group-removal": (Group, "remove"), "folder-removal": (records, "_remove_folder")}}
if point in PLACES:
    at(*PLACES[point], when)

async def main():
    mounts = tuple(ReadOnlyMount(Path(a), b) for a, b in {mounts!r})
    root = Root(Path({root!r}), {interpreter!r}, ({interpreter!r}, "-I", "-c", {code!r}), (), mounts)
    executor = LocalExecutor(Path({state!r}), Path({runsc!r}), root, Ways(("127.0.0.1", 9)))
    unit = Unit({id!r}, "killed", datetime.now(UTC) + timedelta(seconds=100), (), credentials={{"t.json": b"x"}})
    await executor.start(unit, lambda line: None)
    if point == "booting":
        await asyncio.sleep(float(when))
        die()
    while "up" not in executor._running[{id!r}].output.text():
        await asyncio.sleep(0.01)
    if point == "running":
        die()
    await executor.remove({id!r})

asyncio.run(main())
"""
POINTS = [
    ("record", "before"),
    ("record", "after"),
    ("fence", "before"),
    ("fence", "after"),
    ("network", "after"),
    ("relay", "after"),
    ("group", "before"),
    ("group", "after"),
    ("payload", "after"),
    ("config", "after"),
    ("gvisor", "before"),
    ("gvisor", "after"),
    ("booting", "0.05"),
    ("booting", "0.15"),
    ("booting", "0.25"),
    ("running", ""),
    ("erase", "before"),
    ("kill", "after"),
    ("group-removal", "after"),
    ("folder-removal", "before"),
    ("folder-removal", "after"),
]


@pytest.mark.parametrize(("point", "when"), POINTS, ids=lambda value: value or "now")
def test_a_runner_that_was_killed_leaves_nothing_after_anybody_removed_its_sandbox(
    lab, tmp_path, root, runsc, point, when
):
    before, invocation_id = namespaces(tmp_path), new_id()

    async def scenario(lab):
        code = RUNNER.format(
            project=str(Path(__file__).parents[2]),
            point=point,
            when=when,
            mounts=[(str(mount.source), mount.destination) for mount in root.mounts],
            root=str(root.folder),
            interpreter=root.interpreter,
            code=RUNNING,
            state=str(lab.state),
            runsc=str(runsc),
            id=invocation_id,
        )
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        leftovers = await lab.executor.leftovers()
        gone = (point, when) in {("record", "before"), ("folder-removal", "after")}
        assert [(left.invocation_id, left.owner) for left in leftovers] == ([] if gone else [(invocation_id, "killed")])
        await lab.executor.remove(invocation_id)
        return traces(lab.state, invocation_id), await lab.executor.leftovers()

    assert lab(scenario) == ({}, [])
    assert settled(tmp_path, before) == set()


def test_gvisor_dies_with_its_runner_before_anybody_cleans_up(lab, root, runsc):
    """No reaper is needed to stop what a killed runner had started."""
    invocation_id = new_id()
    state = {}

    async def scenario(lab):
        state["folder"] = lab.state
        code = RUNNER.format(
            project=str(Path(__file__).parents[2]),
            point="running",
            when="",
            mounts=[(str(mount.source), mount.destination) for mount in root.mounts],
            root=str(root.folder),
            interpreter=root.interpreter,
            code=RUNNING,
            state=str(lab.state),
            runsc=str(runsc),
            id=invocation_id,
        )
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, timeout=300, check=False
        )
        deadline = time.monotonic() + 120
        while "processes" in (found := traces(lab.state, invocation_id)) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return found

    found = lab(scenario)
    assert "processes" not in found
    assert "files" in found


def test_a_secret_is_in_no_file_argument_or_environment_of_the_host_while_the_sandbox_has_it(lab):
    code = """
    content = open("/var/run/ringfence/credentials/reports.json").read()
    mode = os.stat("/var/run/ringfence/credentials/reports.json")
    print("read", content[:4], oct(mode.st_mode), mode.st_uid, os.environ["CREDENTIALS_TOKEN"][:4], flush=True)
    import time; time.sleep(60)
    """

    async def scenario(lab):
        environment = {"CREDENTIALS_TOKEN": SECRET}
        credentials = {"reports.json": SECRET.encode()}
        invocation_id = await lab.start(code, environment=environment, credentials=credentials)
        await lab.said(invocation_id, "read")
        log = lab.executor._running[invocation_id].output.text()
        files = [path for path in lab.state.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
        seen, looked = [], 0
        for pid in Group(invocation_id).processes():
            for part in ("cmdline", "environ"):
                content = Path(f"/proc/{pid}/{part}").read_bytes()
                looked += 1
                if SECRET.encode() in content:
                    seen.append((pid, part))
        return log, files, seen, looked

    log, files, seen, looked = lab(scenario)
    assert log.startswith(f"read {SECRET[:4]} 0o100400 1000 {SECRET[:4]}")
    assert looked >= 4
    assert (files, seen) == ([], [])


def test_the_credentials_of_a_sandbox_are_files_of_its_user_alone(lab):
    code = """
    folder = "/var/run/ringfence/credentials"
    say([os.stat(folder).st_uid, oct(os.stat(folder).st_mode & 0o777), sorted(os.listdir(folder))])
    """
    answer = lab(lambda lab: lab.ask(code, credentials={"one.json": b"1", "two.json": b"2"}))
    assert answer == [1000, "0o700", ["one.json", "two.json"]]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\0b"])
def test_a_credential_name_that_is_not_a_file_name_is_refused(lab, name):
    async def scenario(lab):
        with pytest.raises(ExecutorError, match="credential file name"):
            await lab.start("say(1)", credentials={name: b"x"})

    lab(scenario)


def test_the_environment_is_the_units_and_nothing_of_the_runners(lab, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    answer = lab(
        lambda lab: lab.ask(
            "say(dict(os.environ))", environment={"TASK_PROMPT": "p", "RINGFENCE_GATEWAY_URL": "http://evil"}
        )
    )
    assert answer["TASK_PROMPT"] == "p"
    assert answer["RINGFENCE_GATEWAY_URL"] == "http://192.0.2.1:14000"
    assert set(answer) <= {
        "TASK_PROMPT",
        "RINGFENCE_GATEWAY_URL",
        "RINGFENCE_PROXY_HOST",
        "RINGFENCE_TOOL_PORTS",
        "LC_CTYPE",
    }


def test_a_second_sandbox_of_one_invocation_is_refused(lab):
    async def scenario(lab):
        invocation_id = await lab.start(RUNNING)
        with pytest.raises(ExecutorError, match="exists already"):
            await lab.start(RUNNING, invocation_id=invocation_id)
        await lab.said(invocation_id, "up")

    lab(scenario)


def test_a_record_that_can_not_be_read_has_no_deadline_and_can_still_be_removed(lab):
    async def scenario(lab):
        invocation_id = await lab.start(RUNNING)
        (lab.state / invocation_id / "unit.json").write_text('{"owner": "x", "dead')
        (left,) = await lab.executor.leftovers()
        await lab.executor.remove(invocation_id)
        return left.owner, left.deadline, traces(lab.state, invocation_id)

    assert lab(scenario) == ("", None, {})


def test_a_record_says_who_and_until_when(lab):
    async def scenario(lab):
        before = datetime.now(UTC)
        invocation_id = await lab.start(RUNNING, owner="runner-7", seconds=90)
        (left,) = await lab.executor.leftovers()
        return (
            left.owner,
            left.deadline - before,
            json.loads((lab.state / invocation_id / "unit.json").read_text())["pid"],
        )

    owner, left, pid = lab(scenario)
    assert owner == "runner-7"
    assert timedelta(seconds=89) < left < timedelta(seconds=92)
    assert pid == os.getpid()


@pytest.mark.parametrize("invocation_id", ["../../etc", "a", "A" * 12, "a" * 27, "a" * 12 + "\n", ""])
def test_an_id_that_is_none_touches_nothing(lab, invocation_id):
    async def scenario(lab):
        with pytest.raises(ExecutorError, match="invocation id"):
            await lab.executor.remove(invocation_id)

    lab(scenario)


def test_what_can_not_be_removed_is_an_error_and_stays_visible(lab, monkeypatch):
    async def scenario(lab):
        invocation_id = await lab.start("say(1)")
        await lab.executor.wait(invocation_id)
        with monkeypatch.context() as patch:
            patch.setattr(records.shutil, "rmtree", lambda path: (_ for _ in ()).throw(PermissionError(1, "no")))
            with pytest.raises(ExecutorError, match="can't be removed"):
                await lab.executor.remove(invocation_id)
        return [left.owner for left in await lab.executor.leftovers()]

    assert lab(scenario) == ["test"]


def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing_after_its_removal(lab, tmp_path):
    before = namespaces(tmp_path)

    async def scenario(lab):
        found = []
        for step in range(8):
            invocation_id = new_id()
            task = asyncio.ensure_future(lab.start(RUNNING, invocation_id=invocation_id))
            await asyncio.sleep(step * 0.006)
            task.cancel()
            await asyncio.wait([task])
            await lab.executor.remove(invocation_id)
            found.append(traces(lab.state, invocation_id))
        return found

    assert lab(scenario) == [{}] * 8
    assert settled(tmp_path, before) == set()


def test_many_sandboxes_at_once_each_get_their_own_answer(lab):
    async def scenario(lab):
        import dataclasses

        async def one(number):
            executor = lab.make(dataclasses.replace(lab.root))
            invocation_id = await lab.start(f"say([{number}, reach('192.0.2.1', 14000)])", executor=executor)
            try:
                return (await executor.wait(invocation_id)).log.splitlines()[-1]
            finally:
                await executor.remove(invocation_id)

        return await asyncio.gather(*(one(number) for number in range(8)))

    assert lab(scenario) == [f'ANSWER [{number}, "reached gateway"]' for number in range(8)]


def test_runsc_that_does_not_run_is_an_error_with_a_remedy(lab, tmp_path):
    async def scenario(lab):
        lab.runsc = tmp_path / "missing"
        lab.executor = lab.make(lab.root)
        with pytest.raises(ExecutorError, match="remedy"):
            await lab.start("say(1)")
        (left,) = await lab.executor.leftovers()
        await lab.executor.remove(left.invocation_id)
        return traces(lab.state, left.invocation_id)

    assert lab(scenario) == {}
