"""The tools that call AWS, as boto3 really sends them: CONNECT to the tool's own listener for the host that its grants stand
for, TLS for that host, and nothing anywhere else. The listener and AWS are played on this machine."""

from __future__ import annotations

import contextlib
import datetime
import re
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from agent_runtime import InstrumentedAgentExecutor, tools
from agent_runtime.assignment import Assignment
from agent_runtime.declaration import Declaration
from agent_runtime.gateway import GatewayClient
from obedient import CATALOG

from ringfence.catalog import load
from ringfence.catalog.runtime import runtime_tools
from ringfence.egress.aws_hosts import aws_hosts
from ringfence.names import Names
from tests.components.egress.lab import make_certificates

HELD = {"AccessKeyId": "ASIAEXAMPLEEXAMPLE00", "SecretAccessKey": "s" * 40, "SessionToken": "t" * 60}
REGIONS = {"us-east-1": "aws", "eu-west-1": "aws", "us-gov-west-1": "aws-us-gov", "cn-north-1": "aws-cn"}
CALLS = {
    "s3-report-reader": {"action": "read", "key": "published/may.csv"},
    "ticket-store": {"action": "get", "ticket_id": "SUP-1"},
    "email-notifier": {"recipients": ["ana@example.com"], "subject": "A", "body": "b"},
}
ANSWERS = {
    "s3-report-reader": b"north,10",
    "ticket-store": b'{"Item": {"ticket_id": {"S": "SUP-1"}}}',
    "email-notifier": b"<SendEmailResponse xmlns='http://ses.amazonaws.com/doc/2010-12-01/'><SendEmailResult><MessageId>1"
    b"</MessageId></SendEmailResult></SendEmailResponse>",
}


def names_in(region: str) -> Names:
    return Names("acme", "dev", "123456789012", region, REGIONS[region])


class Listener:
    """One tool's listener of the proxy, which lets `hosts` through, with AWS right behind it."""

    def __init__(self, folder, hosts: tuple[str, ...], answer: bytes) -> None:
        make_certificates(folder, list(hosts) or ["none.example.com"])
        self.authority, self._hosts, self._answer = folder / "ca.pem", hosts, answer
        self.heads: list[str] = []
        self.server_names: list[str] = []
        self.requests: list[str] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(folder / "server.pem")
        self._tls.sni_callback = lambda _, name, __: self.server_names.append(name)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._take, args=(connection,), daemon=True).start()

    def _take(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ssl.SSLError):
            head = _head(connection)
            self.heads.append(head)
            if head.split()[1] not in {f"{host}:443" for host in self._hosts}:
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with self._tls.wrap_socket(connection, server_side=True) as stream:
                self.requests.append(_head(stream))
                stream.sendall(
                    f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._answer)}\r\nConnection: close\r\n\r\n".encode()
                    + self._answer
                )


def _head(stream) -> str:
    """The head of a request, whose body is read too: a server that closes before that breaks the connection."""
    data = b""
    while b"\r\n\r\n" not in data and (chunk := stream.recv(65536)):
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: (\d+)", head, re.M)
    while length and len(body) < int(length[1]) and (chunk := stream.recv(65536)):
        body += chunk
    return head.decode()


@pytest.fixture
def listen(tmp_path, monkeypatch) -> Iterator:
    """Starts the listener of a tool in a region; whatever the environment says of other ways must not be taken."""
    made: list[Listener] = []
    stranger = Listener(tmp_path, (), b"")
    made.append(stranger)
    for name in (
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL_SES",
    ):
        monkeypatch.setenv(name, f"http://127.0.0.1:{stranger.port}")
    for name in ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{stranger.port}")

    def start(tool: str, region: str, hosts: tuple[str, ...] | None = None) -> Listener:
        found = aws_hosts(load(CATALOG).tool(tool), names_in(region)) if hosts is None else hosts
        made.append(Listener(tmp_path, found, ANSWERS[tool]))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(made[-1].authority))
        return made[-1]

    yield start
    assert stranger.heads == []
    for listener in made:
        listener.close()


def executor(tool: str, region: str, port: int | None, proxy: str = "127.0.0.1") -> InstrumentedAgentExecutor:
    ports = {} if port is None else {tool: port}
    declared = tuple(Declaration.parse(item) for item in runtime_tools(load(CATALOG).tools, names_in(region), ports))
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    prompt = "ticket SUP-1, published/may.csv, ana@example.com"
    assignment = Assignment(
        prompt, (tool,), "scripted", deadline, declarations=declared, credentials={tool: HELD}, region=region
    )
    made = InstrumentedAgentExecutor(prompt=prompt, allowed_tools=[tool], declarations=declared)
    environ = {"RINGFENCE_PROXY_HOST": proxy} if proxy else {}
    tools.register(made, assignment, GatewayClient("http://127.0.0.1:9", "t"), environ)
    return made


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("tool", CALLS)
def test_a_tool_reaches_aws_through_its_own_listener_at_the_host_that_its_grants_stand_for(listen, tool, region):
    listener = listen(tool, region)
    outcome = executor(tool, region, listener.port).call(tool, CALLS[tool])
    assert outcome.ok, outcome.content
    (host,) = aws_hosts(load(CATALOG).tool(tool), names_in(region))
    # The form that the proxy asks for (egress.envoy, `_request_form`), and the name that it compares with TLS's.
    assert listener.heads == [f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443"]
    assert listener.server_names == [host]
    assert f"Host: {host}\r\n" in f"{listener.requests[0]}\r\n"


def test_the_bucket_stands_in_the_host_and_not_in_the_path(listen):
    listener = listen("s3-report-reader", "us-east-1")
    executor("s3-report-reader", "us-east-1", listener.port).call("s3-report-reader", CALLS["s3-report-reader"])
    assert listener.heads[0].startswith("CONNECT example-reports-123456789012.s3.us-east-1.amazonaws.com:443 ")
    assert listener.requests[0].startswith("GET /published/may.csv ")


def test_what_the_listener_refuses_is_an_error_and_is_tried_nowhere_else(listen):
    listener = listen("ticket-store", "eu-west-1", hosts=("other.example.com",))
    outcome = executor("ticket-store", "eu-west-1", listener.port).call("ticket-store", CALLS["ticket-store"])
    assert (outcome.code, outcome.content) == ("tool_failed", "AWS could not be reached: ProxyConnectionError")
    assert {head.split()[1] for head in listener.heads} == {"dynamodb.eu-west-1.amazonaws.com:443"}


@pytest.mark.parametrize(("port", "proxy"), [(None, "127.0.0.1"), (9, "")])
@pytest.mark.parametrize("tool", CALLS)
def test_a_tool_without_a_listener_says_so_and_sends_nothing(listen, tool, port, proxy):
    outcome = executor(tool, "us-east-1", port, proxy).call(tool, CALLS[tool])
    assert (outcome.code, outcome.content) == ("tool_failed", f"{tool} has no way to AWS in this task")
