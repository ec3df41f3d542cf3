"""The environment's own image repositories; `ringfence image push` fills them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.iam_documents import document, statement
from ringfence.image.kinds import KINDS
from ringfence.names import Names

IMAGES = tuple(kind.title for kind in KINDS.values())
# What a push that was cut short leaves goes after that. What a tagged index refers to has no tag of its own, and stays.
_UNTAGGED_DAYS = 14


@dataclass(frozen=True)
class RegistryArgs:
    """keep: protect the repositories from destruction, and their images with them. Both can be pushed again."""

    names: Names
    keep: bool = True


def strangers_document(names: Names) -> str:
    """Nobody of another account pulls or pushes, whatever is granted there or here."""
    foreign = {
        "StringNotEquals": {"aws:PrincipalAccount": names.account_id},
        "BoolIfExists": {"aws:PrincipalIsAWSService": "false"},
    }
    return document(statement("Deny", "ecr:*", None, foreign, "*", "Strangers"))


def lifecycle_document() -> str:
    """What has no tag, and belongs to nothing that has one, expires."""
    rule = {
        "rulePriority": 1,
        "description": "left by pushes that were cut short",
        "selection": {
            "tagStatus": "untagged",
            "countType": "sinceImagePushed",
            "countUnit": "days",
            "countNumber": _UNTAGGED_DAYS,
        },
        "action": {"type": "expire"},
    }
    return json.dumps({"rules": [rule]}, sort_keys=True)


class Registry(pulumi.ComponentResource):
    """Where the environment's images come from: `<prefix>-<environment>/agent-runtime` and `.../control`.

    Makes: one ECR repository an image, with immutable tags, a scan of what is pushed and ECR's own encryption (AES-256; a
    key of one's own would cost a dollar a month and protect nothing that isn't public source), its lifecycle policy and its
    repository policy.
    Protects against: an image that changes under its tag; known holes that nobody looked for; readers and writers from
    another account; repositories filled with what failed pushes left.
    Trust zone: control side. Nodes only pull; operators push.

    Outputs, known at preview: repositories (image → name), urls (image → what an image reference begins with).
    """

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Registry", name, None, opts)
        names = args.names
        self.repositories: dict[str, str] = {image: names.repository(image) for image in IMAGES}
        self.urls: dict[str, str] = {
            image: f"{names.registry}/{repository}" for image, repository in self.repositories.items()
        }
        for image, repository in self.repositories.items():
            made = aws.ecr.Repository(
                f"{name}-{image}",
                name=repository,
                image_tag_mutability="IMMUTABLE",
                image_scanning_configuration={"scan_on_push": True},
                encryption_configurations=[{"encryption_type": "AES256"}],
                force_delete=not args.keep,
                tags=names.tags(f"image-{image}"),
                opts=pulumi.ResourceOptions(parent=self, protect=args.keep),
            )
            child = pulumi.ResourceOptions(parent=self, depends_on=[made])
            aws.ecr.LifecyclePolicy(
                f"{name}-{image}-lifecycle", repository=repository, policy=lifecycle_document(), opts=child
            )
            aws.ecr.RepositoryPolicy(
                f"{name}-{image}-policy", repository=repository, policy=strangers_document(names), opts=child
            )
        self.register_outputs({})
