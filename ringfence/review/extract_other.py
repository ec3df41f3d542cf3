"""Facts of AWS resources whose type has no row: whatever policy document they hold, and every one that can't be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.review.facts import Fact, Slot, Unknown, plain_document
from ringfence.review.resource import Resource, document_of

# Names that properties with an IAM policy document have in the schemas of the aws and aws-native providers.
_DOCUMENT_NAME = re.compile(
    r"(?:(?:resource|resourceBased|access|inline|session|auth|trust|key|bucket|topic|queue|vault|repository|domain|cluster"
    r"|catalog|endpoint|vpcEndpoint|sink|iam|assumeRole|deliveryDestination|fileSystem|permissions|kms|s3|sts)?"
    r"(?:Policy|Policies)(?:Document|Text|Json|Template)?|content)",
    re.IGNORECASE,
)
# Properties of such a name that hold no IAM policy: an unknown value of theirs grants nothing.
NOT_IAM: Mapping[str, str] = {
    "aws:cfg/organizationCustomPolicyRule:OrganizationCustomPolicyRule": "rules in Guard's language",
    "aws:cloudwatch/logAccountPolicy:LogAccountPolicy": "data protection, subscription or index of log groups",
    "aws:cloudwatch/logDataProtectionPolicy:LogDataProtectionPolicy": "what is masked in log events",
    "aws:cloudwatch/logIndexPolicy:LogIndexPolicy": "indexed fields of log groups",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": "which images expire",
    "aws:networkmanager/coreNetworkPolicyAttachment:CoreNetworkPolicyAttachment": "segments of a network",
    "aws:opensearch/serverlessLifecyclePolicy:ServerlessLifecyclePolicy": "how long indexes are kept",
    "aws:ses/receiptFilter:ReceiptFilter": "the words Block or Allow",
    "aws:sns/dataProtectionPolicy:DataProtectionPolicy": "what is masked in messages",
    "aws:storagegateway/nfsFileShare:NfsFileShare": "when uploads are announced",
    "aws:storagegateway/smbFileShare:SmbFileShare": "when uploads are announced",
}
# Deeper than any schema puts a document.
_DEPTH = 8


def is_document_name(name: str) -> bool:
    """Whether a property of this name may hold an IAM policy document."""
    return _DOCUMENT_NAME.fullmatch(name) is not None


def may_hold_policy(type_: str) -> bool:
    """Whether resources of a type without a row can hold a policy document."""
    return type_.startswith(("aws:", "aws-native:")) and type_ not in NOT_IAM


def any_policy(resource: Resource) -> Iterator[Fact]:
    """A fact for each policy document in the resource's properties, at any depth, known or not."""
    if not may_hold_policy(resource.type):
        return
    name = resource.text("name")
    subject = f"{resource.type}/{name if isinstance(name, str) and name else resource.name}"
    for path, value in _documents("", "", resource.props, _DEPTH):
        yield Fact(subject, Slot.RESOURCE_POLICY, path, value)


def _documents(path: str, name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Path and value of each document. name: of the property that holds the value, or the list that it is in."""
    document = document_of(value)
    if is_policy_document(document) or (isinstance(document, Unknown) and is_document_name(name)):
        yield path, document
    elif isinstance(value, Mapping | list | tuple) and depth:
        parts = value.items() if isinstance(value, Mapping) else ((name, item) for item in value)
        for key, part in parts:
            below = key if not path else f"{path}.{key}" if isinstance(value, Mapping) else path
            yield from _documents(str(below), str(key), part, depth - 1)


def is_policy_document(value: Any) -> bool:
    """Whether a value is an IAM policy document, as text or as a mapping."""
    if isinstance(value, str) and '"Statement"' not in value:
        return False
    mapping = plain_document(value)
    if not isinstance(mapping, dict) or "Statement" not in mapping:
        return False
    listed = mapping["Statement"] if isinstance(mapping["Statement"], list) else [mapping["Statement"]]
    return any(isinstance(statement, dict) and "Effect" in statement for statement in listed)
