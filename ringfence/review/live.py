"""What an account really grants, read through AWS's own APIs: paginated, read-only, only this environment's things.

An environment's things are those whose name starts with its prefix and those that its lockfile names. A service that
can't be read is told, never passed over: what isn't seen isn't known to be in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.review import live_eks, live_policies
from ringfence.review.extract_iam import policy_key
from ringfence.review.facts import Fact, Slot, Surface
from ringfence.review.live_scope import Scope
from ringfence.review.lockfile import Lockfile

# Kinds of subjects that an account can be asked about. Others are compared with a preview or state only.
KINDS = frozenset(
    {"role", "user", "group", "policy", "bucket", "key", "secret", "topic", "queue", "function", "repository", "eks"}
)
_READERS: dict[str, Callable[[Scope], Iterator[Fact]]] = {}


@dataclass(frozen=True)
class Live:
    """What was read, and what could not be, a sentence each."""

    surface: Surface
    unread: tuple[str, ...]


def read(lock: Lockfile, session: Any) -> Live:
    """Reads the account of a boto3 session. Raises InputError when it isn't the lockfile's account."""
    from botocore.exceptions import BotoCoreError, ClientError

    environment = lock.content.environment
    try:
        account = session.client("sts").get_caller_identity()["Account"]
    except (BotoCoreError, ClientError) as error:
        raise RingfenceError(
            f"AWS does not answer who is asking: {error}. Check the credentials and region."
        ) from error
    if account != environment.account:
        message = f"is account {account}, but {lock.path} is about {environment.account}"
        raise InputError([Problem("credentials", "", message, "use credentials of that account, or another lockfile")])
    scope = Scope(session, environment.names(), lock.surface)
    facts: list[Fact] = []
    unread: list[str] = []
    for service, reader in _READERS.items():
        try:
            facts += reader(scope)
        except (BotoCoreError, ClientError) as error:
            unread.append(f"{service}: {error}")
    return Live(Surface.of(f"account {account}", facts), tuple(unread))


def comparable(lock: Lockfile) -> Surface:
    """The part of the lockfile that an account can be compared with."""
    kept = {
        place: fact
        for place, fact in lock.surface.facts.items()
        if place[0].split("/", 1)[0] in KINDS and place[1] not in (Slot.INLINE_NAME, Slot.ACCESS)
    }
    return Surface(lock.surface.label, kept)


def document(value: Any) -> Any:
    """A document as the API gives it: botocore decodes IAM's, other services answer with text."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _iam(scope: Scope) -> Iterator[Fact]:
    for page in scope.pages("iam", "get_account_authorization_details", Filter=["User", "Role", "Group"]):
        for role in page.get("RoleDetailList", ()):
            if scope.covers("role", role["RoleName"]):
                yield from _role(role)
        for user in page.get("UserDetailList", ()):
            if scope.covers("user", user["UserName"]):
                yield from _user(scope, user)
        for group in page.get("GroupDetailList", ()):
            if scope.covers("group", group["GroupName"]):
                yield from _policies(f"group/{group['GroupName']}", group, "GroupPolicyList", group["Arn"])
    yield from _managed(scope)


def _managed(scope: Scope) -> Iterator[Fact]:
    client = scope.client("iam")
    for page in scope.pages("iam", "list_policies", Scope="Local"):
        for policy in page["Policies"]:
            if scope.covers("policy", policy["PolicyName"]):
                version = client.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
                found = document(version["PolicyVersion"]["Document"])
                yield Fact(f"policy/{policy['PolicyName']}", Slot.DOCUMENT, "", found, policy["Arn"])


def _policies(subject: str, detail: Mapping[str, Any], inline: str, arn: str) -> Iterator[Fact]:
    yield Fact(subject, Slot.EXISTS, "", True, arn)
    for entry in detail.get(inline, ()):
        yield Fact(subject, Slot.INLINE, entry["PolicyName"], document(entry["PolicyDocument"]), arn)
    for entry in detail.get("AttachedManagedPolicies", ()):
        key = policy_key(entry["PolicyArn"])
        yield Fact(subject, Slot.MANAGED, key, key, arn)


def _boundary(subject: str, detail: Mapping[str, Any]) -> Fact:
    arn = (detail.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn")
    return Fact(subject, Slot.BOUNDARY, "", policy_key(arn) if arn else None, detail["Arn"])


def _role(role: Mapping[str, Any]) -> Iterator[Fact]:
    subject = f"role/{role['RoleName']}"
    yield from _policies(subject, role, "RolePolicyList", role["Arn"])
    yield Fact(subject, Slot.TRUST, "", document(role["AssumeRolePolicyDocument"]), role["Arn"])
    yield _boundary(subject, role)
    for profile in role.get("InstanceProfileList", ()):
        yield Fact(subject, Slot.INSTANCE_PROFILE, profile["InstanceProfileName"], True, role["Arn"])


def _user(scope: Scope, user: Mapping[str, Any]) -> Iterator[Fact]:
    name, arn = user["UserName"], user["Arn"]
    subject = f"user/{name}"
    yield from _policies(subject, user, "UserPolicyList", arn)
    yield _boundary(subject, user)
    for group in user.get("GroupList", ()):
        yield Fact(subject, Slot.MEMBERSHIP, group, True, arn)
    keys = [
        key["AccessKeyId"]
        for page in scope.pages("iam", "list_access_keys", UserName=name)
        for key in page["AccessKeyMetadata"]
    ]
    # The lockfile knows a key by the name it was declared with; AWS only by its id. Their number is what can creep.
    approved = [
        fact.key for fact in scope.approved.of_slot(subject, Slot.CREDENTIAL) if fact.key.startswith("access key")
    ]
    for number, key in enumerate(keys):
        label = approved[number] if number < len(approved) else f"access key {key}"
        yield Fact(subject, Slot.CREDENTIAL, label, True, arn)


_READERS.update(
    {
        "iam": _iam,
        "eks": live_eks.read,
        "s3": live_policies.buckets,
        "kms": live_policies.keys,
        "secretsmanager": live_policies.secrets,
        "sns": live_policies.topics,
        "sqs": live_policies.queues,
        "lambda": live_policies.functions,
        "ecr": live_policies.repositories,
    }
)
