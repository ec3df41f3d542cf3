"""What the session policy of a tool's credentials allows: the tool's grants, without those that call models, in few words.

Models are called through the model gateway, which counts and caps what they cost; a credential that could call them too
would spend past the gateway. Trust zone: control side.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from ringfence.catalog.model import Grant, Tool
from ringfence.errors import Problem
from ringfence.iam.rendering import Statement, document, policy_size, statement
from ringfence.iam.tool_documents import grant_statement
from ringfence.names import Names

# docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html, Policy. STS also packs policy and tags into a binary
# form with a limit that it doesn't tell; it answers PackedPolicyTooLarge (see `Broker.issue`).
SESSION_POLICY_LIMIT = 2_048
# Amazon Bedrock's model invocations; Converse is authorized as InvokeModel (Service Authorization Reference).
_INVOKES = "bedrock:InvokeModel*"
_INVOCATIONS = (
    "bedrock:invokemodel",
    "bedrock:invokemodelwithresponsestream",
    "bedrock:invokemodelwithbidirectionalstream",
)
_END = "2030-01-01T00:00:00Z"


def invokes_models(action: str) -> bool:
    """Whether an action, or all that a pattern stands for, is the invocation of a model."""
    return action.lower().startswith("bedrock:invokemodel")


def session_grants(tool: Tool) -> tuple[Grant, ...]:
    """The tool's grants without actions that invoke models, and without grants that have no others."""
    rest = ((grant, tuple(action for action in grant.actions if not invokes_models(action))) for grant in tool.grants)
    return tuple(grant.model_copy(update={"actions": actions}) for grant, actions in rest if actions)


def needs_credential(tool: Tool) -> bool:
    """Whether the tool calls AWS itself. A tool that only calls models does not: the model gateway calls for it."""
    return bool(session_grants(tool))


def session_document(tool: Tool, names: Names, ends: str, narrowing: Iterable[Statement] = ()) -> str:
    """The session policy as text: the grants until `ends` (``YYYY-MM-DDTHH:MM:SSZ``), less what `narrowing` denies."""
    grants = session_grants(tool)
    limits = [statement("Deny", "*", "*", {"DateGreaterThanEquals": {"aws:CurrentTime": ends}}), *narrowing]
    if any(fnmatchcase(call, action.lower()) for grant in grants for action in grant.actions for call in _INVOCATIONS):
        # A pattern such as bedrock:Invoke* stands for models among others.
        limits.append(statement("Deny", _INVOKES, "*"))
    allowed = _merged([grant_statement(grant, names) for grant in grants])
    return document(*(_short(item) for item in (*allowed, *limits)))


def session_problems(tool: Tool, names: Names, where: str) -> list[Problem]:
    """The problem, if any, that no credential of the tool could be issued: its grants don't fit a session policy."""
    if not needs_credential(tool):
        return []
    size = policy_size(session_document(tool, names, _END))
    if size <= SESSION_POLICY_LIMIT:
        return []
    message = f"the session policy has {size:,} characters, of which STS takes {SESSION_POLICY_LIMIT:,}"
    remedy = "split the tool in two, grant fewer actions or resources, or use prefixes with a wildcard"
    return [Problem(where, "grants", message, remedy, tool.source.line)]


def _merged(statements: list[Statement]) -> list[Statement]:
    """Statements that mean the same in fewer words: those that differ in actions alone, or in resources alone, are one."""
    for joined, kept in (("Action", "Resource"), ("Resource", "Action")):
        found: dict[str, Statement] = {}
        for item in statements:
            key = repr((item[kept], sorted(item.get("Condition", {}).items())))
            if key in found:
                found[key] = {**found[key], joined: sorted({*found[key][joined], *item[joined]})}
            else:
                found[key] = item
        statements = list(found.values())
    return statements


def _short(value: Any) -> Any:
    """Lists of one text as that text, which IAM takes for the same."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return value[0] if isinstance(value, list) and len(value) == 1 else value
