"""A real Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager.

Everything listens on 127.0.0.1 with TLS, and nobody is let in without a certificate of this home's own authority (etcd has
one of its own, so that no cluster credential reaches it). Anonymous requests are refused, RBAC decides, Secrets are
encrypted at rest, and every request is in the audit log.

There are no nodes, so no pod ever runs and no Deployment becomes ready: what is real is the API, its admission control
(Pod Security, ValidatingAdmissionPolicy, RuntimeClass, ResourceQuota, LimitRanger, ServiceAccount) and its controllers
(namespaces, garbage collection, quota, service accounts, workloads).

Files below `Home.kubernetes`: pki/, etcd/ (data), config/ (rendered configuration), audit/ (the audit log). An existing
cluster can be used instead: RINGFENCE_KUBECONFIG names its kubeconfig, and nothing is started.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from ringfence.errors import RingfenceError
from ringfence.local.pki import Authority, Pair, private_folder, signing_key
from ringfence.local.providers.base import ProviderError
from ringfence.local.providers.kubernetes_client import Access, Client
from ringfence.local.state import Home, write_atomic
from ringfence.local.supervise import Child

# Names an existing cluster's kubeconfig, which is used instead of an embedded control plane.
EXISTING = "RINGFENCE_KUBECONFIG"
# Seconds for each part to become ready: 3.6 s were measured for etcd and the API server together on two busy cores.
READY_TIMEOUT = 120.0
# The range for Services that components/cluster.py asks EKS for, so that addresses which the program chooses hold on both.
# Its first address is the API server's own Service.
SERVICE_RANGE = "172.20.0.0/16"
SERVICE_ADDRESS = "172.20.0.1"
ISSUER = "https://kubernetes.default.svc"
# Plugins of kube-apiserver that the project relies on. Most are on by default; named here, so that a changed default shows.
ADMISSION_PLUGINS = (
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "NamespaceLifecycle",
    "NodeRestriction",
    "PodSecurity",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
)
# Controllers that matter without nodes. Names as in `kube-controller-manager --help`.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    # Takes the finalizer off claims that no pod uses; without it a namespace with one is never gone.
    "persistentvolumeclaim-protection-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
)
# What happened to whom, without the content of requests: Secrets would be in it.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/readyz*", "/livez*", "/healthz*"]},
        {"level": "None", "verbs": ["get", "list", "watch"], "users": ["system:apiserver"]},
        {"level": "Metadata"},
    ],
}


class Binaries(Protocol):
    """Where the programs are; `toolchain.Tools` is one."""

    def path(self, name: str) -> Path: ...


def existing_kubeconfig(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The kubeconfig of a cluster to use instead, if one is named."""
    return Path(environ[EXISTING]).expanduser().absolute() if environ.get(EXISTING) else None


def start(home: Home, tools: Binaries, ports: Mapping[str, int], environ: Mapping[str, str] = os.environ) -> None:
    """Start what doesn't run yet, and return when the API server answers and its controllers work.

    Writes `home.kubeconfig` (mode 0600). Raises RingfenceError when a part doesn't become ready.
    """
    existing = existing_kubeconfig(environ)
    if existing is not None:
        _adopt(home, existing)
        return
    files = _Files(private_folder(home.kubernetes))
    files.write()
    write_atomic(home.kubeconfig, files.kubeconfig(ports["kube-apiserver"], "admin"), mode=0o600)
    for name in ("etcd", "kube-apiserver", "kube-controller-manager"):
        arguments = _ARGUMENTS[name](files, ports)
        child = Child(home, name, [str(tools.path(name)), *arguments], env={"PATH": os.defpath, "HOME": str(home.root)})
        child.start(lambda part=name: _part_ready(home, files, ports, part), READY_TIMEOUT)


def stop(home: Home) -> None:
    """Stop what runs, the controllers first, etcd last. The data stay. A cluster that was only used is left alone."""
    for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
        Child(home, name, []).stop()


def forget(home: Home) -> None:
    """Remove the embedded cluster's objects; call it when nothing runs. Keys and certificates stay."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(_Files(home.kubernetes).data)


def status(home: Home) -> dict[str, Any]:
    """``parts`` (name → process id or None), ``ready`` (the API server answers), ``server`` (address), ``existing``
    (whether it is somebody else's cluster)."""
    parts = {name: Child(home, name, []).pid() for name in _ARGUMENTS}
    server, ready = "", False
    if home.kubeconfig.exists():
        try:
            access = Access.load(home.kubeconfig)
            server = access.server
            ready = _answers(Client(access, attempts=1), "/readyz")
        except ProviderError:
            ready = False
    existing = bool(server) and not (home.kubernetes / "pki").exists()
    return {"parts": parts, "ready": ready, "server": server, "existing": existing}


def _adopt(home: Home, existing: Path) -> None:
    """Makes `existing` the home's kubeconfig; relative paths in it become absolute."""
    try:
        client = Client(Access.load(existing))
        client.request("GET", "/version", f"the cluster of {existing}")
        config = yaml.safe_load(existing.read_text(encoding="utf-8"))
    except ProviderError as error:
        raise RingfenceError(f"{EXISTING}={existing}: {error}") from None
    for section, key in (("clusters", "cluster"), ("users", "user")):
        for entry in config.get(section) or []:
            for name in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
                if entry.get(key, {}).get(name):
                    entry[key][name] = str(existing.parent / entry[key][name])
    write_atomic(home.kubeconfig, yaml.safe_dump(config), mode=0o600)


def _answers(client: Client, path: str) -> bool:
    """Whether the server answers `path` with success."""
    try:
        client.request("GET", path, path)
    except ProviderError:
        return False
    return True


def _part_ready(home: Home, files: _Files, ports: Mapping[str, int], name: str) -> bool:
    if name == "etcd":
        return _answers(files.client(ports["etcd-client"], "etcd-ca", "etcd-client"), "/health")
    api_server = Client(Access.load(home.kubeconfig), attempts=1)
    if name == "kube-apiserver":
        return _answers(api_server, "/readyz")
    # Pods are admitted once their namespace has its service account, which a controller makes.
    accounts = "/api/v1/namespaces/default/serviceaccounts/default"
    return _answers(files.client(ports[name], "ca", "admin"), "/healthz") and _answers(api_server, accounts)


class _Files:
    """What the three programs read and keep."""

    def __init__(self, root: Path):
        self.root = root
        self.pki = root / "pki"
        self.config = root / "config"
        self.audit = root / "audit"
        self.data = root / "etcd"

    def write(self) -> None:
        for folder in (self.pki, self.config, self.audit, self.data):
            private_folder(folder)
        authority, store = Authority(self.pki, "ca"), Authority(self.pki, "etcd-ca")
        store.server("etcd")
        store.client("etcd-client", "kube-apiserver")
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        authority.server("kube-apiserver", names, (SERVICE_ADDRESS,))
        authority.server("kube-controller-manager-serving")
        # The administrator of this machine's own throw-away cluster.
        authority.client("admin", "ringfence-admin", "system:masters")
        authority.client("kube-controller-manager", "system:kube-controller-manager")
        signing_key(self.pki, "service-account")
        write_atomic(self.config / "audit.yaml", yaml.safe_dump(AUDIT_POLICY))
        encryption = self.config / "encryption.yaml"
        if not encryption.exists():
            write_atomic(encryption, yaml.safe_dump(_encryption(secrets.token_bytes(32))))

    def pair(self, name: str) -> Pair:
        return Pair.at(self.pki, name)

    def client(self, port: int, authority: str, user: str) -> Client:
        """A client of one of the parts, which tries once."""
        return Client(Access.load(yaml.safe_load(self.kubeconfig(port, user, authority))), attempts=1)

    def kubeconfig(self, port: int, user: str, authority: str = "ca") -> str:
        """A kubeconfig with everything inline, so that it can be copied."""
        pair = self.pair(user)

        def inline(path: Path) -> str:
            return base64.b64encode(path.read_bytes()).decode()

        cluster = {
            "server": f"https://127.0.0.1:{port}",
            "certificate-authority-data": inline(self.pair(authority).certificate),
        }
        credential = {"client-certificate-data": inline(pair.certificate), "client-key-data": inline(pair.key)}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "ringfence",
                "clusters": [{"name": "ringfence", "cluster": cluster}],
                "users": [{"name": user, "user": credential}],
                "contexts": [{"name": "ringfence", "context": {"cluster": "ringfence", "user": user}}],
            }
        )


def _encryption(key: bytes) -> dict[str, Any]:
    """EncryptionConfiguration: Secrets with XSalsa20-Poly1305 under a key of this home; what is older is still read."""
    provider = {"secretbox": {"keys": [{"name": "home", "secret": base64.b64encode(key).decode()}]}}
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [provider, {"identity": {}}]}],
    }


def _etcd(files: _Files, ports: Mapping[str, int]) -> list[str]:
    client, peer = (f"https://127.0.0.1:{ports[name]}" for name in ("etcd-client", "etcd-peer"))
    server, authority = files.pair("etcd"), files.pair("etcd-ca").certificate
    return [
        "--name=ringfence",
        f"--data-dir={files.data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=ringfence={peer}",
        f"--cert-file={server.certificate}",
        f"--key-file={server.key}",
        "--client-cert-auth=true",
        f"--trusted-ca-file={authority}",
        f"--peer-cert-file={server.certificate}",
        f"--peer-key-file={server.key}",
        "--peer-client-cert-auth=true",
        f"--peer-trusted-ca-file={authority}",
        "--tls-min-version=TLS1.2",
        # The JSON gateway calls etcd with the server's certificate, which is none of a client; nobody uses it here.
        "--enable-grpc-gateway=false",
        # One machine's throw-away store: keep an hour of history.
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        "--log-level=warn",
    ]


def _api_server(files: _Files, ports: Mapping[str, int]) -> list[str]:
    serving, store, tokens = files.pair("kube-apiserver"), files.pair("etcd-client"), files.pki / "service-account"
    return [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={ports['kube-apiserver']}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        "--tls-min-version=VersionTLS12",
        f"--etcd-servers=https://127.0.0.1:{ports['etcd-client']}",
        f"--etcd-cafile={files.pair('etcd-ca').certificate}",
        f"--etcd-certfile={store.certificate}",
        f"--etcd-keyfile={store.key}",
        f"--client-ca-file={files.pair('ca').certificate}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        f"--enable-admission-plugins={','.join(ADMISSION_PLUGINS)}",
        # As on EKS: admission policies decide on privileged pods, not the server's own switch.
        "--allow-privileged=true",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={tokens.with_suffix('.pub')}",
        f"--service-account-signing-key-file={tokens.with_suffix('.key')}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        # A loopback address can't be an endpoint, and no pod would reach it.
        "--endpoint-reconciler-type=none",
        f"--encryption-provider-config={files.config / 'encryption.yaml'}",
        f"--audit-policy-file={files.config / 'audit.yaml'}",
        f"--audit-log-path={files.audit / 'audit.log'}",
        "--audit-log-maxsize=50",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    ]


def _controller_manager(files: _Files, ports: Mapping[str, int]) -> list[str]:
    config = files.config / "kube-controller-manager.kubeconfig"
    write_atomic(config, files.kubeconfig(ports["kube-apiserver"], "kube-controller-manager"))
    serving = files.pair("kube-controller-manager-serving")
    return [
        f"--kubeconfig={config}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports['kube-controller-manager']}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={files.pair('ca').certificate}",
        f"--controllers={','.join(CONTROLLERS)}",
        # Each controller acts as its own service account, so that RBAC and the audit log tell them apart.
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={files.pki / 'service-account.key'}",
        f"--root-ca-file={files.pair('ca').certificate}",
        # The default of 20 requests a second would make the deletion of a whole environment wait.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        # There is one, and nobody to hand over to.
        "--leader-elect=false",
        "--profiling=false",
    ]


_ARGUMENTS = {"etcd": _etcd, "kube-apiserver": _api_server, "kube-controller-manager": _controller_manager}
