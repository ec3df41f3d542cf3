"""Many tasks at once on one API server: none is lost, none leaks."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal

import pytest

from ringfence.invocation import Result, Status
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.request import RunnerLimits
from tests.runner.control import GROUPS, Control
from tests.runner.kubelet import Container, Kubelet

pytestmark = pytest.mark.cluster


def work(container: Container) -> int:
    """One model call, then the answer."""
    body = {"model": "scripted", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
    assert container.gateway("POST", "/v1/chat/completions", body).status_code == 200
    return container.answer(f"done: {container.environment['TASK_PROMPT']}")


def check(side: Control, cluster, sandboxes, count: int) -> None:
    async def main(runner: SecureAgentRunner) -> list[Result]:
        return await asyncio.gather(
            *(
                runner.run(
                    "ann", f"task {n}", ["s3-report-reader"] if n % 4 == 0 else [], groups=GROUPS, model="scripted"
                )
                for n in range(count)
            )
        )

    with (
        Kubelet(cluster.configuration, work),
        SecureAgentRunner(side.parts, RunnerLimits(max_concurrent=count)) as runner,
    ):
        results = asyncio.run(main(runner))
    assert Counter(result.status for result in results) == {Status.SUCCEEDED: count}, {r.error for r in results}
    assert [result.output for result in results] == [f"done: task {n}" for n in range(count)]
    assert len({result.invocation_id for result in results}) == count
    assert all(result.usage.model_calls == 1 and result.cost_usd > Decimal(0) for result in results)
    assert sandboxes() == []
    assert side.parts.journal.entries() == []
    assert side.broker.list(active=True) == []
    assert len(side.records("invocation.ended")) == count
    assert len(side.records("sandbox.removed")) == count


def test_twelve_tasks_at_once(side: Control, cluster, sandboxes):
    check(side, cluster, sandboxes, 12)


@pytest.mark.e2e
def test_two_hundred_tasks_at_once(side: Control, cluster, sandboxes):
    check(side, cluster, sandboxes, 200)
