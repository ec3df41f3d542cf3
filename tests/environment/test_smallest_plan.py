"""Changing one setting changes what it must and nothing else: a table of changes with everything that each may touch.

A zone more in production is in test_order.py: that stack isn't stood up here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.broker_access import shard_of
from tests.environment.conftest import PROJECT, Standing

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

# What the engine says of the three parts of a replacement.
REPLACING = {"create-replacement", "replace", "delete-replaced"}
ADMINS = [f"arn:aws:iam::123456789012:role/{role}" for role in ("operators", "auditors")]
ZONES = [f"us-east-1{letter}" for letter in "abc"]
TOOL = "invoice-reader"


def with_a_tool(like: str, **declared: Any) -> Callable[[Path], None]:
    """The catalog with the tool `invoice-reader`, declared like another one but for what is given."""

    def change(folder: Path) -> None:
        tool = yaml.safe_load((folder / "tools" / f"{like}.yaml").read_text())
        (folder / "tools" / f"{TOOL}.yaml").write_text(yaml.safe_dump(tool | {"name": TOOL} | declared))

    return change


def with_a_grant_less(folder: Path) -> None:
    path = folder / "tools" / "model-call.yaml"
    tool = yaml.safe_load(path.read_text())
    tool["grants"][0]["actions"] = ["bedrock:InvokeModel"]
    path.write_text(yaml.safe_dump(tool))


@dataclass(frozen=True)
class Change:
    """One change of settings or catalog, and all that it may do: patterns of `type name`, each of which must be met."""

    what: str
    settings: dict[str, Any]
    creates: Sequence[str] = ()
    updates: Sequence[str] = ()
    replaces: Sequence[str] = ()
    deletes: Sequence[str] = ()
    catalog: Callable[[Path], None] | None = None

    @property
    def allowed(self) -> set[tuple[str, str]]:
        """(operation, pattern)."""
        by_operation = {
            "create": self.creates, "update": self.updates, "replace": self.replaces, "delete": self.deletes
        }  # fmt: skip
        return {(operation, pattern) for operation, patterns in by_operation.items() for pattern in patterns}


GROUP, TAG = "aws:eks/nodeGroup:NodeGroup", "aws:autoscaling/tag:Tag"
# A tool's own role, and its part of the broker's right to become it.
ITS_ROLE = (
    f"ringfence:index:Tool* {TOOL}*",
    f"aws:iam/*:* {TOOL}-*",
    f"aws:iam/policy:Policy broker-tools-{shard_of(TOOL)}",
    f"aws:iam/rolePolicyAttachment:RolePolicyAttachment broker-tools-{shard_of(TOOL)}-attachment",
)
NO_OTHER_POLICY_OF_THE_BROKER = (
    "aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive broker-no-other-managed"
)
LISTENERS = "aws:s3/bucketObjectv2:BucketObjectv2 egress-listeners"
# What the runner makes sandboxes from. A ConfigMap's data can't be changed in place, so that what mounts it sees one version.
UNIT = "kubernetes:core/v1:ConfigMap sandbox-unit"
# What the service reads at its start: its pod is replaced when the catalog or the unit changes.
SERVICE_FILES = "kubernetes:core/v1:ConfigMap service-project"
SERVICE = "kubernetes:apps/v1:Deployment service-deployment"
REGISTRIES = ["registry.example.com/agents", "123456789012.dkr.ecr.us-east-1.amazonaws.com"]

TABLE = [
    Change(
        "another monthly budget",
        {"monthlyBudgetUsd": 99},
        updates=["aws:budgets/budget:Budget budget-month"],
    ),
    Change(
        "another registry",
        {"allowedRegistries": REGISTRIES},
        updates=["kubernetes:admissionregistration.k8s.io/v1:ValidatingAdmissionPolicy sandbox-sandbox-pod", SERVICE],
        replaces=[UNIT],
    ),
    Change(
        "an administrator more",
        {"clusterAdmins": ADMINS},
        creates=[
            "aws:eks/accessEntry:AccessEntry cluster-admin-*:role/auditors",
            "aws:eks/accessPolicyAssociation:AccessPolicyAssociation cluster-admin-*:role/auditors-policy",
        ],
    ),
    Change(
        "a larger proxy",
        {"egressInstanceType": "t4g.micro"},
        updates=[
            "aws:ec2/launchTemplate:LaunchTemplate egress-template",
            "aws:cloudwatch/metricAlarm:MetricAlarm egress-us-east-1a-*",
        ],
        # Its interface, address and routes stay.
        replaces=["aws:ec2/instance:Instance egress-us-east-1a"],
    ),
    Change(
        "a NAT gateway instead of the proxy's forwarding",
        {"nat": "gateway"},
        creates=["aws:ec2/natGateway:NatGateway network-nat-us-east-1a", "aws:ec2/eip:Eip network-nat-us-east-1a"],
        updates=[
            # In place: AWS has one default route in a table.
            "aws:ec2/route:Route network-system-us-east-1?-default",
            "aws:ec2/networkInterface:NetworkInterface egress-us-east-1a",
            "aws:ec2/launchTemplate:LaunchTemplate egress-template",
            "aws:cloudwatch/metricAlarm:MetricAlarm egress-us-east-1a-*",
        ],
        replaces=["aws:ec2/instance:Instance egress-us-east-1a"],
        deletes=["aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule egress-nat-us-east-1?"],
    ),
    Change(
        "another system node",
        {"systemNodes": 2},
        creates=[f"{GROUP} cluster-system-nodes-us-east-1b"],
    ),
    Change(
        "more spot nodes",
        {"sandboxMaxSpotNodes": 6},
        updates=[f"{GROUP} gvisor-spot-us-east-1{zone}" for zone in "ab"],
    ),
    Change(
        "a sandbox node that always runs",
        {"sandboxMinOnDemandNodes": 1},
        updates=["kubernetes:apps/v1:Deployment autoscaler-deployment"],
    ),
    Change(
        "no on-demand nodes",
        {"sandboxMaxOnDemandNodes": 0},
        deletes=[f"{GROUP} gvisor-on-demand-us-east-1?", f"{TAG} gvisor-on-demand-us-east-1?-*"],
    ),
    Change(
        "a grant less",
        {},
        catalog=with_a_grant_less,
        updates=[
            "aws:iam/rolePolicy:RolePolicy model-call-grants",
            "aws:iam/policy:Policy model-call-boundary-policy",
            SERVICE,
        ],
        replaces=[SERVICE_FILES],
    ),
    Change(
        "a tool without a way out",
        {},
        catalog=with_a_tool("model-call"),
        creates=ITS_ROLE,
        updates=[NO_OTHER_POLICY_OF_THE_BROKER, SERVICE],
        replaces=[SERVICE_FILES],
    ),
    Change(
        "a tool with a domain of its own",
        {},
        catalog=with_a_tool("web-fetch", egress={"domains": ["invoices.example.com"]}),
        creates=ITS_ROLE,
        updates=[
            NO_OTHER_POLICY_OF_THE_BROKER,
            LISTENERS,
            "aws:route53/resolverFirewallDomainList:ResolverFirewallDomainList network-dns-allow-domains",
            SERVICE,
        ],
        replaces=[UNIT, SERVICE_FILES],
    ),
    Change(
        "a zone more",
        {"availabilityZones": ZONES},
        creates=["*us-east-1c*"],
    ),
]


def plan(standing: Standing, change: Change, folder: Path) -> set[tuple[str, str]]:
    """(operation, `type name`) of what a preview with the change would do."""
    settings = dict(change.settings)
    if change.catalog:
        shutil.copytree(PROJECT / "catalog", folder / "catalog")
        change.catalog(folder / "catalog")
        settings["catalogPath"] = str(folder / "catalog")
    steps = standing.engine(**settings).preview().check().changed_steps
    return {("replace" if step.op in REPLACING else step.op, f"{step.type} {step.name}") for step in steps}


@pytest.mark.parametrize("change", TABLE, ids=lambda change: change.what)
def test_a_change_touches_what_it_must_and_nothing_else(standing: Standing, tmp_path: Path, change: Change):
    planned = plan(standing, change, tmp_path)
    met = {
        (operation, pattern): {step for step in planned if step[0] == operation and fnmatchcase(step[1], pattern)}
        for operation, pattern in change.allowed
    }
    assert planned - {step for steps in met.values() for step in steps} == set(), "touched beside what the table says"
    assert [row for row, steps in met.items() if not steps] == [], "not touched, though the table says so"
