"""The embedded control plane, as it really runs."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import stat
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from ringfence.errors import RingfenceError
from ringfence.local import control_plane
from ringfence.local.providers.kubernetes_client import Access, ApiError, Client
from ringfence.local.state import Home

pytestmark = pytest.mark.cluster
PARTS = {"etcd", "kube-apiserver", "kube-controller-manager"}
SECRET = "correct-horse-battery-staple"


def _as(plane: Any, user: str) -> Client:
    """Requests as another user, by impersonation."""
    client = plane.client
    client._bearer.header = lambda: {"Impersonate-User": user}
    return client


def _pod(namespace: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "i", **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"containers": [container], **spec},
    }


def test_all_parts_run_and_the_api_server_is_ready(plane: Any) -> None:
    status = plane.status()
    assert status["ready"]
    assert not status["existing"]
    assert set(status["parts"]) == PARTS
    assert all(status["parts"].values())
    assert plane.client.request("GET", "/version", "version")["major"] == "1"


def test_starting_again_changes_nothing(plane: Any) -> None:
    before = plane.status()["parts"]
    plane.start()
    assert plane.status()["parts"] == before


def test_nothing_listens_beyond_this_machine(plane: Any) -> None:
    for name, pid in plane.status()["parts"].items():
        listening = [one.laddr.ip for one in psutil.Process(pid).net_connections() if one.status == psutil.CONN_LISTEN]
        assert listening, name
        assert set(listening) == {"127.0.0.1"}, name


def test_every_kept_file_is_for_its_owner_alone(plane: Any) -> None:
    private = [plane.home.kubeconfig, *(path for path in plane.home.kubernetes.rglob("*") if path.is_file())]
    assert len(private) > 20
    assert {path for path in private if stat.S_IMODE(path.stat().st_mode) & 0o077} == set()


def test_who_shows_no_certificate_is_refused(plane: Any) -> None:
    server = plane.status()["server"]
    trust = ssl.create_default_context(cafile=str(plane.home.kubernetes / "pki" / "ca.crt"))
    context = plane.client.access.context
    for path in ("/api", "/readyz", "/version"):
        assert urllib.request.urlopen(server + path, context=context, timeout=300).status == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(server + path, context=trust, timeout=300)
        assert refused.value.code == 401


def test_rbac_decides_for_everybody_but_the_administrator(plane: Any) -> None:
    path = "/api/v1/namespaces/kube-system/secrets"
    plane.client.request("GET", path, "secrets")
    with pytest.raises(ApiError, match='User "mallory" cannot list resource "secrets"'):
        _as(plane, "mallory").request("GET", path, "secrets")


@pytest.mark.parametrize("credential", [None, "admin", "kube-controller-manager"])
def test_etcd_lets_in_the_api_server_only(plane: Any, credential: str | None) -> None:
    pki, port = plane.home.kubernetes / "pki", plane.home.kept_ports()["etcd-client"]

    def health(name: str | None) -> bytes:
        context = ssl.create_default_context(cafile=str(pki / "etcd-ca.crt"))
        if name:
            context.load_cert_chain(pki / f"{name}.crt", pki / f"{name}.key")
        return urllib.request.urlopen(f"https://127.0.0.1:{port}/health", context=context, timeout=300).read()

    assert json.loads(health("etcd-client"))["health"] == "true"
    with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
        health(credential)


def test_a_secret_is_not_readable_in_the_store_and_a_config_map_is(plane: Any) -> None:
    namespace = plane.namespace("at-rest")
    open_text = "open-horse-battery-staple"
    metadata = {"name": "x", "namespace": namespace}
    plane.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"k": SECRET}})
    plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": open_text}})
    store = b"".join(path.read_bytes() for path in (plane.home.kubernetes / "etcd").rglob("*") if path.is_file())
    assert open_text.encode() in store
    assert SECRET.encode() not in store
    assert base64.b64encode(SECRET.encode()) not in store


def test_the_audit_log_says_who_did_what_without_contents(plane: Any) -> None:
    namespace = plane.namespace("audited")
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    plane.apply(manifest | {"stringData": {"k": SECRET}})
    text = (plane.home.kubernetes / "audit" / "audit.log").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    secret = [
        one for one in events if one.get("objectRef", {}).get("namespace") == namespace and one["verb"] == "patch"
    ]
    assert secret
    assert {one["user"]["username"] for one in secret} == {"ringfence-admin"}
    assert SECRET not in text
    assert base64.b64encode(SECRET.encode()).decode() not in text


def test_pod_security_is_enforced(plane: Any) -> None:
    namespace = plane.namespace("restricted")
    plane.apply(_pod(namespace, container={"securityContext": {"privileged": True}}))
    plane.client.request("DELETE", f"/api/v1/namespaces/{namespace}/pods/p", "pod")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    with pytest.raises(ApiError, match='violates PodSecurity "restricted:latest": privileged'):
        plane.apply(_pod(namespace, container={"securityContext": {"privileged": True}}))


def test_a_runtime_class_must_exist_and_adds_its_overhead(plane: Any) -> None:
    namespace = plane.namespace("classes")
    pod = _pod(namespace, runtimeClassName="sandboxed")
    with pytest.raises(ApiError, match='RuntimeClass "sandboxed" not found'):
        plane.apply(pod)
    runtime_class = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "sandboxed"}}
    plane.apply(runtime_class | {"handler": "runsc", "overhead": {"podFixed": {"memory": "64Mi"}}})
    assert _eventually(plane, pod)["spec"]["overhead"] == {"memory": "64Mi"}


def _eventually(plane: Any, manifest: dict[str, Any]) -> dict[str, Any]:
    """Applies once what the server's own caches must have seen before."""
    for _ in range(1200):
        try:
            return plane.apply(manifest)
        except ApiError as error:
            refused = error
        time.sleep(0.1)
    raise refused


def test_an_admission_policy_decides(plane: Any) -> None:
    namespace = plane.namespace("policed")
    metadata = {"name": "no-evil"}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]}
    plane.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata,
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": "!has(object.data) || !('evil' in object.data)", "message": "no evil"}],
            },
        }
    )
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    plane.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": "no-evil", "validationActions": ["Deny"], "matchResources": selector},
        }
    )
    good = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "g", "namespace": namespace},
        "data": {"a": "b"},
    }
    plane.apply(good)
    refused = _until_refused(plane, good | {"data": {"evil": "1"}})
    assert "denied request: no evil" in str(refused)


def _until_refused(plane: Any, manifest: dict[str, Any]) -> ApiError:
    for _ in range(1200):
        try:
            plane.apply(manifest)
        except ApiError as error:
            return error
        time.sleep(0.1)
    pytest.fail("it is never refused")


def test_a_quota_is_counted_and_holds(plane: Any) -> None:
    namespace = plane.namespace("counted")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": namespace}}
    plane.apply(quota | {"spec": {"hard": {"services": "1"}}})
    service = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}
    _eventually(plane, service | {"metadata": {"name": "one", "namespace": namespace}})
    with pytest.raises(ApiError, match="exceeded quota: q, requested: services=1, used: services=1"):
        plane.apply(service | {"metadata": {"name": "two", "namespace": namespace}})


def test_what_stands_survives_a_restart(plane: Any) -> None:
    namespace = plane.namespace("kept")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": namespace}}
    before = plane.apply(secret | {"stringData": {"k": SECRET}})
    kubeconfig = plane.home.kubeconfig.read_text()
    plane.stop()
    assert not any(plane.status()["parts"].values())
    assert not plane.status()["ready"]
    plane.start()
    path = f"/api/v1/namespaces/{namespace}/secrets/s"
    after = plane.client.request("GET", path, "secret")
    assert (after["metadata"]["uid"], after["data"]) == (before["metadata"]["uid"], before["data"])
    assert plane.home.kubeconfig.read_text() == kubeconfig


def test_an_existing_cluster_is_used_and_nothing_is_started(plane: Any, tmp_path: Path) -> None:
    home = Home.of(tmp_path / "home")
    environ = {control_plane.EXISTING: str(plane.home.kubeconfig)}
    control_plane.start(home, plane.tools, home.ports(), environ)
    status = control_plane.status(home)
    assert (status["ready"], status["existing"], status["server"]) == (True, True, plane.status()["server"])
    assert not any(status["parts"].values())
    assert stat.S_IMODE(home.kubeconfig.stat().st_mode) == 0o600
    control_plane.stop(home)
    assert plane.status()["ready"]


def test_an_adopted_kubeconfig_finds_its_files_from_anywhere(plane: Any, tmp_path: Path) -> None:
    pki = plane.home.kubernetes / "pki"
    for name in ("ca.crt", "admin.crt", "admin.key"):
        (tmp_path / name).write_bytes((pki / name).read_bytes())
    (tmp_path / "relative").write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [
                    {"name": "k", "cluster": {"server": plane.status()["server"], "certificate-authority": "ca.crt"}}
                ],
                "users": [{"name": "u", "user": {"client-certificate": "admin.crt", "client-key": "admin.key"}}],
            }
        )
    )
    home = Home.of(tmp_path / "home")
    control_plane.start(home, plane.tools, home.ports(), {control_plane.EXISTING: str(tmp_path / "relative")})
    assert Client(Access.load(home.kubeconfig)).request("GET", "/version", "version")["major"] == "1"


@pytest.mark.parametrize("content", [None, "current-context: c\ncontexts: []\n"])
def test_an_existing_cluster_that_cannot_be_used_is_told(plane: Any, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content:
        path.write_text(content)
    home = Home.of(tmp_path / "home")
    with pytest.raises(RingfenceError, match=f"{control_plane.EXISTING}={path}: "):
        control_plane.start(home, plane.tools, home.ports(), {control_plane.EXISTING: str(path)})
    assert not home.kubeconfig.exists()


def test_status_of_a_home_with_nothing_is_nothing(tmp_path: Path) -> None:
    status = control_plane.status(Home.of(tmp_path))
    assert status == {"parts": dict.fromkeys(PARTS), "ready": False, "server": "", "existing": False}


def test_free_ports_are_used(plane: Any) -> None:
    ports = [plane.home.kept_ports()[name] for name in ("etcd-client", "kube-apiserver", "kube-controller-manager")]
    assert len(set(ports)) == 3
    for port in ports:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
