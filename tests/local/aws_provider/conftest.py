"""One AWS server for all tests of the embedded provider, and a backend that talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest

from ringfence.local import operator_key
from ringfence.local.providers.aws.backend import AwsBackend
from ringfence.local.state import write_atomic
from tests.local.aws_provider.life_cycle import World

REGION = "us-east-1"
# The operator's, of the server of these tests.
KEY = {"AWS_ACCESS_KEY_ID": "embedded", "AWS_SECRET_ACCESS_KEY": "embedded"}


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running embedded AWS server."""
    home = tmp_path_factory.mktemp("aws")
    write_atomic(home / operator_key.FILE, json.dumps({"accessKeyId": "embedded", "secretAccessKey": "embedded"}))
    command = [sys.executable, "-m", "ringfence.local.aws_server", "--port", "0", "--home", str(home)]
    server = subprocess.Popen([*command, "--parent", str(os.getpid())], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield json.loads(server.stdout.readline())["endpoint"]
    server.terminate()
    server.wait(timeout=300)


@pytest.fixture(scope="session")
def inventory(endpoint: str) -> Callable[[], Any]:
    """What is left in the account, as the operator sees it."""

    def left() -> Any:
        request = Request(f"{endpoint}/ringfence/inventory", headers={"Authorization": "Bearer embedded"})
        with urlopen(request, timeout=300) as answer:
            return json.load(answer)["left"]

    return left


@pytest.fixture(scope="session")
def backend(endpoint: str) -> Iterator[AwsBackend]:
    """A configured backend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        for name, value in KEY.items():
            patch.setenv(name, value)
        made = AwsBackend()
        made.configure({"region": REGION})
        yield made


@pytest.fixture(scope="session")
def client(endpoint: str) -> Callable[[str], Any]:
    """Plain boto3 clients: what a person does behind the provider's back."""
    session = boto3.Session(aws_access_key_id="embedded", aws_secret_access_key="embedded", region_name=REGION)
    return cache(lambda service: session.client(service, endpoint_url=endpoint))


@pytest.fixture
def world(backend: AwsBackend, client: Callable[[str], Any]) -> Iterator[World]:
    """A world that is empty again after the test."""
    made = World(backend, client)
    yield made
    made.clear()
