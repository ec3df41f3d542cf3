"""A waiting sandbox is used up by a task that runs, and by nothing else: not by one that is refused, nor by one given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ringfence.invocation import Status
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.executor import Fit
from ringfence.runner.pool import WarmUnit
from ringfence.runner.request import RunnerLimits
from tests.runner import control
from tests.runner.test_rounds import Pretended

TASK = {"groups": control.GROUPS, "model": "scripted"}


class Pool:
    """Counts how often a sandbox is taken; it never has one."""

    taken = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        pass

    async def take(self, fit: Fit) -> WarmUnit | None:
        self.taken += 1
        return None

    async def close(self) -> None:
        pass


@pytest.fixture
def side(cloud: Any, tmp_path: Path) -> control.Control:
    made = control.gateway_of(tmp_path)
    return control.control(tmp_path, cloud.endpoint, lambda _: Pretended(), ("127.0.0.1", 1), made)


def test_refusals_of_the_budget_take_no_waiting_sandbox(side: control.Control) -> None:
    pool = Pool()
    with SecureAgentRunner(side.parts, pool=pool) as runner:
        # Control: a task that runs takes one.
        runner.execute_agent_task("ann", "hello", [], **TASK, conversation="mine")
        assert pool.taken == 1
        for options in ({"model": "free-lunch"}, {"conversation": "mine", "user": "eve"}):
            asked = {**TASK, **options}
            result = runner.execute_agent_task(asked.pop("user", "ann"), "hello", [], **asked)
            assert result.status is Status.REFUSED
        assert pool.taken == 1
        assert len(side.records("access.refused")) == 2


def test_a_spent_conversation_takes_no_waiting_sandbox(side: control.Control, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    with SecureAgentRunner(side.parts, pool=pool) as runner:
        runner.execute_agent_task("ann", "hello", [], **TASK, conversation="c", max_usd=Decimal("0.01"))
        with side.gateway.books.ledger._file.transaction() as db:
            db.execute("UPDATE conversations SET committed = cap")
        result = runner.execute_agent_task("ann", "hello", [], **TASK, conversation="c")
    assert (result.status, pool.taken) == (Status.REFUSED, 1)
    assert [item.code for item in result.refusals] == ["budget_exhausted"]


def test_a_task_cancelled_while_it_waits_takes_no_waiting_sandbox_and_makes_nothing(side: control.Control) -> None:
    pool = Pool()

    async def until(what: Callable[[], Any]) -> None:
        ends = time.monotonic() + 60
        while not what():
            assert time.monotonic() < ends
            await asyncio.sleep(0.01)

    async def go(runner: SecureAgentRunner) -> list[Any]:
        tasks = [asyncio.create_task(runner.run("ann", "hello", [], **TASK, invocation_id="a" * 12))]
        await until(lambda: side.records("invocation.started"))
        tasks += [asyncio.create_task(runner.run("ann", "hello", [], **TASK, invocation_id="b" * 12))]
        await until(lambda: runner._waiting)
        assert runner.cancel("b" * 12)
        side.parts.executor.held = False
        return await asyncio.gather(*tasks)

    with SecureAgentRunner(side.parts, RunnerLimits(max_concurrent=1), pool) as runner:
        side.parts.executor.held = True
        first, second = asyncio.run(go(runner))
    assert (first.status, second.status) == (Status.FAILED, Status.CANCELLED)
    started = [item["metadata"]["correlation_uid"] for item in side.records("invocation.started")]
    assert started == ["a" * 12]
    ended = [item["metadata"]["correlation_uid"] for item in side.records("invocation.ended")]
    assert sorted(ended) == ["a" * 12, "b" * 12]
