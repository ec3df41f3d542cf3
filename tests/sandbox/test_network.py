"""The only way out of a sandbox is a port that was opened for its own tools."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import socket
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import pytest

from ringfence.catalog.model import Egress, Grant, Tool
from ringfence.runner.executor import ExecutorError, Unit
from ringfence.runner.local_executor import AWS_PORT, GATEWAY_PORT, launch
from ringfence.runner.local_executor.fence import CONTROL_ADDRESS
from ringfence.runner.local_executor.relay import MAX_CONNECTIONS
from tests.sandbox.conftest import answer_of

pytestmark = pytest.mark.sandbox
REPOSITORY = Path(__file__).resolve().parents[2]

WAITING = """
import time
print("up", flush=True)
time.sleep(60)
"""


def tool_of(name: str, *, domains: tuple[str, ...] = (), grants: bool = False, port: int | None = None) -> Tool:
    """A catalog tool that goes out, or has grants, or neither."""
    granted = (
        (Grant(actions=("s3:GetObject",), resources=("arn:aws:s3:::bucket/*",), reason="Reads."),) if grants else ()
    )
    return Tool(
        name=name,
        description="For a test.",
        owner="test@example.com",
        justification="Needed by the tests of local sandboxes.",
        review_date=date(2099, 1, 1),
        grants=granted,
        egress=Egress(domains=domains, port=port),
    )


@pytest.fixture
def host_listener():
    """A service of the host on every address, as careless services are; yields its port and the host's own addresses."""
    with socket.create_server(("0.0.0.0", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"host")

        threading.Thread(target=serve, daemon=True).start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Sends nothing: it only asks which address would be used.
            try:
                probe.connect(("198.51.100.1", 9))
                own = probe.getsockname()[0]
            except OSError:
                own = "127.0.0.1"
        yield listener.getsockname()[1], own
        listener.shutdown(socket.SHUT_RDWR)


def test_no_service_of_the_host_is_reachable_but_the_gateways_port_is(lab, outside, host_listener):
    port, own = host_listener
    code = f"say({{host: reach(host, {port}) for host in ('127.0.0.1', {own!r}, '{CONTROL_ADDRESS}', '192.0.2.2')}})"
    assert outside(code)["127.0.0.1"] == "reached host"

    async def scenario(lab):
        gateway = f"say(reach({CONTROL_ADDRESS!r}, {GATEWAY_PORT}))"
        return await lab.ask(code), await lab.ask(gateway)

    answer, gateway = lab(scenario)
    assert gateway == "reached gateway"
    assert set(answer.values()) <= {"failed Connection refused", "failed Network is unreachable"}
    assert answer[CONTROL_ADDRESS] == "failed Connection refused"


def test_with_the_hosts_network_the_same_probe_reaches_the_host(lab, host_listener, monkeypatch):
    port, _ = host_listener
    code = f"say(reach('127.0.0.1', {port}))"
    assert lab(lambda lab: lab.ask(code)) == "failed Connection refused"
    from ringfence.runner.local_executor import bundle

    real = bundle.configuration

    def of_the_host(*words):
        config = real(*words)
        config["linux"]["namespaces"] = [kind for kind in config["linux"]["namespaces"] if kind["type"] != "network"]
        return config

    monkeypatch.setattr(bundle, "configuration", of_the_host)
    flags = tuple("--network=host" if flag == "--network=sandbox" else flag for flag in launch.FLAGS)
    assert flags != launch.FLAGS
    monkeypatch.setattr(launch, "FLAGS", flags)
    assert lab(lambda lab: lab.ask(code)) == "reached host"


def test_the_metadata_service_and_every_other_address_are_unreachable(lab):
    hosts = (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "10.0.0.1",
        "172.17.0.1",
        "192.168.0.1",
        "8.8.8.8",
        "1.1.1.1",
    )
    code = f"say({{host: reach(host, port) for host in {hosts!r} for port in (80, 53, 443)}})"
    answer = lab(lambda lab: lab.ask(code))
    assert set(answer) == set(hosts)
    assert set(answer.values()) == {"failed Network is unreachable"}


@pytest.mark.skipif(os.geteuid() != 0, reason="an address of a host's own is given by root alone")
def test_a_metadata_service_and_a_resolver_that_the_host_reaches_are_unreachable_from_its_sandboxes(
    tmp_path, runsc, root
):
    pickled = tmp_path / "root.pickle"
    pickled.write_bytes(pickle.dumps(root))
    module = [sys.executable, "-m", "tests.sandbox.metadata_host"]
    words = ["unshare", "--net", *module, str(tmp_path / "state"), str(runsc), str(pickled)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False)
    answers = answer_of(done.stdout + done.stderr)
    assert answers["outside"] == {
        "metadata": "reached host",
        "resolver": "answer to query",
        "resolver by TCP": "reached host",
    }
    assert set(answers["inside"].values()) == {"failed Network is unreachable"}


def test_no_name_is_resolved_and_no_datagram_leaves(lab):
    code = """
    def resolve(name):
        try:
            return socket.getaddrinfo(name, 443)[0][4][0]
        except OSError as error:
            return "failed"
    def datagram(host):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(1)
            try:
                udp.sendto(b"query", (host, 53))
                return udp.recv(100).decode() or "empty"
            except OSError as error:
                return "failed " + (os.strerror(error.errno) if error.errno else type(error).__name__)
    def ipv6(host):
        try:
            with socket.create_connection((host, 53), 1):
                return "reached"
        except OSError as error:
            return "failed"
    say({"names": [resolve(name) for name in ("example.com", "metadata.google.internal")], "local": resolve("127.0.0.1"),
         "datagrams": [datagram(host) for host in ("8.8.8.8", "192.0.2.1", "127.0.0.53")],
         "ipv6": [ipv6(host) for host in ("2001:4860:4860::8888", "fd00:ec2::254")]})
    """
    answer = lab(lambda lab: lab.ask(code))
    assert answer["local"] == "127.0.0.1"
    assert answer["names"] == ["failed", "failed"]
    assert answer["datagrams"][0] == "failed Network is unreachable"
    assert all(result.startswith("failed ") for result in answer["datagrams"])
    assert answer["ipv6"] == ["failed", "failed"]


def test_there_is_no_route_but_the_one_to_the_control_side(lab):
    code = """
    rows = [line.split() for line in open("/proc/net/route").read().splitlines()[1:]]
    say({"routes": [[row[0], row[1], row[2]] for row in rows], "names": [name for _, name in socket.if_nameindex()]})
    """
    answer = lab(lambda lab: lab.ask(code))
    assert sorted(answer["names"]) == ["eth0", "lo"]
    # 192.0.2.0 in little-endian, without a router; a default route would be 00000000.
    assert [row[:3] for row in answer["routes"] if row[0] == "eth0"] == [["eth0", "000200C0", "00000000"]]
    assert not [row for row in answer["routes"] if row[1] == "00000000"]


def test_a_tools_port_is_open_in_its_own_sandbox_and_in_no_other(lab):
    one, two = tool_of("tool-one", domains=("one.example.com",)), tool_of("tool-two", domains=("two.example.com",))

    async def scenario(lab):
        async with lab.echoing("first") as first, lab.echoing("second") as second:
            lab.ways.tools.update({"tool-one": first, "tool-two": second})
            ports = lab.executor.fit((one, two)).ports
            code = f"say({{port: reach({CONTROL_ADDRESS!r}, port) for port in {list(ports.values())!r}}})"
            return ports, await lab.ask(code, tools=(one,)), await lab.ask(code, tools=(one, two))

    ports, alone, both = lab(scenario)
    assert alone == {str(ports["tool-one"]): "reached first", str(ports["tool-two"]): "failed Connection refused"}
    assert both == {str(ports["tool-one"]): "reached first", str(ports["tool-two"]): "reached second"}


def test_aws_is_reachable_for_a_tool_with_grants_only(lab):
    # One that only calls models has the gateway for that.
    model = "arn:aws:bedrock:us-east-1::foundation-model/m"
    thinks = Grant(actions=("bedrock:InvokeModel",), resources=(model,), reason="Thinks.")
    code = f"say([reach({CONTROL_ADDRESS!r}, {AWS_PORT}), os.environ.get('AWS_ENDPOINT_URL')])"

    async def scenario(lab):
        async with lab.echoing("aws") as aws:
            lab.ways = type(lab.ways)(lab.ways.gateway, {}, aws)
            lab.executor = lab.make(lab.root)
            asked = (
                tool_of("with", grants=True),
                tool_of("none"),
                tool_of("thinks").model_copy(update={"grants": (thinks,)}),
            )
            return [await lab.ask(code, tools=(tool,)) for tool in asked]

    granted, not_granted, thinking = lab(scenario)
    assert granted == ["reached aws", f"http://{CONTROL_ADDRESS}:{AWS_PORT}"]
    assert not_granted[0] == thinking[0] == "failed Connection refused"


def test_a_warm_sandbox_reaches_the_gateway_alone_until_it_is_bound_and_that_happens_once(lab):
    tool = tool_of("tool-one", domains=("one.example.com",))

    async def scenario(lab):
        async with lab.echoing("first") as first:
            lab.ways.tools["tool-one"] = first
            port = lab.executor.fit((tool,)).ports["tool-one"]
            code = f"""
            import time
            print("before", reach({CONTROL_ADDRESS!r}, {port}), os.listdir("/var/run/ringfence/credentials"), flush=True)
            while not (answer := reach({CONTROL_ADDRESS!r}, {port})).startswith("reached"):
                time.sleep(0.05)
            print("gateway", reach({CONTROL_ADDRESS!r}, {GATEWAY_PORT}))
            print("after", answer, flush=True)
            time.sleep(60)
            """
            invocation_id = await lab.start(code, warm=True, tools=(tool,), credentials={"tool-one.json": b"never"})
            await lab.said(invocation_id, "before")
            unit = Unit(invocation_id, "test", lab.executor._running[invocation_id].deadline, (tool,))
            with pytest.raises(ExecutorError, match="start it cold"):
                await lab.executor.bind(dataclasses.replace(unit, memory_mib=1024))
            await lab.executor.bind(unit)
            await lab.said(invocation_id, "after")
            with pytest.raises(ExecutorError, match="never used twice"):
                await lab.executor.bind(unit)
            log = lab.executor._running[invocation_id].output.text()
            await lab.executor.remove(invocation_id)
            with pytest.raises(ExecutorError, match="no longer runs"):
                await lab.executor.bind(unit)
            return log

    log = lab(scenario)
    assert "before failed Connection refused []" in log
    assert "gateway reached gateway" in log
    assert "after reached first" in log


def test_a_tool_without_a_listener_is_refused_before_anything_is_made(lab):
    tool = tool_of("tool-one", domains=("one.example.com",))

    async def scenario(lab):
        with pytest.raises(ExecutorError, match="tool-one has egress domains"):
            lab.executor.fit((tool,))
        with pytest.raises(ExecutorError, match="tool-one has egress domains"):
            await lab.start("say(1)", tools=(tool,))
        return await lab.executor.leftovers()

    assert lab(scenario) == []


def test_a_sandbox_can_not_hold_more_connections_than_its_share(lab):
    code = f"""
    import select, time
    held = []
    for _ in range({MAX_CONNECTIONS + 20}):
        held.append(socket.create_connection(({CONTROL_ADDRESS!r}, {GATEWAY_PORT}), 5))
    ends = time.monotonic() + 30
    while len(select.select(held, [], [], 1)[0]) < 20 and time.monotonic() < ends:
        time.sleep(0.1)
    # And no more than those.
    time.sleep(1)
    say(len(select.select(held, [], [], 0)[0]))
    """

    async def scenario(lab):
        async def hold(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        async with server:
            lab.ways = type(lab.ways)(server.sockets[0].getsockname()[:2])
            lab.executor = lab.make(lab.root)
            return await lab.ask(code)

    assert lab(scenario) == 20


def test_a_large_answer_and_a_large_request_pass_whole_and_each_way_ends_on_its_own(lab):
    size = 3_000_000

    async def scenario(lab):
        async def answer(reader, writer):
            received = await reader.read(-1)
            writer.write(str(len(received)).encode().rjust(10) + b"x" * size)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            lab.ways = type(lab.ways)(server.sockets[0].getsockname()[:2])
            lab.executor = lab.make(lab.root)
            return await lab.ask(f"""
            with socket.create_connection(({CONTROL_ADDRESS!r}, {GATEWAY_PORT}), 20) as connection:
                connection.sendall(b"y" * {size})
                connection.shutdown(socket.SHUT_WR)
                data = b"".join(iter(lambda: connection.recv(65536), b""))
            say([int(data[:10]), len(data) - 10])
            """)

    assert lab(scenario) == [size, size]


def test_a_service_that_is_not_there_ends_the_connection(lab):
    async def scenario(lab):
        with socket.create_server(("127.0.0.1", 0)) as gone:
            address = gone.getsockname()
        lab.ways = type(lab.ways)(address)
        lab.executor = lab.make(lab.root)
        return await lab.ask(f"say(reach({CONTROL_ADDRESS!r}, {GATEWAY_PORT}))")

    assert lab(scenario) in ("reached ", "failed Connection reset by peer")
