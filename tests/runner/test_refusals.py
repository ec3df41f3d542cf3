"""No from anybody means that nothing was made, and that the no is on record."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal

import pytest
from kubernetes.client.exceptions import ApiException

from ringfence.errors import InputError, RingfenceError
from ringfence.invocation import Status
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.ports import Collaborators
from ringfence.runner.progress import Progress
from ringfence.runner.request import MAX_PROMPT_BYTES, RunnerLimits
from tests.runner.control import GROUPS, Control
from tests.runner.kubelet import Kubelet, linger

pytestmark = pytest.mark.cluster

REFUSED = {
    "an unknown user": ({"user": "!"}, "user_invalid"),
    "a user without a role": ({"groups": ["nobody"]}, "no_role"),
    "a tool that no capability of the user has": ({"tools": ["web-fetch", "ticket-store"]}, "tool_not_allowed"),
    "a tool that isn't declared": ({"tools": ["shell"]}, "tool_unknown"),
    "a model without a price": ({"model": "free-lunch"}, "model_unknown"),
}


class Untouched:
    """Fails the test when the executor or the broker is asked to make anything."""

    def __init__(self, side: Control, monkeypatch: pytest.MonkeyPatch):
        def touched(*args: object, **kwargs: object) -> None:
            raise AssertionError("something was made for a refused task")

        monkeypatch.setattr(side.parts.executor, "start", touched)
        monkeypatch.setattr(side.parts.broker, "issue", touched)


@pytest.mark.parametrize("what", REFUSED)
def test_a_refused_task_makes_nothing_and_is_recorded(side: Control, what: str, monkeypatch, sandboxes):
    changes, code = REFUSED[what]
    asked = {"user": "ann", "tools": ["web-fetch"], "groups": GROUPS, "model": "scripted", **changes}
    Untouched(side, monkeypatch)
    with SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task(
            asked["user"], "hello", asked["tools"], groups=asked["groups"], model=asked["model"], source="192.0.2.9"
        )
    assert result.status is Status.REFUSED
    assert [refusal.code for refusal in result.refusals] == [code]
    assert result.refusals[0].detail in result.error
    assert sandboxes() == []
    assert side.parts.journal.entries() == []
    recorded = side.records("access.refused")
    assert len(recorded) == 1
    assert code in str(recorded[0])
    assert "192.0.2.9" in str(recorded[0])
    assert side.records("invocation.ended")[0]["unmapped"]["status"] == "refused"


def test_a_spent_conversation_is_refused_before_anything_is_made(side: Control, cluster, monkeypatch, sandboxes):
    spend = {"groups": GROUPS, "model": "scripted", "conversation": "c1", "max_usd": Decimal("0.05")}

    def talk(container) -> int:
        for n in range(20):
            # Each call is another one: the same again and again opens the breaker.
            text = f"{n} {'x' * 4_000}"
            body = {"model": "scripted", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
            if container.gateway("POST", "/v1/chat/completions", body).status_code == 402:
                break
        return container.answer("spent")

    with Kubelet(cluster.configuration, talk), SecureAgentRunner(side.parts) as runner:
        first = runner.execute_agent_task("ann", "spend", [], **spend)
        assert first.status is Status.BUDGET_EXHAUSTED
        assert Decimal(0) < first.cost_usd <= Decimal("0.05")
        assert "budget_exhausted" in [refusal.code for refusal in first.refusals]
        Untouched(side, monkeypatch)
        second = runner.execute_agent_task("ann", "more", [], **{**spend, "max_usd": first.cost_usd})
    assert second.status is Status.REFUSED
    assert [refusal.code for refusal in second.refusals] == ["budget_exhausted"]
    assert sandboxes() == []


def _refused_inside(container) -> int:
    event = {"type": "refusal", "code": "argument_not_allowed", "tool": "web-fetch", "detail": "another domain"}
    assert container.gateway("POST", "/v1/events", event).status_code == 202
    return container.answer("done")


@pytest.mark.parametrize("broken", [False, True])
def test_a_refusal_inside_that_can_not_be_recorded_fails_the_task(side: Control, cluster, monkeypatch, broken: bool):
    record = side.parts.refusals.record

    def unwritable(*args: object, kind: str, **fields: object) -> object:
        if broken and kind == "tool.refused":
            raise OSError("disk full")
        return record(*args, kind=kind, **fields)

    monkeypatch.setattr(side.parts.refusals, "record", unwritable)
    with Kubelet(cluster.configuration, _refused_inside), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", [], groups=GROUPS, model="scripted")
    recorded = side.records("tool.refused")
    assert [record["unmapped"]["stated_by"] for record in recorded] == ([] if broken else ["sandbox"])
    assert result.status is (Status.FAILED if broken else Status.SUCCEEDED)
    assert ("a refusal could not be recorded: disk full" in result.error) == broken


def test_a_tool_that_needs_more_than_a_sandbox_has_is_refused(side: Control, monkeypatch, sandboxes):
    tool = side.parts.access("ann", GROUPS, ["web-fetch"]).allowed[0]
    large = tool.model_copy(update={"limits": tool.limits.model_copy(update={"memory_mib": 4096})})

    class Decision:
        allowed, refusals = (large,), ()

    parts = Collaborators(
        **{name: getattr(side.parts, name) for name in Collaborators.__dataclass_fields__}
        | {"access": lambda user, groups, tools: Decision}
    )
    Untouched(side, monkeypatch)
    with SecureAgentRunner(parts) as runner:
        result = runner.execute_agent_task("ann", "hello", ["web-fetch"], groups=GROUPS, model="scripted")
    assert result.status is Status.REFUSED
    assert "web-fetch wants 500m CPU and 4096 MiB" in result.error


def test_a_tool_without_a_listener_is_refused(side: Control, monkeypatch):
    monkeypatch.setattr(side.parts.executor.settings.__class__, "tool_ports", {}, raising=False)
    with pytest.raises(RingfenceError, match="no listener at the egress proxy"):
        side.parts.executor.fit(side.parts.access("ann", GROUPS, ["web-fetch"]).allowed)


def test_more_tasks_than_there_is_room_for_are_refused(side: Control, cluster, sandboxes: Callable[[], list[str]]):
    task = {"groups": GROUPS, "model": "scripted"}
    running = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.step == "result":
            running.set()

    async def main(runner: SecureAgentRunner) -> None:
        first = asyncio.create_task(runner.run("ann", "hang", [], **task, report=watch))
        while not running.is_set():
            await asyncio.sleep(0.05)
        second = asyncio.create_task(runner.run("ann", "wait", [], **task))
        while len(runner.active()) < 2:
            await asyncio.sleep(0.05)
        third = await runner.run("ann", "too many", [], **task)
        assert third.status is Status.REFUSED
        assert third.refusals[0].code == "too_many_invocations"
        assert len(sandboxes()) == 1
        for task_ in (second, first):
            task_.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

    limits = RunnerLimits(max_concurrent=1, max_waiting=1)
    with Kubelet(cluster.configuration, linger), SecureAgentRunner(side.parts, limits) as runner:
        asyncio.run(main(runner))


BAD = {
    "no user": (("", "hello", []), {}, "user_id: is empty"),
    "no prompt": (("ann", "  ", []), {}, "task_prompt: is empty"),
    "a prompt beyond a process's environment": (("ann", "x" * (MAX_PROMPT_BYTES + 1), []), {}, "task_prompt: has"),
    "a prompt with NUL": (("ann", "a\0b", []), {}, "NUL"),
    "half a surrogate pair": (("ann", "\ud800", []), {}, "surrogate"),
    "tools as one text": (("ann", "hello", "web-fetch"), {}, "allowed_tools: is str"),
    "too many tools": (("ann", "hello", ["t"] * 51), {}, "names 51 tools"),
    "an unknown option": (("ann", "hello", []), {"budget": 3}, "budget: is not an option"),
    "more money than there is": (("ann", "hello", []), {"max_usd": 11}, "max_usd: 11 is out of bounds"),
    "money that is no number": (("ann", "hello", []), {"max_usd": "NaN"}, "max_usd"),
    "no time": (("ann", "hello", []), {"timeout_seconds": 0}, "timeout_seconds"),
    "more time than there is": (("ann", "hello", []), {"timeout_seconds": 301}, "timeout_seconds"),
    "an id that is none": (("ann", "hello", []), {"invocation_id": "abcdefghijkl\n"}, "invocation_id"),
    "a scope for another tool": (("ann", "hello", []), {"scopes": {"web-fetch": None}}, "scopes.web-fetch"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_can_not_be_a_task_is_named_and_makes_nothing(side: Control, what: str, monkeypatch):
    arguments, options, said = BAD[what]
    Untouched(side, monkeypatch)
    with SecureAgentRunner(side.parts) as runner, pytest.raises(InputError) as caught:
        runner.execute_agent_task(*arguments, **options)
    assert said in str(caught.value)


def test_every_problem_is_named_at_once(side: Control):
    with SecureAgentRunner(side.parts) as runner, pytest.raises(InputError) as caught:
        runner.execute_agent_task("", "", "x", max_usd=0, timeout_seconds=-1)
    assert len(caught.value.problems) == 5


def test_nothing_runs_unrecorded(side: Control, monkeypatch, sandboxes):
    def full(*args: object, **kwargs: object) -> str:
        raise RingfenceError("the audit trail's disk is full")

    Untouched(side, monkeypatch)
    monkeypatch.setattr(side.trail, "record", full)
    with SecureAgentRunner(side.parts) as runner, pytest.raises(RingfenceError, match="disk is full"):
        runner.execute_agent_task("ann", "hello", [], groups=GROUPS, model="scripted")
    assert sandboxes() == []


def test_the_runner_has_no_rights_elsewhere(side: Control):
    core = side.parts.executor.cluster.core
    for attempt in (
        lambda: core.list_namespaced_pod("kube-system"),
        lambda: core.list_secret_for_all_namespaces(),
        lambda: core.create_namespace({"metadata": {"name": "elsewhere"}}),
    ):
        with pytest.raises(ApiException) as caught:
            attempt()
        assert caught.value.status == 403


def test_a_closed_runner_takes_no_task(side: Control):
    runner = SecureAgentRunner(side.parts)
    runner.close()
    with pytest.raises(RingfenceError, match="takes no more tasks"):
        runner.execute_agent_task("ann", "hello", [], groups=GROUPS, model="scripted")


def test_blocking_inside_of_asynchronous_code_is_refused(side: Control):
    async def main() -> None:
        SecureAgentRunner(side.parts).execute_agent_task("ann", "hello", [], groups=GROUPS)

    with pytest.raises(RingfenceError, match=r"await run\(\)"):
        asyncio.run(main())
