"""Every example previews on the real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.local.stack import Engine
from tests.environment.conftest import PROJECT, Standing

pytestmark = pytest.mark.engine

EXAMPLES = sorted(path.parent.name for path in (PROJECT / "examples").glob("*/Pulumi.yaml"))


def preview(standing: Standing, folder: Path):
    engine = Engine(
        folder,
        standing.home,
        standing.embedded.engine().tools,
        stack="example",
        config={"ringfence:target": "embedded"},
    )
    return engine.preview().check()


def test_there_are_three_examples():
    assert EXAMPLES == ["existing-vpc", "minimal", "production"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_previews(standing: Standing, example: str):
    changes = preview(standing, PROJECT / "examples" / example).changes
    assert set(changes) == {"create"}
    assert changes["create"] > 100


def test_an_existing_vpc_is_not_made_again(standing: Standing):
    types = {step.type for step in preview(standing, PROJECT / "examples" / "existing-vpc").steps}
    assert "aws:ec2/vpc:Vpc" not in types
    assert "aws:ec2/flowLog:FlowLog" in types
    minimal = {step.type for step in preview(standing, PROJECT / "examples" / "minimal").steps}
    assert "aws:ec2/vpc:Vpc" in minimal
