"""The embedded target's services: the AWS server and the Kubernetes control plane."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from ringfence.errors import RingfenceError
from ringfence.local import control_plane, target
from ringfence.local.operator_key import operator_key
from ringfence.local.providers.base import ProviderError
from ringfence.local.providers.kubernetes_client import Access, Client
from ringfence.local.state import Home
from ringfence.local.supervise import Child
from ringfence.local.toolchain import Tools

AWS_SERVER = "aws"
# moto and its models take seconds to import on a cold disk.
AWS_READY_S = 60.0
ANSWER_S = 10.0
# Which child listens on which of the home's ports.
LISTENERS = {
    "aws": AWS_SERVER,
    "etcd-client": "etcd",
    "etcd-peer": "etcd",
    "kube-apiserver": "kube-apiserver",
    "kube-controller-manager": "kube-controller-manager",
}
Report = Callable[[str], None]


def _ask(home: Home, path: str, method: str = "GET") -> dict[str, Any]:
    """The AWS server's answer to one of its own paths. Raises OSError or ValueError."""
    url = target.endpoint(home.kept_ports()) + path
    headers = {"Authorization": f"Bearer {operator_key(home).secret_access_key}"}
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - a loopback address
    # Without the proxies of the caller's environment: they don't lead to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=ANSWER_S) as answer:
        return json.load(answer)


def aws_health(home: Home) -> dict[str, Any] | None:
    """The AWS server's account of itself, with `boot_id`; None when it doesn't answer."""
    try:
        return _ask(home, "/ringfence/health")
    except (OSError, ValueError):
        return None


def recorded(home: Home) -> list[dict[str, Any]]:
    """What the AWS server records without emulating it."""
    return list(_ask(home, "/ringfence/recorded")["recorded_not_emulated"])


def aws_left(home: Home) -> dict[str, dict[str, list[str]]]:
    """What is in the account beyond what AWS puts there: service → type → names."""
    return dict(_ask(home, "/ringfence/inventory")["left"])


def aws_reset(home: Home) -> None:
    """Empties the embedded account."""
    _ask(home, "/ringfence/reset", "POST")


def aws_server(home: Home, ports: Mapping[str, int], account: str) -> Child:
    """The AWS server's process."""
    arguments = ["--port", str(ports["aws"]), "--home", str(home.root), "--account", account]
    argv = [sys.executable, "-P", "-m", "ringfence.local.aws_server", *arguments]
    return Child(home, AWS_SERVER, argv, env=target.neutral(os.environ))


def start(home: Home, tools: Tools, account: str, report: Report) -> None:
    """Starts what doesn't run yet; returns when everything answers. Raises RingfenceError, with the end of the log."""
    ports = home.ports(lambda service, port: Child(home, LISTENERS[service], []).pid() is not None)
    server = aws_server(home, ports, account)
    if server.start(lambda: aws_health(home) is not None, AWS_READY_S):
        report(f"AWS server started on {target.endpoint(ports)}")
    before = control_plane.status(home)
    control_plane.start(home, tools, ports)
    if not before["ready"]:
        report(f"Kubernetes API server ready at {control_plane.status(home)['server']}")


def stop(home: Home, report: Report) -> None:
    """Stops everything that runs. What is on disk stays."""
    control_plane.stop(home)
    Child(home, AWS_SERVER, []).stop()
    report("services stopped")


def forget(home: Home, report: Report) -> None:
    """Stops everything, and forgets what it held: the account's resources and the cluster's objects."""
    stop(home, report)
    control_plane.forget(home)


def _kubernetes(home: Home) -> Client:
    return Client(Access.load(home.kubeconfig))


def incarnation(home: Home) -> dict[str, str]:
    """What identifies the memory of each service: it differs from last time when what was there has been lost."""
    health = aws_health(home)
    if health is None:
        raise RingfenceError(f"the AWS server does not answer\n    remedy: look at {home.logs / 'aws.log'}")
    try:
        system = _kubernetes(home).request("GET", "/api/v1/namespaces/kube-system", "namespace kube-system")
    except ProviderError as error:
        raise RingfenceError(str(error)) from None
    return {"aws": str(health["boot_id"]), "kubernetes": str(system["metadata"]["uid"])}


def kubernetes_left(home: Home) -> list[str]:
    """Kubernetes objects that Pulumi made and that are still there: namespaces, and objects outside of namespaces."""
    selector = "?labelSelector=app.kubernetes.io/managed-by%3Dpulumi"
    left = []
    for path, kind in (
        ("/api/v1/namespaces", "namespace"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", "clusterrole"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "clusterrolebinding"),
        ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", "validatingadmissionpolicy"),
        ("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", "validatingadmissionpolicybinding"),
        ("/apis/node.k8s.io/v1/runtimeclasses", "runtimeclass"),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "customresourcedefinition"),
    ):
        try:
            answer = _kubernetes(home).request("GET", path + selector, f"{kind}s")
        except ProviderError as error:
            raise RingfenceError(str(error)) from None
        left += [f"{kind}/{item['metadata']['name']}" for item in answer.get("items") or []]
    return left
