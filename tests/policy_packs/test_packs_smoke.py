"""Each pack on the real engine with one bad and one good program, and its settings. The full tables are in the e2e run."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ringfence.local.results import Result

pytestmark = pytest.mark.engine

WIDER = 'aws.iam.RolePolicy("main", name="main", role="app", policy=doc(allow("s3:*", BUCKET + "/reports/*")))\n'
SAME = (
    'aws.iam.RolePolicy("main", name="main", role="app", policy=doc(allow("S3:getobject", [BUCKET + "/reports/*"])))\n'
)
EXPIRED = """
grants:
  - {subject: role/app, action: "s3:PutObject", resource: "*", reason: "once, for a migration", expires: 2026-01-01}
"""
OPEN = 'aws.ec2.SecurityGroup("g", ingress=[{"protocol": "-1", "from_port": 0, "to_port": 0, "cidr_blocks": ["0.0.0.0/0"]}])\n'
CLOSED = OPEN.replace("0.0.0.0/0", "10.0.0.0/8")


@pytest.fixture(scope="module")
def results(lab: Any, approved: Path) -> dict[str, Result]:
    files = {"lockfile": str(approved)}
    creep = {"grants-match-lockfile": files, "stack-matches-lockfile": files}
    advisory = {name: {**files, "enforcementLevel": "advisory"} for name in creep}
    disabled = {name: {"enforcementLevel": "disabled"} for name in creep}
    expired = lab.folder / "expired.yaml"
    expired.write_text(EXPIRED, encoding="utf-8")
    twice = lab.folder / "twice.lock.json"
    twice.write_text(
        approved.read_text(encoding="utf-8").replace('"schema"', '"grants": {}, "schema"'), encoding="utf-8"
    )
    runs: dict[str, tuple[Any, ...]] = {
        "wider": (WIDER, "permission-creep", creep),
        "same": (SAME, "permission-creep", creep),
        "advisory": (WIDER, "permission-creep", advisory),
        "disabled": (WIDER, "permission-creep", disabled),
        "expired": (WIDER, "permission-creep", {name: {**files, "exceptions": str(expired)} for name in creep}),
        "key twice": (SAME, "permission-creep", {name: {"lockfile": str(twice)} for name in creep}),
        "no lockfile": (SAME, "permission-creep", {name: {"lockfile": "/nonexistent.json"} for name in creep}),
        "open": (OPEN, "sandbox-guardrails", None),
        "closed": (CLOSED, "sandbox-guardrails", None),
    }
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda item: lab.preview(f"smoke-{item[0].replace(' ', '-')}", *item[1]), runs.items())
        return dict(zip(runs, made, strict=True))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("wider", "role/app inline policy main allows more than was approved"),
        ("expired", "role/app inline policy main allows more than was approved"),
        ("expired", "the exception for s3:PutObject on * for role/app expired on 2026-01-01"),
        ("key twice", "a key stands twice in one object"),
        ("no lockfile", "there is no readable baseline to compare with"),
        ("open", "g lets 0.0.0.0/0 in"),
    ],
)
def test_a_violation_fails_the_preview(results: dict[str, Result], name: str, told: str) -> None:
    result = results[name]
    assert result.exit_code != 0
    assert any(told in violation.message and violation.level == "mandatory" for violation in result.violations)


@pytest.mark.parametrize("name", ["same", "closed"])
def test_a_program_without_one_passes(results: dict[str, Result], name: str) -> None:
    assert results[name].ok, results[name].tail()
    assert not results[name].violations


def test_the_enforcement_level_is_the_users_to_set(results: dict[str, Result]) -> None:
    result = results["advisory"]
    assert result.ok
    assert {violation.level for violation in result.violations} == {"advisory"}
    assert any("role/app inline policy main allows more" in violation.message for violation in result.violations)


@pytest.mark.parametrize("level", ["advisory", "disabled"])
def test_a_level_that_was_lowered_is_told(results: dict[str, Result], level: str) -> None:
    told = [violation.message for violation in results[level].violations]
    for policy in ("grants-match-lockfile", "stack-matches-lockfile"):
        assert any(f"The configuration makes {policy} {level}" in message for message in told)


def test_an_approved_program_shows_no_difference_in_review(lab: Any, approved: Path) -> None:
    """The lockfile made from a preview covers that preview: nothing is lost or added between the two forms."""
    from ringfence.review import lockfile, sources
    from ringfence.review.compare import compare

    preview = json.loads((lab.folder / "approved.json").read_text(encoding="utf-8"))
    surface = sources.surface_of("preview", sources.preview_of(json.dumps(preview), "preview"))
    assert len(surface.subjects()) > 10
    assert compare(lockfile.read(approved).surface, surface) == ()
