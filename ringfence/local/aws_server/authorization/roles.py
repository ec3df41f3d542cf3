"""What a role may do, read from moto's IAM at the moment of each decision."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from moto.utilities.utils import get_partition

from ringfence.errors import InputError
from ringfence.iam.document import parse
from ringfence.iam.model import Document, Kind, Permissions


class Undecided(Exception):
    """Something that the decision depends on can't be read. The answer is no; the message says what and why."""


@lru_cache(maxsize=1024)
def _parsed(text: str, kind: Kind) -> Document:
    return parse(text, kind)


def document(text: object, kind: Kind, what: str) -> Document:
    """A policy as moto keeps it. Raises Undecided for one that isn't understood."""
    try:
        return _parsed(str(text), kind)
    except InputError as error:
        raise Undecided(f"{what} is not understood: {error.problems[0].message}") from None


def role_of(account: str, region: str, arn: str) -> Any | None:
    """moto's role of that ARN; None when there is none."""
    from moto.iam.models import iam_backends

    backend = iam_backends[account][get_partition(region)]
    return next((role for role in backend.roles.values() if role_arn(role) == arn), None)


def role_by_name(account: str, region: str, name: str) -> Any | None:
    """moto's role of that name; None when there is none."""
    from moto.iam.models import iam_backends

    backend = iam_backends[account][get_partition(region)]
    return next((role for role in backend.roles.values() if role.name == name), None)


def role_arn(role: Any) -> str:
    """The role's ARN, path included."""
    return f"arn:{role.partition}:iam::{role.account_id}:role{role.path}{role.name}"


def managed_document(account: str, region: str, arn: str, kind: Kind) -> Document:
    """The version in force of a managed policy, the account's own or AWS's. Raises Undecided when there is none."""
    from moto.iam.models import iam_backends

    policy = iam_backends[account][get_partition(region)].managed_policies.get(arn)
    if policy is None:
        raise Undecided(f"policy {arn} does not exist")
    version = next((item for item in policy.versions if item.version_id == policy.default_version_id), None)
    if version is None:
        raise Undecided(f"policy {arn} has no version in force")
    return document(version.document, kind, f"policy {arn}")


def permissions_of(role: Any, region: str, session: tuple[Document, ...] | None) -> Permissions:
    """The role's inline and attached policies, its boundary, and the session's policies. Raises Undecided."""
    account = role.account_id
    inline = [document(text, "identity", f"policy {name} of {role.name}") for name, text in role.policies.items()]
    attached = [managed_document(account, region, arn, "identity") for arn in role.managed_policies]
    cap = role.permissions_boundary_arn
    boundary = managed_document(account, region, cap, "boundary") if cap else None
    return Permissions((*inline, *attached), boundary, session)


def tags_of(role: Any) -> dict[str, str]:
    """The role's own tags."""
    kept = role.tags or {}
    if isinstance(kept, dict):
        return {str(key): str(item["Value"] if isinstance(item, dict) else item) for key, item in kept.items()}
    return {str(item["Key"]): str(item["Value"]) for item in kept}
