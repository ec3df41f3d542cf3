"""The one loader of a stack's settings: from the engine inside a program, from the stack's files everywhere else."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic
from pydantic.alias_generators import to_camel

from ringfence import strict_yaml, validation
from ringfence.egress.private_names import NODE_SERVICES, REMEDY
from ringfence.errors import InputError, Problem
from ringfence.settings.model import NODE_ZONES, PROFILES, Settings, zoned

PROJECT = "ringfence"
FIELDS = {to_camel(name): name for name in Settings.model_fields}
# Their values would be ignored: the program makes its own providers from these settings.
_FOREIGN = {
    "aws": "set ringfence:region and ringfence:accountId instead",
    "kubernetes": "set ringfence:kubeconfig instead",
}


def _is_text(key: str) -> bool:
    annotation = str(Settings.model_fields[FIELDS[key]].annotation)
    return "tuple" not in annotation and "int" not in annotation and "bool" not in annotation


def _plain(key: str, value: Any, where: str) -> Any:
    """The engine hands every value over as text; text of a non-text key is JSON."""
    if not isinstance(value, str) or _is_text(key):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _keyed(raw: Mapping[str, Any], where: str, lines: Mapping[str, int]) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    found: list[Problem] = []
    for full_key, value in raw.items():
        namespace, _, key = full_key.rpartition(":")
        line = lines.get(full_key, 0)
        if namespace in _FOREIGN:
            found.append(Problem(where, full_key, "is not used by this project", _FOREIGN[namespace], line))
        elif namespace not in (PROJECT, ""):
            continue
        elif key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, n=1)
            remedy = f"did you mean {near[0]}?" if near else "`ringfence settings list` shows every key"
            found.append(Problem(where, full_key, "is not a known setting", remedy, line))
        elif isinstance(value, dict) and set(value) == {"secure"}:
            found.append(
                Problem(where, full_key, "is encrypted, but no setting is secret", "set it without --secret", line)
            )
        else:
            values[key] = _plain(key, value, where)
    return values, found


def _existing_vpc_problems(settings: Settings, where: str) -> list[Problem]:
    lists = {
        key: getattr(settings, FIELDS[key]) for key in FIELDS if key.startswith("existing") and key != "existingVpcId"
    }
    if not settings.existing_vpc_id:
        return [
            Problem(where, key, "is set without existingVpcId", "set existingVpcId, or remove it")
            for key, value in lists.items()
            if value
        ]
    wanted = set(settings.availability_zones)
    return [
        Problem(where, key, f"names zones {sorted(zoned(value))}, not {sorted(wanted)}", "give one zone=id per zone")
        for key, value in lists.items()
        if set(zoned(value)) != wanted
    ]


def _service_problems(settings: Settings, where: str) -> list[Problem]:
    """What the service couldn't work with, or sandboxes couldn't be made from."""
    own = (settings.names.registry,)
    found = [
        Problem(where, key, f"comes from none of {', '.join(registries)}", "push it there, or add to allowedRegistries")
        for key, image, registries in (
            ("sandboxImage", settings.sandbox_image, settings.sandbox_registries),
            ("serviceImage", settings.service_image, tuple(dict.fromkeys((*settings.allowed_registries, *own)))),
        )
        if image and not image.startswith(tuple(f"{registry.rstrip('/')}/" for registry in registries))
    ]
    if bool(settings.oidc_issuer) != bool(settings.oidc_audience):
        missing = "oidcAudience" if settings.oidc_issuer else "oidcIssuer"
        found.append(Problem(where, missing, "is missing: issuer and audience go together", "set both, or none"))
    if settings.service_image:
        needed = {
            "sandboxImage": (settings.sandbox_image, "`ringfence image push` prints it"),
            "oidcIssuer": (settings.oidc_issuer or settings.oidc_audience, "set oidcIssuer and oidcAudience"),
        }
        found += [
            Problem(where, key, "is empty, but serviceImage is set", remedy)
            for key, (value, remedy) in needed.items()
            if not value
        ]
    return found


def _cross_check(settings: Settings, where: str) -> list[Problem]:
    found = [
        Problem(where, "availabilityZones", f"{zone!r} is not in {settings.region}", f"use zones of {settings.region}")
        for zone in settings.availability_zones
        if zone[:-1] != settings.region
    ]
    found += _existing_vpc_problems(settings, where)
    for service in sorted(NODE_SERVICES & set(settings.interface_endpoints)):
        message = f"{service} is what sandbox nodes reach through the egress proxy"
        found.append(Problem(where, "interfaceEndpoints", message, REMEDY))
    found += _service_problems(settings, where)
    if settings.sandbox_max_spot_nodes + settings.sandbox_max_on_demand_nodes == 0:
        remedy = "raise sandboxMaxSpotNodes or sandboxMaxOnDemandNodes"
        found.append(Problem(where, "sandboxMaxSpotNodes", "leaves no node for any sandbox", remedy))
    if settings.system_nodes >= NODE_ZONES > len(settings.availability_zones):
        message = (
            f"{settings.system_nodes} nodes in {len(settings.availability_zones)} zones: a zone more would move one"
        )
        remedy = f"name {NODE_ZONES} availabilityZones, or have at most {NODE_ZONES - 1} nodes"
        found.append(Problem(where, "systemNodes", message, remedy))
    if not settings.cluster_admins and not settings.kubeconfig:
        remedy = "name the roles that administer the cluster, the one that runs Pulumi included"
        found.append(Problem(where, "clusterAdmins", "nobody could ever administer the cluster", remedy))
    if settings.sandbox_min_on_demand_nodes > settings.sandbox_max_on_demand_nodes:
        remedy = f"lower it to {settings.sandbox_max_on_demand_nodes}, or raise sandboxMaxOnDemandNodes"
        found.append(Problem(where, "sandboxMinOnDemandNodes", "is above sandboxMaxOnDemandNodes", remedy))
    if settings.target == "aws" and len(set(settings.account_id)) == 1:
        remedy = "`aws sts get-caller-identity` prints yours"
        found.append(Problem(where, "accountId", f"{settings.account_id} is a placeholder", remedy))
    return found


def _with_profile(values: dict[str, Any], stack: str) -> dict[str, Any]:
    """Fills what is left open: the stack's name and the profile's counts."""
    profile = PROFILES.get(str(values.get("profile", "lean")), {})
    filled = dict(values)
    filled["environment"] = values.get("environment") or stack
    for name, count in profile.items():
        key = to_camel(name)
        if values.get(key, 0) == 0:
            filled[key] = count
    return filled


def load(raw: Mapping[str, Any], stack: str, where: str = "config", lines: Mapping[str, int] | None = None) -> Settings:
    """Settings from a mapping of `ringfence:key` (or `key`) to values, as YAML or the engine give them.

    Raises InputError with every problem: unknown keys, types, forms, and keys that contradict each other.
    """
    lines = lines or {}
    values, found = _keyed(raw, where, lines)
    defaults = {
        key: f"default: {json.dumps(field.default)}"
        for key, name in FIELDS.items()
        if (field := Settings.model_fields[name]).default is not pydantic.fields.PydanticUndefined and field.default
    }
    positions = {(key.rpartition(":")[2],): line for key, line in lines.items()}
    try:
        settings = Settings.model_validate(_with_profile(values, stack))
    except pydantic.ValidationError as error:
        found.extend(validation.problems(error, where, positions, defaults))
        # What the fields alone don't show is checked on those that are good, so that one run reports it all.
        bad = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
        rest = {key: value for key, value in values.items() if key not in bad}
        rest.setdefault("accountId", "000000000000")
        try:
            partial = Settings.model_validate(_with_profile(rest | {"environment": "x"}, "x"))
        except pydantic.ValidationError:
            raise InputError(_with_lines(found, lines)) from None
        found.extend(item for item in _cross_check(partial, where) if item.key not in bad)
        raise InputError(_with_lines(found, lines)) from None
    found += _cross_check(settings, where)
    if found:
        raise InputError(_with_lines(found, lines))
    return settings


def _with_lines(found: list[Problem], lines: Mapping[str, int]) -> list[Problem]:
    """In the order of the file, each at its key's line where it stands there."""
    placed = [item if item.line else replace(item, line=lines.get(f"{PROJECT}:{item.key}", 0)) for item in found]
    return sorted(placed, key=lambda item: item.line)


def stack_file(project_dir: Path, stack: str) -> Path:
    """The file that holds a stack's settings."""
    return project_dir / "stacks" / f"Pulumi.{stack}.yaml"


def load_stack(project_dir: Path, stack: str) -> Settings:
    """Settings of a stack from its file. Raises InputError as `load` does, with lines."""
    path = stack_file(project_dir, stack)
    where = f"stacks/{path.name}"
    data, lines = strict_yaml.read(path, where)
    config = (data or {}).get("config", {}) if isinstance(data, dict | None) else None
    if not isinstance(config, dict):
        raise InputError(
            [Problem(where, "config", "is not a mapping", "write `config:` and `ringfence:key: value` lines")]
        )
    line_of = {
        str(position[1]): line for position, line in lines.items() if len(position) == 2 and position[0] == "config"
    }
    return load(config, stack, where, line_of)
