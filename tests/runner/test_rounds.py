"""What a control side does again and again while it lives, seen from outside: nobody calls the reaper or looks for anomalies."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ringfence.broker import anomalies, lookup
from ringfence.broker.watch import Watch
from ringfence.iam.tool_documents import broker_role_name
from ringfence.invocation import Invocation, Status, new_id
from ringfence.runner.assembly import ControlSide, Plan, control_side
from ringfence.runner.executor import Exit, Fit, Leftover, Unit
from ringfence.runner.ports import Entry
from tests.runner import control

DEAD = "process-1-1-000000000000"


@dataclass
class Pretended:
    """An executor without sandboxes. runs: how long each process runs; held: it goes on while that is so; wrong: raised
    when asked what there is."""

    name: str = "pretended"
    runs: float = 0.0
    held: bool = False
    wrong: Exception | None = None
    removed: list[str] = field(default_factory=list)

    def fit(self, tools: Sequence[Any]) -> Fit:
        return Fit(500, 512)

    async def start(self, unit: Unit, report: Callable[[str], None]) -> None:
        pass

    async def wait(self, invocation_id: str) -> Exit:
        await asyncio.sleep(self.runs)
        while self.held:
            await asyncio.sleep(0.01)
        return Exit(0, "Completed")

    async def remove(self, invocation_id: str) -> None:
        self.removed.append(invocation_id)

    async def leftovers(self) -> list[Leftover]:
        if self.wrong:
            raise self.wrong
        return []


@dataclass
class Lab:
    """A control side whose rounds are quick."""

    cloud: Any
    folder: Path
    executor: Pretended = field(default_factory=Pretended)
    said: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def side(self) -> AsyncIterator[ControlSide]:
        own = self.cloud.client("sts").assume_role(
            RoleArn=control.NAMES.iam_arn(f"role/{broker_role_name(control.NAMES)}"), RoleSessionName="watch-1"
        )["Credentials"]
        script = self.folder / "script.yaml"
        script.write_text(control.SCRIPT)
        plan = Plan(
            names=control.NAMES, catalog=control.catalog(), folder=self.folder, script=script,
            make_broker=lambda: control.broker_of(self.folder, self.cloud.endpoint), make_executor=lambda _: self.executor,
            environ={}, events=functools.partial(lookup, self.cloud.as_(own, "cloudtrail")), late=timedelta(seconds=60),
            reap_seconds=0.1, watch_seconds=0.1,
        )  # fmt: skip
        async with control_side(replace(plan, **self.changes), self.said.append) as made:
            yield made


@pytest.fixture
def lab(cloud: Any, tmp_path: Path) -> Lab:
    return Lab(cloud, tmp_path)


def records(side: ControlSide, kind: str) -> list[dict[str, Any]]:
    lines = side.trail.path.read_text().splitlines() if side.trail.path.exists() else []
    return [item for item in map(json.loads, lines) if item["metadata"]["event_code"] == kind]


async def until(what: Callable[[], Any], seconds: float = 60) -> Any:
    ends = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < ends, "it did not happen"
        await asyncio.sleep(0.05)
    return found


def invocation(seconds: float = 300) -> Invocation:
    now = datetime.now(UTC)
    return Invocation(
        new_id(), "ann", "p", ("s3-report-reader",), now, now + timedelta(seconds=seconds), model="scripted"
    )


def read(lab: Lab, credential: Any) -> bool:
    try:
        lab.cloud.as_(credential, "s3").get_object(Bucket=control.REPORTS, Key="published/may.csv")
    except ClientError:
        return False
    return True


def by_hand(lab: Lab) -> dict[str, Any]:
    """A session of a tool's role that no broker made."""
    values = {"tool": "s3-report-reader", "invocation": "x", "user": "eve", "credential": "x"}
    return lab.cloud.as_(_broker_session(lab), "sts").assume_role(
        RoleArn=control.NAMES.iam_arn(f"role/{control.NAMES.tool_role('s3-report-reader')}"), RoleSessionName="by-hand",
        SourceIdentity="eve", Tags=[{"Key": key, "Value": value} for key, value in values.items()],
    )["Credentials"]  # fmt: skip


def _broker_session(lab: Lab) -> dict[str, Any]:
    arn = control.NAMES.iam_arn(f"role/{broker_role_name(control.NAMES)}")
    return lab.cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="stolen")["Credentials"]


async def _unknown(lab: Lab, side: ControlSide, credential: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await asyncio.to_thread(read, lab, by_hand(lab))


async def _revoked(lab: Lab, side: ControlSide, credential: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # AWS's delay in applying a change is not emulated.
    monkeypatch.setattr(anomalies, "PROPAGATION", timedelta(0))
    await asyncio.to_thread(side.broker.revoke, credential.invocation_id)
    await asyncio.sleep(1.1)
    assert not await asyncio.to_thread(read, lab, credential)


async def _elsewhere(lab: Lab, side: ControlSide, credential: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.create_connection
    lab.cloud.clients.clear()
    monkeypatch.setattr(
        "urllib3.util.connection.create_connection",
        lambda address, timeout=None, source_address=None, socket_options=None: connect(
            address, timeout, ("127.0.5.1", 0)
        ),
    )
    assert await asyncio.to_thread(read, lab, credential)
    monkeypatch.undo()


MISUSE: dict[str, Callable[..., Awaitable[None]]] = {
    "unknown-session": _unknown, "use-after-revoke": _revoked, "two-networks": _elsewhere,
}  # fmt: skip


@pytest.mark.parametrize("kind", MISUSE)
def test_misuse_of_a_credential_is_told_by_itself_and_once(
    kind: str, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with lab.side() as side:
            mine = invocation()
            side.parts.journal.begin(Entry(mine.id, side.parts.owners.id, mine.deadline))
            credential = await asyncio.to_thread(side.broker.issue, mine, "s3-report-reader")
            # Control: use as it should be is none.
            assert await asyncio.to_thread(read, lab, credential)
            await asyncio.sleep(0.5)
            assert records(side, "alert.credential") == []
            await MISUSE[kind](lab, side, credential, monkeypatch)
            (alert,) = await until(lambda: records(side, "alert.credential"))
            assert alert["status_code"] == kind and alert["severity"] == "High"
            await asyncio.sleep(0.5)
            assert any(line.startswith(f"alert: {kind}") for line in lab.said)
            assert len(records(side, "alert.credential")) == 1

    asyncio.run(go())


def test_without_the_loop_nobody_is_told(lab: Lab) -> None:
    lab.changes = {"events": None}

    async def go() -> None:
        async with lab.side() as side:
            assert await asyncio.to_thread(read, lab, by_hand(lab))
            await asyncio.sleep(1)
            assert records(side, "alert.credential") == []

    asyncio.run(go())


def test_what_a_dead_runner_left_is_reaped_while_a_control_side_lives_and_what_lives_is_not(lab: Lab) -> None:
    async def go() -> None:
        async with lab.side() as side:
            dead, mine = invocation(), invocation()
            # The heartbeat of this very process may have lapsed: it lives all the same.
            side.parts.owners.alive = lambda owner: False
            for item in (dead, mine):
                side.parts.journal.begin(Entry(item.id, side.parts.owners.id, item.deadline))
            theirs = await asyncio.to_thread(side.broker.issue, dead, "s3-report-reader")
            ours = await asyncio.to_thread(side.broker.issue, mine, "s3-report-reader")
            assert await asyncio.to_thread(read, lab, theirs)
            await asyncio.sleep(0.5)
            assert records(side, "unit.reaped") == []
            side.parts.journal.end(dead.id)
            side.parts.journal.begin(Entry(dead.id, DEAD, dead.deadline))
            await until(lambda: records(side, "unit.reaped"))
            await until(lambda: [entry.invocation_id for entry in side.parts.journal.entries()] == [mine.id])
            assert lab.executor.removed == [dead.id]
            assert not await asyncio.to_thread(read, lab, theirs) and await asyncio.to_thread(read, lab, ours)

    asyncio.run(go())


def test_tasks_that_come_and_go_while_the_reaper_looks_are_left_alone(lab: Lab) -> None:
    lab.changes = {"reap_seconds": 0.001}
    lab.executor.runs = 0.05

    async def go() -> None:
        async with lab.side() as side:
            entries = side.parts.journal.entries

            def slowly() -> list[Entry]:
                # Tasks whose credentials were listed just before have ended by the time that the journal is read.
                time.sleep(1.5)
                return entries()

            side.parts.journal.entries = slowly
            results = await asyncio.gather(
                *(
                    side.runner.run("ann", "p", ["s3-report-reader"], groups=control.GROUPS, model="scripted")
                    for _ in range(6)
                )
            )
            # The pass that is under way ends, and one more.
            await asyncio.sleep(4)
            # No sandbox answers here; that is all that goes wrong.
            assert {result.status for result in results} == {Status.FAILED}
            assert {result.error for result in results} == {
                "the sandbox ended without a result: Completed (exit code 0)"
            }
            assert records(side, "unit.reaped") == [] and records(side, "round.failed") == []
            assert side.broker.list() == []

    asyncio.run(go())


def test_a_round_that_fails_is_recorded_goes_on_and_is_an_alert_in_the_end(lab: Lab) -> None:
    lab.changes = {"reap_seconds": 0.3}

    async def go() -> None:
        async with lab.side() as side:
            lab.executor.wrong = RuntimeError("the cluster does not answer")
            (failed, *_) = await until(lambda: records(side, "round.failed"))
            assert failed["status_detail"] == "reaping failed 1 time in a row: the cluster does not answer"
            assert failed["status"] == "Failure" and records(side, "alert.rounds") == []
            (alert,) = await until(lambda: records(side, "alert.rounds"))
            assert (alert["status_code"], alert["severity"]) == ("reaping", "High")
            await until(lambda: len(records(side, "round.failed")) > 4)
            assert len(records(side, "alert.rounds")) == 1
            # The other round was never touched, and this one goes on.
            assert await asyncio.to_thread(read, lab, by_hand(lab))
            await until(lambda: records(side, "alert.credential"))
            left = invocation()
            side.parts.journal.begin(Entry(left.id, DEAD, left.deadline))
            lab.executor.wrong = None
            await until(lambda: records(side, "unit.reaped"))

    asyncio.run(go())


class Told:
    """A broker that finds what it is given."""

    def anomalies(self, events: Any) -> Any:
        return tuple(events)


def test_nothing_is_lost_by_a_look_that_fails_and_what_goes_on_is_told_once_until_it_pauses() -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    now, asked, told, wrong = [start], [], [], [False]
    found = anomalies.Anomaly("unknown-session", "r", "s", "", "", "s3:GetObject", start, "", True, "d")

    def events(since: datetime, until: datetime) -> Any:
        asked.append((since, until))
        return [found] if found_now[0] else []

    def tell(anomaly: Any) -> None:
        if wrong[0]:
            raise RuntimeError("the disk is full")
        told.append(anomaly)

    found_now = [True]
    watch = Watch(Told(), events, tell, late=timedelta(minutes=1), clock=lambda: now[0])

    def look(minutes: float) -> None:
        now[0] = start + timedelta(minutes=minutes)
        watch.look()

    wrong[0] = True
    with pytest.raises(RuntimeError):
        look(5)
    wrong[0] = False
    look(6)
    assert asked[1][0] == asked[0][0] == start - timedelta(minutes=1)
    for minutes in (7, 8, 9):
        look(minutes)
    assert len(told) == 1
    found_now[0] = False
    look(12)
    found_now[0] = True
    look(15)
    assert len(told) == 2
