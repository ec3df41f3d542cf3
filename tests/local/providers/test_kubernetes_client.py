"""Kubeconfigs, credentials, retries and errors of the small Kubernetes client."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.local.providers import kubernetes_client
from ringfence.local.providers.base import ProviderError
from ringfence.local.providers.kubernetes_client import Access, ApiError, Bearer, Client, Kind, Unreachable


class Server:
    """Answers with what a test has queued, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        queue, requests = self.answers, self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append((self.command, self.path, dict(self.headers)))
                code, body, headers = queue.pop(0) if queue else (200, {"ok": True}, {})
                text = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments: Any) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.http.shutdown()
    one.http.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(kubernetes_client.time, "sleep", pauses.append)
    return pauses


def _config(url: str, user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "n"}}],
        "clusters": [{"name": "k", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def _client(url: str, user: dict[str, Any] | None = None, attempts: int = 3) -> Client:
    return Client(Access.load(_config(url, user)), attempts)


def test_a_kubeconfig_is_taken_as_path_as_text_and_as_content(tmp_path: Path) -> None:
    config = _config("http://127.0.0.1:1/")
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    for source in (config, str(path), path, yaml.safe_dump(config), json.dumps(config)):
        access = Access.load(source)
        assert (access.server, access.namespace) == ("http://127.0.0.1:1", "n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/kubeconfig", "/nowhere/kubeconfig: No such file or directory: start the control plane"),
        ("a: b\ntoken: [t0ken", "the kubeconfig setting is not YAML: see line 2$"),
        ("- a\n- b\n", "is not a kubeconfig: expected keys clusters, contexts, users"),
        (_config("") | {"current-context": "z"}, "has no context 'z'; it has c"),
        (_config("") | {"clusters": []}, "has no cluster 'k'; it has none"),
        (_config(""), "cluster 'k' has no server"),
        (_config("https://h", **{"certificate-authority": "/nowhere/ca"}), "can't be read"),
    ],
)
def test_a_wrong_kubeconfig_is_told_by_its_key(source: Any, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        Access.load(source)


def test_another_context_can_be_chosen() -> None:
    config = _config("http://one")
    config["contexts"].append({"name": "d", "context": {"cluster": "k", "user": "u"}})
    assert Access.load(config, "d").namespace == "default"


def test_a_token_a_token_file_and_a_plugin_give_the_header(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    credential = {"status": {"token": "from-plugin", "expirationTimestamp": "2999-01-01T00:00:00Z"}}
    runs = tmp_path / "runs"
    program = f"open({str(runs)!r}, 'a').write('x'); print({json.dumps(json.dumps(credential))})"
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", program]}
    users = [{"token": "plain"}, {"tokenFile": str(tmp_path / "token")}, {"exec": plugin}]
    for user in users:
        client = _client(server.url, user)
        client.request("GET", "/a", "a")
        client.request("GET", "/b", "b")
    sent = [headers["Authorization"] for _, _, headers in server.requests]
    assert sent == [f"Bearer {token}" for token in ("plain", "from-file", "from-plugin") for _ in range(2)]
    assert runs.read_text() == "x"


def test_a_plugin_credential_that_ended_is_fetched_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    credential = {"status": {"token": "t", "expirationTimestamp": "2001-01-01T00:00:00Z"}}
    program = f"open({str(runs)!r}, 'a').write('x'); print({json.dumps(json.dumps(credential))})"
    bearer = Bearer(Access.load(_config("http://h", {"exec": {"command": sys.executable, "args": ["-c", program]}})))
    bearer.header()
    bearer.header()
    assert runs.read_text() == "xx"


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ({"command": "/nowhere/plugin"}, "can't be run"),
        ({"command": sys.executable, "args": ["-c", "import sys; sys.exit('no session')"]}, "failed: no session"),
        ({"command": sys.executable, "args": ["-c", "print('{}')"]}, "gave no token"),
    ],
)
def test_a_plugin_that_fails_is_named(plugin: dict[str, Any], message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        Bearer(Access.load(_config("http://h", {"exec": plugin}))).header()


def test_an_overloaded_server_is_asked_again_and_its_wish_is_kept(server: Server, no_pauses: list[float]) -> None:
    server.answers += [(429, {}, {"Retry-After": "7"}), (503, b"starting", {}), (200, {"done": 1}, {})]
    assert _client(server.url).request("GET", "/x", "x") == {"done": 1}
    assert len(server.requests) == 3
    assert no_pauses[0] == 7


def test_a_server_that_stays_overloaded_is_told(server: Server) -> None:
    server.answers += [(503, b"starting", {})] * 3
    with pytest.raises(ApiError, match=r"the thing: refused by the API server \(503 Service Unavailable\): starting"):
        _client(server.url).request("GET", "/x", "the thing")


def test_a_refusal_is_told_once_with_reason_message_and_fields(server: Server) -> None:
    status = {
        "reason": "Invalid",
        "message": "spec.replicas: Invalid value: -1",
        "details": {"causes": [{"field": "spec.replicas"}, {"message": "no field"}]},
    }
    server.answers.append((422, status, {}))
    with pytest.raises(ApiError) as caught:
        _client(server.url).request("GET", "/x", "Deployment a/b")
    assert str(caught.value) == (
        "Deployment a/b: refused by the API server (422 Invalid): spec.replicas: Invalid value: -1"
    )
    assert caught.value.fields == ("spec.replicas",)
    assert len(server.requests) == 1


def test_no_server_is_told_with_its_address() -> None:
    with pytest.raises(Unreachable, match=r"Pod a/b: no answer from http://127\.0\.0\.1:1: .*ringfence status"):
        _client("http://127.0.0.1:1").request("GET", "/x", "Pod a/b")


def test_a_kind_is_looked_up_once_and_a_missing_one_each_time(server: Server) -> None:
    resources = [
        {"name": "deployments", "kind": "Deployment", "namespaced": True},
        {"name": "deployments/status", "kind": "Deployment", "namespaced": True},
    ]
    server.answers += [(200, {"resources": resources}, {}), (404, {}, {}), (404, {}, {})]
    client = _client(server.url)
    deployment = client.kind("apps/v1", "Deployment")
    assert deployment == client.kind("apps/v1", "Deployment")
    assert deployment == Kind("apps/v1", "Deployment", "deployments", True)
    assert client.kind("example.com/v1", "Thing") is None
    assert client.kind("example.com/v1", "Thing") is None
    assert [path for _, path, _ in server.requests] == ["/apis/apps/v1", "/apis/example.com/v1", "/apis/example.com/v1"]


def test_the_path_of_an_object_cannot_leave_its_place() -> None:
    assert Kind("v1", "Pod", "pods", True).path("a", "n") == "/api/v1/namespaces/n/pods/a"
    assert Kind("apps/v1", "X", "xs", False).path("a/../b", "n") == "/apis/apps/v1/xs/a%2F..%2Fb"


def test_a_client_certificate_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ringfence.local.pki import Authority

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    pair = Authority(tmp_path / "pki", "ca").client("c", "somebody")
    user = {
        "client-certificate-data": base64.b64encode(pair.certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(pair.key.read_bytes()).decode(),
    }
    authority = str(tmp_path / "pki" / "ca.crt")
    assert Access.load(_config("https://h", user, **{"certificate-authority": authority})).context is not None
    assert list((tmp_path / "scratch").iterdir()) == []
