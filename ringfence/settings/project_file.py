"""The `config:` section of Pulumi.yaml, rendered from the settings' model, so that the engine knows every key too."""

from __future__ import annotations

import textwrap
import typing
from typing import Any

import pydantic

from ringfence.settings.loader import FIELDS
from ringfence.settings.model import Settings


def _engine_type(annotation: Any) -> dict[str, Any]:
    if typing.get_origin(annotation) is tuple:
        return {"type": "array", "items": {"type": "string"}}
    return {"type": {bool: "boolean", int: "integer"}.get(annotation, "string")}


def declared() -> dict[str, dict[str, Any]]:
    """Key → type, description and default, in Pulumi.yaml's own terms. A key without default is required."""
    result: dict[str, dict[str, Any]] = {}
    for key, name in FIELDS.items():
        field = Settings.model_fields[name]
        entry = _engine_type(field.annotation) | {"description": field.description or ""}
        if field.default is not pydantic.fields.PydanticUndefined:
            entry["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
        result[key] = entry
    return result


def listing() -> str:
    """Every key with type, default and meaning, for a terminal."""
    lines: list[str] = []
    for key, entry in declared().items():
        shown = f"default {entry['default']!r}" if "default" in entry else "required"
        lines.append(f"{key}  ({entry['type']}, {shown})")
        lines.append(textwrap.indent(textwrap.fill(entry["description"], 100), "    "))
    return "\n".join(lines)
