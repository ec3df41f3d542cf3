"""What the environment's rules let the runner do for waiting sandboxes and for its records, and no further."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from ringfence.invocation import new_id
from ringfence.names import SYSTEM_NAMESPACE
from ringfence.runner import pod
from ringfence.runner.executor import Unit
from ringfence.runner.manifests import MAX_DEADLINE_SECONDS, MAX_WARM_SECONDS, UNIT_CLUSTER_ROLE, namespace_name
from tests.cluster.test_sandbox_admission import Api
from tests.runner.control import IMAGE, RUNNER_USER, Control

pytestmark = pytest.mark.cluster
LONGEST = MAX_DEADLINE_SECONDS + MAX_WARM_SECONDS


@pytest.fixture
def unit(side: Control) -> Iterator[Unit]:
    """A unit that stands, of a sandbox that waits."""
    made = Unit(new_id(), "owner", datetime.now(UTC) + timedelta(seconds=100), (), environment={"A": "b"})
    asyncio.run(side.parts.executor.warm(made, lambda _: None))
    yield made
    asyncio.run(side.parts.executor.remove(made.invocation_id))


def try_pod(side: Control, unit: Unit, change: Callable[[dict[str, Any]], None], *, warm: bool, seconds: int) -> str:
    """What the API server says to a pod in the unit's namespace; empty when it would take it."""
    made = pod.pod(unit, IMAGE, unit.environment, seconds, warm=warm)
    made["metadata"]["name"] = "other"
    # The quota has no room for a second whole one.
    made["spec"]["containers"][0]["resources"]["limits"].update(cpu="100m", memory="64Mi")
    made["spec"]["containers"][0]["resources"]["requests"].update(cpu="100m", memory="64Mi")
    change(made)
    try:
        core = side.parts.executor.cluster.core
        core.create_namespaced_pod(namespace_name(unit.invocation_id), made, dry_run="All")
    except ApiException as error:
        return str(error.body)
    return ""


def nothing(_: dict[str, Any]) -> None:
    """As the runner makes it."""


def with_secret(made: dict[str, Any]) -> None:
    made["spec"]["volumes"].append({"name": "credentials", "secret": {"secretName": "creds"}})


def test_a_waiting_sandbox_may_last_for_its_wait_and_a_task_and_no_longer(side: Control, unit: Unit):
    assert try_pod(side, unit, nothing, warm=True, seconds=LONGEST) == ""
    assert "set activeDeadlineSeconds" in try_pod(side, unit, nothing, warm=True, seconds=LONGEST + 1)
    assert try_pod(side, unit, nothing, warm=False, seconds=MAX_DEADLINE_SECONDS) == ""
    assert "set activeDeadlineSeconds" in try_pod(side, unit, nothing, warm=False, seconds=MAX_DEADLINE_SECONDS + 1)


def test_a_waiting_sandbox_mounts_no_credentials(side: Control, unit: Unit):
    assert "holds no credentials" in try_pod(side, unit, with_secret, warm=True, seconds=300)
    assert try_pod(side, unit, with_secret, warm=False, seconds=300) == ""


def test_the_runner_lowers_a_wall_clock_and_nobody_raises_it(side: Control, unit: Unit):
    core = side.parts.executor.cluster.core
    namespace = namespace_name(unit.invocation_id)
    core.patch_namespaced_pod("agent", namespace, {"spec": {"activeDeadlineSeconds": 50}})
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_pod("agent", namespace, {"spec": {"activeDeadlineSeconds": 60}})
    assert caught.value.status == 422


def test_the_runner_swaps_no_image_by_its_right_to_lower_the_clock(side: Control, unit: Unit):
    core = side.parts.executor.cluster.core
    patch = {"spec": {"containers": [{"name": "agent", "image": "docker.io/evil:1"}]}}
    with pytest.raises(ApiException) as caught:
        core.patch_namespaced_pod("agent", namespace_name(unit.invocation_id), patch)
    assert "by digest" in caught.value.body


def test_the_runner_writes_leases_beside_itself_alone(cluster):
    runner = Api(cluster.configuration, RUNNER_USER)
    resource = runner.dynamic.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "trial"}}
    resource.create(body=copy.deepcopy(lease), namespace=SYSTEM_NAMESPACE, dry_run="All")
    for elsewhere in ("kube-system", "default", "kube-node-lease"):
        with pytest.raises(ApiException) as caught:
            resource.create(body=copy.deepcopy(lease), namespace=elsewhere, dry_run="All")
        assert caught.value.status == 403


def test_the_runner_reads_the_units_settings_and_no_other_configuration(cluster):
    runner = Api(cluster.configuration, RUNNER_USER)
    assert runner.core.read_namespaced_config_map("sandbox-unit", SYSTEM_NAMESPACE).data
    for name, namespace in (("kube-root-ca.crt", SYSTEM_NAMESPACE), ("kube-root-ca.crt", "kube-system")):
        with pytest.raises(ApiException) as caught:
            runner.core.read_namespaced_config_map(name, namespace)
        assert caught.value.status == 403


def test_the_units_role_has_no_right_to_read_secrets(cluster):
    role = Api(cluster.configuration).dynamic.resources.get(
        api_version="rbac.authorization.k8s.io/v1", kind="ClusterRole"
    )
    rules = role.get(name=UNIT_CLUSTER_ROLE).to_dict()["rules"]
    verbs = {verb for rule in rules if "secrets" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"create", "delete"}
