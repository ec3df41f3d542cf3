"""Changing one setting changes what it must and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.broker_access import shard_of
from tests.environment.conftest import PROJECT, Standing

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

Plan = set[tuple[str, str]]


def plan(standing: Standing, **config: Any) -> Plan:
    """(operation, logical name) of what a preview with these settings would do."""
    steps = standing.engine(**config).preview().check().changed_steps
    return {(step.op, step.name) for step in steps}


def catalog(tmp_path: Path, change: Callable[[Path], None]) -> str:
    folder = tmp_path / "catalog"
    shutil.copytree(PROJECT / "catalog", folder)
    change(folder)
    return str(folder)


def add_tool(folder: Path) -> None:
    data = yaml.safe_load((folder / "tools" / "s3-report-reader.yaml").read_text())
    data["name"] = "invoice-reader"
    (folder / "tools" / "invoice-reader.yaml").write_text(yaml.safe_dump(data))


def edit_tool(folder: Path) -> None:
    path = folder / "tools" / "model-call.yaml"
    data = yaml.safe_load(path.read_text())
    data["grants"][0]["actions"] = ["bedrock:InvokeModel"]
    path.write_text(yaml.safe_dump(data))


def updated(*names: str) -> Plan:
    return {("update", name) for name in names}


def test_no_change_is_no_plan(standing: Standing):
    assert plan(standing) == set()


def test_the_budget_changes_the_budget(standing: Standing):
    assert plan(standing, monthlyBudgetUsd=99) == updated("budget-month")


def test_network_log_retention_changes_three_log_groups(standing: Standing):
    assert plan(standing, networkRetentionDays=14) == updated("logs-dns", "logs-proxy", "logs-vpc-flow")


def test_more_spot_nodes_change_the_spot_group(standing: Standing):
    assert plan(standing, sandboxMaxSpotNodes=6) == updated("gvisor-spot-us-east-1a", "gvisor-spot-us-east-1b")


def test_another_system_node_gets_a_group_in_the_next_zone(standing: Standing):
    assert plan(standing, systemNodes=2) == {("create", "cluster-system-nodes-us-east-1b")}


def test_an_alert_address_adds_its_subscription_only(standing: Standing):
    assert plan(standing, alertEmails=["ops@example.com"]) == {("create", "budget-ops@example.com")}


def test_a_registry_changes_the_pod_rules_and_the_unit(standing: Standing):
    changed = plan(standing, allowedRegistries=["registry.example.com/agents"])
    # A ConfigMap's data can't be changed in place, so that what mounts it sees one version.
    steps = ("create-replacement", "replace", "delete-replaced")
    assert changed == updated("sandbox-sandbox-pod") | {(step, "sandbox-unit") for step in steps}


def test_a_longer_audit_lock_changes_the_lock(standing: Standing):
    assert plan(standing, auditLockDays=30) == updated("audit-lock")


def test_an_admin_more_touches_only_the_access(standing: Standing):
    roles = ["operators", "auditors"]
    changed = plan(standing, clusterAdmins=[f"arn:aws:iam::123456789012:role/{role}" for role in roles])
    assert {operation for operation, _ in changed} == {"create"}
    assert len(changed) == 2


def test_a_grant_less_changes_that_tools_policy(standing: Standing, tmp_path: Path):
    assert plan(standing, catalogPath=catalog(tmp_path, edit_tool)) == updated("model-call-grants")


def test_a_tool_more_touches_the_brokers_right_to_become_it_and_nothing_else(standing: Standing, tmp_path: Path):
    changed = plan(standing, catalogPath=catalog(tmp_path, add_tool))
    others = {(operation, name) for operation, name in changed if not name.startswith("invoice-reader")}
    # The shard of the broker's policies that names the new role, and the statement that there are no further policies.
    shard = f"broker-tools-{shard_of('invoice-reader')}"
    shards = {("create", shard), ("create", f"{shard}-attachment")}
    assert others == shards | updated("broker-no-other-managed")
    assert {operation for operation, name in changed - others} == {"create"}


def test_a_zone_more_touches_no_other_zone(standing: Standing):
    zones = [f"us-east-1{letter}" for letter in "abc"]
    changed = plan(standing, availabilityZones=zones)
    assert {operation for operation, _ in changed} == {"create"}
    assert all("us-east-1c" in name for _, name in changed)
