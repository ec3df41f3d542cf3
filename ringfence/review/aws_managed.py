"""Documents of policies that AWS manages, for witnesses and escalation paths. AWS changes them at will, so an attachment
is always reviewed by name; a document known here only says what it meant when it was collected."""

from __future__ import annotations

import functools
import importlib.util
import json
from typing import Any

_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
# The three that matter most, for when no collection is installed. Source: AWS Managed Policy Reference.
_WELL_KNOWN: dict[str, list[dict[str, Any]]] = {
    "AdministratorAccess": [_ALL],
    "IAMFullAccess": [{"Effect": "Allow", "Action": ["iam:*", "organizations:Describe*"], "Resource": "*"}],
    "PowerUserAccess": [
        {"Effect": "Allow", "NotAction": ["iam:*", "organizations:*", "account:*"], "Resource": "*"},
    ],
}


@functools.cache
def _collection() -> dict[str, Any]:
    """The collection that moto ships, by policy name; empty where moto isn't installed."""
    if importlib.util.find_spec("moto") is None:
        return {}
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    return json.loads(aws_managed_policies_data)


def document(key: str) -> dict[str, Any] | None:
    """The document of ``aws:policy/<path>``, None when it isn't known."""
    name = key.rsplit("/", 1)[-1]
    if name in _WELL_KNOWN:
        return {"Version": "2012-10-17", "Statement": _WELL_KNOWN[name]}
    entry = _collection().get(name)
    return entry["Document"] if entry else None
