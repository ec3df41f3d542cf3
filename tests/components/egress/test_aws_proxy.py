"""The catalog's own AWS tools at the real Envoy: each one's listener lets its own hosts of AWS through and no other's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.catalog import load
from ringfence.egress.policy import EgressPolicy, ways_out
from ringfence.names import Names
from tests.components.egress.conftest import POLICY, PORTS

CATALOG = Path(__file__).parents[3] / "catalog"
NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
AWS = EgressPolicy((*POLICY.tools, *ways_out(load(CATALOG).tools, NAMES)), POLICY.node_domains)
BUCKET = "example-reports-111122223333.s3.us-east-1.amazonaws.com"
OTHER_BUCKET = "attacker.s3.us-east-1.amazonaws.com"
TABLES, MAIL = "dynamodb.us-east-1.amazonaws.com", "email.us-east-1.amazonaws.com"
MODELS = "bedrock-runtime.us-east-1.amazonaws.com"
OWN = {"s3-report-reader": BUCKET, "ticket-store": TABLES, "email-notifier": MAIL}
EVERY = (BUCKET, OTHER_BUCKET, "s3.us-east-1.amazonaws.com", TABLES, MAIL, "sts.us-east-1.amazonaws.com", MODELS)


@pytest.fixture(scope="module")
def aws_lab(running_lab):
    running_lab.configure(policy=AWS)
    running_lab.do("dns", answers={host: [["8.8.4.4"]] for host in EVERY})
    return running_lab


@pytest.fixture(autouse=True)
def nothing_pending(aws_lab, monkeypatch):
    for tool, port in AWS.ports().items():
        monkeypatch.setitem(PORTS, tool, port)
    aws_lab.reached()


def _passes(lab, tool: str, host: str) -> None:
    result = lab.connect(tool, f"{host}:443")
    assert result["status"] == 200 and result["answer"].startswith("hello from 8.8.4.4"), result
    assert lab.reached() == ["8.8.4.4:443"]
    (entry,) = lab.logged()
    assert (entry["decision"], entry["tool"], entry["host"]) == ("allowed", tool, f"{host}:443")


@pytest.mark.parametrize("tool", OWN)
def test_a_tools_own_host_of_aws_passes_end_to_end(aws_lab, tool):
    _passes(aws_lab, tool, OWN[tool])


@pytest.mark.parametrize("tool", [*OWN, "web-fetch"])
def test_another_bucket_another_service_and_models_are_refused(aws_lab, tool):
    for host in EVERY:
        if host == OWN.get(tool):
            continue
        result = aws_lab.connect(tool, f"{host}:443")
        assert (result["status"], result["answer"]) == (404, ""), (tool, host)
        (entry,) = aws_lab.logged()
        assert (entry["decision"], entry["tool"], entry["host"]) == ("refused", tool, f"{host}:443")
    assert aws_lab.reached() == []
    if tool in OWN:
        _passes(aws_lab, tool, OWN[tool])


def test_another_buckets_server_name_behind_the_allowed_host_is_refused(aws_lab):
    result = aws_lab.connect("s3-report-reader", f"{BUCKET}:443", sni=OTHER_BUCKET)
    assert result["answer"] == ""
    assert aws_lab.reached() == []
    assert aws_lab.logged()[0]["decision"] == "refused"
    _passes(aws_lab, "s3-report-reader", BUCKET)


def test_without_the_hosts_of_the_grants_a_tool_has_no_listener(aws_lab, monkeypatch):
    """The control of this file, and its last: these ways come from the grants and from nothing else."""
    for tool in OWN:
        monkeypatch.delitem(PORTS, tool)
    aws_lab.configure(policy=EgressPolicy((*POLICY.tools, *ways_out(load(CATALOG).tools)), POLICY.node_domains))
    for tool, host in OWN.items():
        request = f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n"
        answer = aws_lab.do("probe", port=AWS.ports()[tool], request=request, sni=host)
        assert answer == {"status": 0, "answer": "", "error": "ConnectionRefusedError"}
