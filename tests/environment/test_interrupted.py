"""Killed, rebooted, taken down: the next `up` converges without repair by hand, and `down` leaves nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import pytest

from ringfence.errors import RingfenceError
from ringfence.local import services
from ringfence.local.lifecycle import Embedded
from ringfence.local.stack import ENGINE_CHILD, Engine
from ringfence.local.supervise import Child
from tests.environment.conftest import PROJECT, Standing, Start

pytestmark = [pytest.mark.engine, pytest.mark.e2e]


def _signal_engine_when(embedded: Embedded, made: int, number: signal.Signals) -> threading.Thread:
    """Sends the engine a signal as soon as so many resources are in the account."""

    def watch() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            pid = Child(embedded.home, ENGINE_CHILD, []).pid()
            if pid and sum(_inventory(embedded).values()) >= made:
                os.kill(pid, number)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def _interrupted_up(embedded: Embedded, made: int, number: signal.Signals) -> None:
    watcher = _signal_engine_when(embedded, made, number)
    with pytest.raises(RingfenceError):
        embedded.up()
    watcher.join(timeout=300)
    assert sum(_inventory(embedded).values()) >= made, "the engine ended before the signal"


def _inventory(embedded: Embedded) -> Counter[str]:
    try:
        left = services.aws_left(embedded.home)
    except (OSError, ValueError):
        return Counter()
    return Counter({f"{service}/{kind}": len(n) for service, kinds in left.items() for kind, n in kinds.items()})


def _says_to_another_account(embedded: Embedded) -> str:
    # Its images would be refused before: they are in the own account's registry.
    config = {f"ringfence:{key}": "" for key in ("sandboxImage", "serviceImage")}
    config["ringfence:accountId"] = "999999999999"
    preview = Engine(PROJECT, embedded.home, embedded.engine().tools, stack="local", config=config).preview()
    assert preview.exit_code != 0
    return preview.stdout + preview.stderr


@pytest.mark.parametrize("made", [5, 110])
def test_an_engine_killed_in_the_middle_of_the_first_up_leaves_no_duplicate_after_the_next(
    start: Start, standing: Standing, made: int
):
    embedded = start()
    _interrupted_up(embedded, made, signal.SIGKILL)
    assert not embedded.engine().resources()
    embedded.up()
    assert _inventory(embedded) == _inventory(standing.embedded)
    assert set(embedded.up().changes) == {"same"}


def test_an_engine_killed_in_the_middle_of_a_later_up_leaves_no_duplicate_after_the_next(
    start: Start, standing: Standing
):
    embedded = start()
    # Stopped politely, the engine records what it made; from then on it records every step.
    _interrupted_up(embedded, 20, signal.SIGINT)
    assert embedded.engine().resources()
    _interrupted_up(embedded, 110, signal.SIGKILL)
    assert "the state belongs to '123456789012'" in _says_to_another_account(embedded)
    embedded.up()
    assert _inventory(embedded) == _inventory(standing.embedded)
    assert set(embedded.up().changes) == {"same"}


def test_lost_memory_is_noticed_and_made_good_by_the_next_up(start: Start, standing: Standing):
    embedded = start()
    embedded.up()
    services.Child(embedded.home, services.AWS_SERVER, []).stop()
    embedded.up()
    assert _inventory(embedded) == _inventory(standing.embedded)


def test_down_leaves_nothing_in_the_apis_and_no_process(start: Start):
    embedded = start()
    embedded.up()
    assert embedded.status()["aws"]["pid"]
    embedded.down()
    status = embedded.status()
    assert status["aws"]["pid"] is None
    assert not any(status["kubernetes"]["parts"].values())
    assert not embedded.engine().resources()
    embedded.down()
