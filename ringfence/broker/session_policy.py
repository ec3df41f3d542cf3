"""The session policy of one credential: the tool's grants, narrowed to this call, until a moment.

A session may do what its role's policies, the role's boundary and this all allow. Narrowing is done by Deny alone, so a
scope can't widen, whatever it says.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from fnmatch import fnmatchcase

from ringfence.broker.model import Scope, stamp
from ringfence.catalog.model import Grant, Tool
from ringfence.errors import InputError, Problem
from ringfence.iam.rendering import Statement, document, policy_size, statement
from ringfence.iam.tool_documents import expand, grant_statement
from ringfence.names import Names

# docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html, Policy. STS also packs policy and tags into a binary
# form with a limit that it doesn't tell; it answers PackedPolicyTooLarge (see `Broker.issue`).
SESSION_POLICY_LIMIT = 2_048


def session_policy(tool: Tool, names: Names, ends: datetime, scope: Scope | None = None) -> str:
    """The policy as text. ends: from then on everything is denied.

    A tool whose grants don't fit the limit gets its actions on every resource instead: the role's own policy, which the
    session can't exceed, still names the resources and conditions. A scope is never shortened.
    Raises InputError when the scope lies outside of the tool's grants or doesn't fit.
    """
    where = f"credential for {tool.name}"
    limits = [_until(ends), *_narrowing(tool, names, scope, where)]
    whole = document(*(grant_statement(grant, names) for grant in tool.grants), *limits)
    if policy_size(whole) <= SESSION_POLICY_LIMIT:
        return whole
    actions = sorted({action for grant in tool.grants for action in grant.actions})
    short = document(statement("Allow", actions, "*"), *limits)
    if policy_size(short) > SESSION_POLICY_LIMIT:
        message = (
            f"the session policy has {policy_size(short):,} characters, of which STS takes {SESSION_POLICY_LIMIT:,}"
        )
        raise InputError([Problem(where, "scope", message, "name fewer actions and resources, or use wildcards")])
    return short


def _until(ends: datetime) -> Statement:
    return statement("Deny", "*", "*", {"DateGreaterThanEquals": {"aws:CurrentTime": stamp(ends)}}, sid="Until")


def _narrowing(tool: Tool, names: Names, scope: Scope | None, where: str) -> list[Statement]:
    """Denies of what lies outside of the scope. Raises InputError for a scope that is no part of the grants."""
    if scope is None:
        return []
    problems = [
        *_outside(
            scope.actions, where, "actions", tool, lambda value: any(_covers(grant, value) for grant in tool.grants)
        ),
        *_outside(scope.resources, where, "resources", tool, lambda value: _granted_resource(tool, names, value)),
    ]
    if problems:
        raise InputError(problems)
    narrowed: list[Statement] = []
    if scope.actions is not None:
        narrowed.append(
            {"Effect": "Deny", "NotAction": sorted(set(scope.actions)), "Resource": "*", "Sid": "OtherActions"}
        )
    if scope.resources is not None:
        resources = sorted(set(scope.resources))
        narrowed.append({"Effect": "Deny", "Action": "*", "NotResource": resources, "Sid": "OtherResources"})
    return narrowed


def _outside(
    values: tuple[str, ...] | None, where: str, key: str, tool: Tool, inside: Callable[[str], bool]
) -> list[Problem]:
    if values is None:
        return []
    remedy = f"name {key} that catalog tool {tool.name} is granted"
    if not values:
        return [Problem(where, f"scope.{key}", "is empty: nothing would be allowed", remedy)]
    return [
        Problem(where, f"scope.{key}", f"{value!r} is not granted to the tool", remedy)
        for value in values
        if not inside(value)
    ]


def _covers(grant: Grant, action: str) -> bool:
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in grant.actions)


def _granted_resource(tool: Tool, names: Names, resource: str) -> bool:
    """Whether the ARN, or pattern, matches a granted one as text: a narrower pattern is matched by a wider one."""
    granted = [expand(pattern, names) for grant in tool.grants for pattern in grant.resources]
    return any(_as_wide(pattern, resource) for pattern in granted)


def _as_wide(pattern: str, resource: str) -> bool:
    # fnmatch reads "[" as a class; IAM takes it literally.
    return fnmatchcase(resource, pattern.replace("[", "[[]")) and not ("*" in resource and "*" not in pattern)
