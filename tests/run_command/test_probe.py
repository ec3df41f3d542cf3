"""The probe of a task file: a refusal that follows a success of the same credential, by AWS's denial and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import InputError, RingfenceError
from ringfence.runner.probe import probe
from ringfence.runner.reaper import reap
from ringfence.runner.task_file import Place, Probe
from tests.broker.conftest import server  # noqa: F401 (a fixture)
from tests.runner import control
from tests.runner.conftest import cloud  # noqa: F401 (a fixture)
from tests.runner.test_rounds import Pretended

NEXT = "example-payroll-123456789012"
MAY = Place(bucket=control.REPORTS, key="published/may.csv")


@pytest.fixture
def side(cloud: Any, tmp_path: Path) -> control.Control:  # noqa: F811
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=NEXT)
    s3.put_object(Bucket=NEXT, Key="salaries.csv", Body=b"x")
    gateway = control.gateway_of(tmp_path)
    return control.control(tmp_path, cloud.endpoint, lambda _: Pretended(), ("127.0.0.1", 1), gateway)


def asked(bucket: str = NEXT, key: str = "salaries.csv", granted: Place = MAY) -> Probe:
    return Probe(tool="s3-report-reader", bucket=bucket, key=key, granted=granted)


def nothing_left(side: control.Control) -> None:
    assert side.broker.list() == [] and side.parts.journal.entries() == []


def test_a_refusal_is_shown_beside_what_the_same_credential_reads(cloud: Any, side: control.Control) -> None:  # noqa: F811
    said = probe(asked(), "ann", side.parts, cloud.as_)
    assert f"s3://{control.REPORTS}/published/may.csv" in said and "AccessDenied" in said
    (record,) = side.records("probe.ended")
    assert record["status_detail"] == said
    nothing_left(side)


@pytest.mark.parametrize("missing", ["granted", "bucket of granted"])
def test_without_the_success_it_shows_nothing(cloud: Any, side: control.Control, missing: str) -> None:  # noqa: F811
    bucket = control.REPORTS if missing == "granted" else NEXT
    with pytest.raises(RingfenceError, match=r"shows nothing: .*can't read"):
        probe(asked(granted=Place(bucket=bucket, key="published/none.csv")), "ann", side.parts, cloud.as_)
    nothing_left(side)


def test_another_error_than_denial_shows_nothing(cloud: Any, side: control.Control) -> None:  # noqa: F811
    with pytest.raises(RingfenceError, match="refused as NoSuchKey"):
        probe(asked(control.REPORTS, "published/none.csv"), "ann", side.parts, cloud.as_)
    nothing_left(side)


def test_what_is_read_all_the_same_is_a_fault(cloud: Any, side: control.Control) -> None:  # noqa: F811
    with pytest.raises(InputError, match="narrow its grants"):
        probe(asked(control.REPORTS, "published/may.csv"), "ann", side.parts, cloud.as_)
    nothing_left(side)


def test_it_is_in_the_journal_while_it_lasts_so_that_no_reaper_takes_it_and_one_may_after_a_kill(
    cloud: Any,  # noqa: F811
    side: control.Control,
) -> None:
    import asyncio

    seen: list[list[Any]] = []

    def client_of(credential: Any, service: str) -> Any:
        seen.append(asyncio.run(reap(side.parts)))
        seen.append([entry.invocation_id for entry in side.parts.journal.entries()])
        seen.append([credential.invocation_id])
        return cloud.as_(credential, service)

    probe(asked(), "ann", side.parts, client_of)
    assert seen[0] == [] and seen[1] == seen[2]
    nothing_left(side)
