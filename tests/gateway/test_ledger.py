"""The ledger: what is reserved and settled never passes the cap, whatever the order, the process or the crash."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from ringfence.gateway.errors import LedgerError, Refused
from ringfence.gateway.ledger import BudgetExhausted, Ledger, NotOpen, conversations
from ringfence.gateway.money import NANO

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=300)
CAP = 10 * NANO


def opened(path: Path, invocation: str = "invocation001", conversation: str = "c", cap: int = CAP) -> Ledger:
    ledger = Ledger(path)
    ledger.open(invocation, conversation, "ada", "m", cap=cap, now=NOW, deadline=LATER)
    return ledger


def test_a_reservation_above_what_is_left_is_refused_and_one_within_it_is_not(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    ledger.reserve("invocation001", 6 * NANO, NOW)
    with pytest.raises(BudgetExhausted) as caught:
        ledger.reserve("invocation001", 4 * NANO + 1, NOW)
    assert caught.value.left == 4 * NANO
    ledger.reserve("invocation001", 4 * NANO, NOW)


def test_settling_frees_what_was_not_used_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    call = ledger.reserve("invocation001", CAP, NOW)
    ledger.settle(call, NANO, 7, 3, NOW)
    ledger.settle(call, 0, 0, 0, NOW)
    usage, cost = ledger.usage("invocation001")
    assert (usage.input_tokens, usage.output_tokens, usage.model_calls, cost) == (7, 3, 1, NANO)
    ledger.reserve("invocation001", 9 * NANO, NOW)


def test_a_cost_above_its_reservation_is_booked_and_stops_the_conversation(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    ledger.settle(ledger.reserve("invocation001", NANO, NOW), 11 * NANO, 1, 1, NOW)
    with pytest.raises(BudgetExhausted):
        ledger.reserve("invocation001", 1, NOW)
    with pytest.raises(Refused, match="has used its"):
        ledger.open("invocation002", "c", "ada", "m", cap=CAP, now=NOW, deadline=LATER)


def test_a_conversation_keeps_its_cap_over_invocations_and_only_lowers_it(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db", cap=5 * NANO)
    ledger.settle(ledger.reserve("invocation001", 3 * NANO, NOW), 3 * NANO, 1, 1, NOW)
    ledger.open("invocation002", "c", "ada", "m", cap=CAP, now=NOW, deadline=LATER)
    with pytest.raises(BudgetExhausted):
        ledger.reserve("invocation002", 3 * NANO, NOW)
    ledger.reserve("invocation002", 2 * NANO, NOW)


def test_another_users_conversation_is_refused(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    with pytest.raises(Refused) as caught:
        ledger.open("invocation002", "c", "eve", "m", cap=CAP, now=NOW, deadline=LATER)
    assert caught.value.refusal.code == "conversation_of_another_user"


def test_nothing_is_reserved_after_the_deadline_or_the_close(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    ledger.reserve("invocation001", 1, LATER - timedelta(microseconds=1))
    for invocation, at in (("invocation001", LATER), ("nobody0000000", NOW)):
        with pytest.raises(NotOpen):
            ledger.reserve(invocation, 1, at)
    ledger.close("invocation001", NOW)
    with pytest.raises(NotOpen):
        ledger.reserve("invocation001", 1, NOW)


def test_an_invocation_is_opened_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    with pytest.raises(LedgerError, match="opened before"):
        ledger.open("invocation001", "d", "ada", "m", cap=CAP, now=NOW, deadline=LATER)
    assert [entry.id for entry in ledger.conversations()] == ["c"]


def test_closing_spends_what_is_reserved_and_a_late_settlement_still_counts(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    call = ledger.reserve("invocation001", CAP, NOW)
    assert ledger.close("invocation001", NOW)[1] == CAP
    assert ledger.conversations()[0].reserved_usd == 0
    ledger.settle(call, NANO, 1, 1, NOW)
    assert ledger.usage("invocation001")[1] == NANO


def test_expire_closes_what_is_past_its_deadline_and_only_that(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "l.db")
    ledger.open("invocation002", "d", "ada", "m", cap=CAP, now=NOW, deadline=LATER + timedelta(seconds=1))
    ledger.reserve("invocation001", NANO, NOW)
    assert ledger.expire(LATER) == ["invocation001"]
    assert ledger.expire(LATER) == []
    assert {entry.id: (entry.active, entry.spent_usd) for entry in ledger.conversations()} == {
        "c": (0, Decimal(1)),
        "d": (1, Decimal(0)),
    }


def test_the_file_is_the_owners_alone_and_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    ledger = opened(path)
    ledger.reserve("invocation001", NANO, NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (entry,) = conversations(path)
    assert (entry.reserved_usd, entry.cap_usd, entry.calls, entry.active, entry.user) == (1, 10, 1, 1, "ada")
    assert conversations(tmp_path / "none.db") == []


def test_a_file_that_is_no_ledger_stops_everything(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_text("not a database" * 100)
    with pytest.raises(LedgerError, match="can't be used"):
        Ledger(path)
    with pytest.raises(LedgerError, match="can't be read"):
        conversations(path)


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "l.db").stop()
    with sqlite3.connect(tmp_path / "l.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="version 99"):
        Ledger(tmp_path / "l.db")


def test_two_writers_with_fifty_threads_never_pass_the_cap(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    writers = [opened(path), Ledger(path)]
    passed: list[int] = []
    refused: list[Exception] = []

    def take(number: int) -> None:
        try:
            passed.append(writers[number % 2].reserve("invocation001", NANO, NOW))
        except Exception as error:
            refused.append(error)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 10
    assert {type(error) for error in refused} == {BudgetExhausted}
    assert conversations(path)[0].reserved_usd == 10


def test_a_kill_between_reserve_and_settle_counts_as_spent(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom datetime import UTC, datetime, timedelta\nfrom pathlib import Path\n"
        "from ringfence.gateway.ledger import Ledger\nnow = datetime.now(UTC)\nledger = Ledger(Path(sys.argv[1]))\n"
        "ledger.open('invocation001', 'c', 'ada', 'm', cap=10**10, now=now, deadline=now + timedelta(seconds=300))\n"
        "ledger.settle(ledger.reserve('invocation001', 10**9, now), 10**8, 1, 1, now)\n"
        "ledger.reserve('invocation001', 7 * 10**9, now)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "l.db"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=False, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    assert done.returncode == -signal.SIGKILL
    ledger = Ledger(path)
    assert ledger.usage("invocation001")[1] == 7_100_000_000
    with pytest.raises(BudgetExhausted):
        ledger.reserve("invocation001", 3 * NANO, datetime.now(UTC))
    assert ledger.expire(datetime.now(UTC) + timedelta(seconds=301)) == ["invocation001"]
    assert conversations(path)[0].spent_usd == Decimal("7.1")


class Interleavings(RuleBasedStateMachine):
    """Any order of opening, reserving, settling within the reservation, forfeiting, closing and expiring, through two
    connections: what a conversation holds is what its calls hold, and never above its cap."""

    calls = Bundle("calls")

    @initialize()
    def files(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "l.db"
        self.ledgers = (Ledger(path), Ledger(path))
        self.path = path
        self.now = NOW
        self.number = 0
        self.invocations: list[str] = []

    @rule(conversation=st.sampled_from("ab"), cap=st.integers(1, 100), side=st.integers(0, 1))
    def open(self, conversation: str, cap: int, side: int) -> None:
        name = f"invocation{self.number:03d}"
        self.number += 1
        try:
            self.ledgers[side].open(
                name, conversation, "ada", "m", cap=cap, now=self.now, deadline=self.now + timedelta(seconds=9)
            )
        except Refused:
            return
        self.invocations.append(name)

    @rule(target=calls, data=st.data(), amount=st.integers(0, 60), side=st.integers(0, 1))
    def reserve(self, data: Any, amount: int, side: int) -> Any:
        if not self.invocations:
            return multiple()
        try:
            return (self.ledgers[side].reserve(data.draw(st.sampled_from(self.invocations)), amount, self.now), amount)
        except (BudgetExhausted, NotOpen):
            return multiple()

    @rule(call=consumes(calls), share=st.integers(0, 100), side=st.integers(0, 1))
    def settle(self, call: tuple[int, int], share: int, side: int) -> None:
        self.ledgers[side].settle(call[0], call[1] * share // 100, 1, 1, self.now)

    @rule(call=calls, side=st.integers(0, 1))
    def forfeit(self, call: tuple[int, int], side: int) -> None:
        self.ledgers[side].forfeit(call[0])

    @rule(data=st.data(), side=st.integers(0, 1))
    def close(self, data: Any, side: int) -> None:
        if self.invocations:
            self.ledgers[side].close(data.draw(st.sampled_from(self.invocations)), self.now)

    @rule(seconds=st.integers(1, 6), side=st.integers(0, 1))
    def expire(self, seconds: int, side: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.ledgers[side].expire(self.now)

    @invariant()
    def held(self) -> None:
        with sqlite3.connect(self.path) as db:
            rows = db.execute(
                "SELECT c.committed, (SELECT coalesce(sum(k.counted), 0) FROM calls k JOIN invocations i"
                " ON i.id = k.invocation WHERE i.conversation = c.id) FROM conversations c"
            ).fetchall()
            first = db.execute("SELECT id, cap, committed FROM conversations").fetchall()
        assert all(committed == counted for committed, counted in rows)
        for name, cap, committed in first:
            # A cap that is lowered later can't take back what was held before.
            self.most = {**getattr(self, "most", {})}
            self.most[name] = max(self.most.get(name, 0), cap)
            assert committed <= self.most[name]

    def teardown(self) -> None:
        for ledger in getattr(self, "ledgers", ()):
            ledger.stop()
        self.folder.cleanup()


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
