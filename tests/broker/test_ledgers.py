"""Both ledgers keep the same contract."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ringfence.broker import Broker, BrokerError, DynamoDbLedger, Entry, Ledger, SqliteLedger, State
from ringfence.broker.dynamodb_ledger import PARTITION_KEY, SORT_KEY, ledger_table
from ringfence.broker.ledger import ACTIVE, OPEN
from ringfence.invocation import Invocation
from tests.broker.conftest import NAMES

START = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def entry(id: str, **values: Any) -> Entry:
    fields = {"invocation_id": "i" * 20, "tool": "reports", "user": "ana@example.com", "role_arn": "arn:r"}
    fields |= {"session_name": f"s-{id}", "requested": START, "ends": START + timedelta(seconds=300)}
    return Entry(id, **(fields | values))


def table(cloud: Any) -> None:
    cloud.client("dynamodb").create_table(
        TableName=ledger_table(NAMES), BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in (PARTITION_KEY, SORT_KEY)],
        KeySchema=[
            {"AttributeName": PARTITION_KEY, "KeyType": "HASH"}, {"AttributeName": SORT_KEY, "KeyType": "RANGE"},
        ],
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "dynamodb"])
def kept(request: pytest.FixtureRequest, cloud: Any, tmp_path: Path) -> Ledger:
    if request.param == "sqlite":
        return SqliteLedger(tmp_path / "ledger.sqlite")
    table(cloud)
    # With the broker's own permissions, so that the documents are known to be enough.
    return DynamoDbLedger(cloud.as_(cloud.broker_credentials(), "dynamodb"), ledger_table(NAMES))


def test_an_entry_comes_back_as_it_was(kept: Ledger) -> None:
    plain = entry("a")
    full = entry(
        "b", state=State.ISSUED, issued=START, access_key_id="ASIA", fingerprint="f", note="n", network="10.0.0.0/24"
    )
    for made in (plain, full):
        kept.add(made)
        assert kept.get(made.id) == made
    assert kept.get("c") is None
    assert kept.open() == [plain, full]


def test_an_id_is_taken_once(kept: Ledger) -> None:
    kept.add(entry("a"))
    with pytest.raises(KeyError):
        kept.add(entry("a", user="eve"))
    assert kept.get("a") == entry("a")


def test_a_change_happens_only_in_the_states_named(kept: Ledger) -> None:
    kept.add(entry("a"))
    assert not kept.change("a", {State.ISSUED}, state=State.REVOKED)
    assert not kept.change("b", OPEN, state=State.REVOKED)
    assert kept.change("a", {State.REQUESTED}, state=State.ISSUED, issued=START, access_key_id="ASIA")
    assert not kept.change("a", {State.REQUESTED}, state=State.ISSUED)
    found = kept.get("a")
    assert found is not None and (found.state, found.issued, found.access_key_id) == (State.ISSUED, START, "ASIA")


def test_of_many_at_once_one_alone_makes_a_change(kept: Ledger) -> None:
    kept.add(entry("a"))
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda _: kept.change("a", ACTIVE, state=State.REVOKING), range(32)))
    assert sum(done) == 1


def test_open_entries_are_found_by_invocation_and_role_and_closed_ones_are_not(kept: Ledger) -> None:
    kept.add(entry("a", requested=START + timedelta(seconds=1)))
    kept.add(entry("b", role_arn="arn:other"))
    kept.add(entry("c", invocation_id="j" * 20))
    kept.add(entry("d"))
    assert kept.change("d", OPEN, state=State.LAPSED)
    assert [found.id for found in kept.open()] == ["b", "c", "a"]
    assert [found.id for found in kept.open(invocation_id="i" * 20)] == ["b", "a"]
    assert [found.id for found in kept.open(role_arn="arn:other")] == ["b"]
    assert kept.change("a", OPEN, state=State.REVOKED)
    assert [found.id for found in kept.open(states={State.REVOKED, State.LAPSED})] == ["a"]
    closed = kept.get("d")
    assert closed is not None and closed.state is State.LAPSED


@pytest.mark.parametrize("state", list(State))
def test_the_first_network_is_kept_in_whatever_state_an_entry_is(kept: Ledger, state: State) -> None:
    kept.add(entry("a"))
    assert kept.change("a", OPEN, state=state)
    assert kept.note_network("a", "10.0.0.0/24") == "10.0.0.0/24"
    assert kept.note_network("a", "10.0.9.0/24") == "10.0.0.0/24"
    found = kept.get("a")
    assert found is not None and (found.network, found.state) == ("10.0.0.0/24", state)
    assert kept.note_network("unknown", "10.0.0.0/24") == ""


def test_only_closed_and_old_entries_are_forgotten(kept: Ledger) -> None:
    for id in "abc":
        kept.add(entry(id))
    kept.change("a", OPEN, state=State.LAPSED)
    kept.change("b", OPEN, state=State.FAILED)
    assert kept.forget(START) == 0
    assert kept.forget(START + timedelta(days=1)) == 2
    assert [kept.get(id) is None for id in "abc"] == [True, True, False]


def test_more_entries_than_one_page_are_all_found(cloud: Any) -> None:
    table(cloud)
    client = cloud.client("dynamodb")
    kept = DynamoDbLedger(client, ledger_table(NAMES))
    for place in range(40):
        kept.add(entry(f"{place:02d}"))
    whole = client.query
    client.query = lambda **parameters: whole(**parameters, Limit=7)
    assert len(kept.open()) == 40


def test_a_broker_works_on_dynamodb_with_its_own_permissions_alone(
    cloud: Any, invoke: Callable[..., Invocation]
) -> None:
    table(cloud)
    own = cloud.broker_credentials()
    ledger = DynamoDbLedger(cloud.as_(own, "dynamodb"), ledger_table(NAMES))
    broker: Broker = cloud.broker(ledger)
    credential = broker.issue(invoke(), "reports")
    assert [found.id for found in broker.list()] == [credential.id]
    assert broker.revoke(invocation_id=credential.invocation_id) == 1
    assert broker.list() == []
    items = json.dumps(cloud.client("dynamodb").scan(TableName=ledger_table(NAMES))["Items"])
    assert (
        credential.id in items and credential.secret_access_key not in items and credential.session_token not in items
    )


def test_a_ledger_that_others_can_read_or_that_is_broken_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    SqliteLedger(path).close()
    os.chmod(path, 0o644)
    with pytest.raises(BrokerError, match="remedy: chmod 600"):
        SqliteLedger(path)
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database" * 100)
    os.chmod(broken, 0o600)
    with pytest.raises(BrokerError, match="remedy"):
        SqliteLedger(broken)


def test_what_the_file_says_survives_its_writer(tmp_path: Path) -> None:
    first = SqliteLedger(tmp_path / "ledger.sqlite")
    first.add(entry("a"))
    second = SqliteLedger(tmp_path / "ledger.sqlite")
    assert second.get("a") == entry("a")
    assert second.change("a", ACTIVE, state=State.REVOKING)
    found = first.get("a")
    assert found is not None and found.state is State.REVOKING
