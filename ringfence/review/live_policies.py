"""Policies on resources as an account has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from ringfence.review.extract_policies import grantee
from ringfence.review.facts import Fact, Slot, last_part
from ringfence.review.live_scope import Scope

# Error codes that mean: there is no policy.
_NONE = frozenset({"NoSuchBucketPolicy", "ResourceNotFoundException", "RepositoryPolicyNotFoundException"})


def _document(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _fact(scope: Scope, subject: str, document: Any, arn: str) -> Iterator[Fact]:
    if document and not _made_by_aws(scope, subject, document):
        yield Fact(subject, Slot.RESOURCE_POLICY, "", document, arn)


def _made_by_aws(scope: Scope, subject: str, document: Any) -> bool:
    """Whether a policy is the one that AWS gives to a resource for which none was asked: it delegates to the account's
    own policies and grants nobody else anything."""
    if scope.approved.of_slot(subject, Slot.RESOURCE_POLICY) or not isinstance(document, dict):
        return False
    statements = document.get("Statement")
    if not isinstance(statements, list) or len(statements) != 1 or statements[0].get("Effect") != "Allow":
        return False
    root = f"arn:{scope.names.partition}:iam::{scope.names.account_id}:root"
    if document.get("Id") == "key-default-1":
        return statements[0].get("Principal") in ({"AWS": root}, {"AWS": [root]})
    owner = ((statements[0].get("Condition") or {}).get("StringEquals") or {}).get("AWS:SourceOwner")
    return document.get("Id") == "__default_policy_ID" and owner == scope.names.account_id


def _answer(client: Any, operation: str, field: str, **params: Any) -> Any:
    """One answer's field, None where the resource has no policy."""
    try:
        return getattr(client, operation)(**params).get(field)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _NONE:
            return None
        raise


def buckets(scope: Scope) -> Iterator[Fact]:
    """Bucket policies."""
    client = scope.client("s3")
    for page in scope.pages("s3", "list_buckets"):
        for bucket in page.get("Buckets", ()):
            name = bucket["Name"]
            if scope.covers("bucket", name):
                document = _document(_answer(client, "get_bucket_policy", "Policy", Bucket=name))
                yield from _fact(scope, f"bucket/{name}", document, f"arn:{scope.names.partition}:s3:::{name}")


def keys(scope: Scope) -> Iterator[Fact]:
    """Key policies, and grants to anybody but AWS's own services."""
    client = scope.client("kms")
    for page in scope.pages("kms", "list_keys"):
        for listed in page["Keys"]:
            key_id, arn = listed["KeyId"], listed["KeyArn"]
            described = client.describe_key(KeyId=key_id)["KeyMetadata"]
            if described.get("KeyManager") == "AWS" or described.get("KeyState") == "PendingDeletion":
                continue
            tags = {tag["TagKey"]: tag["TagValue"] for tag in client.list_resource_tags(KeyId=key_id).get("Tags", ())}
            name = tags.get("Name", key_id)
            if scope.covers("key", name):
                text = _answer(client, "get_key_policy", "Policy", KeyId=key_id, PolicyName="default")
                yield from _fact(scope, f"key/{name}", _document(text), arn)
                yield from _grants(scope, f"key/{name}", key_id, arn)


def _grants(scope: Scope, subject: str, key_id: str, arn: str) -> Iterator[Fact]:
    for page in scope.pages("kms", "list_grants", KeyId=key_id):
        for grant in page["Grants"]:
            who = grant.get("GranteePrincipal", "")
            if who.endswith(".amazonaws.com") or "/aws-service-role/" in who:
                continue
            value = {
                "grantee": grantee(who),
                "operations": sorted(grant.get("Operations", ())),
                "constraints": grant.get("Constraints") or None,
            }
            yield Fact(subject, Slot.KMS_GRANT, grant.get("Name") or grant["GrantId"], value, arn)


def secrets(scope: Scope) -> Iterator[Fact]:
    """Policies on secrets."""
    client = scope.client("secretsmanager")
    for page in scope.pages("secretsmanager", "list_secrets"):
        for secret in page["SecretList"]:
            if scope.covers("secret", secret["Name"]):
                text = _answer(client, "get_resource_policy", "ResourcePolicy", SecretId=secret["ARN"])
                yield from _fact(scope, f"secret/{secret['Name']}", _document(text), secret["ARN"])


def topics(scope: Scope) -> Iterator[Fact]:
    """Topic policies."""
    client = scope.client("sns")
    for page in scope.pages("sns", "list_topics"):
        for topic in page["Topics"]:
            arn = topic["TopicArn"]
            if scope.covers("topic", last_part(arn)):
                attributes = client.get_topic_attributes(TopicArn=arn)["Attributes"]
                yield from _fact(scope, f"topic/{last_part(arn)}", _document(attributes.get("Policy")), arn)


def queues(scope: Scope) -> Iterator[Fact]:
    """Queue policies."""
    client = scope.client("sqs")
    for page in scope.pages("sqs", "list_queues"):
        for url in page.get("QueueUrls", ()):
            name = last_part(url)
            if scope.covers("queue", name):
                answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
                yield from _fact(scope, f"queue/{name}", _document(answer.get("Attributes", {}).get("Policy")), url)


def functions(scope: Scope) -> Iterator[Fact]:
    """Function policies, a fact per statement as they are declared."""
    client = scope.client("lambda")
    for page in scope.pages("lambda", "list_functions"):
        for function in page["Functions"]:
            name = function["FunctionName"]
            if not scope.covers("function", name):
                continue
            document = _document(_answer(client, "get_policy", "Policy", FunctionName=name))
            for statement in document.get("Statement", ()) if isinstance(document, dict) else ():
                placed = {**statement, "Resource": f"arn:aws:lambda:*:*:function:{name}"}
                whole = {"Version": "2012-10-17", "Statement": [placed]}
                yield Fact(
                    f"function/{name}", Slot.RESOURCE_POLICY, statement.get("Sid", ""), whole, function["FunctionArn"]
                )


def repositories(scope: Scope) -> Iterator[Fact]:
    """Repository policies."""
    client = scope.client("ecr")
    for page in scope.pages("ecr", "describe_repositories"):
        for repository in page["repositories"]:
            name = repository["repositoryName"]
            if scope.covers("repository", name):
                text = _answer(client, "get_repository_policy", "policyText", repositoryName=name)
                yield from _fact(scope, f"repository/{name}", _document(text), repository["repositoryArn"])
