"""Who lives and what isn't finished, as Leases beside the control side: for runners in a cluster, on any number of nodes.

One Lease per runner, renewed while it lives (``runner-…``); one per invocation, held by its runner (``invocation-<id>``).

Trust zone: control side. Leases name ids and times; nothing secret.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ringfence.errors import RingfenceError
from ringfence.names import LABEL_DOMAIN, SYSTEM_NAMESPACE
from ringfence.runner.kubernetes_client import CallError, Cluster
from ringfence.runner.manifests import DEADLINE_ANNOTATION, INVOCATION_LABEL, WARM_LABEL
from ringfence.runner.ports import Entry

# As Kubernetes' own leader election: a holder that renewed nothing for this long is dead. Clocks of nodes differ by less.
LEASE_SECONDS, RENEW_SECONDS = 30, 5.0
ATTEMPTS, PAUSE_SECONDS = 6, 0.2
RUNNER_LABEL = f"{LABEL_DOMAIN}/runner"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _patiently(cluster: Cluster, what: str, method: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A call from a thread, made again while the server can't answer."""
    for attempt in range(ATTEMPTS):
        try:
            return cluster.once(what, method, *args, **kwargs)
        except CallError as error:
            if not error.passing or attempt == ATTEMPTS - 1:
                raise
        time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


class LeaseOwners:
    """`Owners` among everything that reaches the same cluster."""

    def __init__(self, cluster: Cluster):
        self.id = f"runner-{secrets.token_hex(8)}"
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Writes this runner's Lease and renews it from now on. Raises CallError when it can't be written."""
        create = self._cluster.coordination.create_namespaced_lease
        _patiently(self._cluster, "the runner's lease", create, SYSTEM_NAMESPACE, self._lease())
        self._thread = threading.Thread(target=self._renew, name="ringfence-heartbeat", daemon=True)
        self._thread.start()

    def alive(self, owner: str) -> bool:
        """Whether that runner has renewed its Lease lately. One without a Lease, or whose Lease can't be read, has not."""
        read = self._cluster.coordination.read_namespaced_lease
        if not owner:
            return False
        try:
            spec = _patiently(self._cluster, f"lease of {owner}", read, owner, SYSTEM_NAMESPACE)["spec"]
            renewed = datetime.fromisoformat(spec["renewTime"])
            return datetime.now(UTC) < renewed + timedelta(seconds=spec["leaseDurationSeconds"])
        except CallError as error:
            if error.status == 404:
                return False
            raise
        except (KeyError, TypeError, ValueError):
            return False

    def close(self) -> None:
        """Ends the heartbeat and takes the Lease away, so that whatever is left is anybody's to reap at once."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join()
        delete = self._cluster.coordination.delete_namespaced_lease
        with contextlib.suppress(CallError):
            self._cluster.once("the runner's lease", delete, self.id, SYSTEM_NAMESPACE)

    def _lease(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.id, "namespace": SYSTEM_NAMESPACE, "labels": {RUNNER_LABEL: "true"}},
            "spec": {"holderIdentity": self.id, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": _now()},
        }

    def _renew(self) -> None:
        api = self._cluster.coordination
        while not self._stop.wait(RENEW_SECONDS):
            # A renewal that fails is made again in time; when none succeeds, others rightly take this runner for dead.
            # One whose Lease was taken away stays dead: it is not made again.
            with contextlib.suppress(CallError):
                lease = self._cluster.once("the runner's lease", api.read_namespaced_lease, self.id, SYSTEM_NAMESPACE)
                lease["spec"]["renewTime"] = _now()
                replace = api.replace_namespaced_lease
                self._cluster.once("the runner's lease", replace, self.id, SYSTEM_NAMESPACE, lease)

    def forget_dead(self) -> None:
        """Takes away Leases that expired long ago."""
        coordination = self._cluster.coordination
        listing = coordination.list_namespaced_lease
        found = _patiently(self._cluster, "leases", listing, SYSTEM_NAMESPACE, label_selector=RUNNER_LABEL)
        for item in found["items"]:
            name = item["metadata"]["name"]
            if not self.alive(name):
                with contextlib.suppress(CallError):
                    self._cluster.once(f"lease of {name}", coordination.delete_namespaced_lease, name, SYSTEM_NAMESPACE)


class LeaseJournal:
    """`Journal` that every runner and reaper of the cluster shares."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._api = cluster.coordination

    def begin(self, entry: Entry) -> None:
        """See `Journal.begin`. Raises CallError when it can't be written."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": _name(entry.invocation_id),
                "namespace": SYSTEM_NAMESPACE,
                "labels": {INVOCATION_LABEL: entry.invocation_id, WARM_LABEL: str(entry.warm).lower()},
                "annotations": {DEADLINE_ANNOTATION: entry.deadline.isoformat()},
            },
            "spec": {"holderIdentity": entry.owner, "acquireTime": _now()},
        }
        _patiently(self._cluster, "the journal", self._api.create_namespaced_lease, SYSTEM_NAMESPACE, lease)

    def bind(self, invocation_id: str, deadline: datetime) -> None:
        """See `Journal.bind`. The object's version is sent along, so that of two that bind it one is refused."""
        name = _name(invocation_id)
        found = _patiently(self._cluster, "the journal", self._api.read_namespaced_lease, name, SYSTEM_NAMESPACE)
        if found["metadata"]["labels"].get(WARM_LABEL) != "true":
            raise RingfenceError(f"invocation {invocation_id} is not waiting for a task")
        found["metadata"]["labels"][WARM_LABEL] = "false"
        found["metadata"]["annotations"][DEADLINE_ANNOTATION] = deadline.isoformat()
        self._cluster.once("the journal", self._api.replace_namespaced_lease, name, SYSTEM_NAMESPACE, found)

    def end(self, invocation_id: str) -> None:
        """See `Journal.end`."""
        try:
            delete = self._api.delete_namespaced_lease
            _patiently(self._cluster, "the journal", delete, _name(invocation_id), SYSTEM_NAMESPACE)
        except CallError as error:
            if error.status != 404:
                raise

    def entries(self) -> list[Entry]:
        """See `Journal.entries`."""
        listing = self._api.list_namespaced_lease
        found = _patiently(self._cluster, "the journal", listing, SYSTEM_NAMESPACE, label_selector=INVOCATION_LABEL)
        return [_entry(item) for item in found["items"]]


def _name(invocation_id: str) -> str:
    return f"invocation-{invocation_id}"


def _entry(item: Mapping[str, Any]) -> Entry:
    """One whose deadline can't be read has long passed it."""
    metadata = item["metadata"]
    deadline = datetime.min.replace(tzinfo=UTC)
    with contextlib.suppress(KeyError, ValueError):
        read = datetime.fromisoformat(metadata["annotations"][DEADLINE_ANNOTATION])
        deadline = read if read.tzinfo else deadline
    labels = metadata["labels"]
    owner = item.get("spec", {}).get("holderIdentity", "")
    return Entry(labels[INVOCATION_LABEL], owner, deadline, labels.get(WARM_LABEL) == "true")
