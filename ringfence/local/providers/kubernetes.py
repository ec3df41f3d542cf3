"""The `kubernetes:` types on the embedded target: every kind that the API server has, by server-side apply.

Differences from the official plugin, all on the side of the embedded control plane, which has no nodes:

* nothing waits for readiness (as with the annotation ``pulumi.com/skipAwait``), except that a CustomResourceDefinition
  is waited for until its API is served, and a deletion until the object is gone;
* the program wins over other field managers (``force``), so that ``up`` after a refresh undoes drift; and a refresh also
  shows fields that others added, not only declared ones that they changed;
* charts, releases, directories and YAML files (``helm.sh``, ``kustomize``, ``yaml``) are not supported.

An object without ``metadata.name`` gets ``<resource name>-<8 hexadecimal digits>``, as with the official plugin. A run that
is killed between such a creation and the state's next write leaves that object behind: give names where that matters.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from ringfence.local.providers.base import (
    UNKNOWN,
    CheckFailure,
    DiffResult,
    PartialCreate,
    ProviderError,
    ReadResult,
    contains_unknown,
    serve,
)
from ringfence.local.providers.kubernetes_client import (
    APPLY,
    ATTEMPTS,
    JSON_PATCH,
    Access,
    ApiError,
    Client,
    Kind,
    Unreachable,
)
from ringfence.local.providers.kubernetes_objects import (
    as_declared,
    foreign_steps,
    group_of,
    kind_of_token,
    may_own,
    named_by_server,
    removal_patch,
    replacing,
    undeclared,
    with_undeclared,
    without_nulls,
)
from ringfence.local.providers.paths import changed_paths, format_path

# pulumi-kubernetes's version in requirements.lock, whose types these are.
VERSION = "4.34.2"
FIELD_MANAGER = "pulumi-kubernetes"
PATCH_MANAGER_PREFIX = "pulumi-patch-"
AUTONAMED = "pulumi.com/autonamed"
PATCH_FORCE = "pulumi.com/patchForce"
TIMEOUT = "pulumi.com/timeoutSeconds"
PROPAGATION = "pulumi.com/deletionPropagationPolicy"
# Seconds until a deletion, or a definition's API, is given up (official plugin: 10 minutes for most kinds).
DELETE_TIMEOUT = 300.0
DEFINITION_TIMEOUT = 30.0
# Only the server knows these before creation.
_SERVER_METADATA = ("creationTimestamp", "generation", "resourceVersion", "uid")
_UNSUPPORTED = ("kubernetes:helm.sh/", "kubernetes:kustomize", "kubernetes:yaml")
# What the API server says of a field that can't be changed (k8s.io/apimachinery validation, and the kinds' own).
_IMMUTABLE_TEXTS = ("immutable", "forbidden: updates to", "may not be changed", "cannot be changed", "may not change")


@dataclass(frozen=True)
class Target:
    """One object: where it is, and who applies it."""

    kind: Kind
    name: str
    namespace: str
    manager: str
    is_patch: bool
    force: bool

    @property
    def path(self) -> str:
        return self.kind.path(self.name, self.namespace)

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}" if self.kind.namespaced else self.name

    def __str__(self) -> str:
        return f"{self.kind.name} {self.id}"


def is_patch(type_: str) -> bool:
    """Whether the type adds fields to an object that somebody else owns (``…Patch``)."""
    return type_.endswith("Patch") and not type_.endswith(":Patch")


def automatic_name(urn: str, seed: bytes) -> str:
    """``<resource name>-<8 hexadecimal digits>``; without a seed, random."""
    return f"{urn.rsplit('::', 1)[-1].lower()}-{(seed or os.urandom(4))[:4].hex():0<8}"


def live_outputs(live: dict[str, Any]) -> dict[str, Any]:
    """The live object without the bookkeeping of field managers."""
    metadata = {key: value for key, value in live["metadata"].items() if key != "managedFields"}
    return live | {"metadata": metadata}


def _secret_in_plain(live: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    """The live Secret with `stringData` where the declaration uses it; the server only ever shows `data`."""
    if live.get("kind") != "Secret" or not isinstance(declared.get("stringData"), dict):
        return live
    data = live.get("data") or {}
    plain = {key: base64.b64decode(data[key]).decode(errors="replace") for key in declared["stringData"] if key in data}
    return live | {"stringData": plain}


@dataclass
class KubernetesBackend:
    """See the module."""

    settings: dict[str, Any] = field(default_factory=dict)
    _client: Client | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    @property
    def client(self) -> Client:
        if self._client is None:
            raise ProviderError("the kubernetes provider was used before it was configured")
        return self._client

    def configure(self, args: dict[str, Any]) -> None:
        source = args.get("kubeconfig") or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or "~/.kube/config"
        self._client = Client(Access.load(source, args.get("context") or ""))
        self.settings = args

    def cancel(self) -> None:
        self._stop.set()

    def secret_outputs(self, type_: str) -> frozenset[str]:
        return frozenset({"data", "stringData"} if kind_of_token(type_) == ("v1", "Secret") else ())

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        raise ProviderError(f"the function {token} is not supported on the embedded target")

    def check(
        self, type_: str, urn: str, olds: dict[str, Any], news: dict[str, Any], random_seed: bytes
    ) -> tuple[dict[str, Any], list[CheckFailure]]:
        if type_.startswith(_UNSUPPORTED):
            return news, [CheckFailure("", f"{type_} is not supported on the embedded target: declare its objects")]
        inputs = without_nulls(news)
        api_version, kind = kind_of_token(type_)
        inputs = {"apiVersion": api_version, "kind": kind} | inputs
        metadata = inputs.get("metadata", {})
        if not isinstance(metadata, dict):
            return inputs, [] if metadata is UNKNOWN else [CheckFailure("metadata", f"{metadata!r} is no object")]
        if metadata.get("generateName"):
            remedy = "leave it out: a name is made from the resource's name"
            return inputs, [CheckFailure("metadata.generateName", f"server-side apply needs the whole name; {remedy}")]
        inputs["metadata"] = metadata = dict(metadata)
        if "name" not in metadata:
            if is_patch(type_):
                reason = "a patch needs the name of the object that it adds to"
                return inputs, [CheckFailure("metadata.name", reason)]
            self._name(metadata, urn, olds.get("metadata") or {}, random_seed)
        found = self._known_kind(inputs)
        if found is not None and found.namespaced and "namespace" not in metadata:
            metadata["namespace"] = self.settings.get("namespace") or self.client.access.namespace
        return inputs, []

    @staticmethod
    def _name(metadata: dict[str, Any], urn: str, olds: dict[str, Any], seed: bytes) -> None:
        old_annotations = olds.get("annotations") if isinstance(olds, dict) else None
        kept = isinstance(old_annotations, dict) and old_annotations.get(AUTONAMED) == "true"
        metadata["name"] = olds["name"] if kept else automatic_name(urn, seed)
        annotations = metadata.get("annotations")
        if annotations is not UNKNOWN:
            metadata["annotations"] = {**(annotations or {}), AUTONAMED: "true"}

    def _known_kind(self, inputs: dict[str, Any]) -> Kind | None:
        """The kind, or None when it isn't served yet, isn't known yet, or no server answers."""
        api_version, kind = inputs["apiVersion"], inputs["kind"]
        if api_version is UNKNOWN or kind is UNKNOWN:
            return None
        try:
            return self.client.kind(api_version, kind)
        except Unreachable:
            return None

    def _target(self, type_: str, urn: str, inputs: dict[str, Any], id_: str = "") -> Target:
        """Raises ProviderError when the server has no such kind."""
        api_version, kind_name = inputs.get("apiVersion"), inputs.get("kind")
        if not api_version:
            api_version, kind_name = kind_of_token(type_)
        kind = self.client.kind(api_version, kind_name)
        if kind is None:
            raise ProviderError(
                f"the API server has no kind {kind_name} in {api_version}: make the CustomResourceDefinition first and "
                "let this resource depend on it, or correct apiVersion and kind"
            )
        metadata = inputs.get("metadata") or {}
        namespace, _, name = id_.rpartition("/")
        name = metadata.get("name") or name
        namespace = metadata.get("namespace") or namespace or self.client.access.namespace
        patch = is_patch(type_)
        digest = hashlib.sha256(urn.encode()).hexdigest()[:12]
        manager = f"{PATCH_MANAGER_PREFIX}{digest}" if patch else FIELD_MANAGER
        force = not patch or (metadata.get("annotations") or {}).get(PATCH_FORCE) == "true"
        return Target(kind, name, namespace, manager, patch, force)

    def _get(self, target: Target) -> dict[str, Any] | None:
        try:
            return self.client.request("GET", target.path, str(target))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def _apply(self, target: Target, inputs: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        query = {"fieldManager": target.manager, "fieldValidation": "Strict", "force": str(target.force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        body = {key: value for key, value in inputs.items() if key != "status"}
        return self.client.request("PATCH", target.path, str(target), body=body, content_type=APPLY, **query)

    def diff(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
    ) -> DiffResult:
        changed = changed_paths(old_inputs, news)
        old_version, new_version = old_inputs.get("apiVersion"), news.get("apiVersion")
        same_group = isinstance(new_version, str) and group_of(old_version or "") == group_of(new_version)
        if not changed:
            return DiffResult()
        mutable = bool(self.settings.get(f"enable{news.get('kind')}Mutable"))
        replaces = replacing(old_version or "", old_inputs.get("kind") or "", old_inputs, changed, mutable)
        if ("apiVersion",) in changed and not same_group:
            replaces.append(("apiVersion",))
        if not replaces and not contains_unknown(news):
            replaces = self._refused_in_place(type_, urn, news, changed)
        old, new = (values.get("metadata") or {} for values in (old_inputs, news))
        same_place = all(old.get(key) == new.get(key) for key in ("name", "namespace"))
        return DiffResult(
            tuple(format_path(path) for path in changed),
            tuple(format_path(path) for path in replaces),
            # An automatic name differs in the replacement, which Check names anew.
            delete_before_replace=bool(replaces)
            and same_place
            and (old.get("annotations") or {}).get(AUTONAMED) != "true",
        )

    def _refused_in_place(self, type_: str, urn: str, news: dict[str, Any], changed: list[Any]) -> list[Any]:
        """The changed fields that the server, asked by a dry run, calls immutable."""
        try:
            self._apply(self._target(type_, urn, news), news, dry_run=True)
        except ApiError as error:
            if error.code == 422 and any(text in error.message.lower() for text in _IMMUTABLE_TEXTS):
                return named_by_server(error.fields, changed)
        except ProviderError:
            # Update will say what is wrong; a comparison doesn't fail for it.
            return []
        return []

    def create(self, type_: str, urn: str, inputs: dict[str, Any], preview: bool) -> tuple[str, dict[str, Any]]:
        if preview:
            return "", self._previewed(type_, urn, inputs)
        target = self._target(type_, urn, inputs)
        if target.is_patch and self._get(target) is None:
            raise ProviderError(f"{target} doesn't exist: a patch adds to an object that is there")
        live = self._apply(target, inputs, dry_run=False)
        if target.kind.name == "CustomResourceDefinition":
            live = self._established(target, live)
        return target.id, live_outputs(live)

    def _previewed(self, type_: str, urn: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs with what only the server knows as unknown, after the server had its say by a dry run.

        What an earlier resource of the same run will make (namespace, definition, runtime class, role) is missing now,
        so that 403 and 404 tell nothing; and a preview works without a control plane.
        """
        known = self._known_kind(inputs)
        if known is not None and not contains_unknown(inputs):
            try:
                self._apply(self._target(type_, urn, inputs), inputs, dry_run=True)
            except ApiError as error:
                if error.code not in (403, 404):
                    raise
            except Unreachable:
                pass
        outputs = inputs | {"status": UNKNOWN}
        if isinstance(inputs.get("metadata"), dict):
            outputs["metadata"] = dict.fromkeys(_SERVER_METADATA, UNKNOWN) | inputs["metadata"]
        if inputs.get("kind") == "Service" and isinstance(inputs.get("spec"), dict):
            outputs["spec"] = {"clusterIP": UNKNOWN, "clusterIPs": UNKNOWN} | inputs["spec"]
        return outputs

    def _established(self, target: Target, live: dict[str, Any]) -> dict[str, Any]:
        """Waits until the API of a CustomResourceDefinition is served, so that its objects can be created next."""
        end = time.monotonic() + DEFINITION_TIMEOUT
        while True:
            conditions = (live.get("status") or {}).get("conditions") or []
            if any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
                return live
            if time.monotonic() > end or self._stop.wait(0.05):
                told = "; ".join(one.get("message", "") for one in conditions if one["status"] != "True")
                message = f"{target}: its API is not served after {DEFINITION_TIMEOUT:.0f} s: {told or 'no condition'}"
                raise PartialCreate(target.id, live_outputs(live), message)
            live = self._get(target) or live

    def read(
        self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> ReadResult | None:
        try:
            target = self._target(type_, urn, inputs or outputs, id_)
        except ProviderError as error:
            if isinstance(error, ApiError | Unreachable):
                raise
            return None  # no such kind, so no such object
        live = self._get(target)
        if live is None:
            return None
        if not inputs:
            return ReadResult(target.id, self._imported(live), live_outputs(live))
        return ReadResult(target.id, self._drifted(target, inputs, outputs, live), live_outputs(live))

    @staticmethod
    def _imported(live: dict[str, Any]) -> dict[str, Any]:
        kept = ("name", "namespace", "labels", "annotations")
        metadata = {key: live["metadata"][key] for key in kept if live["metadata"].get(key)}
        return {key: value for key, value in live.items() if key != "status"} | {"metadata": metadata}

    def _drifted(
        self, target: Target, inputs: dict[str, Any], outputs: dict[str, Any], live: dict[str, Any]
    ) -> dict[str, Any]:
        """The inputs as they stand in the live object, with what others changed or added."""
        written = (outputs.get("metadata") or {}).get("resourceVersion")
        if written and written == live["metadata"].get("resourceVersion"):
            drifted, live_view = inputs, live  # nothing was written since
        else:
            try:
                wanted = self._apply(target, inputs, dry_run=True)
            except ApiError:
                # What is declared can't be applied to what lives (an immutable field differs): compare literally.
                wanted = inputs
            live_view = _secret_in_plain(live, inputs)
            drifted = as_declared(inputs, live_view, _secret_in_plain(wanted, inputs))
        if target.is_patch:
            return drifted
        return with_undeclared(drifted, live_view, undeclared(inputs, live_view, self._foreign(target, live)))

    @staticmethod
    def _foreign(target: Target, live: dict[str, Any]) -> list[Any]:
        return foreign_steps(live["metadata"].get("managedFields") or [], target.manager, PATCH_MANAGER_PREFIX)

    def update(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
        preview: bool,
    ) -> dict[str, Any]:
        if preview:
            return old_outputs | self._previewed(type_, urn, news)
        target = self._target(type_, urn, news, id_)
        live = self._apply(target, news, dry_run=False)
        if not target.is_patch:
            live = self._without_shown_drift(target, old_inputs, news, live)
        return live_outputs(live)

    def _without_shown_drift(
        self, target: Target, old_inputs: dict[str, Any], news: dict[str, Any], live: dict[str, Any]
    ) -> dict[str, Any]:
        """Takes out what others added and a refresh has shown; applying alone leaves what it doesn't own.

        What nobody was shown stays: it appears at the next refresh.
        """
        for _ in range(ATTEMPTS):
            steps = self._foreign(target, live)
            before = {path for _, path in undeclared(old_inputs, live, steps)}
            shown = {path for _, path in undeclared(news, live, steps)} - before
            if not shown:
                return live
            patch = removal_patch(shown, live["metadata"]["resourceVersion"])
            try:
                return self.client.request("PATCH", target.path, str(target), body=patch, content_type=JSON_PATCH)
            except ApiError as error:
                refused = error
                latest = self._get(target)
            if latest is None or latest["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]:
                break  # it was not a newer version (a controller's, say) that the patch failed for
            live = latest
        raise PartialCreate(target.id, live_outputs(live), f"undoing drift: {refused}")

    def delete(self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        try:
            target = self._target(type_, urn, inputs or outputs, id_)
        except ProviderError as error:
            if isinstance(error, ApiError | Unreachable):
                raise
            return  # its definition is gone, and it went with it
        if target.is_patch:
            self._release(target)
            return
        annotations = ((inputs or outputs).get("metadata") or {}).get("annotations") or {}
        default = "Foreground" if may_own(group_of(target.kind.api_version)) else "Background"
        options = {"propagationPolicy": annotations.get(PROPAGATION, default).capitalize()}
        try:
            answer = self.client.request("DELETE", target.path, str(target), body=options)
        except ApiError as error:
            if error.code == 404:
                return
            raise
        uid = answer.get("metadata", {}).get("uid") or (answer.get("details") or {}).get("uid") or ""
        limit = str(annotations.get(TIMEOUT, ""))
        self._gone(target, uid, float(limit) if limit.isdigit() else DELETE_TIMEOUT)

    def _release(self, target: Target) -> None:
        """Gives up the fields of a patch; those that nobody else owns go."""
        if self._get(target) is None:
            return
        metadata = {"name": target.name} | ({"namespace": target.namespace} if target.kind.namespaced else {})
        body = {"apiVersion": target.kind.api_version, "kind": target.kind.name, "metadata": metadata}
        self._apply(target, body, dry_run=False)

    def _gone(self, target: Target, uid: str, limit: float) -> None:
        """Waits until the object with this uid is gone; says what holds it when it isn't in time."""
        end = time.monotonic() + limit
        pause = 0.02
        while (live := self._get(target)) is not None and live["metadata"]["uid"] == uid:
            if time.monotonic() > end:
                raise ProviderError(f"{target} is still there after {limit:.0f} s: {_what_holds(live)}")
            if self._stop.wait(pause):
                raise ProviderError(f"{target} is still being deleted; no longer waited for, since you interrupted")
            pause = min(pause * 1.5, 1.0)


def _what_holds(live: dict[str, Any]) -> str:
    conditions = (live.get("status") or {}).get("conditions") or []
    told = [one["message"] for one in conditions if one.get("status") == "True" and one.get("message")]
    finalizers = live["metadata"].get("finalizers") or (live.get("spec") or {}).get("finalizers") or []
    told += [f"it waits for the finalizers {', '.join(finalizers)}"] if finalizers else []
    return "; ".join(told) or "the API server doesn't say what it waits for; is the controller manager running?"


if __name__ == "__main__":
    serve(KubernetesBackend(), "kubernetes", VERSION)
