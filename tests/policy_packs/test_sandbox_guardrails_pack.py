"""The sandbox-guardrails pack on the real engine: every unsafe program fails its preview, no safe one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ringfence.local.results import Result

CASES = Path(__file__).parent / "cases"
BAD = yaml.safe_load((CASES / "guardrails.yaml").read_text(encoding="utf-8"))
GOOD = yaml.safe_load((CASES / "guardrails_good.yaml").read_text(encoding="utf-8"))

# Some sixty previews: too long for every `make test`, which has test_packs_smoke.py.
pytestmark = [pytest.mark.engine, pytest.mark.e2e]


@pytest.fixture(scope="module")
def bad(previews: Callable[..., dict[str, Result]]) -> dict[str, Result]:
    return previews("guardrails", "sandbox-guardrails")


@pytest.fixture(scope="module")
def good(previews: Callable[..., dict[str, Result]]) -> dict[str, Result]:
    return previews("guardrails_good", "sandbox-guardrails")


@pytest.mark.parametrize("case", BAD, ids=[case["name"] for case in BAD])
def test_an_unsafe_program_fails_its_preview(bad: dict[str, Result], case: dict[str, str]) -> None:
    result = bad[case["name"]]
    matching = [v for v in result.violations if v.level == "mandatory" and case["expect"] in v.message]
    assert result.exit_code != 0
    assert matching, "\n".join([*(violation.message for violation in result.violations), result.tail()])
    for part in ("Why it matters:", "Fix:", "Approve:"):
        assert part in matching[0].message


@pytest.mark.parametrize("case", GOOD, ids=[case["name"] for case in GOOD])
def test_a_safe_program_passes(good: dict[str, Result], case: dict[str, str]) -> None:
    result = good[case["name"]]
    assert result.ok, result.tail()
    assert not result.violations
