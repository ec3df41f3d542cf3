"""Typed policy documents: `parse` makes them from text or mappings, `render` writes them canonically.

Reference: IAM User Guide, "IAM JSON policy elements reference" and "Grammar of the IAM JSON policy language".
"""

from __future__ import annotations

from ringfence.iam.canonical import SIZE_LIMITS, render, size_problem, to_mapping
from ringfence.iam.model import (
    CURRENT_VERSION,
    KINDS,
    LEGACY_VERSION,
    Condition,
    Document,
    Effect,
    Kind,
    Permissions,
    PrincipalEntry,
    Statement,
)
from ringfence.iam.parsing import infer_kind, parse

__all__ = [
    "CURRENT_VERSION",
    "KINDS",
    "LEGACY_VERSION",
    "SIZE_LIMITS",
    "Condition",
    "Document",
    "Effect",
    "Kind",
    "Permissions",
    "PrincipalEntry",
    "Statement",
    "infer_kind",
    "parse",
    "render",
    "size_problem",
    "to_mapping",
]
