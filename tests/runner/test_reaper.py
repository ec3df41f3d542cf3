"""A runner killed at any point of its life leaves nothing that one pass of the reaper, by another process, does not find."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from kubernetes import client

from ringfence.invocation import Invocation, new_id
from ringfence.runner.executor import Unit
from ringfence.runner.ports import Entry
from ringfence.runner.reaper import GRACE_SECONDS, reap
from tests.runner import control
from tests.runner.kubelet import Container, Kubelet, succeed
from tests.runner.test_warm_pool import wait_and_do
from tests.runner.victim import ANSWERED, BOUND, MADE, written

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]

# Every point that a watcher sees, in order. Each object of the unit is made right after its own point.
POINTS = (
    "record:begin", "record:done", "session:begin", "session:done", "credentials:begin", ANSWERED,
    "credentials:detail:issued for s3-report-reader", "credentials:done", "sandbox:begin",
    "sandbox:detail:namespace", "sandbox:detail:the runner's rights in it", "sandbox:detail:quota", "sandbox:detail:limits",
    "sandbox:detail:default-deny", "sandbox:detail:way to the gateway", "sandbox:detail:ways of the tools",
    "sandbox:detail:secret", "sandbox:detail:pod", "sandbox:done", "result:begin", "result:done",
    "credentials:undoing", "credentials:undone", "sandbox:undoing", "sandbox:undone", "session:undoing", "session:undone",
    "result:ended",
)  # fmt: skip
# One of each kind for every test run; all of them in `make e2e`.
FEW = ("record:done", ANSWERED, "credentials:done", "sandbox:detail:limits", "result:begin", "sandbox:undone")


def killed(folder: Path, endpoint: str, kubeconfig: Path, point: str) -> list[str]:
    """Runs a task in a process of its own that is killed at `point`. Returns the points that it passed."""
    command = [sys.executable, "-m", "tests.runner.victim", str(folder), endpoint, str(kubeconfig), point]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == (0 if point == "never" else -9), done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def successor(cluster, cloud, tmp_path: Path) -> Callable[[], control.Control]:
    """Builds the dead runner's control side again, from what it left on disk; it serves nobody."""

    def make() -> control.Control:
        executor = control.kubernetes(cluster.kubeconfig)
        gateway = control.gateway_of(tmp_path)
        return control.control(tmp_path, cloud.endpoint, executor, ("127.0.0.1", 1), gateway)

    return make


def handed(files: dict[str, bytes]) -> dict[str, str]:
    """The credentials that the sandbox was given."""
    return json.loads(files["s3-report-reader.json"])


def alive(cloud, given: dict[str, str]) -> bool:
    """Whether the credentials still read the report."""
    s3 = cloud.client("s3", given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    try:
        s3.get_object(Bucket=control.REPORTS, Key="published/may.csv")
    except ClientError as error:
        assert error.response["Error"]["Code"] in ("AccessDenied", "403")
        return False
    return True


def check_killed_at(point: str, cluster, cloud, successor, sandboxes, tmp_path: Path) -> None:
    held: list[dict[str, bytes]] = []

    def look(container: Container) -> int:
        held.append(container.files)
        assert alive(cloud, handed(container.files))
        return succeed(container)

    with Kubelet(cluster.configuration, look):
        passed = killed(tmp_path, cloud.endpoint, cluster.kubeconfig, point)
    assert passed[-1] == point
    # What AWS issued is known from AWS's own answer, also when it was never handed to anybody.
    issued = written(tmp_path)
    assert len(issued) == (ANSWERED in passed)
    assert {handed(files)["AccessKeyId"] for files in held} <= {keys["AccessKeyId"] for keys in issued}
    over = "credentials:undone" in passed
    assert [alive(cloud, keys) for keys in issued] == [not over] * len(issued)
    check_nothing_left(successor(), cloud, issued, cluster, sandboxes)


def check_nothing_left(side: control.Control, cloud, issued: list[dict[str, str]], cluster, sandboxes) -> None:
    asyncio.run(reap(side.parts))
    assert sandboxes() == []
    assert side.parts.journal.entries() == []
    assert side.broker.list(active=True) == []
    assert not any(alive(cloud, keys) for keys in issued)
    core = client.CoreV1Api(client.ApiClient(cluster.configuration))
    assert [
        item.metadata.name for item in core.list_secret_for_all_namespaces().items if "creds-" in item.metadata.name
    ] == []
    again = asyncio.run(reap(side.parts))
    assert again == []
    side.gateway.stop()


@pytest.mark.parametrize("point", FEW)
def test_killed_at_a_point_nothing_is_left_after_one_pass(point: str, cluster, cloud, successor, sandboxes, tmp_path):
    check_killed_at(point, cluster, cloud, successor, sandboxes, tmp_path)


@pytest.mark.parametrize("point", [MADE, BOUND])
def test_killed_with_a_waiting_sandbox_nothing_is_left_after_one_pass(
    point: str, cluster, cloud, successor, sandboxes, tmp_path: Path
):
    with Kubelet(cluster.configuration, wait_and_do):
        passed = killed(tmp_path, cloud.endpoint, cluster.kubeconfig, point)
    assert passed[-1] == point and len(sandboxes()) >= 1
    issued = written(tmp_path)
    # Bound, it has credentials that its task never got; they live until the pass.
    assert [alive(cloud, keys) for keys in issued] == [True] * (point == BOUND)
    check_nothing_left(successor(), cloud, issued, cluster, sandboxes)


@pytest.mark.e2e
@pytest.mark.parametrize("point", [point for point in POINTS if point not in FEW])
def test_killed_at_any_point_nothing_is_left_after_one_pass(point: str, cluster, cloud, successor, sandboxes, tmp_path):
    check_killed_at(point, cluster, cloud, successor, sandboxes, tmp_path)


@pytest.mark.e2e
def test_these_are_all_the_points_of_a_life(cluster, cloud, tmp_path: Path):
    with Kubelet(cluster.configuration):
        passed = killed(tmp_path, cloud.endpoint, cluster.kubeconfig, "never")
    assert passed.pop().startswith("succeeded")
    assert tuple(passed) == POINTS


def test_without_the_reaper_a_killed_runner_leaves_everything(cluster, cloud, successor, sandboxes, tmp_path: Path):
    """What the reaper is for: the same kill, looked at before the pass."""
    with Kubelet(cluster.configuration):
        killed(tmp_path, cloud.endpoint, cluster.kubeconfig, "result:begin")
    side = successor()
    assert len(sandboxes()) == 1
    assert len(side.broker.list(active=True)) == 1
    assert [alive(cloud, keys) for keys in written(tmp_path)] == [True]
    reaped = asyncio.run(reap(side.parts))
    assert [item.failures for item in reaped] == [()]
    assert "is dead" in reaped[0].why
    assert [record["metadata"]["event_code"] for record in side.records("unit.reaped")] == ["unit.reaped"]
    side.gateway.stop()


async def _unit(side: control.Control, owner: str, deadline: datetime) -> str:
    unit = Unit(new_id(), owner, deadline, (), environment={"A": "b"})
    await side.parts.executor.start(unit, lambda _: None)
    return unit.invocation_id


def test_a_living_owners_unit_within_its_time_is_left_alone(successor, sandboxes):
    async def main() -> None:
        side = successor()
        own = side.parts.owners.id
        begun = datetime.now(UTC)
        kept = await _unit(side, own, begun + timedelta(seconds=300))
        late = await _unit(side, own, begun + timedelta(seconds=100))
        orphan = await _unit(side, "process-1-1-000000000000", begun + timedelta(seconds=300))
        then = begun + timedelta(seconds=101 + GRACE_SECONDS)
        reaped = {item.invocation_id: item.why for item in await reap(side.parts, clock=lambda: then)}
        assert set(reaped) == {late, orphan}
        assert "has passed" in reaped[late]
        assert sandboxes() == [f"sandbox-{kept}"]
        await side.parts.executor.remove(kept)

    asyncio.run(main())


@pytest.mark.parametrize("annotation", ["tomorrow", "2030-01-01T00:00:00", None])
def test_a_deadline_that_can_not_be_read_counts_as_passed(successor, cluster, sandboxes, annotation: str | None):
    async def main() -> None:
        side = successor()
        unit = await _unit(side, side.parts.owners.id, datetime.now(UTC) + timedelta(seconds=200))
        core = client.CoreV1Api(client.ApiClient(cluster.configuration))
        core.patch_namespace(f"sandbox-{unit}", {"metadata": {"annotations": {"ringfence.dev/deadline": annotation}}})
        assert [(item.invocation_id, item.why) for item in await reap(side.parts)] == [
            (unit, "its deadline can't be read")
        ]
        assert sandboxes() == []

    asyncio.run(main())


def test_credentials_of_no_invocation_are_revoked(successor, cloud):
    side = successor()
    now = datetime.now(UTC)
    invocation = Invocation(new_id(), "ann", "hello", ("s3-report-reader",), now, now + timedelta(seconds=300))
    credential = side.broker.issue(invocation, "s3-report-reader")
    given = json.loads(credential.credential_process())
    assert alive(cloud, given)
    asyncio.run(reap(side.parts))
    assert not alive(cloud, given)


def test_what_can_not_be_taken_away_stays_for_the_next_pass(
    successor, cluster, cloud, sandboxes, tmp_path, monkeypatch
):
    with Kubelet(cluster.configuration):
        killed(tmp_path, cloud.endpoint, cluster.kubeconfig, "result:begin")
    side = successor()

    async def stuck(invocation_id: str) -> None:
        raise OSError("the cluster is out of reach")

    monkeypatch.setattr(side.parts.executor, "remove", stuck)
    (first,) = asyncio.run(reap(side.parts))
    assert first.failures == ("sandbox: the cluster is out of reach",)
    assert side.broker.list(active=True) == []
    assert len(sandboxes()) == 1
    monkeypatch.undo()
    (second,) = asyncio.run(reap(side.parts))
    assert second.failures == ()
    assert sandboxes() == []


def test_two_reapers_at_once_do_no_harm(successor, cluster, cloud, sandboxes, tmp_path):
    with Kubelet(cluster.configuration):
        killed(tmp_path, cloud.endpoint, cluster.kubeconfig, "sandbox:done")
    sides = [successor(), successor()]

    async def main() -> None:
        await asyncio.gather(*(reap(side.parts) for side in sides))

    asyncio.run(main())
    assert sandboxes() == []
    assert sides[0].parts.journal.entries() == []


def test_a_waiting_sandboxs_task_deadline_comes_from_the_journal(successor, sandboxes):
    """The namespace of a sandbox that waited bears the latest end that it could have; the journal knows the real one."""

    async def main() -> None:
        side = successor()
        unit = await _unit(side, side.parts.owners.id, datetime.now(UTC) + timedelta(seconds=900))
        passed = datetime.now(UTC) - timedelta(seconds=GRACE_SECONDS + 1)
        side.parts.journal.begin(Entry(unit, side.parts.owners.id, passed + timedelta(seconds=600), warm=True))
        assert await reap(side.parts) == []
        side.parts.journal.bind(unit, passed)
        assert [item.invocation_id for item in await reap(side.parts)] == [unit]
        assert sandboxes() == []

    asyncio.run(main())
