"""What is left in the account: everything in moto's backends and in the recorded layer that a fresh account lacks.

moto makes a backend with its defaults (default VPC, default event bus, ...) when a service is first used in a region;
what is there at that moment is the baseline. What moto adds later by itself is AWS's own and known by rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moto.core.base_backend import AccountSpecificBackend, BackendDict, BaseBackend
from moto.core.model_instances import reset_model_data

from ringfence.local.aws_server.recorded.store import Store

# Attributes by which moto's models name themselves, best first.
_NAMES = ("physical_resource_id", "arn", "id", "name", "key_id", "alias_name", "_id")
# States in which AWS keeps showing a thing that no longer exists.
_GONE = frozenset({"deleted", "terminated", "deleting", "cancelled", "delete_complete", "released"})
# Classes that are data, bookkeeping or AWS's own catalogue rather than resources of the account.
_NOT_RESOURCES = frozenset(
    {
        "AWSManagedPolicy",
        "AccountSummary",
        "Ami",
        "EC2InstanceType",
        "IAMCredentialReport",
        "MetricDatum",
        "MetricDatumBase",
        "PatchBaseline",
        "TaggingService",
        "VPCServiceConfiguration",
    }
)
_DEPTH = 4
# Recorded kinds that aren't resources: history, and settings of what is counted itself.
_SETTINGS = frozenset({"budgetTags", "event", "firewallConfig", "logGroupSettings", "resolverConfig", "update"})


class Inventory:
    """Counts what is left. One per process, as moto's backends are."""

    def __init__(self, account: str):
        self._account = account
        self._baseline: dict[tuple[str, str], set[int]] = {}
        self._kept: dict[tuple[str, str], list[Any]] = {}
        self._watch()

    def _watch(self) -> None:
        """Takes each backend's baseline when moto makes it."""
        make = AccountSpecificBackend.__getitem__
        inventory = self

        def getitem(backends: Any, region: str) -> Any:
            region = "aws" if region == "global" else region
            fresh = region not in backends.keys()  # noqa: SIM118 - __contains__ tells whether the region is valid
            backend = make(backends, region)
            if fresh:
                inventory._note(backends.service_name, region, backend)
            return backend

        AccountSpecificBackend.__getitem__ = getitem  # type: ignore[method-assign]

    def _note(self, service: str, region: str, backend: BaseBackend) -> None:
        found = [resource for _, _, resource in _resources(backend)]
        self._baseline[(service, region)] = {id(resource) for resource in found}
        # Holding them keeps their identities from being reused.
        self._kept[(service, region)] = found

    def reset(self) -> None:
        """Empties the account: all of moto's backends."""
        # Before the backends: while moto resets one it makes others anew, whose baselines are taken then.
        self._baseline.clear()
        self._kept.clear()
        BackendDict.reset()
        reset_model_data()

    def take(self, store: Store) -> dict[str, Any]:
        """`left`: service → type → names of what is left; `pending_deletion`: the same for what AWS keeps for a
        waiting period after its deletion (keys, secrets); `count`: of `left`."""
        left: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        pending: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        seen: set[int] = set()
        for service, region, backend in _backends(self._account):
            own = self._baseline.get((service, region), set())
            for container, key, resource in _resources(backend):
                if id(resource) in own or id(resource) in seen or _belongs_to_aws(container, key, resource):
                    continue
                seen.add(id(resource))
                target = pending if _pending(resource) else left
                target[service][type(resource).__name__].append(_name(key, resource))
        for shelf, records in store.shelves():
            if shelf.kind in _SETTINGS:
                continue
            left[shelf.service][shelf.kind] += ["/".join(key) for key in records]
        return {
            "count": sum(len(names) for kinds in left.values() for names in kinds.values()),
            "left": _sorted(left),
            "pending_deletion": _sorted(pending),
        }


def _sorted(found: Mapping[str, Mapping[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
    return {
        service: {kind: sorted(names) for kind, names in sorted(kinds.items())}
        for service, kinds in sorted(found.items())
    }


def _backends(account: str) -> Iterator[tuple[str, str, BaseBackend]]:
    for backends in list(BackendDict._instances):
        for owner, region, backend in backends.iter_backends():
            if owner == account:
                yield backends.service_name, region, backend


def _resources(backend: BaseBackend) -> Iterator[tuple[str, str, Any]]:
    """Every model object in a backend's containers: the container's name, the key in it, the object."""
    for attribute, value in list(vars(backend).items()):
        if isinstance(value, (dict, list, tuple, set)):
            for key, resource in _inside(value, "", _DEPTH):
                yield attribute, key, resource


def _inside(value: Any, key: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth == 0:
        return
    if isinstance(value, dict):
        items: Iterator[tuple[Any, Any]] = iter(list(value.items()))
    elif isinstance(value, (list, tuple, set)):
        items = ((key, item) for item in list(value))
    else:
        if _is_model(value):
            yield key, value
        return
    for name, item in items:
        yield from _inside(item, str(name), depth - 1)


def _is_model(value: Any) -> bool:
    kind = type(value)
    return (
        kind.__module__.startswith("moto.")
        and kind.__name__ not in _NOT_RESOURCES
        and not isinstance(value, (BaseBackend, BackendDict, AccountSpecificBackend))
    )


def _name(key: str, resource: Any) -> str:
    for attribute in _NAMES:
        value = getattr(resource, attribute, None)
        if isinstance(value, str) and value:
            return value
    return key


def _state(resource: Any) -> str:
    for attribute in ("state", "status", "_state", "key_state"):
        value = getattr(resource, attribute, None)
        if isinstance(value, str):
            return value.lower()
        name = getattr(value, "name", None)
        if isinstance(name, str):
            return name.lower()
    return ""


def _pending(resource: Any) -> bool:
    deleted = getattr(resource, "deleted_date", None) or getattr(resource, "deletion_date", None)
    return bool(deleted) or _state(resource) == "pendingdeletion"


def _belongs_to_aws(container: str, key: str, resource: Any) -> bool:
    """What is there without anybody's doing, or only still shown."""
    if _state(resource) in _GONE:
        return True
    rule = _RULES.get((type(resource).__module__.split(".")[1], type(resource).__name__))
    return rule is not None and rule(key, resource)


def _managed_key(_key: str, resource: Any) -> bool:
    """A key of a service's own, made when the service first encrypts; moto calls it the customer's."""
    return any(name.startswith("alias/aws/") for name in resource.aliases)


_RULES: dict[tuple[str, str], Callable[[str, Any], bool]] = {
    ("kms", "Key"): _managed_key,
    ("kms", "Alias"): lambda key, _resource: key.startswith("alias/aws/"),
    # The public parameters that AWS publishes; nobody else may make names that start so.
    ("ssm", "Parameter"): lambda _key, parameter: str(parameter.name).startswith("/aws/"),
    ("ec2", "Reservation"): lambda _key, r: all(_state(i) in _GONE for i in r.instances),
}
