"""Revoking, pruning, and what a killed broker leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ringfence.broker import Broker, BrokerError, Entry, SqliteLedger, State
from ringfence.broker.revocation import EVERY_SESSION, fitted, revoked_document
from ringfence.iam.rendering import policy_size
from ringfence.invocation import Invocation

Invoke = Callable[..., Invocation]
BUCKET = "reports-123456789012"
ROLE = "ringfence-test-tool-reports"


def reads(cloud: Any, credential: Any) -> bool:
    try:
        cloud.as_(credential, "s3").get_object(Bucket=BUCKET, Key="published/may.csv")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied", error
        return False
    return True


def listed(cloud: Any) -> str:
    answer = cloud.client("iam").get_role_policy(RoleName=ROLE, PolicyName="revoked")
    return json.dumps(answer["PolicyDocument"])


def test_a_revoked_invocation_s_credentials_stop_at_once_and_others_go_on(
    cloud: Any, broker: Broker, invoke: Invoke
) -> None:
    first, second = invoke(), invoke()
    gone, also_gone, kept = (broker.issue(invocation, "reports") for invocation in (first, first, second))
    assert all(reads(cloud, credential) for credential in (gone, also_gone, kept))
    assert broker.revoke(invocation_id=first.id) == 2
    assert [reads(cloud, credential) for credential in (gone, also_gone, kept)] == [False, False, True]
    assert [entry.id for entry in broker.list()] == [kept.id]
    assert {entry.state for entry in broker.list(active=False)} == {State.REVOKED, State.ISSUED}


def test_one_credential_is_revoked_alone(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    invocation = invoke()
    gone, kept = broker.issue(invocation, "reports"), broker.issue(invocation, "reports")
    assert broker.revoke(credential_id=gone.id) == 1
    assert (reads(cloud, gone), reads(cloud, kept)) == (False, True)


def test_revoking_again_or_what_nobody_knows_does_no_harm(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    invocation = invoke()
    broker.issue(invocation, "reports")
    assert broker.revoke(invocation_id="nobody000000") == 0
    assert broker.revoke(credential_id="unknown") == 0
    assert [broker.revoke(invocation_id=invocation.id) for _ in range(3)] == [1, 0, 0]
    with pytest.raises(ValueError):
        broker.revoke()


def test_what_is_issued_while_its_invocation_is_revoked_is_never_handed_out(
    cloud: Any, ledger: SqliteLedger, invoke: Invoke
) -> None:
    broker = cloud.broker(ledger)
    invocation = invoke()

    class Racing:
        def assume_role(self, **parameters: Any) -> Any:
            answer = broker._sts_real.assume_role(**parameters)
            broker.revoke(invocation_id=invocation.id)
            self.answer = answer["Credentials"]
            return answer

    racing = Racing()
    broker._sts_real, broker._sts = broker._sts, racing
    with pytest.raises(BrokerError, match="revoked while"):
        broker.issue(invocation, "reports")
    assert not reads(cloud, racing.answer)


def test_a_list_that_can_t_be_written_is_said_and_made_good_by_prune(
    cloud: Any, broker: Broker, invoke: Invoke
) -> None:
    credential = broker.issue(invoke(), "reports")
    iam = cloud.client("iam")
    work = iam.get_role_policy(RoleName="ringfence-test-broker", PolicyName="work")["PolicyDocument"]
    iam.delete_role_policy(RoleName="ringfence-test-broker", PolicyName="work")
    with pytest.raises(BrokerError, match="prune"):
        broker.revoke(invocation_id=credential.invocation_id)
    assert reads(cloud, credential)
    assert broker.list() == []
    iam.put_role_policy(RoleName="ringfence-test-broker", PolicyName="work", PolicyDocument=json.dumps(work))
    assert broker.prune().revoked == 1
    assert not reads(cloud, credential)


def test_every_session_of_a_tool_can_be_revoked_known_or_not(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    known = broker.issue(invoke(), "reports")
    tags = [{"Key": key, "Value": "reports"} for key in ("tool", "invocation", "user", "credential")]
    stolen = cloud.as_(cloud.broker_credentials(), "sts").assume_role(
        RoleArn=known.role_arn, RoleSessionName="stolen", SourceIdentity="x1", Tags=tags
    )["Credentials"]
    assert reads(cloud, known) and reads(cloud, stolen)
    assert broker.revoke_tool("reports", "stolen") == 1
    assert not reads(cloud, known) and not reads(cloud, stolen)
    cloud.clock.advance(2)
    later = broker.issue(invoke(), "reports")
    assert reads(cloud, later)
    # Another revocation rewrites the list; the cutoff stays in it.
    broker.revoke(credential_id=later.id)
    assert not reads(cloud, stolen) and not reads(cloud, later)


def test_prune_shortens_the_list_once_credentials_have_ended_by_themselves(
    cloud: Any, broker: Broker, invoke: Invoke
) -> None:
    credential = broker.issue(invoke(), "reports")
    broker.revoke(credential_id=credential.id)
    assert credential.id in listed(cloud)
    cloud.clock.advance(200)
    assert broker.prune().lapsed == 0
    assert credential.id in listed(cloud)
    cloud.clock.advance(200)
    assert broker.prune().lapsed == 1
    assert credential.id not in listed(cloud)
    assert not reads(cloud, credential)
    cloud.clock.advance(31 * 24 * 3600)
    assert broker.prune().forgotten == 1


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ringfence.broker import Broker, SqliteLedger
from ringfence.invocation import Invocation
from tests.broker.conftest import CATALOG, NAMES

class Killed:
    def assume_role(self, **_):
        os.kill(os.getpid(), signal.SIGKILL)

now = datetime.now(UTC)
invocation = Invocation({invocation!r}, "ana", "p", ("reports",), now, now + timedelta(seconds=300))
Broker(NAMES, CATALOG, Killed(), None, SqliteLedger(Path({ledger!r}))).issue(invocation, "reports")
"""


def test_a_broker_killed_before_sts_is_asked_leaves_an_entry_that_prune_revokes(
    cloud: Any, ledger: SqliteLedger, tmp_path: Path
) -> None:
    path = str(tmp_path / "broker" / "ledger.sqlite")
    program = KILLED.format(path=[str(Path.cwd())], invocation="a" * 20, ledger=path)
    killed = subprocess.run(
        [sys.executable, "-c", program], timeout=120, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert killed.returncode == -signal.SIGKILL
    broker = cloud.broker(ledger)
    (left,) = broker.list()
    assert (left.state, left.invocation_id, left.access_key_id) == (State.REQUESTED, "a" * 20, "")
    assert broker.prune().revoked == 0
    cloud.clock.advance(130)
    assert broker.prune().revoked == 1
    assert left.id in listed(cloud)
    cloud.clock.advance(300)
    assert broker.prune().lapsed == 1
    assert broker.list(active=False) == []


def test_an_answer_of_sts_that_never_came_is_revoked_with_its_invocation(
    cloud: Any, ledger: SqliteLedger, invoke: Invoke
) -> None:
    broker = cloud.broker(ledger)
    invocation = invoke()

    class Silent:
        def assume_role(self, **_: Any) -> Any:
            raise EndpointConnectionError(endpoint_url="sts")

    broker._sts = Silent()
    with pytest.raises(BrokerError, match="did not answer"):
        broker.issue(invocation, "reports")
    (left,) = broker.list()
    assert broker.revoke(invocation_id=invocation.id) == 1
    assert left.id in listed(cloud)


def _entries(count: int) -> list[Entry]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Entry(
            f"id{place:06d}", f"{place:020d}", "t", "u", "arn", f"s-{place}", start, start + timedelta(seconds=300),
            State.REVOKED, start + timedelta(seconds=place),
        )
        for place in range(count)
    ]  # fmt: skip


def test_a_full_list_falls_back_to_a_cutoff_that_covers_every_entry() -> None:
    entries = _entries(2000)
    text, cutoff = fitted(entries, 9_000)
    assert policy_size(text) <= 9_000 and cutoff is not None
    assert all(entry.id in text or (entry.issued and entry.issued <= cutoff) for entry in entries)
    # Not one session more than the quota asks for is ended.
    assert sum(entry.id in text for entry in entries) > 700
    few, none = fitted(entries[:500], 9_000)
    assert none is None and all(entry.id in few for entry in entries[:500])


def test_more_than_fits_without_a_known_time_of_issue_is_said() -> None:
    unknown = [replace(entry, issued=None) for entry in _entries(2000)]
    with pytest.raises(BrokerError, match="don't fit"):
        fitted(unknown, 9_000)


def test_an_entry_for_every_session_is_always_a_cutoff() -> None:
    one, *rest = _entries(3)
    text, cutoff = fitted([replace(one, session_name=EVERY_SESSION), *rest], 9_000)
    assert cutoff == one.issued
    assert all(entry.id in text for entry in rest) and one.id not in text
    assert revoked_document() == fitted([], 9_000)[0]
