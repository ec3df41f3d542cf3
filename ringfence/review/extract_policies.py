"""Facts of policies on resources: buckets, keys, secrets, topics, queues, functions, repositories and the rest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ringfence.review.extract_access import acl_facts
from ringfence.review.extract_iam import UNNAMED, own_name, policy_key
from ringfence.review.facts import Fact, Slot, Unknown, last_part
from ringfence.review.resource import Resource, document_of, first_unknown

BUCKET_TYPES = ("aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2")
KEY, SECRET = "aws:kms/key:Key", "aws:secretsmanager/secret:Secret"
TOPIC, QUEUE = "aws:sns/topic:Topic", "aws:sqs/queue:Queue"
FUNCTION, REPOSITORY = "aws:lambda/function:Function", "aws:ecr/repository:Repository"
_SECRET_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}\Z")


def bucket_name(resource: Resource) -> str:
    """A bucket's name; its Pulumi name when AWS's is made up at creation."""
    name = resource.text("bucket", "bucketName")
    return name if isinstance(name, str) and name else resource.name


def key_name(resource: Resource) -> str:
    """A key's Name tag, since key ids are made up at creation; its Pulumi name without one."""
    tags = resource.get("tags") or {}
    name = tags.get("Name") if isinstance(tags, dict) else None
    return name if isinstance(name, str) else resource.name


@dataclass(frozen=True, slots=True)
class _Row:
    """A type with a policy document. kind: of its subject; target: the property that names the resource, empty when
    the resource is the type's own; policy: the property with the document; owners: types that the target refers to."""

    kind: str
    target: str = ""
    policy: str = "policy"
    owners: tuple[str, ...] = ()


_NAMERS: dict[str, Callable[[Resource], str]] = {"bucket": bucket_name, "key": key_name}

# What stands before a repository's name in its ARN and its address.
_REPOSITORY_PLACE = re.compile(r"^arn:[^/]*:repository/|^[^/]*[.]dkr[.]ecr[.][^/]*/")

# Type token → row, from the schema of the aws provider 7.51 and 6: what names the resource that a document is on, so that
# it is the same subject as in a live account. A type that is missing here is `extract_other`'s.
_ROWS: dict[str, _Row] = {
    **{token: _Row("bucket") for token in BUCKET_TYPES},
    "aws:s3/bucketPolicy:BucketPolicy": _Row("bucket", "bucket", owners=BUCKET_TYPES),
    KEY: _Row("key"),
    "aws:kms/externalKey:ExternalKey": _Row("key"),
    "aws:kms/replicaKey:ReplicaKey": _Row("key"),
    "aws:kms/replicaExternalKey:ReplicaExternalKey": _Row("key"),
    "aws:kms/keyPolicy:KeyPolicy": _Row("key", "keyId", owners=(KEY,)),
    SECRET: _Row("secret"),
    "aws:secretsmanager/secretPolicy:SecretPolicy": _Row("secret", "secretArn", owners=(SECRET,)),
    TOPIC: _Row("topic"),
    "aws:sns/topicPolicy:TopicPolicy": _Row("topic", "arn", owners=(TOPIC,)),
    QUEUE: _Row("queue"),
    "aws:sqs/queuePolicy:QueuePolicy": _Row("queue", "queueUrl", owners=(QUEUE,)),
    "aws:ecr/repositoryPolicy:RepositoryPolicy": _Row("repository", "repository", owners=(REPOSITORY,)),
    "aws:ecr/registryPolicy:RegistryPolicy": _Row("registry"),
    "aws:ecrpublic/repositoryPolicy:RepositoryPolicy": _Row("public-repository", "repositoryName"),
    "aws:lambda/resourcePolicy:ResourcePolicy": _Row("function", "resourceArn", owners=(FUNCTION,)),
    "aws:dynamodb/resourcePolicy:ResourcePolicy": _Row("table", "resourceArn", owners=("aws:dynamodb/table:Table",)),
    "aws:kinesis/resourcePolicy:ResourcePolicy": _Row("stream", "resourceArn", owners=("aws:kinesis/stream:Stream",)),
    "aws:glue/resourcePolicy:ResourcePolicy": _Row("glue-catalog"),
    "aws:cloudwatch/eventBusPolicy:EventBusPolicy": _Row("event-bus", "eventBusName"),
    "aws:cloudwatch/logResourcePolicy:LogResourcePolicy": _Row("log-resource-policy", "policyName", "policyDocument"),
    "aws:cloudwatch/logDestinationPolicy:LogDestinationPolicy": _Row(
        "log-destination", "destinationName", "accessPolicy"
    ),
    "aws:backup/vaultPolicy:VaultPolicy": _Row("backup-vault", "backupVaultName"),
    "aws:efs/fileSystemPolicy:FileSystemPolicy": _Row("file-system", "fileSystemId"),
    "aws:opensearch/domainPolicy:DomainPolicy": _Row("search-domain", "domainName", "accessPolicies"),
    "aws:opensearch/domain:Domain": _Row("search-domain", "domainName", "accessPolicies"),
    "aws:elasticsearch/domainPolicy:DomainPolicy": _Row("search-domain", "domainName", "accessPolicies"),
    "aws:apigateway/restApiPolicy:RestApiPolicy": _Row("rest-api", "restApiId"),
    "aws:apigateway/restApi:RestApi": _Row("rest-api"),
    "aws:ses/identityPolicy:IdentityPolicy": _Row("email-identity", "identity"),
    "aws:sesv2/emailIdentityPolicy:EmailIdentityPolicy": _Row("email-identity", "emailIdentity"),
    "aws:acmpca/policy:Policy": _Row("certificate-authority", "resourceArn"),
    "aws:codebuild/resourcePolicy:ResourcePolicy": _Row("codebuild", "resourceArn"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _Row("vpc-endpoint"),
    "aws:ec2/vpcEndpointPolicy:VpcEndpointPolicy": _Row(
        "vpc-endpoint", "vpcEndpointId", owners=("aws:ec2/vpcEndpoint:VpcEndpoint",)
    ),
    "aws:s3control/accessPointPolicy:AccessPointPolicy": _Row("access-point", "accessPointArn"),
    "aws:s3/accessPoint:AccessPoint": _Row("access-point"),
    "aws:msk/clusterPolicy:ClusterPolicy": _Row("kafka-cluster", "clusterArn"),
    "aws:organizations/policy:Policy": _Row("organization-policy", policy="content"),
    "aws:ssoadmin/permissionSetInlinePolicy:PermissionSetInlinePolicy": _Row(
        "permission-set", "permissionSetArn", "inlinePolicy"
    ),
    "aws:iot/policy:Policy": _Row("iot-policy"),
    "aws:vpclattice/authPolicy:AuthPolicy": _Row("lattice", "resourceIdentifier"),
    "aws:vpclattice/resourcePolicy:ResourcePolicy": _Row("lattice", "resourceArn"),
}


# Types that hold a policy of their own.
OWNERS = frozenset(type_ for type_, row in _ROWS.items() if not row.target)


def subject_name(kind: str, value: str) -> str:
    """The bare name of a resource in a name, ARN or URL; a secret's without the suffix that AWS adds to its ARN; a
    repository's whole, slashes included, as the account lists it."""
    if kind == "repository":
        return _REPOSITORY_PLACE.sub("", value)
    name = last_part(value)
    return _SECRET_SUFFIX.sub("", name) if kind == "secret" and value.startswith("arn:") else name


def _subject(resource: Resource, row: _Row) -> str:
    namer = _NAMERS.get(row.kind, own_name)
    if not row.target:
        return f"{row.kind}/{namer(resource)}"
    other = resource.linked(row.target, *row.owners)
    if other is not None:
        return f"{row.kind}/{namer(other)}"
    value = resource.text(row.target)
    if isinstance(value, Unknown):
        return f"{row.kind}/{UNNAMED} of {resource.name}"
    return f"{row.kind}/{subject_name(row.kind, value) or resource.name}"


def policy_owner(resource: Resource) -> str:
    """The subject of a resource that can have a policy, whether it has one or not; empty for any other."""
    row = _ROWS.get(resource.type)
    return _subject(resource, row) if row is not None and not row.target else ""


def _row_extractor(row: _Row) -> Callable[[Resource], Iterator[Fact]]:
    def extract(resource: Resource) -> Iterator[Fact]:
        value = resource.get(row.policy)
        if value is not None and value != "":
            yield Fact(_subject(resource, row), Slot.RESOURCE_POLICY, "", document_of(value))

    return extract


def permission_statement(props: dict[str, Any]) -> dict[str, Any]:
    """The policy statement that a Lambda permission stands for.
    Source: AWS Lambda API reference, AddPermission."""
    principal = str(props.get("principal") or "")
    conditions: dict[str, dict[str, str]] = {}
    if props.get("sourceArn"):
        conditions["ArnLike"] = {"AWS:SourceArn": str(props["sourceArn"])}
    for prop, key in (("sourceAccount", "AWS:SourceAccount"), ("principalOrgId", "aws:PrincipalOrgID")):
        if props.get(prop):
            conditions.setdefault("StringEquals", {})[key] = str(props[prop])
    if props.get("functionUrlAuthType"):
        conditions.setdefault("StringEquals", {})["lambda:FunctionUrlAuthType"] = str(props["functionUrlAuthType"])
    who: Any = "*" if principal == "*" else {"Service" if ".amazonaws.com" in principal else "AWS": principal}
    name = str(props.get("functionName") or "*")
    resource = name if name.startswith("arn:") else f"arn:aws:lambda:*:*:function:{name}"
    return {
        "Effect": "Allow",
        "Principal": who,
        "Action": str(props.get("action") or "lambda:*"),
        "Resource": resource,
        **({"Condition": conditions} if conditions else {}),
    }


def _function_name(resource: Resource) -> str | Unknown:
    names = ("function", "functionName")
    linked = next((other for name in names if (other := resource.linked(name, FUNCTION))), None)
    value = own_name(linked) if linked else resource.text(*names)
    return value if isinstance(value, Unknown) else last_part(value)


def _permission(resource: Resource) -> Iterator[Fact]:
    name = _function_name(resource)
    props = {key: resource.get(key) for key in ("action", "principal", "sourceAccount", "sourceArn", "principalOrgId")}
    props |= {"functionUrlAuthType": resource.get("functionUrlAuthType"), "functionName": name}
    statement_id = resource.text("statementId")
    key = statement_id if isinstance(statement_id, str) and statement_id else resource.name
    unknown = first_unknown(props)
    document = unknown or {"Version": "2012-10-17", "Statement": [permission_statement(props)]}
    yield Fact(f"function/{_text(name, resource)}", Slot.RESOURCE_POLICY, key, document)


def _text(name: str | Unknown, resource: Resource) -> str:
    return name if isinstance(name, str) else f"{UNNAMED} of {resource.name}"


def _function_url(resource: Resource) -> Iterator[Fact]:
    auth = resource.text("authorizationType", "authType")
    subject = f"function/{_text(_function_name(resource), resource)}"
    yield Fact(subject, Slot.FUNCTION_URL, "", auth)


def _grant(resource: Resource) -> Iterator[Fact]:
    other = resource.linked("keyId", KEY)
    key_id = resource.text("keyId")
    name = key_name(other) if other else key_id if isinstance(key_id, Unknown) else last_part(key_id)
    operations = resource.get("operations") or []
    value = {
        "grantee": grantee(resource.get("granteePrincipal")),
        "operations": operations if first_unknown(operations) else sorted(map(str, operations)),
        "constraints": resource.get("constraints") or None,
    }
    label = own_name(resource)
    yield Fact(f"key/{_text(name, resource)}", Slot.KMS_GRANT, label, first_unknown(value) or value)


def grantee(arn: Any) -> Any:
    """A grant's principal as ``role/x`` for a role, else its ARN."""
    return f"role/{last_part(arn)}" if isinstance(arn, str) and ":role/" in arn else arn


def _stack_template(resource: Resource) -> Iterator[Fact]:
    """CloudFormation makes resources that the engine never shows: a template is approved as a whole. Without IAM in it
    too, since the policy of a bucket or a permission on a function needs no capability."""
    body = resource.get("templateBody", "templateUrl", "templateURL")
    digest = first_unknown(body) or hashlib.sha256(str(body).encode()).hexdigest()
    yield Fact(f"cloudformation/{own_name(resource)}", Slot.TEMPLATE, "", digest)


def _permission_set_attachment(resource: Resource) -> Iterator[Fact]:
    value = resource.get("managedPolicyArn")
    name = resource.target("permissionSetArn", ("aws:ssoadmin/permissionSet:PermissionSet",), own_name)
    key = policy_key(value)
    yield Fact(f"permission-set/{_text(name, resource)}", Slot.MANAGED, key, value if key == UNNAMED else key)


def _bucket(resource: Resource) -> Iterator[Fact]:
    yield from _row_extractor(_ROWS[resource.type])(resource)
    yield from acl_facts(resource, "bucket", bucket_name(resource))


def _bucket_acl(resource: Resource) -> Iterator[Fact]:
    yield from acl_facts(resource, "bucket", _subject(resource, _Row("bucket", "bucket", owners=BUCKET_TYPES))[7:])


EXTRACTORS: dict[str, Callable[[Resource], Iterator[Fact]]] = {
    **{token: _row_extractor(row) for token, row in _ROWS.items()},
    **dict.fromkeys(BUCKET_TYPES, _bucket),
    **dict.fromkeys(("aws:s3/bucketAcl:BucketAcl", "aws:s3/bucketAclV2:BucketAclV2"), _bucket_acl),
    "aws:lambda/permission:Permission": _permission,
    "aws:lambda/functionUrl:FunctionUrl": _function_url,
    "aws:kms/grant:Grant": _grant,
    "aws:cloudformation/stack:Stack": _stack_template,
    "aws:cloudformation/stackSet:StackSet": _stack_template,
    "aws-native:cloudformation:Stack": _stack_template,
    "aws-native:cloudformation:StackSet": _stack_template,
    "aws:ssoadmin/managedPolicyAttachment:ManagedPolicyAttachment": _permission_set_attachment,
}
