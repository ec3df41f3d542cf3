"""A fresh control plane of its own for each test process: etcd, kube-apiserver, kube-controller-manager."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from ringfence.local import control_plane
from ringfence.local.state import Home


@dataclass(frozen=True)
class ApiServer:
    """kubeconfig: the administrator's (RBAC applies to everybody else); configuration: the same for the client."""

    home: Home
    kubeconfig: Path
    configuration: client.Configuration

    @property
    def client(self) -> client.ApiClient:
        """A client as the administrator."""
        return client.ApiClient(self.configuration)


def kubernetes_configuration(kubeconfig: Path) -> client.Configuration:
    """What the official client needs to reach the server of a kubeconfig."""
    configuration = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    return configuration


@pytest.fixture(scope="session")
def api_server(tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A running API server with nothing in it. Tests that share it keep to namespaces of their own."""
    home = Home.of(tmp_path_factory.mktemp("cluster") / "home")
    try:
        control_plane.start(home, tools, home.ports(), environ={})
        yield ApiServer(home, home.kubeconfig, kubernetes_configuration(home.kubeconfig))
    finally:
        control_plane.stop(home)
