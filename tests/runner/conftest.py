"""A real API server with the environment's own rules in it, and a control side of real parts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from components.sandbox import Sandbox, SandboxArgs
from ringfence.names import Names
from ringfence.runner.manifests import INVOCATION_LABEL
from tests.broker.conftest import Clock, Cloud, server  # noqa: F401 (a fixture)
from tests.cluster.conftest import ApiServer, api_server  # noqa: F401 (a fixture)
from tests.cluster.test_sandbox_admission import RUNTIME_CLASS, Api
from tests.components.conftest import Recorder
from tests.runner import control
from tests.runner.control import Control

NAMES = Names("ringfence", "test", "123456789012", "us-east-1")


@pytest.fixture(scope="session")
def cluster(api_server: ApiServer) -> ApiServer:  # noqa: F811
    """The API server with the sandbox component's objects, once its policies are enforced."""
    api = Api(api_server.configuration)
    args = SandboxArgs(NAMES, [control.REGISTRY], {"web-fetch": control.WEB_PORT}, (control.PROXY,))
    recording = Recorder()(lambda: Sandbox("sandbox", args) and None)
    for manifest in [dict(r.inputs) for r in recording.resources if r.type.startswith("kubernetes:")]:
        api.apply(manifest)
    api.apply(RUNTIME_CLASS)
    runner = Api(api_server.configuration, control.RUNNER_USER)
    ends = time.monotonic() + 120
    while not _enforced(runner):
        assert time.monotonic() < ends, "the runner's policy is not enforced"
        time.sleep(0.1)
    return api_server


def _enforced(runner: Api) -> bool:
    """Whether the runner may make sandbox namespaces and no others."""
    try:
        runner.core.create_namespace({"metadata": {"name": "elsewhere"}}, dry_run="All")
    except ApiException as error:
        return "acts in sandbox-" in str(error.body)
    return False


@pytest.fixture
def sandboxes(cluster: ApiServer) -> Iterator[Callable[[], list[str]]]:
    """Names of the sandbox namespaces that exist. What a failed test left is taken away after it."""
    core = Api(cluster.configuration).core

    def listed() -> list[str]:
        return sorted(item.metadata.name for item in core.list_namespace(label_selector=INVOCATION_LABEL).items)

    yield listed
    for name in listed():
        with contextlib.suppress(ApiException):
            core.delete_namespace(name)
    ends = time.monotonic() + 60
    while listed() and time.monotonic() < ends:
        time.sleep(0.2)


@pytest.fixture
def side(cluster: ApiServer, cloud: Cloud, tmp_path: Path) -> Iterator[Control]:
    """A control side with the Kubernetes executor, its gateway served."""
    gateway = control.gateway_of(tmp_path)
    with control.served(gateway) as address:
        yield control.control(tmp_path, cloud.endpoint, control.kubernetes(cluster.kubeconfig), address, gateway)


@pytest.fixture
def cloud(server: tuple[Any, str, Clock]) -> Cloud:  # noqa: F811
    """An embedded AWS with the example environment's roles, and the bucket that its reports are in."""
    application, endpoint, clock = server
    application._reset({})
    clock.offset = timedelta(0)
    made = Cloud(endpoint, clock, application)
    made.stand_up(control.NAMES, control.catalog())
    s3 = made.client("s3")
    s3.create_bucket(Bucket=control.REPORTS)
    s3.put_object(Bucket=control.REPORTS, Key="published/may.csv", Body=b"figures")
    return made
