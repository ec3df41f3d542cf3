"""The built-in tools: against an emulated AWS, through a real CONNECT proxy with TLS, and at the gateway."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import threading
from collections.abc import Iterator

import boto3
import pytest
from agent_runtime import InstrumentedAgentExecutor, Redactor, tools
from agent_runtime.assignment import Assignment
from agent_runtime.declaration import Declaration
from agent_runtime.gateway import GatewayClient
from agent_runtime.tools import web_fetch
from agent_runtime.tools.surroundings import Surroundings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto import mock_aws
from obedient import BUCKET, NAMES

from ringfence.catalog import load
from ringfence.catalog.runtime import runtime_tools

TOKEN = "session-token-of-the-test-0123456789"
HELD = {"AccessKeyId": "ASIAEXAMPLEEXAMPLE00", "SecretAccessKey": "s" * 40, "SessionToken": "t" * 60}


@pytest.fixture
def aws(monkeypatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield


def executor(
    *names: str, prompt: str = "go", gateway_url: str = "http://127.0.0.1:9", credentials=True
) -> InstrumentedAgentExecutor:
    from obedient import CATALOG

    # The emulator answers before anything goes to the listener; that it would is shown in test_ways_to_aws.py.
    declared = tuple(
        Declaration.parse(item) for item in runtime_tools(load(CATALOG).tools, NAMES, dict.fromkeys(names, 9))
    )
    held = dict.fromkeys(names, HELD) if credentials else {}
    deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    assignment = Assignment(
        prompt, names, "scripted", deadline, declarations=declared, credentials=held, region="eu-west-1"
    )
    made = InstrumentedAgentExecutor(
        prompt=prompt, allowed_tools=names, declarations=declared, redactor=Redactor(assignment.secrets())
    )
    tools.register(made, assignment, GatewayClient(gateway_url, TOKEN), {"RINGFENCE_PROXY_HOST": "127.0.0.1"})
    return made


@pytest.fixture
def reports(aws) -> None:
    s3 = boto3.client("s3", region_name="eu-west-1")
    where = {"LocationConstraint": "eu-west-1"}
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    s3.put_object(Bucket=BUCKET, Key="published/2026-09.csv", Body=b"north,10")
    s3.put_object(Bucket=BUCKET, Key="published/photo.csv", Body=b"\xff\xfe\x00")
    s3.put_object(Bucket=BUCKET, Key="published/huge.csv", Body=b"x" * (2 << 20))
    s3.put_object(Bucket=BUCKET, Key="drafts/2026-10.csv", Body=b"secret")


def test_reports_are_listed_and_read_without_naming_the_bucket(reports):
    made = executor("s3-report-reader")
    listed = json.loads(made.call("s3-report-reader", {"action": "list"}).content)
    assert [item["key"] for item in listed["files"]] == [
        "published/2026-09.csv",
        "published/huge.csv",
        "published/photo.csv",
    ]
    assert made.call("s3-report-reader", {"action": "read", "key": "published/2026-09.csv"}).content == "north,10"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ({"action": "read", "key": "published/none.csv"}, "tool_failed", "NoSuchKey"),
        ({"action": "read", "key": "published/huge.csv"}, "tool_failed", "larger"),
        ({"action": "read", "key": "published/photo.csv"}, "tool_failed", "UTF-8"),
        ({"action": "read"}, "tool_failed", "key is missing"),
        ({"action": "read", "key": "drafts/2026-10.csv"}, "argument_not_allowed", "not among"),
        ({"action": "list", "bucket": "other"}, "argument_not_allowed", "not among"),
    ],
)
def test_what_a_report_reader_cant_do_is_said_in_a_sentence(reports, arguments, code, said):
    outcome = executor("s3-report-reader").call("s3-report-reader", arguments)
    assert outcome.code == code
    assert said in outcome.content


def test_a_tool_without_credentials_finds_no_others(reports, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
    outcome = executor("s3-report-reader", credentials=False).call("s3-report-reader", {"action": "list"})
    assert outcome.content == "s3-report-reader has no credentials in this task"


def test_tickets_are_read_found_and_noted(aws):
    database = boto3.client("dynamodb", region_name="eu-west-1")
    database.create_table(
        TableName="support-tickets",
        KeySchema=[{"AttributeName": "ticket_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("ticket_id", "customer")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-customer",
                "KeySchema": [{"AttributeName": "customer", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    item = {"ticket_id": {"S": "SUP-1"}, "customer": {"S": "ACME"}, "age": {"N": "3"}}
    database.put_item(TableName="support-tickets", Item=item)
    made = executor("ticket-store", prompt="ticket SUP-1 of customer ACME")
    assert json.loads(made.call("ticket-store", {"action": "get", "ticket_id": "SUP-1"}).content) == {
        "ticket_id": "SUP-1",
        "customer": "ACME",
        "age": "3",
    }
    found = json.loads(made.call("ticket-store", {"action": "query", "customer": "ACME"}).content)
    assert [ticket["ticket_id"] for ticket in found["tickets"]] == ["SUP-1"]
    assert made.call("ticket-store", {"action": "note", "ticket_id": "SUP-1", "note": "call back"}).ok
    stored = database.get_item(TableName="support-tickets", Key={"ticket_id": {"S": "SUP-1"}})["Item"]
    assert stored["agent_note"]["S"] == "call back"
    assert made.call("ticket-store", {"action": "query"}).content == "customer is missing"


def test_mail_goes_to_colleagues_from_the_agents_own_address(aws):
    ses = boto3.client("ses", region_name="eu-west-1")
    ses.verify_domain_identity(Domain="agents.example.com")
    made = executor("email-notifier")
    sent = {"recipients": ["ana@example.com"], "subject": "A\nB", "body": "hello"}
    assert made.call("email-notifier", sent).content == '{"sent": 1}'
    assert ses.get_send_quota()["SentLast24Hours"] == 1
    assert made.call("email-notifier", {**sent, "recipients": ["eve@evil.net"]}).code == "argument_not_allowed"
    assert made.call("email-notifier", {**sent, "recipients": []}).code == "tool_failed"
    assert ses.get_send_quota()["SentLast24Hours"] == 1


def test_the_model_is_asked_through_the_gateway_and_paid_from_the_same_budget(gateway):
    made = executor("model-call", gateway_url=gateway.url)
    gateway.steps.append({"content": "unused"})
    outcome = made.call("model-call", {"prompt": "hello"})
    # The scripted gateway answers in another shape, which has no text for this tool.
    assert (outcome.code, outcome.content) == ("tool_failed", "the model's answer has no text")
    assert gateway.requests[0]["messages"][0]["content"] == [{"text": "hello"}]
    assert made.budget.spent_usd > 0


def test_a_tool_that_this_image_lacks_is_refused_by_name():
    made = executor("no-such-tool")
    assert made.tools() == []
    assert made.call("no-such-tool", {}).code == "tool_not_allowed"


# web-fetch


class Site:
    """A TLS server for docs.python.org behind a CONNECT proxy, both on this machine."""

    def __init__(self, folder) -> None:
        self.pages: dict[str, tuple[str, str, bytes]] = {}
        self.connects: list[str] = []
        self.requests: list[str] = []
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "docs.python.org")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("docs.python.org")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.authority = folder / "ca.pem"
        self.authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = folder / "key.pem"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self.authority, private)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            head = self._head(connection)
            target = head.split()[1]
            self.connects.append(target)
            if not head.startswith(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"):
                # As Envoy does; see tests/components/egress.
                connection.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
                return
            if target != "docs.python.org:443":
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            try:
                with self._tls.wrap_socket(connection, server_side=True) as secure:
                    path = self._head(secure).split()[1]
                    self.requests.append(path)
                    status, headers, body = self.pages.get(path, ("404 Not Found", "Content-Type: text/plain", b""))
                    secure.sendall(
                        f"HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                    )
            except ssl.SSLError:
                return

    @staticmethod
    def _head(connection) -> str:
        data = b""
        while b"\r\n\r\n" not in data and (chunk := connection.recv(4096)):
            data += chunk
        return data.decode()


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def fetcher(site: Site, *, trusts: bool = True) -> InstrumentedAgentExecutor:
    declared = Declaration.parse(
        {
            "name": "web-fetch",
            "egress": {"domains": ["docs.python.org", "kubernetes.io"]},
            "port": site.port,
            "limits": {"timeoutSeconds": 10},
        }
    )
    made = InstrumentedAgentExecutor(prompt="go", allowed_tools=["web-fetch"], declarations=[declared])
    surroundings = Surroundings(
        declared, None, None, "eu-west-1", "127.0.0.1", GatewayClient("http://127.0.0.1:9", "t"), made
    )
    context = ssl.create_default_context(cafile=str(site.authority)) if trusts else None
    made.register(web_fetch.tool(surroundings, context))
    return made


def test_a_page_is_read_as_text_through_the_tools_own_proxy_port(site):
    page = b"<html><script>evil()</script><!-- hidden --><h1>Title</h1><p>Some  text</p></html>"
    site.pages["/3/?a=b"] = ("200 OK", "Content-Type: text/html; charset=utf-8", page)
    outcome = fetcher(site).call("web-fetch", {"url": "https://docs.python.org/3/?a=b"})
    assert outcome.content == "Title\nSome text"
    assert site.connects == ["docs.python.org:443"]


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        ("302 Found", "Content-Type: text/html\r\nLocation: https://evil.net/x", "moved to https://evil.net/x"),
        ("500 Oops", "Content-Type: text/html", "answered 500"),
        ("200 OK", "Content-Type: image/png", "image/png, not text"),
    ],
)
def test_what_isnt_a_page_is_an_error_and_no_redirect_is_followed(site, status, headers, said):
    site.pages["/"] = (status, headers, b"x")
    outcome = fetcher(site).call("web-fetch", {"url": "https://docs.python.org/"})
    assert outcome.code == "tool_failed"
    assert said in outcome.content
    assert site.requests == ["/"]


def test_a_page_beyond_the_bound_is_cut(site):
    site.pages["/"] = ("200 OK", "Content-Type: text/plain", b"x" * (3 << 20))
    content = fetcher(site).call("web-fetch", {"url": "https://docs.python.org/"}).content
    assert len(content) < 210_000
    assert content.endswith("[cut: 1048576 characters]")


def test_what_the_proxy_refuses_is_not_reached(site):
    outcome = fetcher(site).call("web-fetch", {"url": "https://kubernetes.io/"})
    assert outcome.content == "the egress proxy refused kubernetes.io: 403 Forbidden"
    assert site.requests == []


def test_a_host_whose_certificate_nobody_signed_is_not_read(site):
    site.pages["/"] = ("200 OK", "Content-Type: text/plain", b"x")
    outcome = fetcher(site, trusts=False).call("web-fetch", {"url": "https://docs.python.org/"})
    assert outcome.content == "docs.python.org could not be reached: SSLCertVerificationError"
