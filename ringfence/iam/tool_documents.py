"""The IAM documents that a catalog tool stands for: who may become its role, and what the role may then do.

Pure: the component that makes the roles, the grant lockfile and the review all render through here, so what is reviewed
is what is made. Trust zone: operator.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ringfence.catalog.model import Grant, Tool
from ringfence.errors import InputError, Problem
from ringfence.iam.rendering import (
    INLINE_POLICIES_LIMIT,
    TRUST_POLICY_LIMIT,
    Statement,
    document,
    size_problems,
    statement,
)
from ringfence.names import Names

# Session tags without which nobody, the broker included, becomes a tool's role. They are what ABAC conditions and the
# audit trail identify a call by.
INVOCATION_TAG = "invocation"
TOOL_TAG = "tool"
USER_TAG = "user"
# Tells the credentials of one invocation and tool apart, so that each can be revoked.
CREDENTIAL_TAG = "credential"
# What the broker needs to assume a role with tags and a source identity.
ASSUME_ACTIONS = ("sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession")
# docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
ROLE_NAME_LIMIT = 64
# Matches any value, but only where there is one.
_PRESENT = "?*"


@dataclass(frozen=True, slots=True)
class ToolDocuments:
    """One tool's role as text: `policy` is None for a tool without grants, since IAM refuses an empty policy."""

    role_name: str
    trust: str
    policy: str | None


def expand(text: str, names: Names) -> str:
    """`text` with the catalog's ``${partition}``, ``${region}`` and ``${account}`` filled in; IAM's own policy
    variables (``${aws:PrincipalTag/user}``) stay."""
    values = {"partition": names.partition, "region": names.region, "account": names.account_id}
    for key, value in values.items():
        text = text.replace(f"${{{key}}}", value)
    return text


def grant_statement(grant: Grant, names: Names) -> Statement:
    """The Allow statement of one grant, placeholders filled in."""
    return statement(
        "Allow",
        grant.actions,
        [expand(resource, names) for resource in grant.resources],
        {
            operator: {key: [expand(value, names) for value in values] for key, values in keys.items()}
            for operator, keys in grant.conditions.items()
        },
    )


def grant_statements(tool: Tool, names: Names) -> list[Statement]:
    """The tool's grants as statements in canonical order, so that reordering grants changes nothing."""
    statements = [grant_statement(grant, names) for grant in tool.grants]
    return sorted(statements, key=lambda item: json.dumps(item, sort_keys=True))


def grants_document(tool: Tool, names: Names) -> str | None:
    """The role's inline policy; None for a tool without grants."""
    return document(*grant_statements(tool, names)) if tool.grants else None


def trust_document(tool: Tool, names: Names, broker_role_arn: str) -> str:
    """Trust in the broker's role alone, and only for a session with a source identity, the tool's own tag, an
    invocation, a user and a credential's id."""
    return document(
        statement(
            "Allow",
            ASSUME_ACTIONS,
            None,
            {
                "StringEquals": {f"aws:RequestTag/{TOOL_TAG}": tool.name},
                "StringLike": {
                    "sts:SourceIdentity": _PRESENT,
                    f"aws:RequestTag/{INVOCATION_TAG}": _PRESENT,
                    f"aws:RequestTag/{USER_TAG}": _PRESENT,
                    f"aws:RequestTag/{CREDENTIAL_TAG}": _PRESENT,
                },
            },
            principals={"AWS": broker_role_arn},
        )
    )


def broker_role_name(names: Names) -> str:
    """Name of the role that the broker's pod has, and the only principal that tool roles trust."""
    return names.name("broker")


def tool_documents(tool: Tool, names: Names) -> ToolDocuments:
    """Both documents of a tool's role. Raises InputError when the name or a document exceeds IAM's quota."""
    role_name = names.tool_role(tool.name)
    broker = names.iam_arn(f"role/{broker_role_name(names)}")
    made = ToolDocuments(role_name, trust_document(tool, names, broker), grants_document(tool, names))
    owner = f"role {role_name}"
    problems = size_problems(owner, "trust policy", [made.trust], TRUST_POLICY_LIMIT)
    if made.policy:
        problems += size_problems(owner, "inline policies", [made.policy], INLINE_POLICIES_LIMIT)
    if len(role_name) > ROLE_NAME_LIMIT:
        message = f"the name has {len(role_name)} characters, of which IAM allows {ROLE_NAME_LIMIT}"
        problems.append(
            Problem(owner, "name", message, "shorten the tool's name, the prefix or the environment's name")
        )
    if problems:
        raise InputError(problems)
    return made
