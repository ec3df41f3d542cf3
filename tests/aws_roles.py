"""The broker's role and the tools' roles in an emulated account, with the documents that the components give them."""

from __future__ import annotations

import json
from typing import Any

from components.broker_access import work_document
from components.tool_boundary import boundary_document
from ringfence.broker.revocation import POLICY_NAME, revoked_document
from ringfence.catalog.model import Catalog
from ringfence.iam.tool_documents import broker_role_name, tool_documents
from ringfence.names import Names


def make_roles(iam: Any, names: Names, catalog: Catalog, trust: str = "") -> None:
    """Makes them through `iam`. trust: of the broker's role; by default the account, so that a test can become it."""
    account = {"Effect": "Allow", "Principal": {"AWS": names.account_id}, "Action": ["sts:AssumeRole"]}
    iam.create_role(
        RoleName=broker_role_name(names),
        AssumeRolePolicyDocument=trust or json.dumps({"Version": "2012-10-17", "Statement": [account]}),
    )
    iam.put_role_policy(RoleName=broker_role_name(names), PolicyName="work", PolicyDocument=work_document(names))
    for tool in catalog.tools:
        documents = tool_documents(tool, names)
        boundary = iam.create_policy(
            PolicyName=names.name(f"tool-boundary-{tool.name}"), PolicyDocument=boundary_document(names, tool)
        )["Policy"]["Arn"]
        iam.create_role(
            RoleName=documents.role_name, AssumeRolePolicyDocument=documents.trust, PermissionsBoundary=boundary
        )
        if documents.policy:
            for name, text in {"grants": documents.policy, POLICY_NAME: revoked_document()}.items():
                iam.put_role_policy(RoleName=documents.role_name, PolicyName=name, PolicyDocument=text)
