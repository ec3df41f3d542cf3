"""Secrets that are not AWS's: a tool gets those that its catalog entry names, nobody sees them, and without them nothing runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.broker.secret_stores import secret_name
from ringfence.catalog.model import Catalog
from ringfence.invocation import Status
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.local_executor import LocalExecutor
from ringfence.runner.pool import WarmPool
from tests.runner import control
from tests.runner.kubelet import Container, Kubelet
from tests.runner.test_rounds import Pretended
from tests.runner.test_warm_pool import until

TOOL, KEY, OTHER = "s3-report-reader", "k-5cf0e4d1a77b", "other-9d2c31e8"
TASK = {"groups": control.GROUPS, "model": "scripted"}


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The example catalog with a secret for one tool."""
    whole = control.catalog()
    tools = tuple(
        tool.model_copy(update={"secrets": ("api_key",)}) if tool.name == TOOL else tool for tool in whole.tools
    )
    made = dataclasses.replace(whole, tools=tools)
    monkeypatch.setattr(control, "catalog", lambda: made)
    return made


@pytest.fixture
def stored(cloud: Any) -> Callable[[dict[str, str]], None]:
    """Writes the tool's secret."""

    def write(texts: dict[str, str]) -> None:
        name = secret_name(control.NAMES, TOOL)
        cloud.client("secretsmanager").create_secret(Name=name, SecretString=json.dumps(texts))

    return write


@pytest.fixture
def bare(cloud: Any, declared: Catalog, tmp_path: Path) -> control.Control:
    """A control side whose executor makes nothing."""
    gateway = control.gateway_of(tmp_path)
    return control.control(tmp_path, cloud.endpoint, lambda _: Pretended(), ("127.0.0.1", 1), gateway)


@pytest.mark.parametrize("texts", [None, {"other": OTHER}, {"api_key": ""}, {"api_key": "x" * 20_000}])
def test_without_the_secret_the_task_is_refused_before_anything_is_made(
    texts: dict[str, str] | None, bare: control.Control, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if texts is not None:
        stored(texts)
    made: list[str] = []
    monkeypatch.setattr(bare.parts.executor, "start", lambda *_: made.append("unit"))
    monkeypatch.setattr(bare.parts.broker, "issue", lambda *_: made.append("credential"))
    with SecureAgentRunner(bare.parts) as runner:
        result = runner.execute_agent_task("ann", "hello", [TOOL], **TASK)
        # Control: a tool that declares none is not held up.
        runner.execute_agent_task("ann", "hello", ["web-fetch"], **TASK)
    assert (result.status, [item.code for item in result.refusals]) == (Status.REFUSED, ["secret_unavailable"])
    assert "api_key" in result.error and "remedy" in result.error
    assert [item["status_code"] for item in bare.records("access.refused")] == ["secret_unavailable"]
    assert made == ["unit"] and bare.parts.journal.entries() == []
    assert len(bare.records("invocation.started")) == 1


def test_a_tool_gets_what_it_declares_and_no_more(bare: control.Control, stored: Any) -> None:
    stored({"api_key": KEY, "other": OTHER})
    units: list[Any] = []

    async def start(unit: Any, report: Any) -> None:
        units.append(unit)

    bare.parts.executor.start = start
    with SecureAgentRunner(bare.parts) as runner:
        runner.execute_agent_task("ann", "hello", [TOOL], **TASK)
        runner.execute_agent_task("ann", "hello", ["web-fetch"], **TASK)
    with_secret, without = units
    assert json.loads(with_secret.credentials[f"{TOOL}.secrets"]) == {"api_key": KEY}
    assert dict(without.credentials) == {}
    assert KEY not in repr(with_secret) and KEY in bare.broker.secrets() and OTHER not in bare.broker.secrets()
    (handed,) = bare.records("secret.handed")
    assert handed["unmapped"]["names"] == ["api_key"] and KEY not in bare.trail.path.read_text()


@pytest.mark.cluster
@pytest.mark.parametrize("warm", [False, True])
def test_a_pod_reads_the_secret_and_nobody_sees_it(
    warm: bool, declared: Catalog, stored: Any, side: control.Control, cluster: Any, sandboxes: Any
) -> None:
    stored({"api_key": KEY})

    def use(container: Container) -> int:
        if "RINGFENCE_WARM" in container.environment:
            while (asked := container.gateway("GET", "/v1/assignment")).status_code == 204:
                if container.stopped.is_set():
                    return 137
            held = asked.json()["secrets"][TOOL]
        else:
            held = json.loads(container.files[f"{TOOL}.secrets"])
        return container.answer(f"{fingerprint(held['api_key'])} {held['api_key']}")

    pool = WarmPool(side.parts, 1) if warm else None
    with Kubelet(cluster.configuration, use), SecureAgentRunner(side.parts, pool=pool) as runner:
        if pool:
            runner.start()
            until(lambda: pool.waiting == 1, "one waits")
        result = runner.execute_agent_task("ann", "hello", [TOOL], **TASK)
    assert (result.status, result.error) == (Status.SUCCEEDED, "")
    assert result.output.startswith(fingerprint(KEY)) and KEY not in result.output
    assert KEY not in side.trail.path.read_text()


# Runs in the image: reads the task as the runtime does, and answers with what it was given.
INSIDE = f"""
import hashlib, os, stat
from agent_runtime.assignment import from_environment
from agent_runtime.gateway import GatewayClient
task = from_environment(os.environ)
held = task.tool_secrets["{TOOL}"]["api_key"]
mode = oct(stat.S_IMODE(os.stat("/var/run/ringfence/credentials/{TOOL}.secrets").st_mode))
assert held in task.secrets()
said = " ".join([hashlib.sha256(held.encode()).hexdigest()[:16], mode, held])
GatewayClient(os.environ["RINGFENCE_GATEWAY_URL"], os.environ["CREDENTIALS_TOKEN"]).result(said, "succeeded", "")
"""


@pytest.mark.sandbox
def test_a_real_sandbox_reads_the_secret_and_nobody_sees_it(
    declared: Catalog, stored: Any, cloud: Any, tmp_path: Path
) -> None:
    stored({"api_key": KEY})
    make = control.local(tmp_path, cloud.endpoint)
    gateway = control.gateway_of(tmp_path)

    def inside(address: tuple[str, int]) -> LocalExecutor:
        made = make(address)
        root = made._root
        made._root = dataclasses.replace(root, command=("/usr/bin/python3", "-c", INSIDE))
        return made

    with control.served(gateway) as address:
        side = control.control(tmp_path, cloud.endpoint, inside, address, gateway)
        with SecureAgentRunner(side.parts) as runner:
            result = runner.execute_agent_task("ann", "hello", [TOOL], **TASK)
    assert (result.status, result.error) == (Status.SUCCEEDED, "")
    assert result.output.startswith(f"{fingerprint(KEY)} 0o400 ") and KEY not in result.output
    assert KEY not in side.trail.path.read_text()
