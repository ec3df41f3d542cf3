"""Kubernetes objects as plain data: which changes replace, what drifted, and what somebody else put in.

Pure functions; the backend (kubernetes.py) gives them what the API server answers.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ringfence.local.providers.paths import MISSING, Path, get_path

# Fields that the API server doesn't let change, by group and kind. The names are those of the API reference; a change of
# another immutable field is found by asking the server (a dry run), so this table is for previews with unknown values.
IMMUTABLE: dict[tuple[str, str], tuple[Path, ...]] = {
    ("", "PersistentVolumeClaim"): tuple(
        ("spec", key)
        for key in (
            "accessModes",
            "dataSource",
            "dataSourceRef",
            "selector",
            "storageClassName",
            "volumeMode",
            "volumeName",
        )
    ),
    ("", "Pod"): (("spec",),),
    ("", "Secret"): (("type",),),
    ("", "Service"): (("spec", "clusterIP"), ("spec", "clusterIPs")),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): (("spec", "group"), ("spec", "scope"), ("spec", "names")),
    ("apps", "DaemonSet"): (("spec", "selector"),),
    ("apps", "Deployment"): (("spec", "selector"),),
    ("apps", "ReplicaSet"): (("spec", "selector"),),
    ("apps", "StatefulSet"): tuple(
        ("spec", key) for key in ("podManagementPolicy", "selector", "serviceName", "volumeClaimTemplates")
    ),
    ("batch", "Job"): (("spec", "completionMode"), ("spec", "selector"), ("spec", "template")),
    ("discovery.k8s.io", "EndpointSlice"): (("addressType",),),
    ("networking.k8s.io", "IngressClass"): (("spec", "controller"),),
    ("node.k8s.io", "RuntimeClass"): (("handler",),),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): (("roleRef",),),
    ("rbac.authorization.k8s.io", "RoleBinding"): (("roleRef",),),
    ("scheduling.k8s.io", "PriorityClass"): (("preemptionPolicy",), ("value",)),
    ("storage.k8s.io", "StorageClass"): (
        ("allowedTopologies",),
        ("parameters",),
        ("provisioner",),
        ("reclaimPolicy",),
        ("volumeBindingMode",),
    ),
}
# What may change in a Pod that runs.
_POD_MUTABLE = (("activeDeadlineSeconds",), ("tolerations",), ("terminationGracePeriodSeconds",))
_CONTENT = {("", "ConfigMap"): ("data", "binaryData"), ("", "Secret"): ("data", "stringData")}
# Managers that keep objects going; what they set is not drift.
SYSTEM_MANAGERS = frozenset({"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"})
# The only metadata that people declare.
_DECLARED_METADATA = ("labels", "annotations")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def group_of(api_version: str) -> str:
    """``apps`` of ``apps/v1``; empty for the core group."""
    return api_version.rpartition("/")[0]


def may_own(group: str) -> bool:
    """Whether objects of this group own others, which are to go first: workloads, and whatever a custom resource makes.

    Of the others, waiting for the garbage collector to find nothing would be most of the time that a deletion takes.
    """
    built_in = not group or group.endswith(".k8s.io") or group in ("autoscaling", "policy")
    return not built_in


def kind_of_token(type_: str) -> tuple[str, str]:
    """(apiVersion, kind) of a type token such as ``kubernetes:core/v1:Namespace``; a Patch has the patched kind."""
    _, api_version, kind = type_.split(":")
    return api_version.removeprefix("core/"), kind.removesuffix("Patch") or kind


def without_nulls(value: Any) -> Any:
    """`value` without keys whose value is null, which a program means as "not set"."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _starts(path: Path, prefix: Path) -> bool:
    return path[: len(prefix)] == prefix


def _pod_mutable(path: Path) -> bool:
    is_image = len(path) == 4 and path[1] in ("containers", "initContainers") and path[3] == "image"
    return is_image or any(_starts(path[1:], mutable) for mutable in _POD_MUTABLE)


def replacing(
    api_version: str, kind: str, old: Mapping[str, Any], changed: Iterable[Path], mutable_content: bool
) -> list[Path]:
    """Those of `changed` that need a new object.

    mutable_content: whether a changed ConfigMap or Secret is updated; the official plugin replaces it unless its settings
    ``enableConfigMapMutable`` and ``enableSecretMutable`` say otherwise.
    """
    identity = (group_of(api_version), kind)
    prefixes = [*IMMUTABLE.get(identity, ()), ("kind",), ("metadata", "name"), ("metadata", "namespace")]
    frozen = old.get("immutable") is True
    if identity in _CONTENT and (frozen or not mutable_content):
        prefixes += [(key,) for key in _CONTENT[identity]] + ([("immutable",)] if frozen else [])
    found = [path for path in changed if any(_starts(path, prefix) or _starts(prefix, path) for prefix in prefixes)]
    return [path for path in found if not (identity == ("", "Pod") and path[0] == "spec" and _pod_mutable(path))]


def named_by_server(fields: Iterable[str], changed: Iterable[Path]) -> list[Path]:
    """Those of `changed` that the server's error names, all of them when it names none of them."""
    named = [tuple(part for part in field.replace("[", ".").replace("]", "").split(".") if part) for field in fields]
    paths = list(changed)
    texts = {path: tuple(str(step) for step in path) for path in paths}
    found = [path for path in paths if any(_starts(texts[path], one) or _starts(one, texts[path]) for one in named)]
    return found or paths


def as_declared(declared: Any, live: Any, wanted: Any) -> Any:
    """The live object in the words of the declaration: unchanged parts as declared, changed parts as they live.

    wanted: what the live object would be if `declared` was applied now (a dry run), so that what the server adds or
    spells differently (defaults, ``0.5`` CPU as ``500m``) is no change.
    """
    if live is wanted or live == wanted:
        return declared
    if isinstance(declared, dict) and isinstance(live, dict) and isinstance(wanted, dict):
        parts = {
            key: as_declared(value, live.get(key, MISSING), wanted.get(key, MISSING)) for key, value in declared.items()
        }
        return {key: value for key, value in parts.items() if value is not MISSING}
    if isinstance(declared, list) and isinstance(live, list) and isinstance(wanted, list):
        if len(declared) == len(live) == len(wanted):
            return [as_declared(*triple) for triple in zip(declared, live, wanted, strict=True)]
        if len(declared) == len(wanted):
            known = list(zip(wanted, declared, strict=True))
            return [next((own for want, own in known if want == item), item) for item in live]
    return live


# One step into an object as `managedFields` writes it: a key, an element of a keyed list, or an element of a set.
Step = tuple[str, Any]


def _steps(fields: Mapping[str, Any], above: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    for name, inner in fields.items():
        mark, _, rest = name.partition(":")
        if name == ".":
            yield above
        elif mark in ("f", "k", "v"):
            here = (*above, (mark, rest if mark == "f" else json.loads(rest)))
            if inner:
                yield from _steps(inner, here)
            else:
                yield here


def foreign_steps(managed: Iterable[Mapping[str, Any]], own: str, own_prefix: str) -> list[tuple[Step, ...]]:
    """The fields that neither `own`, nor a manager that starts with `own_prefix`, nor the system itself has set."""
    found: dict[str, tuple[Step, ...]] = {}
    for entry in managed:
        manager = entry.get("manager", "")
        ours = manager == own or manager.startswith(own_prefix)
        if ours or manager in SYSTEM_MANAGERS or entry.get("subresource"):
            continue
        for steps in _steps(entry.get("fieldsV1") or {}):
            keys = [value for mark, value in steps if mark == "f"]
            metadata = keys[:1] == ["metadata"] and (len(keys) < 3 or keys[1] not in _DECLARED_METADATA)
            if steps and not metadata and keys[:1] != ["status"] and _LAST_APPLIED not in keys:
                found.setdefault(json.dumps(steps), steps)
    return list(found.values())


def _find(value: Any, step: Step) -> str | int | None:
    """Where `step` leads in `value`: a key, an index, or None."""
    mark, wanted = step
    if mark == "f":
        return wanted if isinstance(value, dict) and wanted in value else None
    if not isinstance(value, list):
        return None
    for index, item in enumerate(value):
        if mark == "v" and item == wanted:
            return index
        if mark == "k" and isinstance(item, dict) and all(item.get(key) == part for key, part in wanted.items()):
            return index
    return None


def undeclared(declared: Any, live: Any, steps: Iterable[tuple[Step, ...]]) -> list[tuple[Path, Path]]:
    """What `live` has at `steps` and `declared` lacks: (path of the parent in `declared`, path in `live`), each once."""
    found: dict[Path, Path] = {}
    for one in steps:
        here, there = declared, live
        here_path: Path = ()
        there_path: Path = ()
        for step in one:
            place = _find(there, step)
            if place is None:
                break
            there, there_path = there[place], (*there_path, place)
            own = _find(here, step)
            if own is None:
                found[there_path] = here_path
                break
            here, here_path = here[own], (*here_path, own)
    return [(parent, path) for path, parent in found.items()]


def with_undeclared(
    declared: dict[str, Any], live: dict[str, Any], extra: Iterable[tuple[Path, Path]]
) -> dict[str, Any]:
    """A copy of `declared` that also shows what others have put into the live object."""
    result = copy.deepcopy(declared)
    for parent, path in extra:
        place = get_path(result, parent)
        if isinstance(place, dict):
            place[path[-1]] = copy.deepcopy(get_path(live, path))
        elif isinstance(place, list):
            place.append(copy.deepcopy(get_path(live, path)))
    return result


def removal_patch(paths: Iterable[Path], resource_version: str) -> list[dict[str, Any]]:
    """A JSON patch that takes `paths` out of the object, if it is still the same version. Later list elements first."""
    ordered = sorted(paths, key=lambda path: [(isinstance(step, int), step) for step in path], reverse=True)
    pointers = ["".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path) for path in ordered]
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version}
    return [test, *({"op": "remove", "path": pointer} for pointer in pointers)]
