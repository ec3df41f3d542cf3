"""The permission-creep pack on the real engine: every program that grants more fails its preview, none that doesn't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.local.results import Result

CASES = Path(__file__).parent / "cases"
BAD = yaml.safe_load((CASES / "creep.yaml").read_text(encoding="utf-8"))
GOOD = yaml.safe_load((CASES / "good.yaml").read_text(encoding="utf-8"))
POLICIES = ("grants-match-lockfile", "stack-matches-lockfile")

# Some sixty previews: too long for every `make test`, which has test_packs_smoke.py.
pytestmark = [pytest.mark.engine, pytest.mark.e2e]


def _config(approved: Path) -> dict[str, Any]:
    return {policy: {"lockfile": str(approved)} for policy in POLICIES}


@pytest.fixture(scope="module")
def bad(previews: Callable[..., dict[str, Result]], approved: Path) -> dict[str, Result]:
    return previews("creep", "permission-creep", _config(approved))


@pytest.fixture(scope="module")
def good(previews: Callable[..., dict[str, Result]], approved: Path) -> dict[str, Result]:
    return previews("good", "permission-creep", _config(approved))


@pytest.mark.parametrize("case", BAD, ids=[case["name"] for case in BAD])
def test_a_program_that_grants_more_fails_its_preview(bad: dict[str, Result], case: dict[str, str]) -> None:
    result = bad[case["name"]]
    mandatory = [violation for violation in result.violations if violation.level == "mandatory"]
    matching = [violation for violation in mandatory if case["expect"] in violation.message]
    assert result.exit_code != 0
    assert matching, "\n".join([*(violation.message for violation in result.violations), result.tail()])
    assert case.get("witness", "") in matching[0].message
    for part in ("Why it matters:", "Fix:", "Approve:"):
        assert part in matching[0].message


@pytest.mark.parametrize("case", GOOD, ids=[case["name"] for case in GOOD])
def test_a_program_that_grants_no_more_passes(good: dict[str, Result], case: dict[str, str]) -> None:
    result = good[case["name"]]
    assert result.ok, result.tail()
    assert not result.violations


def test_each_bad_program_is_refused_for_its_own_reason(bad: dict[str, Result]) -> None:
    seen = {name: frozenset(v.message for v in result.violations) for name, result in bad.items()}
    assert len(BAD) >= 40
    assert len(set(seen.values())) == len(BAD)
