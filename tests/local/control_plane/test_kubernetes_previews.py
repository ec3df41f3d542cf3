"""The kubernetes provider's previews: nothing is made, what only the server knows stays open."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.local.providers.base import UNKNOWN, contains_unknown
from ringfence.local.providers.kubernetes import KubernetesBackend
from ringfence.local.providers.kubernetes_client import ApiError
from tests.local.control_plane.declared import Resource, a_config_map, a_deployment, changed

pytestmark = pytest.mark.cluster


def test_a_preview_makes_nothing_and_leaves_open_what_only_the_server_knows(
    plane: Any, backend: KubernetesBackend
) -> None:
    namespace = plane.namespace("previewed")
    service = {"metadata": {"name": "s", "namespace": namespace}, "spec": {"ports": [{"port": 80}]}}
    resource = Resource(backend, "core/v1:Service", service)
    outputs = resource.preview()
    assert outputs["metadata"]["uid"] is UNKNOWN
    assert outputs["spec"]["clusterIP"] is UNKNOWN
    assert outputs["metadata"]["name"] == "s"
    resource.id = f"{namespace}/s"
    assert resource.refresh() is None


@pytest.mark.parametrize(
    "declared",
    [
        a_config_map("not-made-yet"),
        a_config_map("default") | {"data": UNKNOWN},
        {"metadata": {"name": UNKNOWN}, "data": {"a": "1"}},
        {"metadata": UNKNOWN},
    ],
)
def test_a_preview_allows_for_what_is_not_there_yet(backend: KubernetesBackend, declared: dict) -> None:
    outputs = Resource(backend, "core/v1:ConfigMap", declared).preview()
    assert contains_unknown(outputs)
    assert outputs.items() >= {key: value for key, value in declared.items() if key != "metadata"}.items()


def test_a_previewed_update_changes_nothing_and_is_checked(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("preview-update")
    declared = a_deployment(namespace)
    deployment = Resource(backend, "apps/v1:Deployment", declared).create()
    outputs = deployment.update(changed(declared, spec__replicas=5), preview=True)
    assert outputs["spec"]["replicas"] == 5
    with pytest.raises(ApiError, match=r"spec\.replicas"):
        deployment.update(changed(declared, spec__replicas=-1), preview=True)
    assert (deployment.refresh() or {})["spec"]["replicas"] == 1


def test_an_unknown_name_counts_as_a_replacement(plane: Any, backend: KubernetesBackend) -> None:
    namespace = plane.namespace("unknown-name")
    config_map = Resource(backend, "core/v1:ConfigMap", a_config_map(namespace)).create()
    assert config_map.diff(changed(config_map.inputs, metadata__name=UNKNOWN)).replaces == ("metadata.name",)
