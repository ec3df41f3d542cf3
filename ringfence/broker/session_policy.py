"""The session policy of one credential: the tool's grants without calls of models, narrowed to this call, until a moment.

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
from ringfence.iam.rendering import Statement, policy_size
from ringfence.iam.session_grants import SESSION_POLICY_LIMIT, session_document, session_grants, session_problems
from ringfence.iam.tool_documents import expand
from ringfence.names import Names


def session_policy(tool: Tool, names: Names, ends: datetime, scope: Scope | None = None) -> str:
    """The policy as text. ends: from then on everything is denied.

    Raises InputError when the scope lies outside of the tool's grants, or when grants and scope don't fit what STS takes:
    nothing is left out or widened to make them fit.
    """
    where = f"credential for {tool.name}"
    if problems := session_problems(tool, names, where):
        raise InputError(problems)
    whole = session_document(tool, names, stamp(ends), _narrowing(tool, names, scope, where))
    if policy_size(whole) > SESSION_POLICY_LIMIT:
        message = (
            f"the session policy has {policy_size(whole):,} characters, of which STS takes {SESSION_POLICY_LIMIT:,}"
        )
        raise InputError([Problem(where, "scope", message, "name fewer actions and resources, or use wildcards")])
    return whole


def _narrowing(tool: Tool, names: Names, scope: Scope | None, where: str) -> list[Statement]:
    """Denies of what lies outside of the scope. Raises InputError for a scope that is no part of the grants."""
    if scope is None:
        return []
    problems = [
        *_outside(
            scope.actions,
            where,
            "actions",
            tool,
            lambda value: any(_covers(grant, value) for grant in session_grants(tool)),
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
    granted = [expand(pattern, names) for grant in session_grants(tool) for pattern in grant.resources]
    return any(_as_wide(pattern, resource) for pattern in granted)


def _as_wide(pattern: str, resource: str) -> bool:
    # fnmatch reads "[" as a class; IAM takes it literally.
    return fnmatchcase(resource, pattern.replace("[", "[[]")) and not ("*" in resource and "*" not in pattern)
