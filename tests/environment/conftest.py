"""The whole environment on the embedded target, stood up once for the tests that look at it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from ringfence.local import services, target
from ringfence.local.console import Clock
from ringfence.local.lifecycle import Embedded
from ringfence.local.results import Result
from ringfence.local.stack import Engine

PROJECT = Path(__file__).parents[2]


@dataclass
class Standing:
    """An environment of a test's own: its life cycle, and clients for what it stands on."""

    embedded: Embedded
    first: Result

    @property
    def home(self) -> Any:
        return self.embedded.home

    def client(self, service: str) -> Any:
        """A plain boto3 client of the embedded account."""
        values = target.variables(self.home)
        return boto3.client(
            service,
            endpoint_url=values["AWS_ENDPOINT_URL"],
            region_name=values["AWS_REGION"],
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        )

    def engine(self, **config: Any) -> Engine:
        """The engine on the same stack, with settings changed for one run."""
        base = self.embedded.engine()
        changed = {f"ringfence:{key}": value for key, value in config.items()}
        return Engine(PROJECT, self.home, base.tools, stack="local", config=changed)

    def stop_aws(self) -> None:
        """Kills the AWS server as a reboot would: its memory is gone."""
        services.Child(self.home, services.AWS_SERVER, []).stop()


Start = Callable[[], Embedded]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes life cycles with a home of the test's own; stops their services afterwards."""
    made: list[Embedded] = []

    def make() -> Embedded:
        embedded = Embedded(PROJECT, home=tmp_path / "home", clock=Clock())
        made.append(embedded)
        return embedded

    yield make
    for embedded in made:
        services.stop(embedded.home, lambda line: None)


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """The environment of stack `local`, standing. Tests that change it put back what they changed."""
    os.environ.pop("RINGFENCE_HOME", None)
    embedded = Embedded(PROJECT, home=tmp_path_factory.mktemp("environment") / "home", clock=Clock())
    try:
        yield Standing(embedded, embedded.up())
    finally:
        services.stop(embedded.home, lambda line: None)
