"""The bucket with the environment's own copy of what its nodes install at boot; `ringfence mirror` fills it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.iam_documents import Statement, statement
from components.private_bucket import PrivateBucket, PrivateBucketArgs
from ringfence.artifacts import ARTIFACTS
from ringfence.names import Names


@dataclass(frozen=True)
class ArtifactsArgs:
    """keep: protect the bucket from destruction. A copy can always be made again, so False is safe."""

    names: Names
    keep: bool = False


def read_statement(names: Names, prefix: str) -> Statement:
    """What a node needs to fetch the artifacts under `prefix`, and nothing else of the bucket."""
    return statement("Allow", "s3:GetObject", f"{names.bucket_arn(ARTIFACTS)}/{prefix}/*", sid="FetchArtifacts")


class Artifacts(pulumi.ComponentResource):
    """A bucket for mirrored releases (gVisor, Envoy), reached through the free S3 gateway endpoint.

    Makes: a private, versioned bucket, encrypted with S3's own key, for objects that are public anyway and are checked
    by digest after download.
    Protects against: allow-listing a public storage host, where any bucket of anybody's is one more way out; a release
    that disappears or changes under the environment; readers from another account.
    Trust zone: control side. Nodes only read; operators write.

    Outputs: bucket, bucket_arn (known at preview).
    """

    def __init__(self, name: str, args: ArtifactsArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Artifacts", name, None, opts)
        names = args.names
        arn = names.bucket_arn(ARTIFACTS)
        strangers = statement(
            "Deny",
            "s3:*",
            [arn, f"{arn}/*"],
            {
                "StringNotEquals": {"aws:PrincipalAccount": names.account_id},
                "BoolIfExists": {"aws:PrincipalIsAWSService": "false"},
            },
            "*",
            "Strangers",
        )
        store = PrivateBucket(
            f"{name}-bucket",
            PrivateBucketArgs(names, ARTIFACTS, statements=(strangers,), keep=args.keep),
            pulumi.ResourceOptions(parent=self),
        )
        self.bucket: str = store.bucket
        self.bucket_arn: str = store.arn
        self.register_outputs({})
