"""Changing one setting changes what it must and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    text = (folder / "tools" / "model-call.yaml").read_text().replace("model-call", "model-call-two")
    (folder / "tools" / "model-call-two.yaml").write_text(text)


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
    assert plan(standing, monthlyBudgetUsd=99) == updated("budget")


def test_network_log_retention_changes_three_log_groups(standing: Standing):
    assert plan(standing, networkRetentionDays=14) == updated("logs-dns", "logs-proxy", "logs-vpc-flow")


def test_more_spot_nodes_change_the_spot_group(standing: Standing):
    assert plan(standing, sandboxMaxSpotNodes=6) == updated("gvisor-spot")


def test_another_system_node_changes_the_system_group(standing: Standing):
    assert plan(standing, systemNodes=2) == updated("cluster-system")


def test_an_alert_address_adds_its_subscription_and_tells_the_budget(standing: Standing):
    assert plan(standing, alertEmails=["ops@example.com"]) == {("create", "budget-ops@example.com")} | updated("budget")


def test_a_registry_changes_the_pod_rules_and_the_unit(standing: Standing):
    changed = plan(standing, allowedRegistries=["registry.example.com/agents"])
    assert changed == updated("sandbox-sandbox-pod", "sandbox-unit")


def test_a_longer_audit_lock_changes_the_lock(standing: Standing):
    assert plan(standing, auditLockDays=30) == updated("audit-bucket-lock")


def test_an_admin_more_touches_only_the_access(standing: Standing):
    roles = ["operators", "auditors"]
    changed = plan(standing, clusterAdmins=[f"arn:aws:iam::123456789012:role/{role}" for role in roles])
    assert {operation for operation, _ in changed} == {"create"}
    assert len(changed) == 2


def test_a_tool_more_touches_nothing_of_the_others(standing: Standing, tmp_path: Path):
    changed = plan(standing, catalogPath=catalog(tmp_path, add_tool))
    others = {"s3-report-reader", "ticket-store", "email-notifier", "web-fetch"}
    assert all(not name.startswith(tuple(others)) for _, name in changed)
    created = {name for operation, name in changed if operation == "create"}
    assert created
    assert all(name.startswith(("model-call-two", "broker-tools-")) for name in created)
    assert all(operation in ("create", "update") for operation, _ in changed)
    assert {name for operation, name in changed if operation == "update"} <= {
        *(f"broker-tools-{shard}" for shard in range(8)),
        "broker-no-other-managed",
    }


def test_a_grant_less_changes_that_tools_policy(standing: Standing, tmp_path: Path):
    assert plan(standing, catalogPath=catalog(tmp_path, edit_tool)) == updated("model-call-policy")


def test_a_zone_more_touches_nothing_of_the_others(standing: Standing):
    zones = ["us-east-1a", "us-east-1b", "us-east-1c"]
    changed = plan(standing, availabilityZones=zones)
    assert all("us-east-1a" not in name and "us-east-1b" not in name for _, name in changed)
    assert not [item for item in changed if item[0] in ("delete", "replace", "create-replacement", "delete-replaced")]
    created = {name for operation, name in changed if operation == "create"}
    assert created
    assert all("us-east-1c" in name for name in created)
