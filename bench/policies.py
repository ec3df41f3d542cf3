"""Parts of policy documents, as lists however they are spelled."""

from __future__ import annotations

from typing import Any


def statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    listed = document["Statement"]
    return [listed] if isinstance(listed, dict) else listed


def entries(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
