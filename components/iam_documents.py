"""What components use to write IAM documents; made in `ringfence.iam.rendering`, which reviews use too."""

from __future__ import annotations

from ringfence.iam.rendering import (
    INLINE_POLICIES_LIMIT,
    MANAGED_POLICY_LIMIT,
    TRUST_POLICY_LIMIT,
    Conditions,
    Statement,
    check_size,
    document,
    policy_size,
    size_problems,
    statement,
)

__all__ = [
    "INLINE_POLICIES_LIMIT",
    "MANAGED_POLICY_LIMIT",
    "TRUST_POLICY_LIMIT",
    "Conditions",
    "Statement",
    "check_size",
    "document",
    "policy_size",
    "size_problems",
    "statement",
]
