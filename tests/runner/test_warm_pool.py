"""Waiting sandboxes: each in a unit of its own, handed out once, without credentials until then."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes import client

from ringfence.errors import RingfenceError
from ringfence.invocation import Invocation, Status
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.executor import CPU_MILLIS, MEMORY_MIB, ExecutorError, Fit, Unit
from ringfence.runner.lifecycle import Work, assignment_of
from ringfence.runner.pool import WarmPool
from ringfence.runner.ports import Entry
from ringfence.runner.reaper import reap
from tests.runner.control import GROUPS, WEB_PORT, Control
from tests.runner.kubelet import Container, Kubelet, succeed

pytestmark = pytest.mark.cluster
TASK = {"groups": GROUPS, "model": "scripted"}
FIT = Fit(CPU_MILLIS, MEMORY_MIB)


def wait_and_do(container: Container) -> int:
    """What the runtime does in a waiting sandbox: ask for the assignment until there is one, then answer."""
    if "RINGFENCE_WARM" not in container.environment:
        return succeed(container)
    assert "TASK_PROMPT" not in container.environment
    assert not container.files
    while not container.stopped.is_set():
        asked = container.gateway("GET", "/v1/assignment")
        if asked.status_code == 200:
            assignment = asked.json()
            names = sorted(assignment["credentials"])
            return container.answer(f"warm: {assignment['prompt']} with {names}")
        if asked.status_code != 204:
            return 1
    return 137


def until(done: Callable[[], bool], what: str, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@contextmanager
def filled(side: Control, kubelet: Kubelet, size: int, **options) -> Iterator[tuple[SecureAgentRunner, WarmPool]]:
    """A runner whose pool is full of sandboxes that run."""
    pool = WarmPool(side.parts, size, **options)
    with SecureAgentRunner(side.parts, pool=pool) as runner:
        runner.start()
        until(lambda: pool.waiting == size and len(kubelet.started) >= size, "the pool is full")
        yield runner, pool


def test_a_task_takes_a_waiting_sandbox_and_the_pool_fills_up_again(side: Control, cluster, sandboxes):
    with Kubelet(cluster.configuration, wait_and_do) as kubelet:
        with filled(side, kubelet, 2) as (runner, pool):
            before = set(sandboxes())
            result = runner.execute_agent_task("ann", "hello", ["s3-report-reader"], **TASK)
            assert (result.status, result.error) == (Status.SUCCEEDED, "")
            assert result.output == "warm: hello with ['s3-report-reader']"
            assert f"sandbox-{result.invocation_id}" in before
            assert f"sandbox-{result.invocation_id}" not in sandboxes()
            until(lambda: pool.waiting == 2, "the pool is full again")
            assert len(set(sandboxes()) - before) == 1
        assert sandboxes() == []
        assert side.parts.journal.entries() == []
        assert side.broker.list(active=True) == []


def test_a_waiting_sandbox_has_no_way_out_but_the_gateway_and_gets_its_tools_ports(side: Control, cluster):
    networking = client.NetworkingV1Api(client.ApiClient(cluster.configuration))
    core = client.CoreV1Api(client.ApiClient(cluster.configuration))
    seen: dict[str, object] = {}

    def ports(namespace: str) -> list[int]:
        found = networking.list_namespaced_network_policy(namespace).items
        return sorted(port.port for policy in found for rule in policy.spec.egress or [] for port in rule.ports)

    def look(container: Container) -> int:
        pod = core.read_namespaced_pod("agent", container.namespace)
        seen.setdefault("before", (ports(container.namespace), pod.spec.active_deadline_seconds))
        while not container.stopped.is_set():
            asked = container.gateway("GET", "/v1/assignment")
            if asked.status_code == 200:
                pod = core.read_namespaced_pod("agent", container.namespace)
                seen.setdefault("after", (ports(container.namespace), pod.spec.active_deadline_seconds))
                return container.answer("done")
        return 137

    gateway = side.parts.executor.settings.gateway.port
    with Kubelet(cluster.configuration, look) as kubelet, filled(side, kubelet, 1) as (runner, _):
        result = runner.execute_agent_task("ann", "hello", ["web-fetch"], **TASK, timeout_seconds=100)
    assert result.status is Status.SUCCEEDED
    assert seen["before"][0] == [gateway]
    assert seen["after"][0] == sorted([gateway, WEB_PORT])
    # The wall clock covered the wait and the longest task; bound, it is this task's.
    assert seen["before"][1] > 600
    assert seen["after"][1] < 200


def test_many_tasks_at_once_never_share_a_sandbox(side: Control, cluster):
    async def main(runner: SecureAgentRunner) -> list:
        return await asyncio.gather(*(runner.run("ann", f"task {n}", [], **TASK) for n in range(12)))

    with Kubelet(cluster.configuration, wait_and_do) as kubelet, filled(side, kubelet, 4) as (runner, _):
        results = asyncio.run(main(runner))
    assert [(result.status, result.error) for result in results] == [(Status.SUCCEEDED, "")] * 12
    assert len({result.invocation_id for result in results}) == 12
    for n, result in enumerate(results):
        assert result.output in (f"warm: task {n} with []", f"done: task {n}")
    assert sum(result.output.startswith("warm") for result in results) >= 4


def test_a_waiting_sandbox_whose_process_died_is_not_handed_out(side: Control, cluster, sandboxes):
    die = threading.Event()

    def mortal(container: Container) -> int:
        if container.environment.get("RINGFENCE_WARM") and not die.is_set():
            die.wait(60)
            return 1
        return wait_and_do(container)

    with Kubelet(cluster.configuration, mortal) as kubelet, filled(side, kubelet, 1) as (runner, pool):
        (dead,) = sandboxes()
        die.set()
        until(lambda: dead not in sandboxes(), "the dead one is removed")
        until(lambda: pool.waiting == 1, "another one waits")
        result = runner.execute_agent_task("ann", "hello", [], **TASK)
        assert result.status is Status.SUCCEEDED
        assert f"sandbox-{result.invocation_id}" != dead


def test_binding_refuses_a_sandbox_that_has_ended(side: Control, cluster, sandboxes):
    """The last look, in case the end was not noticed before: on its own, without the pool's watch."""
    executor = side.parts.executor

    async def main(kubelet: Kubelet) -> None:
        pool = WarmPool(side.parts, 1)
        pool._begin()
        while not (pool.waiting and kubelet.started):
            await asyncio.sleep(0.05)
        unit = await pool.take(FIT)
        core = client.CoreV1Api(client.ApiClient(cluster.configuration))
        status = {"phase": "Failed", "reason": "Evicted"}
        core.patch_namespaced_pod_status("agent", f"sandbox-{unit.id}", {"status": status})
        late = datetime.now(UTC) + timedelta(seconds=60)
        with pytest.raises(ExecutorError, match="has ended"):
            await executor.bind(Unit(unit.id, "owner", late, ()))
        await pool.close()
        await executor.remove(unit.id)

    with Kubelet(cluster.configuration, wait_and_do) as kubelet:
        asyncio.run(main(kubelet))


def test_a_sandbox_taken_for_a_task_that_fails_before_it_begins_is_never_given_back(
    side: Control, cluster, sandboxes, monkeypatch
):
    def refuse(*_: object, **__: object) -> None:
        raise RingfenceError("STS is out of reach")

    monkeypatch.setattr(side.parts.broker, "issue", refuse)
    with Kubelet(cluster.configuration, wait_and_do) as kubelet, filled(side, kubelet, 1) as (runner, pool):
        (taken,) = sandboxes()
        result = runner.execute_agent_task("ann", "hello", ["s3-report-reader"], **TASK)
        assert result.status is Status.FAILED
        assert result.invocation_id == taken.removeprefix("sandbox-")
        until(lambda: taken not in sandboxes(), "the one that was taken is removed")
        until(lambda: pool.waiting == 1, "another one waits")
        assert [entry.warm for entry in side.parts.journal.entries()] == [True]


def test_old_ones_are_replaced(side: Control, cluster, sandboxes):
    with (
        Kubelet(cluster.configuration, wait_and_do) as kubelet,
        filled(side, kubelet, 1, max_age_seconds=15) as (_, pool),
    ):
        (first,) = sandboxes()
        until(lambda: first not in sandboxes(), "the old one is removed")
        until(lambda: pool.waiting == 1, "a new one waits")


def test_a_task_that_needs_more_starts_cold(side: Control, cluster):
    with Kubelet(cluster.configuration, wait_and_do) as kubelet, filled(side, kubelet, 1) as (_, pool):

        async def main() -> None:
            assert await pool.take(Fit(CPU_MILLIS, MEMORY_MIB + 1)) is None
            assert await pool.take(Fit(CPU_MILLIS + 1, MEMORY_MIB)) is None

        asyncio.run(main())
        assert pool.waiting == 1


def test_an_id_of_the_callers_own_starts_cold(side: Control, cluster):
    with Kubelet(cluster.configuration, wait_and_do) as kubelet, filled(side, kubelet, 1) as (runner, pool):
        result = runner.execute_agent_task("ann", "hello", [], **TASK, invocation_id="abcdefghijkl")
        assert result.output == "done: hello"
        assert pool.waiting == 1


def test_starts_that_fail_leave_nothing_and_are_tried_again(side: Control, cluster, sandboxes, monkeypatch):
    executor = side.parts.executor
    warm, failures = executor.warm, []

    async def fails_twice(unit, report) -> None:
        if len(failures) < 2:
            failures.append(unit.invocation_id)
            await warm(unit, report)
            raise ExecutorError("the node is out of memory")
        await warm(unit, report)

    monkeypatch.setattr(executor, "warm", fails_twice)
    with Kubelet(cluster.configuration, wait_and_do) as kubelet:
        pool = WarmPool(side.parts, 1)
        with SecureAgentRunner(side.parts, pool=pool) as runner:
            runner.start()
            until(lambda: pool.waiting == 1, "one waits after two failures")
            assert len(failures) == 2
            until(lambda: len(sandboxes()) == 1, "the failed ones are gone")
    assert kubelet.started
    assert side.parts.journal.entries() == []


def test_the_token_of_a_waiting_sandbox_calls_no_model(side: Control, cluster):
    statuses: list[int] = []

    def greedy(container: Container) -> int:
        body = {"model": "scripted", "messages": [{"role": "user", "content": "hello"}]}
        statuses.append(container.gateway("POST", "/v1/chat/completions", body).status_code)
        return 0

    with Kubelet(cluster.configuration, greedy):
        pool = WarmPool(side.parts, 1)
        with SecureAgentRunner(side.parts, pool=pool) as runner:
            runner.start()
            until(lambda: bool(statuses), "it has tried")
    assert statuses[0] in (401, 403)


def test_a_dead_runners_waiting_sandboxes_are_reaped(side: Control, cluster, sandboxes, monkeypatch):
    async def main() -> None:
        pool = WarmPool(side.parts, 2)
        pool._begin()
        while pool.waiting < 2:
            await asyncio.sleep(0.05)
        assert await reap(side.parts) == []
        pool._keeper.cancel()
        # Another runner looks, and finds this one dead.
        monkeypatch.setattr(side.parts.owners, "id", "another")
        monkeypatch.setattr(side.parts.owners, "alive", lambda owner: owner == "another")
        assert len(await reap(side.parts)) == 2
        for unit in pool._units:
            unit.ended.cancel()

    with Kubelet(cluster.configuration, wait_and_do):
        asyncio.run(main())
    assert sandboxes() == []
    assert side.parts.journal.entries() == []


def test_the_journal_binds_once(side: Control):
    now = datetime.now(UTC)
    side.parts.journal.begin(Entry("abcdefghijkl", "owner", now, warm=True))
    side.parts.journal.bind("abcdefghijkl", now)
    with pytest.raises(RingfenceError, match="is not waiting"):
        side.parts.journal.bind("abcdefghijkl", now)


@pytest.mark.parametrize("age", [0, -1, 586])
def test_an_age_beyond_what_the_cluster_admits_is_refused(side: Control, age: float):
    with pytest.raises(ValueError, match="max_age_seconds"):
        WarmPool(side.parts, 1, max_age_seconds=age)


def test_the_assignment_is_json(side: Control):
    """What travels to a waiting sandbox has no type of our own in it."""
    now = datetime.now(UTC)
    tools = side.parts.access("ann", GROUPS, ["web-fetch", "s3-report-reader"]).allowed
    invocation = Invocation("abcdefghijkl", "ann", "hello", ("web-fetch",), now, now + timedelta(seconds=60))
    work = Work(invocation, tools, Fit(500, 512, {"web-fetch": 15001}), 1, "owner")
    work.credentials["s3-report-reader"] = b'{"Version": 1}'
    assignment = json.loads(json.dumps(assignment_of(work, side.parts.names)))
    assert assignment["credentials"] == {"s3-report-reader": {"Version": 1}}
    assert [tool["port"] for tool in assignment["tools"]] == [15001, None]
