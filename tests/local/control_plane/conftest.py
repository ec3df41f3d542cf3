"""A control plane of this folder's own, which its tests stop, restart and look into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ringfence.local import control_plane
from ringfence.local.providers.kubernetes import KubernetesBackend
from ringfence.local.providers.kubernetes_client import APPLY, Access, Client
from ringfence.local.state import Home


@dataclass
class Plane:
    """A home whose control plane runs."""

    home: Home
    tools: Any

    @property
    def client(self) -> Client:
        """Requests as the administrator."""
        return Client(Access.load(self.home.kubeconfig))

    def start(self) -> None:
        control_plane.start(self.home, self.tools, self.home.kept_ports(), environ={})

    def stop(self) -> None:
        control_plane.stop(self.home)

    def status(self) -> dict[str, Any]:
        return control_plane.status(self.home)

    def apply(self, manifest: dict[str, Any], manager: str = "test") -> dict[str, Any]:
        """Server-side apply as another field manager than the provider."""
        kind = self.client.kind(manifest["apiVersion"], manifest["kind"])
        assert kind is not None
        path = kind.path(manifest["metadata"]["name"], manifest["metadata"].get("namespace", "default"))
        query = {"fieldManager": manager, "force": "true"}
        return self.client.request("PATCH", path, "test", body=manifest, content_type=APPLY, **query)

    def namespace(self, name: str) -> str:
        """A namespace of its own for one test."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name


@pytest.fixture(scope="session")
def plane(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    one = Plane(Home.of(tmp_path_factory.mktemp("control-plane") / "home"), tools)
    try:
        one.start()
        yield one
    finally:
        one.stop()


@pytest.fixture(scope="session")
def backend(plane: Plane) -> KubernetesBackend:
    """The provider's backend, configured for the plane."""
    one = KubernetesBackend()
    one.configure({"kubeconfig": str(plane.home.kubeconfig)})
    return one
