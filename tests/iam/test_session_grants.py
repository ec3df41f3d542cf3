"""What a session policy allows of a tool's grants: no calls of models, nothing wider, and all of it or none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from ringfence.catalog import load
from ringfence.catalog.commands import check
from ringfence.catalog.model import Grant, Tool
from ringfence.gateway.tool_models import tool_models
from ringfence.iam.document import parse
from ringfence.iam.evaluate import evaluate
from ringfence.iam.model import Permissions
from ringfence.iam.request import Principal, Request
from ringfence.iam.session_grants import SESSION_POLICY_LIMIT, needs_credential, session_document, session_problems
from ringfence.names import Names
from tests.broker.conftest import grant, tool

NAMES = Names("ringfence", "test", "123456789012", "us-east-1")
ENDS = "2099-01-01T00:00:00Z"
MODEL = "arn:aws:bedrock:us-east-1::foundation-model/m1"
READ = grant(["s3:GetObject"], ["arn:${partition}:s3:::reports/*"])


def allows(policy: str, action: str, resource: str, **context: str) -> bool:
    keys = {"aws:CurrentTime": ("2026-01-01T00:00:00Z",)} | {key: (value,) for key, value in context.items()}
    principal = Principal("AWS", "arn:aws:sts::123456789012:assumed-role/r/s")
    return evaluate(Permissions((parse(policy, "session"),)), Request(action, resource, keys, principal)).allowed


@pytest.mark.parametrize(
    "action",
    ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream", "bedrock:InvokeModel*", "bedrock:INVOKEMODEL"],
)
def test_a_tool_that_only_calls_models_needs_no_credential(action: str):
    only = tool("thinker", grant([action], [MODEL]))
    assert not needs_credential(only)
    # The gateway lets it call that model all the same.
    assert tool_models([only]) == ("m1",)
    assert needs_credential(tool("reader", READ))


@pytest.mark.parametrize("action", ["bedrock:InvokeModel", "bedrock:Invoke*", "bedrock:*Model", "bedrock:?nvokeModel"])
def test_a_tool_with_other_grants_too_gets_those_alone(action: str):
    mixed = session_document(tool("mixed", READ, grant([action, "bedrock:GetFoundationModel"], [MODEL])), NAMES, ENDS)
    assert allows(mixed, "s3:GetObject", "arn:aws:s3:::reports/may.csv")
    assert allows(mixed, "bedrock:GetFoundationModel", MODEL)
    for call in ("InvokeModel", "InvokeModelWithResponseStream", "InvokeModelWithBidirectionalStream"):
        assert not allows(mixed, f"bedrock:{call}", MODEL)


def test_the_model_of_the_example_catalog_is_called_by_the_gateway_alone():
    shipped = {item.name: needs_credential(item) for item in load("catalog").tools if item.grants}
    assert not shipped.pop("model-call") and all(shipped.values())


def many(count: int, **values: Any) -> Tool:
    """A tool with so many grants, each of one action on one resource."""
    kinds = ("GetObject", "GetObjectTagging")
    return tool(
        "many", *(grant([f"s3:{kind}"], [f"arn:aws:s3:::reports/{place:03d}/*"]) for place in range(count) for kind in kinds),
        **values,
    )  # fmt: skip


def test_grants_are_said_in_fewer_words_and_mean_the_same():
    policy = session_document(many(20), NAMES, ENDS)
    statements = [item for item in json.loads(policy)["Statement"] if item["Effect"] == "Allow"]
    assert len(statements) == 1 and len(policy) <= SESSION_POLICY_LIMIT
    for kind in ("GetObject", "GetObjectTagging"):
        assert allows(policy, f"s3:{kind}", "arn:aws:s3:::reports/019/x")
        assert not allows(policy, f"s3:{kind}", "arn:aws:s3:::reports/020/x")


def test_grants_that_differ_in_both_or_in_their_conditions_are_never_thrown_together():
    here, there = "arn:aws:s3:::a/*", "arn:aws:s3:::b/*"
    agent = {"StringEquals": {"aws:UserAgent": ("x",)}}
    policy = session_document(
        tool(
            "apart", grant(["s3:GetObject"], [here]), grant(["s3:PutObject"], [there]),
            grant(["s3:DeleteObject"], [here], agent),
        ), NAMES, ENDS,
    )  # fmt: skip
    assert allows(policy, "s3:GetObject", "arn:aws:s3:::a/1") and allows(policy, "s3:PutObject", "arn:aws:s3:::b/1")
    assert not allows(policy, "s3:GetObject", "arn:aws:s3:::b/1") and not allows(
        policy, "s3:PutObject", "arn:aws:s3:::a/1"
    )
    assert allows(policy, "s3:DeleteObject", "arn:aws:s3:::a/1", **{"aws:UserAgent": "x"})
    assert not allows(policy, "s3:DeleteObject", "arn:aws:s3:::a/1")


def test_a_tool_whose_grants_fit_no_session_policy_is_told_to_be_split():
    assert session_problems(many(20), NAMES, "here") == []
    (problem,) = session_problems(many(90), NAMES, "here")
    assert problem.key == "grants" and "split the tool" in problem.remedy and "2,048" in problem.message
    # Calls of models take no room: they are no part of it.
    models: list[Grant] = [grant(["bedrock:InvokeModel"], [f"{MODEL}-{place:03d}"]) for place in range(60)]
    assert session_problems(tool("thinker", READ, *models), NAMES, "here") == []


def test_catalog_check_refuses_it(tmp_path):
    folder = tmp_path / "catalog"
    (folder / "tools").mkdir(parents=True)
    (folder / "roles.yaml").write_text("capabilities: []\nroles: []\n")

    def checked(count: int):
        listed = ", ".join(f'"arn:aws:s3:::reports/{place:03d}/*"' for place in range(count))
        (folder / "tools" / "many.yaml").write_text(
            "name: many\ndescription: d\nowner: a@example.com\njustification: Agents need it for the test's sake.\n"
            f"reviewDate: 2030-01-01\ngrants:\n  - actions: [s3:GetObject]\n    reason: r\n    resources: [{listed}]\n"
        )
        return CliRunner().invoke(check, ["--path", str(folder)])

    assert checked(20).exit_code == 0
    refused = checked(90)
    assert refused.exit_code and "split the tool" in str(refused.exception.problems[0])
