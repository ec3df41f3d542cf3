"""Resource types that stand for any other: Cloud Control's own, and those of a Terraform provider bridged at will."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ringfence.review.facts import Unknown
from ringfence.review.resource import Resource, first_unknown

# Type token → the properties with the name of the CloudFormation type and with the resource's own.
_PARTS = {
    "aws:cloudcontrol/resource:Resource": ("typeName", "desiredState"),
    "aws-native:index:ExtensionResource": ("type", "properties"),
}
IS_GENERIC = frozenset(_PARTS)
_NO_JSON = Unknown("not valid JSON")


def named_type(resource: Resource) -> Resource | Unknown:
    """The resource as the aws-native provider would declare it; `Unknown` when that can't be told."""
    type_prop, state_prop = _PARTS[resource.type]
    name, state = resource.get(type_prop), resource.get(state_prop)
    if isinstance(state, str):
        try:
            state = json.loads(state)
        except (ValueError, RecursionError):
            return _NO_JSON
    unknown = first_unknown(name) or (state if isinstance(state, Unknown) else None)
    if unknown:
        return unknown
    parts = str(name).split("::")
    if len(parts) != 3 or not isinstance(state, Mapping):
        return _NO_JSON
    return replace(resource, type=f"aws-native:{parts[1].lower()}:{parts[2]}", props=_native(state), links={})


def _native(value: Any) -> Any:
    """CloudFormation's property names as the aws-native provider spells them. Documents keep theirs."""
    if isinstance(value, Mapping):
        if "Statement" in value:
            return dict(value)
        return {_lower_first(str(key)): _native(item) for key, item in value.items()}
    return [_native(item) for item in value] if isinstance(value, list | tuple) else value


def _lower_first(name: str) -> str:
    # A leading acronym goes down as a whole: `ARNs` becomes `arns`.
    size = next((i for i, letter in enumerate(name) if not letter.isupper()), len(name))
    keep = size if size in (0, 1, len(name)) else size - 1
    return name[:keep].lower() + name[keep:]


def listed_type(token: str) -> str:
    """What a type of the aws provider is called where the Terraform provider is bridged as it is:
    ``aws:index/iamRole:IamRole`` for ``aws:iam/role:Role``."""
    module, _, name = token.removeprefix("aws:").rpartition("/")[0], "", token.rsplit(":", 1)[-1]
    return f"aws:index/{module}{name}:{module[:1].upper()}{module[1:]}{name}"
