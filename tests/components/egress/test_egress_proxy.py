"""The rendered configuration in the real Envoy, with real TLS clients and servers: what passes, what is refused, what is
logged. Every refusal has its control: the same probe, allowed."""

from __future__ import annotations

import time

import pytest

from ringfence.egress import envoy
from ringfence.egress.policy import EgressPolicy, ToolEgress

DOCS = "docs.example.com:443"
FIRST, SECOND = "8.8.4.4", "9.9.9.10"


def _passes(lab, tool="fetch", host=DOCS, address=FIRST, **more):
    """The control: the allowed probe reaches its server end to end and is logged as allowed."""
    result = lab.connect(tool, host, **more)
    assert result["status"] == 200 and result["answer"].startswith(f"hello from {address}"), result
    assert lab.reached() == [f"{address}:443"]
    (entry,) = lab.logged()
    assert (entry["decision"], entry["tool"], entry["host"], entry["address"]) == (
        "allowed",
        tool,
        host,
        f"{address}:443",
    )
    assert entry["source"].startswith("10.42.0.9:") and entry["bytes_from_tool"] > 0 and entry["bytes_to_tool"] > 0


def _refused(lab, result, reason, *, tool="fetch", host=DOCS, decision="refused"):
    """Nothing was answered or reached, and the one log line says whose, where to and why."""
    assert result["answer"] == "", result
    assert lab.reached() == []
    (entry,) = lab.logged()
    assert (entry["decision"], entry["tool"], entry["host"]) == (decision, tool, host)
    assert reason in entry["reason"], entry
    return entry


@pytest.mark.parametrize(
    ("tool", "host", "address"),
    [
        ("fetch", DOCS, FIRST),
        ("fetch", "other.example.com:443", SECOND),
        ("fetch", "a.wild.example.com:443", FIRST),
        ("mail", "mail.example.org:443", SECOND),
        ("@nodes", "registry.example.com:443", FIRST),
    ],
)
def test_a_listed_host_passes_end_to_end(lab, tool, host, address):
    _passes(lab, tool, host, address)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_tls_1_2_and_1_3_pass(lab, version):
    _passes(lab, newest_tls=version)


def test_tls_older_than_1_2_is_refused(lab):
    _refused(lab, lab.connect("fetch", DOCS, newest_tls="TLSv1_1"), "tls_older_than_1_2")
    _passes(lab)


@pytest.mark.parametrize(
    "host",
    [
        "8.8.4.4", "127.0.0.1", "169.254.169.254", "10.42.200.5", "100.64.0.7", "[::1]", "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]", "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518",
        "127.1", "localhost", "1.1.1.1.", "٨.8.4.4",
    ],
)  # fmt: skip
def test_an_address_in_any_spelling_is_refused(lab, host):
    result = lab.request("fetch", f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode().decode("latin-1"))
    assert result["status"] in (400, 403), result
    assert lab.reached() == []
    (entry,) = lab.logged()
    assert (entry["decision"], entry["tool"]) == ("refused", "fetch")
    _passes(lab)


@pytest.mark.parametrize(
    "spelling", ["docs.example.com.", "DOCS.example.com", "docs.example.COM", "docs.example.com..", "docs..example.com"]
)
def test_another_spelling_of_a_listed_host_is_refused(lab, spelling):
    result = lab.connect("fetch", f"{spelling}:443")
    assert result["status"] == 403
    _refused(lab, result, "not_a_host_name", host=f"{spelling}:443")
    _passes(lab)


@pytest.mark.parametrize("port", ["80", "22", "8443", "0443x"])
def test_another_port_is_refused(lab, port):
    result = lab.connect("fetch", f"docs.example.com:{port}")
    assert result["status"] in (400, 403)
    assert lab.reached() == []
    (entry,) = lab.logged()
    assert entry["decision"] == "refused" and entry["tool"] == "fetch"
    _passes(lab)


def test_a_request_without_a_port_is_refused(lab):
    result = lab.request("fetch", "CONNECT docs.example.com HTTP/1.1\r\nHost: docs.example.com\r\n\r\n")
    assert result["status"] == 400
    _refused(lab, result, "http1.", host=None)
    _passes(lab)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "www.docs.example.com",
        "docs.example.com.evil.example.org",
        "xdocs.example.com",
        "wild.example.com",
    ],
)
def test_a_host_that_is_not_listed_is_refused(lab, host):
    result = lab.connect("fetch", f"{host}:443")
    assert result["status"] == 404
    _refused(lab, result, "route_not_found", host=f"{host}:443")
    _passes(lab)


@pytest.mark.parametrize(
    ("tool", "other", "host"), [("mail", "fetch", DOCS), ("fetch", "@nodes", "registry.example.com:443")]
)
def test_another_listeners_host_is_refused(lab, tool, other, host):
    result = lab.connect(tool, host)
    assert result["status"] == 404
    _refused(lab, result, "route_not_found", tool=tool, host=host)
    _passes(lab, other, host)


def test_the_host_header_does_not_stand_in_for_the_connect_host(lab):
    result = lab.request(
        "fetch", f"CONNECT evil.example.org:443 HTTP/1.1\r\nHost: {DOCS}\r\n\r\n", sni="docs.example.com"
    )
    _refused(lab, result, "route_not_found", host="evil.example.org:443")
    result = lab.request("fetch", f"CONNECT {DOCS} HTTP/1.1\r\nHost: evil.example.org\r\n\r\n", sni="docs.example.com")
    assert result["answer"].startswith("hello") and lab.reached() == [f"{FIRST}:443"]
    assert [entry["host"] for entry in lab.logged()] == [DOCS]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE"])
def test_a_method_other_than_connect_is_refused(lab, method):
    result = lab.request("fetch", f"{method} http://{DOCS}/ HTTP/1.1\r\nHost: {DOCS}\r\n\r\n")
    assert result["status"] == 403
    _refused(lab, result, "method_is_not_connect")
    _passes(lab)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"CONNECT {DOCS} HTTP/1.1\r\nHost: {DOCS}\r\nX-Pad: {'a' * 9000}\r\n\r\n", 431),
        (f"CONNECT {DOCS} HTTP/1.0\r\n\r\n", 426),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\r\n\r\n", 400),
    ],
    ids=["oversized headers", "HTTP/1.0", "HTTP/2", "TLS to the proxy"],
)
def test_what_is_not_a_small_http_1_1_request_is_refused(lab, text, status):
    result = lab.request("fetch", text, sni="docs.example.com")
    assert (result["status"], result["answer"]) == (status, "")
    assert lab.reached() == []
    (entry,) = lab.logged()
    assert (entry["decision"], entry["tool"]) == ("refused", "fetch") and entry["reason"]
    _passes(lab)


@pytest.mark.parametrize("sni", ["other.example.com", "evil.example.org", "docs.example.com.evil.example.org"])
def test_a_server_name_that_is_not_the_connect_host_is_refused(lab, sni):
    entry = _refused(lab, lab.connect("fetch", DOCS, sni=sni), "server_name_is_not_the_connect_host")
    assert entry["server_name"] == sni
    _passes(lab)


def test_the_server_name_must_be_the_very_host_below_a_wildcard_too(lab):
    result = lab.connect("fetch", "a.wild.example.com:443", sni="b.wild.example.com")
    _refused(lab, result, "server_name_is_not_the_connect_host", host="a.wild.example.com:443")
    _passes(lab, "fetch", "b.wild.example.com:443")


def test_a_client_hello_without_a_server_name_is_refused(lab):
    _refused(lab, lab.connect("fetch", DOCS, sni=None), "server_name_is_not_the_connect_host")
    _passes(lab)


@pytest.mark.parametrize(
    "payload",
    ["GET / HTTP/1.1\r\nHost: docs.example.com\r\n\r\n", "SSH-2.0-OpenSSH_9.9\r\n", "\x16\x03\x03\x00\x05junk!"],
)
def test_what_is_not_tls_is_refused_in_a_tunnel(lab, payload):
    _refused(lab, lab.connect("fetch", DOCS, payload=payload), "no_tls_client_hello")
    _passes(lab)


def test_a_client_that_says_nothing_reaches_nothing_and_is_logged(lab):
    _refused(lab, lab.connect("fetch", DOCS, silent=True), "no_tls_client_hello")


@pytest.mark.parametrize(
    "address", ["10.42.200.5", "100.64.0.7", "127.0.0.1", "169.254.169.254", "172.16.9.9", "192.168.1.1", "198.18.0.1"]
)
def test_a_listed_name_that_leads_to_an_address_that_is_not_public_is_refused(lab, address):
    name = "rebind.example.com" if address == "169.254.169.254" else f"n{address.replace('.', '-')}.wild.example.com"
    lab.do("dns", answers={name: [[address]]})
    entry = _refused(lab, lab.connect("fetch", f"{name}:443"), "address_is_not_public", host=f"{name}:443")
    assert entry["address"] == f"{address}:443"
    _passes(lab)


def test_a_private_address_beside_a_dead_public_one_is_never_dialled(lab):
    """Falling over from the dead address to the next one in the answer must not skip the check."""
    lab.do("dns", answers={"mixed.example.com": [["8.8.8.8", "10.42.200.5"]]})
    results = [lab.connect("fetch", "mixed.example.com:443") for _ in range(4)]
    assert [result["answer"] for result in results] == [""] * 4
    assert lab.reached() == []
    entries = lab.logged(4)
    assert {entry["decision"] for entry in entries} == {"refused", "failed"}
    assert all("address_is_not_public" in entry["reason"] for entry in entries if entry["decision"] == "refused")


def test_a_name_that_turns_private_later_is_refused_from_then_on(lab):
    lab.do("dns", answers={"late.example.com": [[FIRST], ["169.254.169.254"]]})
    _passes(lab, "fetch", "late.example.com:443")
    deadline = time.monotonic() + 120
    while (result := lab.connect("fetch", "late.example.com:443"))["answer"] and time.monotonic() < deadline:
        lab.logged()
        time.sleep(0.2)
    assert "169.254.169.254:443" not in lab.reached()
    (entry,) = lab.logged()
    assert result["answer"] == "" and "address_is_not_public" in entry["reason"]


def test_a_name_that_does_not_exist_fails_and_is_logged(lab):
    result = lab.connect("fetch", "nowhere.wild.example.com:443")
    _refused(lab, result, "no_healthy_upstream", host="nowhere.wild.example.com:443", decision="failed")


def test_a_tool_without_domains_has_no_port(policy):
    names = [listener["name"] for listener in envoy.listeners(policy)["resources"]]
    assert names == ["fetch", "mail", "@nodes"]


def test_the_log_holds_no_header_of_the_request(lab):
    secret = "c2VjcmV0LXRva2Vu"
    text = f"CONNECT {DOCS} HTTP/1.1\r\nHost: {DOCS}\r\nProxy-Authorization: Basic {secret}\r\n\r\n"
    assert lab.request("fetch", text, sni="docs.example.com")["answer"].startswith("hello")
    assert lab.request("mail", text)["status"] == 404
    assert secret not in str(lab.logged(2))
    lab.reached()


def test_a_new_tool_gets_its_port_while_the_others_keep_running(running_lab, policy):
    running_lab.configure()
    before = running_lab.connect("mail", "docs.example.com:443")
    assert before["status"] == 404
    more = ToolEgress("mail", ("mail.example.org", "docs.example.com"), port=15002)
    changed = EgressPolicy((policy.tools[0], more, policy.tools[2]), policy.node_domains)
    running_lab.replace_listeners(envoy.listeners(changed))
    deadline = time.monotonic() + 120
    while running_lab.connect("mail", DOCS)["status"] != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running_lab.connect("mail", DOCS)["answer"].startswith("hello")
    assert running_lab.connect("fetch", "mail.example.org:443")["status"] == 404


def test_a_listener_file_that_cannot_be_read_leaves_the_old_rules_in_force(running_lab):
    running_lab.configure()
    broken = {
        "resources": [
            {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "fetch", "nonsense": 1}
        ]
    }
    running_lab.replace_listeners(broken)
    time.sleep(1)
    assert running_lab.connect("fetch", DOCS)["answer"].startswith("hello")
    assert running_lab.connect("fetch", "mail.example.org:443")["status"] == 404
