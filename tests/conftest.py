"""Fixtures that every area shares: the resolved toolchain, and stacks of small programs on the real engine."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.local import toolchain
from ringfence.local.stack import Engine
from ringfence.local.toolchain import Tools

EngineFactory = Callable[..., Engine]


@pytest.fixture(scope="session")
def tools() -> Tools:
    """The toolchain: from PATH or the per-user cache; downloaded or built when this is the first run."""
    return toolchain.resolve(report=lambda line: print(line, file=sys.stderr, flush=True))


@pytest.fixture
def engine_factory(tools: Tools, tmp_path: Path) -> Iterator[EngineFactory]:
    """Makes stacks of small programs, each with a project, a home and a backend of its own.

    engine_factory(program, config={...}, extra_env={...}, files={"data.json": "..."}, project="trial"): `program` is the
    text of __main__.py; config keys without a namespace get the project's.
    """
    count = 0

    def make(
        program: str,
        *,
        config: Mapping[str, Any] | None = None,
        extra_env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        project: str = "trial",
    ) -> Engine:
        nonlocal count
        count += 1
        folder = tmp_path / f"stack-{count}"
        source = folder / "project"
        source.mkdir(parents=True)
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (source / "Pulumi.yaml").write_text(yaml.safe_dump({"name": project, "runtime": runtime}), encoding="utf-8")
        (source / "__main__.py").write_text(textwrap.dedent(program), encoding="utf-8")
        for name, text in (files or {}).items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        values = {key if ":" in key else f"{project}:{key}": value for key, value in (config or {}).items()}
        return Engine(source, folder / "home", tools, config=values, extra_env=extra_env)

    yield make


# How long a file's tests wait for engines, clusters and sandboxes; pytest-xdist deals files out in this order, so that the
# last ones are short and no worker waits for another.
_SLOW_FIRST = ("environment", "runner", "local", "failure_modes", "policy_packs", "sandbox", "cluster", "gateway")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow areas first; the order within a file stays."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        area = item.path.relative_to(here).parts[0]
        return _SLOW_FIRST.index(area) if area in _SLOW_FIRST else len(_SLOW_FIRST)

    items.sort(key=place)
