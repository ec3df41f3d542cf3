"""The project's own program passes its own packs against its own lockfile, every document known before anything stands."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ringfence.local import target
from ringfence.local.stack import Engine
from ringfence.local.state import Home
from ringfence.review import lockfile, sources
from ringfence.review.compare import compare

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.engine, pytest.mark.e2e]


@pytest.fixture(scope="module")
def engine(lab: Any) -> Engine:
    """The project with providers that know no more at preview than what they are given."""
    plugins = lab.folder / "own-plugins"
    shutil.copytree(lab.folder / "plugins", plugins)
    shutil.copy(plugins / "pulumi-resource-aws", plugins / "pulumi-resource-random")
    home = Home.of(lab.folder / "home-own")
    path = os.pathsep.join([str(plugins), target.environment(home, lab.tools)["PATH"]])
    return Engine(ROOT, home, lab.tools, stack="local", extra_env={"PATH": path})


def test_the_packs_find_nothing_in_the_environment(engine: Engine) -> None:
    packs = [ROOT / "policy-packs" / name for name in ("permission-creep", "sandbox-guardrails")]
    result = engine.preview(policy_packs=packs)
    assert not result.violations, "\n".join(violation.message for violation in result.violations)
    assert result.ok, result.tail()


def test_every_document_is_known_at_preview_and_approved(engine: Engine) -> None:
    surface = sources.surface_of("preview", sources.preview_of(engine.preview(json=True).check().stdout, "preview"))
    assert [fact.place for fact in surface.facts.values() if fact.unknown] == []
    approved = lockfile.read(ROOT / "catalog/grants.lock.json")
    assert [change.message for change in compare(approved.surface, surface)] == []
    # The probe works: the same preview against a lockfile that approves one role less is refused.
    role = next(subject for subject in approved.content.grants if subject.startswith("role/"))
    fewer = {subject: block for subject, block in approved.content.grants.items() if subject != role}
    narrowed = lockfile.Lockfile(approved.path, dataclasses.replace(approved.content, grants=fewer), {})
    assert {change.subject for change in compare(narrowed.surface, surface)} >= {role}
