"""One IAM role per catalog tool."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.tool_boundary import ToolBoundary, ToolBoundaryArgs
from ringfence.broker.revocation import LONGEST_SESSION, POLICY_NAME, revoked_document
from ringfence.catalog.model import Tool
from ringfence.errors import InputError
from ringfence.iam.session_grants import session_problems
from ringfence.iam.tool_documents import TOOL_TAG, tool_documents
from ringfence.names import Names

# The longest a session of a tool may be; STS gives at least 900 s, and the broker cuts sessions to the tool's own life.
MAX_SESSION_SECONDS = int(LONGEST_SESSION.total_seconds())
# IAM's limit (docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html).
_DESCRIPTION_LIMIT = 1000


@dataclass(frozen=True)
class ToolRoleArgs:
    """tool: the declaration that the role is made from."""

    names: Names
    tool: Tool


class ToolRole(pulumi.ComponentResource):
    """The role that the broker assumes for calls of one tool.

    Makes: the role, its trust policy, its permissions boundary, its inline policies `grants` and `revoked` (none for a
    tool without grants), and the statement that it has no other inline policy and no managed one.
    Protects against: anybody but the broker becoming the tool; sessions that can't be traced to an invocation and a
    user; grants beyond the declaration, also those added by hand; use of a revoked credential. Documents are known at
    preview, so that a review sees them before they exist; what `revoked` lists is the broker's and no difference.
    Trust zone: control side (the role is used for the sandbox's sake, but never from inside it).

    Depend on BrokerAccess: IAM refuses a trust policy that names what is not there.

    Outputs: role_name, role_arn, trust_document, policy_document: all known at preview.
    """

    def __init__(self, name: str, args: ToolRoleArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:ToolRole", name, None, opts)
        names, tool = args.names, args.tool
        if problems := session_problems(tool, names, f"tool {tool.name}"):
            raise InputError(problems)
        documents = tool_documents(tool, names)
        self.role_name: str = documents.role_name
        self.role_arn: str = names.iam_arn(f"role/{documents.role_name}")
        self.trust_document: str = documents.trust
        self.policy_document: str | None = documents.policy
        child = pulumi.ResourceOptions(parent=self)
        boundary = ToolBoundary(f"{name}-boundary", ToolBoundaryArgs(names, tool), child)
        role = aws.iam.Role(
            f"{name}-role",
            name=documents.role_name,
            description=_description(tool),
            assume_role_policy=documents.trust,
            permissions_boundary=boundary.arn,
            max_session_duration=MAX_SESSION_SECONDS,
            tags=names.tags(f"tool-{tool.name}", **{TOOL_TAG: tool.name}),
            # The boundary's ARN is plain text, known before the policy is.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[boundary.policy]),
        )
        inline: list[pulumi.Input[str]] = []
        if documents.policy:
            grants = aws.iam.RolePolicy(
                f"{name}-grants", name="grants", role=role.name, policy=documents.policy, opts=child
            )
            revoked = aws.iam.RolePolicy(
                f"{name}-revoked",
                name=POLICY_NAME,
                role=role.name,
                policy=revoked_document(),
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=["policy"]),
            )
            inline += [grants.name, revoked.name]
        # Without these two, a policy put on the role behind Pulumi's back is a resource that Pulumi doesn't know, and
        # no refresh would show it.
        aws.iam.RolePoliciesExclusive(f"{name}-no-other-inline", role_name=role.name, policy_names=inline, opts=child)
        aws.iam.RolePolicyAttachmentsExclusive(f"{name}-no-managed", role_name=role.name, policy_arns=[], opts=child)
        self.register_outputs({})


def _description(tool: Tool) -> str:
    # IAM takes printable Latin-1 only.
    printable = "".join(c if " " <= c <= "~" or "\xa1" <= c <= "\xff" else " " for c in tool.description)
    return printable[:_DESCRIPTION_LIMIT]
