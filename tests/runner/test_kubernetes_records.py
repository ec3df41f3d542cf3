"""Journal and heartbeat as Leases on a real API server, with the runner's own rights and no others."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes import client

from ringfence.errors import RingfenceError
from ringfence.invocation import Status, new_id
from ringfence.names import SYSTEM_NAMESPACE
from ringfence.runner import kubernetes_records
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.kubernetes_client import CallError, Cluster
from ringfence.runner.kubernetes_executor import KubernetesExecutor
from ringfence.runner.kubernetes_records import LeaseJournal, LeaseOwners
from ringfence.runner.ports import Entry
from ringfence.runner.reaper import reap
from tests.runner.control import GROUPS, Control, as_runner
from tests.runner.kubelet import Kubelet

pytestmark = pytest.mark.cluster
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.fixture
def records(cluster) -> Cluster:
    """A connection with the runner's rights, and no lease there before or after."""
    made = Cluster(as_runner(cluster.kubeconfig))
    yield made
    core = client.CoordinationV1Api(client.ApiClient(cluster.configuration))
    core.delete_collection_namespaced_lease(SYSTEM_NAMESPACE)


def test_the_journal_keeps_what_it_was_told(records: Cluster):
    journal = LeaseJournal(records)
    entries = [Entry(new_id(), "runner-a", NOW), Entry(new_id(), "runner-b", NOW, warm=True)]
    for entry in entries:
        journal.begin(entry)
    assert sorted(LeaseJournal(records).entries(), key=lambda e: e.owner) == entries
    journal.bind(entries[1].invocation_id, NOW + timedelta(seconds=60))
    bound = next(entry for entry in journal.entries() if entry.owner == "runner-b")
    assert (bound.warm, bound.deadline) == (False, NOW + timedelta(seconds=60))
    for entry in entries:
        journal.end(entry.invocation_id)
        journal.end(entry.invocation_id)
    assert journal.entries() == []


def test_an_invocation_is_begun_and_bound_once(records: Cluster):
    journal = LeaseJournal(records)
    entry = Entry(new_id(), "runner-a", NOW, warm=True)
    journal.begin(entry)
    with pytest.raises(CallError, match="already exists"):
        journal.begin(entry)
    journal.bind(entry.invocation_id, NOW)
    with pytest.raises(RingfenceError, match="is not waiting"):
        journal.bind(entry.invocation_id, NOW)


def test_a_deadline_that_can_not_be_read_has_passed(records: Cluster, cluster):
    journal = LeaseJournal(records)
    entry = Entry(new_id(), "runner-a", NOW)
    journal.begin(entry)
    core = client.CoordinationV1Api(client.ApiClient(cluster.configuration))
    changed = {"metadata": {"annotations": {"ringfence.dev/deadline": "soon"}}}
    core.patch_namespaced_lease(f"invocation-{entry.invocation_id}", SYSTEM_NAMESPACE, changed)
    assert journal.entries()[0].deadline < NOW - timedelta(days=1)


def _until(what: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)


def test_a_runner_lives_while_it_renews_and_not_after(records: Cluster, monkeypatch):
    monkeypatch.setattr(kubernetes_records, "LEASE_SECONDS", 2)
    monkeypatch.setattr(kubernetes_records, "RENEW_SECONDS", 0.3)
    owners, other = LeaseOwners(records), LeaseOwners(records)
    assert not other.alive(owners.id)
    owners.start()
    # Longer than what it said first holds; without a heartbeat it would be dead for good from then on.
    time.sleep(3)
    _until(lambda: other.alive(owners.id))
    # As a killed process: the heartbeat ends and the lease stays.
    owners._stop.set()
    owners._thread.join()
    _until(lambda: not other.alive(owners.id))
    other.forget_dead()
    with pytest.raises(CallError):
        records.once("lease", records.coordination.read_namespaced_lease, owners.id, SYSTEM_NAMESPACE)


def test_a_closed_runner_is_dead_at_once(records: Cluster):
    owners = LeaseOwners(records)
    owners.start()
    assert owners.alive(owners.id)
    owners.close()
    assert not owners.alive(owners.id)


@pytest.mark.parametrize("owner", ["", "runner-unknown"])
def test_an_owner_without_a_lease_does_not_live(records: Cluster, owner: str):
    assert not LeaseOwners(records).alive(owner)


def test_a_task_runs_on_shared_records_and_a_dead_runners_is_reaped_by_another(
    side: Control, cluster, records: Cluster, sandboxes
):
    executor: KubernetesExecutor = side.parts.executor
    parts = dataclasses.replace(side.parts, journal=LeaseJournal(records), owners=LeaseOwners(records))
    with Kubelet(cluster.configuration), SecureAgentRunner(parts) as runner:
        result = runner.execute_agent_task("ann", "hello", [], groups=GROUPS, model="scripted")
        assert result.status is Status.SUCCEEDED
        assert parts.journal.entries() == []
    # A runner that is gone without a word: its invocation is in the journal, its lease is not there.
    left = Entry(new_id(), "runner-gone", datetime.now(UTC) + timedelta(seconds=300))
    parts.journal.begin(left)
    other = dataclasses.replace(parts, owners=LeaseOwners(records))
    assert [item.invocation_id for item in asyncio.run(reap(other))] == [left.invocation_id]
    assert parts.journal.entries() == []
    assert asyncio.run(executor.leftovers()) == []


def test_the_settings_are_read_from_the_environments_own_config_map(cluster, monkeypatch):
    """As the component wrote them: it named neither image nor gateway, which is said instead of a sandbox without."""
    with pytest.raises(RingfenceError) as caught:
        KubernetesExecutor.of(cluster.kubeconfig)
    assert "names no image by digest" in str(caught.value)
    assert "names no model gateway" in str(caught.value)


def test_a_cluster_that_does_not_answer_is_said(tmp_path):
    missing = tmp_path / "kubeconfig"
    with pytest.raises(RingfenceError, match="name a kubeconfig that kubectl can use"):
        KubernetesExecutor.of(missing)
