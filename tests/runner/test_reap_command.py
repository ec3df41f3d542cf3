"""`ringfence reap` for a stack on AWS: by hand, through a kubeconfig, with the cluster's own journal and heartbeats."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kubernetes import client

from ringfence.errors import InputError
from ringfence.invocation import Invocation, new_id
from ringfence.names import SYSTEM_NAMESPACE
from ringfence.runner import cluster as on_aws
from ringfence.runner.executor import Unit
from ringfence.runner.kubernetes_client import Cluster
from ringfence.runner.kubernetes_records import LeaseJournal, LeaseOwners
from ringfence.runner.ports import Entry
from ringfence.runner.reaper_commands import reap
from tests.runner import control


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with a stack on AWS that has an account."""
    folder = tmp_path / "project"
    for name in ("catalog", "stacks"):
        shutil.copytree(control.ROOT / name, folder / name)
    shutil.copy(control.ROOT / "Pulumi.yaml", folder)
    stack = folder / "stacks" / "Pulumi.dev.yaml"
    stack.write_text(stack.read_text().replace("000000000000", "123456789012"))
    monkeypatch.delenv("RINGFENCE_HOME", raising=False)
    return folder


def test_without_a_way_to_the_cluster_it_says_how_to_get_one(project: Path) -> None:
    result = CliRunner().invoke(reap, ["-s", "dev", "--project", str(project)])
    assert isinstance(result.exception, InputError)
    assert "aws eks update-kubeconfig" in result.exception.problems[0].remedy


def test_a_kubeconfig_goes_with_a_stack_on_aws_only(project: Path, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("")
    asked = ["-s", "local", "--project", str(project), "--kubeconfig", str(tmp_path / "config")]
    result = CliRunner().invoke(reap, asked)
    assert isinstance(result.exception, InputError) and "is not on AWS" in str(result.exception)


@pytest.mark.cluster
def test_what_a_dead_runner_of_the_cluster_left_is_taken_away_and_what_lives_is_not(
    project: Path, cluster: Any, cloud: Any, sandboxes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = control.kubernetes(cluster.kubeconfig)(("127.0.0.1", 14000))
    asked: list[Any] = []
    monkeypatch.setattr(
        on_aws.KubernetesExecutor, "of", lambda path, context: asked.append((path, context)) or executor
    )
    monkeypatch.setattr(on_aws, "broker_for", lambda *_: control.broker_of(tmp_path, cloud.endpoint))
    records = Cluster(control.as_runner(cluster.kubeconfig))
    journal, owners = LeaseJournal(records), LeaseOwners(records)
    broker = control.broker_of(tmp_path, cloud.endpoint)
    now = datetime.now(UTC)
    owners.start()
    try:
        made = {}
        for owner in (owners.id, "runner-dead"):
            item = Invocation(new_id(), "ann", "p", ("s3-report-reader",), now, now + timedelta(seconds=200), model="m")
            journal.begin(Entry(item.id, owner, item.deadline))
            broker.issue(item, "s3-report-reader")
            asyncio.run(executor.start(Unit(item.id, owner, item.deadline, (), environment={"A": "b"}), lambda _: None))
            made[owner] = item.id
        options = ["-s", "dev", "--project", str(project), "--kubeconfig", str(cluster.kubeconfig), "--context", "c"]
        result = CliRunner().invoke(reap, [*options, "--json"])
        assert result.exit_code == 0, result.output
        assert [item["invocation"] for item in json.loads(result.output)] == [made["runner-dead"]]
        assert asked == [(cluster.kubeconfig, "c")]
        assert sandboxes() == [f"sandbox-{made[owners.id]}"]
        assert [entry.invocation_id for entry in journal.entries()] == [made[owners.id]]
        assert [entry.invocation_id for entry in broker.list()] == [made[owners.id]]
        # Its own record is beside the project; the trail of the control side is in the cluster.
        (trail,) = (project / ".ringfence" / "reap" / "dev").rglob("*.jsonl")
        assert made["runner-dead"] in trail.read_text()
    finally:
        owners.close()
        core = client.CoordinationV1Api(client.ApiClient(cluster.configuration))
        core.delete_collection_namespaced_lease(SYSTEM_NAMESPACE)
