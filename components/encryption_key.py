"""KMS keys: one per purpose, rotated, each usable by the named service for the named thing only."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from components.iam_documents import Statement, document, statement
from ringfence.names import Names

# KMS waits 7 to 30 days before it deletes a key; the longest leaves time to notice a mistaken destroy.
DELETION_WINDOW_DAYS = 30


def key_policy(names: Names, *uses: Statement) -> str:
    """A key policy: the account's IAM decides about administration, and `uses` name who else may use the key."""
    administration = statement(
        "Allow", "kms:*", "*", principals={"AWS": names.iam_arn("root")}, sid="AccountAdministersThroughIam"
    )
    return document(administration, *uses)


def encryption_key(
    name: str,
    names: Names,
    purpose: str,
    description: str,
    uses: tuple[Statement, ...],
    parent: pulumi.Resource,
    depends_on: tuple[pulumi.Resource, ...] = (),
) -> aws.kms.Key:
    """Makes a rotating customer managed key and its alias ``alias/<prefix>/<environment>/<purpose>``.

    depends_on: roles that `uses` name; KMS refuses a key policy that names a role which isn't there.
    """
    child = pulumi.ResourceOptions(parent=parent)
    key = aws.kms.Key(
        f"{name}-key",
        description=description,
        policy=key_policy(names, *uses),
        enable_key_rotation=True,
        deletion_window_in_days=DELETION_WINDOW_DAYS,
        tags=names.tags(f"{purpose}-key"),
        opts=pulumi.ResourceOptions(parent=parent, depends_on=list(depends_on)),
    )
    aws.kms.Alias(f"{name}-key-alias", name=names.key_alias(purpose), target_key_id=key.key_id, opts=child)
    return key
