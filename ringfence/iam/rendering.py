"""IAM policy documents as plain data: built, rendered canonically and checked for size, without any Pulumi value.

A document that contains a value unknown at preview can't be reviewed, so nothing here accepts an Output; names and ARNs
come from `ringfence.names.Names`. Equal statements render to equal text, whatever order their lists were written in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.errors import InputError, Problem

POLICY_VERSION = "2012-10-17"

# IAM's quotas, which count characters without white space
# (docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
INLINE_POLICIES_LIMIT = 10_240  # all inline policies of one role together
MANAGED_POLICY_LIMIT = 6_144  # one managed policy
TRUST_POLICY_LIMIT = 2_048  # one role's trust policy, unless the account's quota was raised

Strings = str | Sequence[str]
Conditions = Mapping[str, Mapping[str, Strings]]
Statement = dict[str, Any]


def _sorted_strings(values: Strings) -> list[str]:
    return [values] if isinstance(values, str) else sorted(set(values))


def statement(
    effect: str,
    actions: Strings,
    resources: Strings | None,
    conditions: Conditions | None = None,
    principals: str | Mapping[str, Strings] | None = None,
    sid: str | None = None,
) -> Statement:
    """One policy statement, with every list sorted and without duplicates.

    effect: ``Allow`` or ``Deny``. resources: None for a trust policy, which has none. conditions: operator → key →
    values. principals: ``"*"`` or type → identifiers, for resource and trust policies.
    Raises ValueError when the effect is neither Allow nor Deny, or when a list is empty: IAM refuses an empty list.
    """
    if effect not in ("Allow", "Deny"):
        raise ValueError(f"effect {effect!r} is neither Allow nor Deny")
    made: Statement = {"Effect": effect, "Action": _sorted_strings(actions)}
    if sid:
        made["Sid"] = sid
    if principals is not None:
        everyone = isinstance(principals, str)
        made["Principal"] = principals if everyone else {k: _sorted_strings(v) for k, v in principals.items()}
    if resources is not None:
        made["Resource"] = _sorted_strings(resources)
    if conditions:
        made["Condition"] = {
            operator: {key: _sorted_strings(values) for key, values in keys.items()}
            for operator, keys in conditions.items()
        }
    empty = [element for element in ("Action", "Resource") if element in made and not made[element]]
    if empty:
        raise ValueError(f"a statement with an empty {' and '.join(empty)} grants nothing and is refused by IAM")
    return made


def document(*statements: Statement) -> str:
    """The canonical JSON text of a policy document: keys sorted, no white space, statements in the given order."""
    body = {"Version": POLICY_VERSION, "Statement": list(statements)}
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def policy_size(text: str) -> int:
    """Characters that IAM counts in a document: all but white space."""
    return sum(1 for character in text if not character.isspace())


def size_problems(owner: str, kind: str, documents: Sequence[str], limit: int) -> list[Problem]:
    """The problem, if any, that `documents` of `owner` (``role ringfence-dev-tool-x``) together exceed `limit`."""
    size = sum(policy_size(text) for text in documents)
    if size <= limit:
        return []
    remedy = "grant fewer actions or resources, use prefixes with a wildcard, or split the tool in two"
    return [Problem(owner, kind, f"{size:,} characters, of which IAM allows {limit:,}", remedy)]


def check_size(owner: str, kind: str, documents: Sequence[str], limit: int) -> None:
    """Raises InputError naming owner, kind and size when the documents together exceed `limit`."""
    if problems := size_problems(owner, kind, documents, limit):
        raise InputError(problems)
