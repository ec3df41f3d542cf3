"""Resources as the engine keeps them, and documents to declare, for tests of the kubernetes provider."""

from __future__ import annotations

import copy
from typing import Any

from ringfence.local.providers.base import DiffResult
from ringfence.local.providers.kubernetes import KubernetesBackend

SEED = bytes(range(32))


class Resource:
    """One resource as the engine keeps it: checked inputs, id and outputs."""

    def __init__(self, backend: KubernetesBackend, token: str, declared: dict[str, Any], name: str = "thing"):
        self.backend = backend
        self.token = f"kubernetes:{token}"
        self.urn = f"urn:pulumi:test::project::{self.token}::{name}"
        self.inputs = self.check({}, declared)
        self.id = ""
        self.outputs: dict[str, Any] = {}

    def check(self, olds: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
        inputs, failures = self.backend.check(self.token, self.urn, olds, declared, SEED)
        assert failures == []
        return inputs

    def create(self) -> Resource:
        self.id, self.outputs = self.backend.create(self.token, self.urn, self.inputs, preview=False)
        return self

    def preview(self) -> dict[str, Any]:
        id_, outputs = self.backend.create(self.token, self.urn, self.inputs, preview=True)
        assert id_ == ""
        return outputs

    def diff(self, news: dict[str, Any]) -> DiffResult:
        return self.backend.diff(
            self.token, self.urn, self.id, self.inputs, self.outputs, self.check(self.inputs, news)
        )

    def update(self, news: dict[str, Any], preview: bool = False) -> dict[str, Any]:
        checked = self.check(self.inputs, news)
        outputs = self.backend.update(
            self.token, self.urn, self.id, self.inputs, self.outputs, checked, preview=preview
        )
        if not preview:
            self.inputs, self.outputs = checked, outputs
        return outputs

    def refresh(self) -> dict[str, Any] | None:
        found = self.backend.read(self.token, self.urn, self.id, self.inputs, self.outputs)
        if found is None:
            return None
        self.inputs, self.outputs = found.inputs, found.outputs
        return found.inputs

    def delete(self) -> None:
        self.backend.delete(self.token, self.urn, self.id, self.inputs, self.outputs)


def changed(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with values at dotted paths (``spec__replicas=2``) set."""
    result = copy.deepcopy(document)
    for path, value in changes.items():
        *above, last = path.split("__")
        place = result
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return result


def a_config_map(namespace: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": "settings", "namespace": namespace}, "data": data or {"a": "1"}}


def a_deployment(namespace: str) -> dict[str, Any]:
    container = {"name": "main", "image": "i", "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}}}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container]}}
    return {
        "metadata": {"name": "work", "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "a"}}, "template": template},
    }


def a_role(namespace: str, *verbs: str) -> dict[str, Any]:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": list(verbs)}]
    return {"metadata": {"name": "runner", "namespace": namespace}, "rules": rules}
