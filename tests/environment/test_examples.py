"""Every example previews on the real engine, where nothing stands yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ringfence.local import services
from ringfence.local.console import Clock
from ringfence.local.lifecycle import ACCOUNT, Embedded
from ringfence.local.results import Result
from ringfence.local.stack import Engine
from tests.environment.conftest import PROJECT

pytestmark = pytest.mark.engine

EXAMPLES = sorted(path.parent.name for path in (PROJECT / "examples").glob("*/Pulumi.yaml"))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """Services with nothing in them."""
    embedded = Embedded(PROJECT, home=tmp_path_factory.mktemp("examples") / "home", clock=Clock())
    try:
        services.start(embedded.home, embedded.engine().tools, ACCOUNT, lambda line: None)
        yield embedded
    finally:
        services.stop(embedded.home, lambda line: None)


def preview(empty: Embedded, example: str) -> Result:
    engine = Engine(
        PROJECT / "examples" / example,
        empty.home,
        empty.engine().tools,
        stack="example",
        config={"ringfence:target": "embedded"},
    )
    return engine.preview().check()


def test_there_are_three_examples():
    assert EXAMPLES == ["existing-vpc", "minimal", "production"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_previews(empty: Embedded, example: str):
    found = preview(empty, example)
    assert set(found.changes) == {"create"}
    assert found.changes["create"] > 100
    # Bring your own VPC: only the controls are made, not the VPC.
    types = {step.type for step in found.steps}
    assert ("aws:ec2/vpc:Vpc" in types) == (example != "existing-vpc")
    assert "aws:ec2/flowLog:FlowLog" in types
