"""Fixtures of everything that talks to the embedded target's AWS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ringfence.local import operator_key
from ringfence.local.state import write_atomic

ServerStarter = Callable[..., AbstractContextManager[str]]


@contextmanager
def _running(home: Path, *arguments: str) -> Iterator[str]:
    """A real server process on a free port, for as long as the block runs; yields its endpoint."""
    # The key that the tests' clients sign with.
    write_atomic(home / operator_key.FILE, json.dumps({"accessKeyId": "test", "secretAccessKey": "test"}))
    command = [sys.executable, "-m", "ringfence.local.aws_server", "--port", "0", "--home", str(home), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server did not start (exit code {process.poll()})"
        yield json.loads(line)["endpoint"]
    finally:
        process.terminate()
        try:
            process.wait(timeout=300)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def start_aws_server() -> ServerStarter:
    """Starts a server of the test's own: `with start_aws_server(home, *arguments) as endpoint`."""
    return _running


@pytest.fixture(scope="session")
def aws_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Endpoint of one server for the whole session (of each xdist worker)."""
    with _running(tmp_path_factory.mktemp("aws-server")) as endpoint:
        yield endpoint
