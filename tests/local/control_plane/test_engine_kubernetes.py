"""The kubernetes provider under the real engine, against the real API server."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.cluster, pytest.mark.e2e]

KUBERNETES = """
    import pulumi
    import pulumi_kubernetes as k8s
    import pulumi_random as random

    config = pulumi.Config()
    cluster = k8s.Provider("cluster", kubeconfig=config.require("kubeconfig"))
    on = pulumi.ResourceOptions(provider=cluster)
    namespace = k8s.core.v1.Namespace("namespace", metadata={"name": "engine"}, opts=on)
    k8s.rbac.v1.Role(
        "role",
        metadata={"name": "runner", "namespace": namespace.metadata.name},
        rules=[{"api_groups": [""], "resources": ["pods"], "verbs": (config.get("verbs") or "get").split(",")}],
        opts=on,
    )
    key = random.RandomPassword("key", length=20)
    k8s.core.v1.Secret(
        "secret",
        metadata={"name": "key", "namespace": namespace.metadata.name},
        string_data={"key": key.result},
        opts=on,
    )
    service = k8s.core.v1.Service(
        "service",
        metadata={"namespace": namespace.metadata.name},
        spec={"ports": [{"port": 80}], "selector": {"app": "x"}},
        opts=on,
    )
    pulumi.export("address", service.spec.cluster_ip)
"""


def _names(result: Any, op: str) -> set[str]:
    return {step.name for step in result.changed_steps if step.op == op}


def test_a_kubernetes_stack_lives_drifts_and_goes(engine_factory: Any, plane: Any) -> None:
    kubeconfig = plane.home.kubeconfig.read_text()
    engine = engine_factory(KUBERNETES, config={"kubeconfig": kubeconfig})
    first = engine.up()
    first.check()
    assert _names(first, "create") >= {"namespace", "role", "secret", "service", "key"}
    assert engine.outputs()["address"].startswith("172.20.")
    assert engine.preview(refresh=True).changed_steps == ()
    key = plane.client.request("GET", "/api/v1/namespaces/engine/secrets/key", "secret")["data"]["key"]
    state = "".join(path.read_text() for path in engine.home.backend.rglob("*.json"))
    assert "runner" in state
    assert key not in state
    assert base64.b64decode(key).decode() not in state

    role = "/apis/rbac.authorization.k8s.io/v1/namespaces/engine/roles/runner"
    wide = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    plane.apply(wide | {"metadata": {"name": "runner", "namespace": "engine"}, "rules": rules})
    drift = engine.preview(refresh=True)
    drift.check()
    assert _names(drift, "update") == {"role"}
    engine.up(refresh=True).check()
    assert plane.client.request("GET", role, "role")["rules"][0]["verbs"] == ["get"]

    engine.config["trial:verbs"] = "get,list"
    changed = engine.up()
    changed.check()
    assert {step.name: step.op for step in changed.changed_steps} == {"role": "update"}
    assert plane.client.request("GET", role, "role")["rules"][0]["verbs"] == ["get", "list"]

    engine.destroy().check()
    listing = plane.client.request("GET", "/api/v1/namespaces", "namespaces")
    assert "engine" not in [one["metadata"]["name"] for one in listing["items"]]


def test_a_refused_object_is_one_readable_error(engine_factory: Any, plane: Any) -> None:
    program = """
        import pulumi_kubernetes as k8s
        k8s.core.v1.Service("bad", metadata={"name": "Bad_Name"}, spec={"ports": [{"port": 80}]})
    """
    engine = engine_factory(program, extra_env={"KUBECONFIG": str(plane.home.kubeconfig)})
    for result in (engine.preview(), engine.up()):
        assert not result.ok
        told = [text for text in result.errors if "Bad_Name" in text]
        assert any("422 Invalid" in text and "metadata.name" in text for text in told)
        assert not any("Traceback" in text for text in result.errors)
