"""Bucket policies are stored and shown, not enforced: moto would read a Deny and leave out its conditions.

With "deny plain text" and "deny old TLS" on every bucket, moto's own check refuses every request. What sessions may do
is decided in `authorization`.
"""

from __future__ import annotations

from typing import Any


def leave_undecided() -> None:
    """Takes moto's check of bucket policies out of the way of every request."""
    from moto.iam.access_control import PermissionResult
    from moto.s3.models import FakeBucket

    def undecided(_bucket: FakeBucket, _action: str, _resource: str) -> Any:
        return PermissionResult.NEUTRAL

    FakeBucket.get_permission = undecided  # type: ignore[method-assign]
