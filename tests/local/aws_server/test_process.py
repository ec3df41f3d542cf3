"""The process: identity across restarts, its account, its end, its log, and the gate in front of everything."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from werkzeug.test import Client

from ringfence.local import operator_key
from ringfence.local.aws_server.app import Application
from ringfence.local.aws_server.journal import Journal
from ringfence.local.aws_server.wire import Call, Reply, refusal
from ringfence.local.operator_key import OperatorKey
from ringfence.local.state import write_atomic

COMMAND = [sys.executable, "-m", "ringfence.local.aws_server"]


def test_a_restart_changes_the_boot_id_and_empties_the_memory(
    start_aws_server: Any, connect: Callable[[str], Any], tmp_path: Path
) -> None:
    seen = []
    for _ in range(2):
        with start_aws_server(tmp_path) as endpoint:
            aws = connect(endpoint)
            health = aws.own("health")
            seen.append((health["boot_id"], health["pid"]))
            assert aws.own("creations") == {"creations": []}
            aws.client("sns", create="urn;hash;").create_topic(Name="kept")
            assert len(aws.own("creations")["creations"]) == 1
    assert seen[0][0] != seen[1][0]


def test_the_account_can_be_chosen(start_aws_server: Any, connect: Callable[[str], Any], tmp_path: Path) -> None:
    with start_aws_server(tmp_path, "--account", "210987654321") as endpoint:
        aws = connect(endpoint)
        assert aws.client("sts").get_caller_identity()["Account"] == "210987654321"
        assert ":210987654321:" in aws.client("sns").create_topic(Name="t")["TopicArn"]
        assert ":210987654321:" in aws.client("accessanalyzer").create_analyzer(analyzerName="a", type="ACCOUNT")["arn"]
        assert aws.own("inventory")["left"].keys() == {"sns", "accessanalyzer"}


@pytest.mark.parametrize("arguments", [["--account", "12"], ["--port", "99999"], ["--home"]])
def test_bad_arguments_are_told_in_a_sentence(arguments: list[str], tmp_path: Path) -> None:
    command = [*COMMAND, "--port", "0", "--home", str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


def start(home: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    write_atomic(home / operator_key.FILE, json.dumps({"accessKeyId": "test", "secretAccessKey": "test"}))
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--home", str(home), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["endpoint"]


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(ending: signal.Signals, tmp_path: Path) -> None:
    process, _ = start(tmp_path)
    process.send_signal(ending)
    assert process.wait(timeout=300) == 0


def test_it_ends_with_its_parent(connect: Callable[[str], Any], tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    process, endpoint = start(tmp_path, "--parent", str(parent.pid))
    assert connect(endpoint).own("health")["pid"] == process.pid
    assert process.poll() is None
    parent.communicate()
    assert process.wait(timeout=300) == 0


def test_the_log_names_calls_and_holds_no_values(
    start_aws_server: Any, connect: Callable[[str], Any], tmp_path: Path
) -> None:
    with start_aws_server(tmp_path) as endpoint:
        aws = connect(endpoint)
        aws.client("secretsmanager").create_secret(Name="s", SecretString="the-secret-value")
        presign = aws.client("s3").generate_presigned_url
        signed = presign("get_object", Params={"Bucket": "b", "Key": "k"})
        aws.send("GET", signed.removeprefix(endpoint))
    path = tmp_path / "logs" / "aws-server.jsonl"
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {(line.get("service"), line.get("operation")) for line in lines} >= {
        ("secretsmanager", "CreateSecret"),
        ("s3", "GetObject"),
    }
    assert "the-secret-value" not in text
    assert "Signature" not in text
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_failure_is_one_clean_error_and_the_server_goes_on(aws: Any) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = aws.signed("sns", "POST", "/", b"Action=Publish&TopicArn=x", form)
    assert answer.status >= 400
    assert b"Traceback" not in answer.body
    assert aws.own("health")["boot_id"]


@pytest.mark.filterwarnings("ignore:Exception.*AccessDenied")  # the model lists no such error
def test_a_gate_sees_each_call_before_anything_acts_on_it(tmp_path: Path) -> None:
    seen: list[tuple[str, str, str]] = []

    def gate(call: Call) -> Reply | None:
        seen.append((call.service, call.name, call.scope.access_key if call.scope else ""))
        return refusal(call, 403, "AccessDenied", "not for you") if call.name == "CreateAnalyzer" else None

    client = Client(Application("123456789012", Journal(tmp_path), OperatorKey("op", "secret"), [gate]))

    def signed(method: str, body: bytes) -> Any:
        request = AWSRequest(method, "http://localhost/analyzer", {"Content-Type": "application/json"}, body)
        SigV4Auth(Credentials("op", "secret"), "access-analyzer", "us-east-1").add_auth(request)
        return client.open("/analyzer", method=method, data=body, headers=dict(request.headers))

    refused = signed("PUT", b'{"analyzerName": "a", "type": "ACCOUNT"}')
    listed = signed("GET", b"")
    assert (refused.status_code, listed.status_code) == (403, 200)
    assert listed.json == {"analyzers": []}
    assert seen == [("accessanalyzer", "CreateAnalyzer", "op"), ("accessanalyzer", "ListAnalyzers", "op")]


def test_a_request_under_way_is_answered_before_the_end(connect: Callable[[str], Any], tmp_path: Path) -> None:
    process, endpoint = start(tmp_path)
    aws = connect(endpoint)
    aws.client("sns").list_topics()
    with socket.create_connection(("127.0.0.1", urlsplit(endpoint).port), timeout=300) as connection:
        connection.sendall(b"GET /ringfence/health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{")
        aws.own("health")
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        connection.sendall(b"}")
        assert b" 200 " in connection.recv(200)
    assert process.wait(timeout=300) == 0
