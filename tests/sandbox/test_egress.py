"""Tools with domains on one machine: real sandboxes, the real Envoy, and a small internet in a network namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ringfence.runner.local_executor import image_root

pytestmark = pytest.mark.sandbox

ROOT = Path(__file__).parents[2]
REFUSED, UNREACHABLE = "failed Connection refused", "failed Network is unreachable"


def command(*words: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "tests.sandbox.egress_side", *words]


@pytest.fixture(scope="module")
def saw(tmp_path_factory: pytest.TempPathFactory, runsc: Path) -> dict[str, Any]:
    """What each task of egress_side saw, and the audit trail."""
    image_root(lambda line: print(line, file=sys.stderr, flush=True))
    folder = tmp_path_factory.mktemp("side")
    done = subprocess.run(
        command("tasks", str(folder)), cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


def probes(saw: dict[str, Any], tool: str) -> dict[str, Any]:
    """What hostile code with that tool reached."""
    assert (saw[tool]["status"], saw[tool]["error"]) == ("succeeded", "")
    return json.loads(saw[tool]["output"])


def records(saw: dict[str, Any], kind: str, tool: str) -> list[dict[str, Any]]:
    """The task's records of one kind."""
    named = (record for record in saw["trail"] if record["metadata"].get("correlation_uid") == saw[tool]["id"])
    return [record for record in named if record["metadata"]["event_code"] == kind]


def test_web_fetch_reads_a_page_over_tls_from_a_listed_domain(saw):
    assert (saw["honest"]["status"], saw["honest"]["output"]) == ("succeeded", "Read: A page\nThis is 8.8.4.4.")
    (allowed,) = records(saw, "egress.allowed", "honest")
    assert allowed["resources"] == [
        {"type": "tool", "name": "web-fetch"},
        {"type": "resource", "name": "docs.python.org:443"},
    ]
    assert records(saw, "egress.refused", "honest") == []


def test_a_sandbox_that_waited_goes_out_the_same_way_and_its_connection_is_recorded_as_its_own(saw):
    assert (saw["warm"]["status"], saw["warm"]["output"]) == ("succeeded", "Read: A page\nThis is 8.8.4.4.")
    (started,) = records(saw, "sandbox.started", "warm")
    assert started["unmapped"]["warm"] is True
    assert len(records(saw, "egress.allowed", "warm")) == 1


def test_hostile_code_with_the_tool_reaches_its_listed_domain_and_nothing_else_by_its_port(saw):
    found = probes(saw, "web-fetch")
    assert found["listed"].startswith("answered ") and "This is 8.8.4.4." in found["listed"]
    assert found["unlisted"] == found["of the other tool"] == "HTTP/1.1 404 Not Found"
    assert found["address"] == found["loopback"] == found["port 80"] == "HTTP/1.1 403 Forbidden"
    assert found["leads to loopback"].startswith("failed ") and found["another server name"].startswith("failed ")
    # The same internet answers whom it is meant for, and the host's own server at 127.0.0.1 was there all the time.
    assert set(saw["servers"]) == {"8.8.4.4:443", "9.9.9.10:443"}
    assert saw["control"] == "127.0.0.1:443"


def test_a_tools_port_is_open_in_a_sandbox_with_the_tool_alone(saw):
    web, pages = (probes(saw, tool) for tool in ("web-fetch", "page-store"))
    assert web["open"] == list(web["ports"].values()) and pages["open"] == list(pages["ports"].values())
    assert set(web["open"]).isdisjoint(pages["open"])
    assert probes(saw, "adder")["open"] == []
    # What one tool's port refuses, the other's passes: the refusal is the listener's, not the domain's.
    assert web["of the other tool"] == "HTTP/1.1 404 Not Found" and pages["listed"].startswith("answered ")


@pytest.mark.parametrize("tool", ["web-fetch", "page-store", "adder"])
def test_neither_the_proxys_own_ports_nor_services_of_the_host_are_reachable(saw, tool):
    found = probes(saw, tool)
    own = [answers for name, answers in found.items() if name.startswith("proxy ")]
    assert own == [[REFUSED, REFUSED]] * 2
    assert found["host"] == [REFUSED] * 6 + [UNREACHABLE] * 3


def test_every_refused_attempt_is_recorded_with_tool_invocation_user_and_reason(saw):
    refused = records(saw, "egress.refused", "web-fetch")
    assert sorted(record["status_code"] for record in refused) == [
        "address_is_not_public",
        "host_not_listed",
        "host_not_listed",
        "not_a_host_name",
        "not_a_host_name",
        "port_is_not_443",
        "server_name_is_not_the_connect_host",
    ]
    assert {record["actor"]["user"]["name"] for record in refused} == {"ana@example.com"}
    assert {record["resources"][0]["name"] for record in refused} == {"web-fetch"}
    details = " ".join(record["status_detail"] for record in refused)
    for host in ("evil.example.org:443", "8.8.4.4:443", "127.0.0.1:443", "kubernetes.io:443", "docs.python.org:80"):
        assert f"was refused {host}: " in details
    assert {record["resources"][0]["name"] for record in records(saw, "egress.refused", "page-store")} == {"page-store"}
    assert records(saw, "egress.refused", "adder") == []


def test_with_the_control_side_the_proxy_ends(saw):
    assert saw["left"] is False


@pytest.fixture
def staying(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], psutil.Process]]]:
    """Starts a control side that waits; gives it and its proxy."""
    started: list[subprocess.Popen[str]] = []
    proxies: list[psutil.Process] = []

    def start(*words: str) -> tuple[subprocess.Popen[str], psutil.Process]:
        folder = tmp_path / f"side-{len(started)}"
        folder.mkdir()
        side = subprocess.Popen(command("stay", str(folder), *words), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(side)
        assert side.stdout is not None
        proxies.append(psutil.Process(int(side.stdout.readline())))
        return side, proxies[-1]

    yield start
    for side in started:
        side.kill()
        side.wait()
    for proxy in proxies:
        if proxy.is_running():
            proxy.kill()


def ends(process: psutil.Process, seconds: float = 120) -> bool:
    """Whether it is gone, or only its exit code left, within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_killed_control_side_leaves_no_proxy_and_no_file_of_it(staying, tmp_path: Path):
    side, proxy = staying()
    assert proxy.cmdline()[0] == "ringfence-egress"
    os.kill(side.pid, signal.SIGKILL)
    side.wait()
    killed = time.monotonic()
    assert ends(proxy)
    took = time.monotonic() - killed
    assert sorted(path.name for path in (tmp_path / "side-0").iterdir()) == [
        "audit", "catalog", "gateway", "runner", "script.yaml",
    ]  # fmt: skip
    side, proxy = staying("orphan")
    os.kill(side.pid, signal.SIGKILL)
    side.wait()
    assert not ends(proxy, max(1.0, 3 * took)), "the test shows nothing: the proxy ends also without what is to end it"


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root keeps their own user")
def test_as_root_the_proxy_is_a_user_of_its_own_without_rights(staying):
    _, proxy = staying()
    assert set(proxy.uids()) == set(proxy.gids()) == {64747}
    status = Path(f"/proc/{proxy.pid}/status").read_text()
    assert "\nCapEff:\t0000000000000000\n" in status and "\nNoNewPrivs:\t1\n" in status
