"""Sandboxes as pods under gVisor, each in a namespace of its own, on any cluster that the environment's rules stand in.

Made in this order: namespace, the runner's own rights in it, quota, limits, default-deny, the way to the gateway and to
the tools' listeners, Secret, pod. The pod comes last, so that nothing runs before its fence; the admission policies of
`components.sandbox` refuse it otherwise.

Trust zone: control side. What the pod may do is decided by the API server, the CNI and gVisor, not by this module.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client

from ringfence.catalog.model import Tool
from ringfence.egress.aws_hosts import calls_aws
from ringfence.names import SANDBOX_NAMESPACE_PREFIX, SYSTEM_NAMESPACE
from ringfence.runner import executor as names
from ringfence.runner import manifests, pod
from ringfence.runner.executor import ExecutorError, Exit, Fit, Leftover, Report, Unit, size_of
from ringfence.runner.kubernetes_client import CallError, Cluster, connect
from ringfence.runner.unit_settings import CONFIG_MAP, KEY, UnitSettings, parse

# What is read of a sandbox's output, from its end.
LOG_LINES, LOG_BYTES = 200, 64 << 10
# A namespace is gone when every kind of object in it has been looked through; hundreds at once queue for that.
REMOVE_SECONDS = 300.0
# The node takes time to fetch the image before the process, whose own wall clock the runner holds, begins.
START_MARGIN_SECONDS = manifests.MAX_DEADLINE_SECONDS - 300
# A container that can't begin for one of these reasons will not begin later.
_NEVER_STARTS = frozenset(
    {
        "InvalidImageName", "ErrImageNeverPull", "ImagePullBackOff", "CreateContainerConfigError",
        "CreateContainerError", "RunContainerError",
    }
)  # fmt: skip


class KubernetesExecutor:
    """`Executor` on a cluster. settings: what the environment says of units."""

    name = "kubernetes"

    def __init__(self, api_client: client.ApiClient, settings: UnitSettings):
        self.cluster = Cluster(api_client)
        self.settings = settings
        if settings.gateway is None:
            raise ExecutorError("the environment names no model gateway: sandboxes would have nobody to talk to")

    @classmethod
    def of(cls, kubeconfig: Path | None, context: str | None = None) -> KubernetesExecutor:
        """For the cluster of a kubeconfig (None: this process's own), with the settings that stand in it.

        Raises ExecutorError when the cluster doesn't answer, InputError when its settings can't be used.
        """
        api_client = connect(kubeconfig, context)
        where = f"ConfigMap {SYSTEM_NAMESPACE}/{CONFIG_MAP}"
        read = client.CoreV1Api(api_client).read_namespaced_config_map
        found = Cluster(api_client).once(where, read, CONFIG_MAP, SYSTEM_NAMESPACE)
        return cls(api_client, parse((found.get("data") or {}).get(KEY, ""), where))

    def fit(self, tools: Sequence[Tool]) -> Fit:
        """See `Executor.fit`."""
        cpu, memory = size_of(tools, self.settings.max_cpu_millis, self.settings.max_memory_mib)
        ports = {}
        for tool in tools:
            if not tool.egress.domains and not calls_aws(tool):
                continue
            if tool.name not in self.settings.tool_ports or not self.settings.proxy_cidrs:
                raise ExecutorError(
                    f"tool {tool.name} has no listener at the egress proxy\n"
                    "    remedy: run `ringfence up` (or `pulumi up`) with this catalog"
                )
            ports[tool.name] = self.settings.tool_ports[tool.name]
        return Fit(cpu, memory, ports)

    async def start(self, unit: Unit, report: Report) -> None:
        """See `Executor.start`."""
        await self._make(unit, report, manifests.MAX_DEADLINE_SECONDS, warm=False)

    async def warm(self, unit: Unit, report: Report) -> None:
        """See `Executor.warm`."""
        if unit.tools or unit.credentials:
            raise ExecutorError(f"waiting sandbox {unit.invocation_id} must have neither tools nor credentials")
        await self._make(unit, report, manifests.MAX_DEADLINE_SECONDS + manifests.MAX_WARM_SECONDS, warm=True)

    async def bind(self, unit: Unit) -> None:
        """See `Executor.bind`. The pod's wall clock is lowered to the task's first, then its tools' ports are opened."""
        namespace = manifests.namespace_name(unit.invocation_id)
        read = self.cluster.core.read_namespaced_pod
        found = await self.cluster.call("the waiting sandbox", read, pod.POD_NAME, namespace)
        if _exit(found) is not None or found["metadata"].get("deletionTimestamp"):
            raise ExecutorError(f"waiting sandbox {unit.invocation_id} has ended")
        now = datetime.now(UTC)
        began = found["status"].get("startTime")
        age = (now - datetime.fromisoformat(began)).total_seconds() if began else 0.0
        left = math.ceil(max(0.0, age) + (unit.deadline - now).total_seconds()) + START_MARGIN_SECONDS
        lowered = min(left, found["spec"]["activeDeadlineSeconds"])
        patch = self.cluster.core.patch_namespaced_pod
        body = {"spec": {"activeDeadlineSeconds": lowered}}
        await self.cluster.call("the sandbox's wall clock", patch, pod.POD_NAME, namespace, body)
        await self._open_ports(unit, namespace)

    async def wait(self, invocation_id: str) -> Exit:
        """See `Executor.wait`."""
        namespace = manifests.namespace_name(invocation_id)
        listing = self.cluster.core.list_namespaced_pod
        what = f"the sandbox of {invocation_id}"
        try:
            ended = await self.cluster.until(what, _exit_or_gone, None, listing, namespace, name=pod.POD_NAME)
        except CallError as error:
            # The runner's rights in the namespace go with it.
            if error.status != 403 or not await self._going(namespace):
                raise
            return Exit(None, "Deleted")
        if ended is None:
            raise ExecutorError(f"{what}: nobody watches it any more")
        if ended.reason == "Deleted":
            return ended
        return Exit(ended.code, ended.reason, await self._log(namespace))

    async def _going(self, namespace: str) -> bool:
        """Whether the namespace is gone or on its way."""
        try:
            found = await self.cluster.call(f"namespace {namespace}", self.cluster.core.read_namespace, namespace)
        except CallError as error:
            if error.status == 404:
                return True
            raise
        return "deletionTimestamp" in found["metadata"]

    async def remove(self, invocation_id: str) -> None:
        """See `Executor.remove`. The process and its secret go at once; the call returns when the namespace is gone."""
        namespace = manifests.namespace_name(invocation_id)
        core = self.cluster.core
        now = {"gracePeriodSeconds": 0}
        for what, delete, args in (
            ("the sandbox's secret", core.delete_namespaced_secret, (pod.secret_name(invocation_id), namespace)),
            ("the sandbox's pod", core.delete_namespaced_pod, (pod.POD_NAME, namespace)),
        ):
            # One that isn't there, or not yet or no longer the runner's to delete, goes with its namespace.
            with contextlib.suppress(CallError):
                await self.cluster.in_call_thread(self.cluster.once, what, delete, *args, body=now)
        try:
            await self.cluster.call(f"namespace {namespace}", core.delete_namespace, namespace)
        except CallError as error:
            if error.status == 404:
                return
            # Somebody else is removing it: it still has to be gone.
            if error.reason != "Conflict":
                raise
        gone = await self.cluster.until(
            f"namespace {namespace}", _gone, REMOVE_SECONDS, core.list_namespace, name=namespace
        )
        if not gone:
            raise ExecutorError(
                f"namespace {namespace} is still there after {REMOVE_SECONDS:.0f} s\n"
                f"    remedy: kubectl get namespace {namespace} -o yaml names what holds it"
            )

    async def leftovers(self) -> list[Leftover]:
        """See `Executor.leftovers`."""
        listing = self.cluster.core.list_namespace
        found = await self.cluster.call("sandbox namespaces", listing, label_selector=manifests.INVOCATION_LABEL)
        return [
            _leftover(item["metadata"])
            for item in found["items"]
            if item["metadata"]["name"].startswith(SANDBOX_NAMESPACE_PREFIX)
        ]

    async def _make(self, unit: Unit, report: Report, most_seconds: int, *, warm: bool) -> None:
        left = math.ceil((unit.deadline - datetime.now(UTC)).total_seconds())
        if left <= 0:
            raise ExecutorError(f"invocation {unit.invocation_id} is past its deadline: no sandbox is made")
        namespace = manifests.namespace_name(unit.invocation_id)
        environment = self._environment(unit)
        labels = {manifests.OWNER_LABEL: unit.owner}
        core, call = self.cluster.core, self.cluster.call
        deadline = unit.deadline.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        report(f"namespace {namespace}")
        await call("the namespace", core.create_namespace, manifests.namespace(unit.invocation_id, deadline, labels))
        report("the runner's rights in it")
        binding = self.cluster.rbac.create_namespaced_role_binding
        await call("the role binding", binding, namespace, manifests.unit_binding(namespace))
        limits = self.settings.limits
        for what, create, manifest in (
            ("quota", core.create_namespaced_resource_quota, manifests.resource_quota(namespace, limits)),
            ("limits", core.create_namespaced_limit_range, manifests.limit_range(namespace, limits)),
            ("default-deny", self._create_policy, manifests.default_deny(namespace)),
            ("way to the gateway", self._create_policy, self._gateway_egress(namespace)),
        ):
            report(what)
            await call(f"the {what}", create, namespace, manifest)
        report("ways of the tools")
        await self._open_ports(unit, namespace)
        report("secret")
        await call("the secret", core.create_namespaced_secret, namespace, pod.secret(unit, namespace, environment))
        report("pod")
        seconds = min(left + START_MARGIN_SECONDS, most_seconds)
        body = pod.pod(unit, self.settings.image, environment, seconds, warm=warm)
        await call("the pod", core.create_namespaced_pod, namespace, body)

    @property
    def _create_policy(self) -> Any:
        return self.cluster.networking.create_namespaced_network_policy

    def _gateway_egress(self, namespace: str) -> dict[str, Any]:
        gateway = self.settings.gateway
        return manifests.gateway_egress(namespace, gateway.address, gateway.port, gateway.labels)

    async def _open_ports(self, unit: Unit, namespace: str) -> None:
        """A policy for exactly the tools' listeners; none when no tool has one."""
        if ports := self.fit(unit.tools).ports:
            policy = manifests.tool_egress(namespace, self.settings.proxy_cidrs, sorted(ports.values()))
            await self.cluster.call("the tools' egress", self._create_policy, namespace, policy)

    def _environment(self, unit: Unit) -> Mapping[str, str]:
        """The unit's variables, and where its gateway and its tools' listeners are."""
        environment = {**unit.environment, names.GATEWAY_URL: self.settings.gateway.url}
        if self.settings.proxy_cidrs:
            proxy = ipaddress.ip_network(sorted(self.settings.proxy_cidrs)[0])
            environment[names.PROXY_HOST] = str(proxy.network_address)
        ports = self.settings.tool_ports if names.WARM in unit.environment else self.fit(unit.tools).ports
        environment[names.TOOL_PORTS] = json.dumps(dict(sorted(ports.items())))
        return environment

    async def _log(self, namespace: str) -> str:
        """The end of the sandbox's output; empty when its node gives none."""
        with contextlib.suppress(CallError):
            return await self.cluster.in_call_thread(
                self.cluster.text,
                "the sandbox's log",
                self.cluster.core.read_namespaced_pod_log,
                pod.POD_NAME,
                namespace,
                tail_lines=LOG_LINES,
                limit_bytes=LOG_BYTES,
            )
        return ""


def _exit_or_gone(found: Mapping[str, Any] | None) -> Exit | None:
    return Exit(None, "Deleted") if found is None else _exit(found)


def _exit(found: Mapping[str, Any]) -> Exit | None:
    """How the pod ended; None while it may still begin or go on."""
    status = found.get("status") or {}
    states = [item.get("state") or {} for item in status.get("containerStatuses") or []]
    if status.get("phase") in ("Succeeded", "Failed"):
        ended = next((state["terminated"] for state in states if "terminated" in state), {})
        reason = status.get("reason") or ended.get("reason") or status["phase"]
        # A deadline or an eviction kills the process: what code it had then says nothing.
        return Exit(None if status.get("reason") else ended.get("exitCode"), reason)
    for state in states:
        reason = (state.get("waiting") or {}).get("reason", "")
        if reason in _NEVER_STARTS:
            return Exit(None, reason)
    return None


def _gone(found: Mapping[str, Any] | None) -> bool | None:
    return True if found is None else None


def _leftover(metadata: Mapping[str, Any]) -> Leftover:
    """What a namespace says of its unit. Whatever can't be read counts as passed or dead."""
    deadline = None
    with contextlib.suppress(KeyError, ValueError):
        read = datetime.fromisoformat(metadata["annotations"][manifests.DEADLINE_ANNOTATION])
        deadline = read if read.tzinfo else None
    owner = (metadata.get("labels") or {}).get(manifests.OWNER_LABEL, "")
    return Leftover(metadata["name"].removeprefix(SANDBOX_NAMESPACE_PREFIX), owner, deadline)
