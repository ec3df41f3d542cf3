"""One invocation on a real API server, as the runner's service account: made whole, watched to its end, gone."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from ringfence.invocation import Status, new_id
from ringfence.runner import kubernetes_client, kubernetes_executor, manifests
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.executor import CREDENTIALS_FOLDER, ExecutorError, Unit
from ringfence.runner.progress import Progress, State
from ringfence.runner.reaper import reap
from tests.runner.control import GROUPS, TOOL_PORTS, WEB_PORT, Control, catalog
from tests.runner.kubelet import Container, Kubelet, linger, succeed

pytestmark = pytest.mark.cluster
TASK = {"groups": GROUPS, "model": "scripted"}


def test_a_task_runs_and_leaves_nothing(side: Control, cluster, sandboxes: Callable[[], list[str]]):
    steps: list[Progress] = []
    with Kubelet(cluster.configuration), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "say hello", ["web-fetch"], **TASK, report=steps.append)
    assert (result.status, result.output, result.error) == (Status.SUCCEEDED, "done: say hello", "")
    assert result.cost_usd == Decimal(0)
    assert sandboxes() == []
    assert side.parts.journal.entries() == []
    assert [step.step for step in steps if step.state is State.DONE] == [
        "record", "session", "credentials", "sandbox", "result",
    ]  # fmt: skip
    assert steps[-1].result == result
    ended = side.records("invocation.ended")
    assert [record["metadata"]["uid"] for record in ended] == [result.audit_id]


def test_the_sandbox_is_given_what_was_promised(side: Control, cluster):
    seen: list[Container] = []

    def look(container: Container) -> int:
        seen.append(container)
        return succeed(container)

    with Kubelet(cluster.configuration, look) as kubelet, SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "use $(CREDENTIALS_TOKEN)", ["s3-report-reader", "web-fetch"], **TASK)
        namespace = kubelet.started[0]
    environment = seen[0].environment
    assert namespace == f"sandbox-{result.invocation_id}"
    # Kubernetes would have put the token there had the prompt been a plain value.
    assert environment["TASK_PROMPT"] == "use $(CREDENTIALS_TOKEN)"
    assert environment["ALLOWED_TOOLS"] == "s3-report-reader,web-fetch"
    assert environment["CREDENTIALS_TOKEN"]
    # What boto3 and web-fetch need for the listeners; nothing names AWS itself, whose hosts the grants stand for.
    own = {name: TOOL_PORTS[name] for name in ("s3-report-reader", "web-fetch")}
    assert json.loads(environment["RINGFENCE_TOOL_PORTS"]) == own
    assert environment["RINGFENCE_PROXY_HOST"] == "10.42.0.5"
    assert {item["name"]: item["port"] for item in json.loads(environment["RINGFENCE_TOOLS"])} == own
    assert environment["AWS_REGION"] == "us-east-1"
    assert "AWS_ENDPOINT_URL" not in environment
    assert list(seen[0].files) == ["s3-report-reader.json"]


def test_the_pod_meets_the_promised_spec(side: Control, cluster):
    core = side.parts.executor.cluster.core
    found = {}

    def look(container: Container) -> int:
        pod = core.read_namespaced_pod("agent", container.namespace, _preload_content=False)
        found.update(json.loads(pod.data))
        return succeed(container)

    with Kubelet(cluster.configuration, look), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", ["s3-report-reader"], **TASK, timeout_seconds=120)
    spec, container = found["spec"], found["spec"]["containers"][0]
    assert spec["runtimeClassName"] == "gvisor"
    assert 120 < spec["activeDeadlineSeconds"] <= 150
    assert container["resources"]["requests"] == {"cpu": "250m", "memory": "256Mi", "ephemeral-storage": "64Mi"}
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "256Mi"}
    assert container["securityContext"]["procMount"] == "Default"
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (1000, 1000)
    sources = {item["valueFrom"]["secretKeyRef"]["name"] for item in container["env"]}
    assert sources == {f"creds-{result.invocation_id}"}
    volume = next(item["secret"] for item in spec["volumes"] if "secret" in item)
    assert (volume["defaultMode"], volume["secretName"]) == (0o440, f"creds-{result.invocation_id}")
    mount = next(item for item in container["volumeMounts"] if item["name"] == "credentials")
    assert (mount["mountPath"], mount["readOnly"]) == (CREDENTIALS_FOLDER, True)


def test_the_fence_opens_the_gateway_and_the_tools_ports_alone(side: Control, cluster):
    networking = client.NetworkingV1Api(client.ApiClient(cluster.configuration))
    opened: list[tuple[str, int]] = []

    def look(container: Container) -> int:
        for policy in networking.list_namespaced_network_policy(container.namespace).items:
            for rule in policy.spec.egress or []:
                opened.extend((peer.ip_block.cidr, port.port) for peer in rule.to for port in rule.ports)
        return succeed(container)

    with Kubelet(cluster.configuration, look), SecureAgentRunner(side.parts) as runner:
        runner.execute_agent_task("ann", "hello", ["web-fetch"], **TASK)
        port = side.parts.executor.settings.gateway.port
        assert sorted(opened) == [("10.42.0.5/32", WEB_PORT), ("127.0.0.1/32", port)]
        opened.clear()
        runner.execute_agent_task("ann", "hello", ["s3-report-reader"], **TASK)
        assert sorted(opened) == [("10.42.0.5/32", TOOL_PORTS["s3-report-reader"]), ("127.0.0.1/32", port)]
        opened.clear()
        runner.execute_agent_task("ann", "hello", [], **TASK)
        assert opened == [("127.0.0.1/32", port)]


def test_a_tool_has_a_port_exactly_when_it_goes_out_or_calls_aws(side: Control):
    executor = side.parts.executor
    assert {tool.name: dict(executor.fit([tool]).ports) for tool in catalog().tools} == {
        name: {name: TOOL_PORTS[name]} if name in TOOL_PORTS else {} for name in (*TOOL_PORTS, "model-call")
    }


@pytest.mark.parametrize("name", TOOL_PORTS)
def test_a_tool_whose_listener_the_environment_lacks_is_refused_before_anything_is_made(
    side: Control, name: str, monkeypatch
):
    executor = side.parts.executor
    settings = executor.settings
    without = {tool: port for tool, port in TOOL_PORTS.items() if tool != name}
    for changed in ({"tool_ports": without}, {"proxy_cidrs": ()}):
        monkeypatch.setattr(executor, "settings", dataclasses.replace(settings, **changed))
        with pytest.raises(ExecutorError, match=f"tool {name} has no listener at the egress proxy"):
            executor.fit([catalog().tool(name)])


def test_a_task_ends_at_its_deadline(side: Control, cluster, sandboxes: Callable[[], list[str]]):
    with Kubelet(cluster.configuration, linger), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hang", [], **TASK, timeout_seconds=4)
    assert result.status is Status.TIMED_OUT
    assert sandboxes() == []


def test_a_cancelled_task_is_cleaned_up(side: Control, cluster, sandboxes: Callable[[], list[str]]):
    begun = threading.Event()
    ids: list[str] = []

    def watch(progress: Progress) -> None:
        ids.append(progress.invocation_id)
        if (progress.step, progress.state) == ("result", State.BEGIN):
            begun.set()

    with Kubelet(cluster.configuration, linger), SecureAgentRunner(side.parts) as runner:
        results = []
        caller = threading.Thread(
            target=lambda: results.append(runner.execute_agent_task("ann", "hang", [], **TASK, report=watch))
        )
        caller.start()
        assert begun.wait(60)
        assert sandboxes() == [f"sandbox-{ids[0]}"]
        assert runner.cancel(ids[0])
        caller.join()
        assert not runner.cancel(ids[0])
    assert results[0].status is Status.CANCELLED
    assert sandboxes() == []


def test_cancelling_the_caller_cancels_the_task(side: Control, cluster, sandboxes: Callable[[], list[str]]):
    async def main(runner: SecureAgentRunner) -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def watch(progress: Progress) -> None:
            if progress.step == "result":
                loop.call_soon_threadsafe(begun.set)

        task = asyncio.create_task(runner.run("ann", "hang", [], **TASK, report=watch))
        await begun.wait()
        task.cancel()
        # Once more while it cleans up.
        loop.call_later(0.05, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert runner.active() == []

    with Kubelet(cluster.configuration, linger), SecureAgentRunner(side.parts) as runner:
        asyncio.run(main(runner))
        assert sandboxes() == []
    assert side.records("invocation.ended")[0]["unmapped"]["status"] == "cancelled"


def test_progress_is_streamed_and_ends_with_the_result(side: Control, cluster):
    async def main(runner: SecureAgentRunner) -> list[Progress]:
        return [progress async for progress in runner.stream("ann", "hello", [], **TASK)]

    with Kubelet(cluster.configuration), SecureAgentRunner(side.parts) as runner:
        steps = asyncio.run(main(runner))
    assert steps[0].step == "record"
    assert steps[-1].result.status is Status.SUCCEEDED


def test_leaving_the_stream_cancels_the_task(side: Control, cluster, sandboxes: Callable[[], list[str]]):
    async def main(runner: SecureAgentRunner) -> None:
        stream = runner.stream("ann", "hang", [], **TASK)
        async for progress in stream:
            if progress.step == "result":
                break
        await stream.aclose()

    with Kubelet(cluster.configuration, linger), SecureAgentRunner(side.parts) as runner:
        asyncio.run(main(runner))
        assert sandboxes() == []


def test_a_sandbox_that_dies_without_a_result_is_a_failure(side: Control, cluster):
    with Kubelet(cluster.configuration, lambda container: 3), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "die", [], **TASK)
    assert result.status is Status.FAILED
    assert "without a result: Error (exit code 3)" in result.error


def test_a_sandbox_that_is_deleted_by_somebody_is_a_failure(side: Control, cluster):
    core = client.CoreV1Api(client.ApiClient(cluster.configuration))

    def vanish(container: Container) -> int:
        core.delete_namespaced_pod("agent", container.namespace, grace_period_seconds=0)
        return 0

    with Kubelet(cluster.configuration, vanish), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "vanish", [], **TASK)
    assert result.status is Status.FAILED
    assert "Deleted" in result.error


def test_output_shows_no_credential_and_no_token(side: Control, cluster):
    spoken = {}

    def spill(container: Container) -> int:
        credentials = json.loads(container.files["s3-report-reader.json"])
        spoken.update(credentials, token=container.environment["CREDENTIALS_TOKEN"])
        text = json.dumps(credentials) + spoken["token"]
        container.gateway("POST", "/v1/events", {"type": "log", "message": text})
        return container.answer(text + base64.b64encode(credentials["SecretAccessKey"].encode()).decode())

    steps: list[Progress] = []
    with Kubelet(cluster.configuration, spill), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "print", ["s3-report-reader"], **TASK, report=steps.append)
    told = result.output + "".join(f"{step.detail}{step.result}" for step in steps) + side.trail.path.read_text()
    assert result.status is Status.SUCCEEDED
    assert "[redacted" in result.output
    for name in ("SecretAccessKey", "SessionToken", "AccessKeyId", "token"):
        assert spoken[name] not in told
    assert base64.b64encode(spoken["SecretAccessKey"].encode()).decode() not in told


CREATIONS = {
    "namespace": ("core", "create_namespace"),
    "role binding": ("rbac", "create_namespaced_role_binding"),
    "quota": ("core", "create_namespaced_resource_quota"),
    "limits": ("core", "create_namespaced_limit_range"),
    "policies": ("networking", "create_namespaced_network_policy"),
    "secret": ("core", "create_namespaced_secret"),
    "pod": ("core", "create_namespaced_pod"),
}


@pytest.mark.parametrize("what", CREATIONS)
def test_a_start_that_fails_half_way_leaves_nothing(side: Control, what: str, monkeypatch, sandboxes):
    group, method = CREATIONS[what]

    def refuse(*args: object, **kwargs: object) -> None:
        raise ApiException(status=422, reason="refused by the test")

    monkeypatch.setattr(getattr(side.parts.executor.cluster, group), method, refuse)
    with SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", ["web-fetch"], **TASK)
    assert result.status is Status.FAILED
    assert "refused by the test" in result.error
    assert sandboxes() == []
    assert side.parts.journal.entries() == []
    assert side.broker.list(active=True) == []


def test_a_clean_up_that_fails_stops_nothing_else_and_is_told(side: Control, cluster, monkeypatch, sandboxes):
    async def stuck(invocation_id: str) -> None:
        raise ExecutorError("the test holds the namespace")

    monkeypatch.setattr(side.parts.executor, "remove", stuck)
    with Kubelet(cluster.configuration), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", ["s3-report-reader"], **TASK)
        assert result.status is Status.FAILED
        assert "clean-up failed: sandbox: the test holds the namespace" in result.error
        # Credentials and session are closed all the same, and the journal keeps it for the reaper.
        assert side.broker.list(active=True) == []
        assert [entry.invocation_id for entry in side.parts.journal.entries()] == [result.invocation_id]
        assert side.records("invocation.ended")[0]["unmapped"]["clean_up_failures"]
    monkeypatch.undo()
    late = datetime.now(UTC) + timedelta(seconds=400)
    assert [item.invocation_id for item in asyncio.run(reap(side.parts, clock=lambda: late))] == [result.invocation_id]
    assert sandboxes() == []


def test_removing_twice_and_removing_nothing_are_fine(side: Control, sandboxes):
    async def main() -> None:
        executor = side.parts.executor
        unit = Unit(new_id(), "owner", datetime.now(UTC) + timedelta(seconds=60), (), environment={"A": "b"})
        await executor.start(unit, lambda _: None)
        await asyncio.gather(executor.remove(unit.invocation_id), executor.remove(unit.invocation_id))
        await executor.remove(unit.invocation_id)
        await executor.remove(new_id())
        assert (await executor.wait(unit.invocation_id)).reason == "Deleted"

    asyncio.run(main())
    assert sandboxes() == []


def test_a_namespace_that_does_not_go_is_an_error(side: Control, cluster, monkeypatch, sandboxes):
    core = client.CoreV1Api(client.ApiClient(cluster.configuration))
    monkeypatch.setattr(kubernetes_executor, "REMOVE_SECONDS", 3.0)

    async def main() -> None:
        executor = side.parts.executor
        unit = Unit(new_id(), "owner", datetime.now(UTC) + timedelta(seconds=60), (), environment={"A": "b"})
        await executor.start(unit, lambda _: None)
        namespace = f"sandbox-{unit.invocation_id}"
        core.create_namespaced_config_map(
            namespace, {"metadata": {"name": "held", "finalizers": ["ringfence.dev/test"]}}
        )
        try:
            with pytest.raises(ExecutorError, match=f"namespace {namespace} is still there"):
                await executor.remove(unit.invocation_id)
            # The process and what it could use are gone all the same.
            assert core.list_namespaced_pod(namespace).items == []
            assert [item.metadata.name for item in core.list_namespaced_secret(namespace).items] == []
        finally:
            core.patch_namespaced_config_map("held", namespace, {"metadata": {"finalizers": None}})
        await executor.remove(unit.invocation_id)

    asyncio.run(main())
    assert sandboxes() == []


def test_a_cancelled_start_makes_nothing_afterwards(side: Control, sandboxes):
    async def main() -> None:
        executor = side.parts.executor
        for pause in (0.0, 0.01, 0.05, 0.1):
            unit = Unit(new_id(), "owner", datetime.now(UTC) + timedelta(seconds=60), (), environment={"A": "b"})
            start = asyncio.create_task(executor.start(unit, lambda _: None))
            await asyncio.sleep(pause)
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            await executor.remove(unit.invocation_id)
            await asyncio.sleep(0.2)
            assert f"sandbox-{unit.invocation_id}" not in sandboxes()

    asyncio.run(main())


def test_an_exit_is_not_missed_when_the_watch_breaks(side: Control, cluster, monkeypatch):
    """Every watch ends at once, as at a server that was restarted; the exit comes between two of them."""
    executor = side.parts.executor
    monkeypatch.setattr(executor.cluster, "_changes", lambda *args: iter(()))

    def slowly(container: Container) -> int:
        time.sleep(1)
        return 4

    with Kubelet(cluster.configuration, slowly), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", [], **TASK)
    assert "exit code 4" in result.error


def without_rights(side: Control, cluster, monkeypatch, seconds: float) -> Kubelet:
    """A node whose sandbox the runner may not see for so long, as at an API server that doesn't know its rights yet."""
    monkeypatch.setattr(side.parts.executor.cluster, "_changes", lambda *args: iter(()))
    rbac = client.RbacAuthorizationV1Api(client.ApiClient(cluster.configuration))

    def forbid(container: Container) -> int:
        rbac.delete_namespaced_role_binding("unit", container.namespace)
        container.stopped.wait(seconds)
        if not container.stopped.is_set():
            rbac.create_namespaced_role_binding(container.namespace, manifests.unit_binding(container.namespace))
        return 4

    return Kubelet(cluster.configuration, forbid)


def test_rights_that_come_late_fail_no_task(side: Control, cluster, monkeypatch, sandboxes):
    with without_rights(side, cluster, monkeypatch, 2), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", [], **TASK)
    assert "exit code 4" in result.error


def test_rights_that_never_come_fail_the_task(side: Control, cluster, monkeypatch, sandboxes):
    monkeypatch.setattr(kubernetes_client, "SETTLE_SECONDS", 1.0)
    with without_rights(side, cluster, monkeypatch, 60), SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", [], **TASK)
    assert result.status is Status.FAILED
    assert "cannot list resource" in result.error
