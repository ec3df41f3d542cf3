"""Plays the node of a cluster that has none: reads pods and their Secrets, runs a function as the container, and writes
pod status as a kubelet does. Everything else in these tests is the real thing."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from ringfence.runner.manifests import INVOCATION_LABEL

IMAGE_ID = f"sha256:{'a' * 64}"


@dataclass
class Container:
    """What a process in the pod would see. stopped: set when the pod is deleted or over its deadline."""

    namespace: str
    environment: dict[str, str]
    files: dict[str, bytes]
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def invocation(self) -> str:
        return self.environment["RINGFENCE_INVOCATION_ID"]

    def gateway(self, method: str, path: str, body: Any = None, timeout: float = 70.0) -> httpx.Response:
        """A request to the model gateway, as the sandbox makes it."""
        url = f"{self.environment['RINGFENCE_GATEWAY_URL']}{path}"
        headers = {"Authorization": f"Bearer {self.environment['CREDENTIALS_TOKEN']}"}
        return httpx.request(method, url, json=body, headers=headers, timeout=timeout)

    def answer(self, output: str, status: str = "succeeded", error: str = "") -> int:
        """Posts the result. Returns the exit code."""
        posted = self.gateway("POST", "/v1/result", {"output": output, "status": status, "error": error})
        return 0 if posted.is_success else 1


Run = Callable[[Container], int]


def succeed(container: Container) -> int:
    """A container that answers with its prompt."""
    return container.answer(f"done: {container.environment['TASK_PROMPT']}")


def linger(container: Container) -> int:
    """A container that never ends by itself."""
    container.stopped.wait(600)
    return 137


class Kubelet:
    """Runs `run` for every sandbox pod, with an administrator's client, until it is stopped."""

    def __init__(self, configuration: client.Configuration, run: Run = succeed):
        self.run = run
        self.core = client.CoreV1Api(client.ApiClient(configuration))
        self.containers: dict[str, Container] = {}
        self.started: list[str] = []
        self._pool = ThreadPoolExecutor(256, "kubelet")
        self._timers: dict[str, threading.Timer] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Kubelet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for container in list(self.containers.values()):
            container.stopped.set()
        for timer in list(self._timers.values()):
            timer.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _follow(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(Exception):
                listed = json.loads(self._list().data)
                for pod in listed["items"]:
                    self._seen("ADDED", pod)
                version = listed["metadata"]["resourceVersion"]
                answer = self._list(resource_version=version, watch=True, timeout_seconds=20)
                rest = b""
                for chunk in answer.stream(amt=65536):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(None, lines):
                        event = json.loads(line)
                        self._seen(event["type"], event["object"])
                    if self._end.is_set():
                        return

    def _list(self, **options: Any) -> Any:
        return self.core.list_pod_for_all_namespaces(
            label_selector=INVOCATION_LABEL, _preload_content=False, _request_timeout=(5, 30), **options
        )

    def _seen(self, kind: str, pod: dict[str, Any]) -> None:
        key = pod["metadata"]["uid"]
        if kind == "DELETED":
            if timer := self._timers.pop(key, None):
                timer.cancel()
            if container := self.containers.get(key):
                container.stopped.set()
            return
        if pod["status"].get("phase") not in ("Pending", "Running"):
            return
        if pod["status"].get("startTime"):
            self._arm(key, pod)
        with self._lock:
            if key in self.containers:
                return
            self.containers[key] = Container(pod["metadata"]["namespace"], {}, {})
        self._pool.submit(self._life, key, pod)

    def _arm(self, key: str, pod: dict[str, Any]) -> None:
        """Keeps `activeDeadlineSeconds` as it is now."""
        began = datetime.fromisoformat(pod["status"]["startTime"])
        left = pod["spec"]["activeDeadlineSeconds"] - (datetime.now(UTC) - began).total_seconds()
        timer = threading.Timer(max(0.0, left), self._overdue, (key, pod["metadata"]["namespace"]))
        timer.daemon = True
        if old := self._timers.get(key):
            old.cancel()
        self._timers[key] = timer
        timer.start()

    def _overdue(self, key: str, namespace: str) -> None:
        self._status(namespace, {"phase": "Failed", "reason": "DeadlineExceeded"})
        self.containers[key].stopped.set()

    def _life(self, key: str, pod: dict[str, Any]) -> None:
        container = self.containers[key]
        spec = pod["spec"]["containers"][0]
        try:
            name = spec["env"][0]["valueFrom"]["secretKeyRef"]["name"]
            secret = self.core.read_namespaced_secret(name, container.namespace)
        except ApiException:
            return
        data = {item: base64.b64decode(value) for item, value in secret.data.items()}
        for variable in spec["env"]:
            container.environment[variable["name"]] = data[variable["valueFrom"]["secretKeyRef"]["key"]].decode()
        for volume in pod["spec"]["volumes"]:
            for item in volume.get("secret", {}).get("items", []):
                container.files[item["path"]] = data[item["key"]]
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        running = {"phase": "Running", "startTime": now, **_container(spec, {"running": {"startedAt": now}})}
        if not self._status(container.namespace, running):
            return
        self.started.append(container.namespace)
        code = self.run(container)
        state = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}
        self._status(container.namespace, {"phase": "Failed" if code else "Succeeded", **_container(spec, state)})

    def _status(self, namespace: str, status: dict[str, Any]) -> bool:
        """Writes the status; False when the pod is gone."""
        try:
            self.core.patch_namespaced_pod_status("agent", namespace, {"status": status}, _preload_content=False)
        except ApiException:
            return False
        return True


def _container(spec: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    ready = "running" in state
    status = {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": IMAGE_ID,
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }
    return {"containerStatuses": [status]}
