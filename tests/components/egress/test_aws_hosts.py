"""Which hosts of AWS a tool's grants open: exact ones of the stack's region, or a problem that says what to write."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from ringfence.catalog import load
from ringfence.catalog.commands import catalog as commands
from ringfence.catalog.model import Tool
from ringfence.egress.aws_hosts import aws_hosts, calls_aws, problems
from ringfence.egress.policy import EgressPolicy, ways_out
from ringfence.errors import InputError
from ringfence.names import Names

CATALOG = Path(__file__).parents[3] / "catalog"
NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
IRELAND = Names("ringfence", "test", "111122223333", "eu-west-1")
CHINA = Names("ringfence", "test", "111122223333", "cn-north-1", "aws-cn")
VIA_S3 = {"StringEquals": {"kms:ViaService": ("s3.us-east-1.amazonaws.com",)}}


def tool(
    *grants: tuple[str, str] | tuple[str, str, dict], name: str = "some-tool", domains: tuple[str, ...] = ()
) -> Tool:
    """A tool with grants: action, resource and perhaps conditions."""
    return Tool.model_validate(
        {
            "name": name, "description": "d", "owner": "o", "justification": "needed for the tests of hosts",
            "reviewDate": "2027-01-01", "egress": {"domains": domains},
            "grants": [
                {"actions": (action,), "resources": (resource,), "conditions": dict(*more), "reason": "r"}
                for action, resource, *more in grants
            ],
        },
        strict=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "resource", "host"),
    [
        ("s3:GetObject", "arn:${partition}:s3:::reports-${account}/x/*", "reports-111122223333.s3"),
        ("s3:ListBucket", "arn:${partition}:s3:::reports", "reports.s3"),
        ("s3:PutObject", "arn:aws:s3:::reports/${aws:PrincipalTag/user}/*", "reports.s3"),
        ("dynamodb:GetItem", "arn:${partition}:dynamodb:${region}:${account}:table/t", "dynamodb"),
        ("ses:SendEmail", "arn:${partition}:ses:${region}:${account}:identity/x", "email"),
        ("sqs:SendMessage", "arn:${partition}:sqs:${region}:${account}:q", "sqs"),
        ("states:StartExecution", "arn:${partition}:states:${region}:${account}:stateMachine:m", "states"),
    ],
)
@pytest.mark.parametrize(
    ("names", "suffix"), [(NAMES, "us-east-1.amazonaws.com"), (IRELAND, "eu-west-1.amazonaws.com")]
)
def test_a_grant_opens_the_stacks_own_regional_host_of_its_service(action, resource, host, names, suffix):
    assert aws_hosts(tool((action, resource)), names) == (f"{host}.{suffix}",)


def test_a_region_in_china_has_its_own_domain():
    granted = tool(("s3:GetObject", "arn:${partition}:s3:::reports/*"))
    assert aws_hosts(granted, CHINA) == ("reports.s3.cn-north-1.amazonaws.com.cn",)


def test_every_bucket_has_a_host_and_each_host_stands_once():
    granted = tool(
        ("s3:GetObject", "arn:aws:s3:::one/a/*"), ("s3:PutObject", "arn:aws:s3:::one/b/*"),
        ("s3:GetObject", "arn:aws:s3:::two/*"), ("dynamodb:Query", "arn:aws:dynamodb:us-east-1:111122223333:table/t"),
    )  # fmt: skip
    assert aws_hosts(granted, NAMES) == (
        "dynamodb.us-east-1.amazonaws.com", "one.s3.us-east-1.amazonaws.com", "two.s3.us-east-1.amazonaws.com"
    )  # fmt: skip


MODELS = "arn:${partition}:bedrock:${region}::foundation-model/anthropic.claude"


@pytest.mark.parametrize("action", ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream", "bedrock:Retrieve"])
def test_models_are_reached_through_the_gateway_and_never_through_a_listener(action):
    granted = tool((action, MODELS))
    assert aws_hosts(granted, NAMES) == ()
    assert not calls_aws(granted)
    both = tool((action, MODELS), ("dynamodb:GetItem", "arn:aws:dynamodb:us-east-1:111122223333:table/t"))
    assert aws_hosts(both, NAMES) == ("dynamodb.us-east-1.amazonaws.com",)


def test_a_key_that_another_service_uses_for_the_tool_opens_nothing():
    key = "arn:aws:kms:us-east-1:111122223333:key/k"
    assert aws_hosts(tool(("kms:Decrypt", key, VIA_S3)), NAMES) == ()
    assert aws_hosts(tool(("kms:Decrypt", key)), NAMES) == ("kms.us-east-1.amazonaws.com",)


@pytest.mark.parametrize(
    ("action", "resource", "said"),
    [
        ("s3:GetObject", "arn:aws:s3:::*/x", "names no bucket exactly"),
        ("s3:GetObject", "arn:aws:s3:::reports-*/x", "names no bucket exactly"),
        ("s3:GetObject", "arn:aws:s3:::report?/x", "names no bucket exactly"),
        ("s3:GetObject", "arn:aws:s3:::${aws:PrincipalTag/user}/x", "names no bucket exactly"),
        ("s3:ListAllMyBuckets", "*", "names no bucket exactly"),
        ("s3:GetObject", "arn:aws:s3:us-east-1:111122223333:accesspoint/mine/object/x", "is no bucket"),
        ("s3:GetObject", "arn:aws:s3:::some-ap-abcdef-s3alias/x", "is no bucket"),
        ("s3:GetObject", "arn:aws:s3:::x--use1-az4--x-s3/x", "is no bucket"),
        ("s3:GetObject", "arn:aws:s3:::my.reports/x", "has a dot"),
        ("s3:GetObject", "arn:aws:s3:::Reports/x", "is no name of a bucket"),
        ("s3:GetObject", "arn:aws:dynamodb:us-east-1:111122223333:table/t", "no bucket"),
        (
            "dynamodb:GetItem",
            "arn:aws:dynamodb:eu-west-1:111122223333:table/t",
            "is in eu-west-1, the stack in us-east-1",
        ),
        ("iam:GetRole", "arn:aws:iam::111122223333:role/x", "iam: no host of AWS is known"),
        ("sts:AssumeRole", "arn:aws:iam::111122223333:role/x", "sts: no host of AWS is known"),
        (
            "bedrock-agentcore:InvokeAgentRuntime",
            "arn:aws:bedrock-agentcore:us-east-1:111122223333:x",
            "no host of AWS",
        ),
        ("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:us-east-1:111122223333:endpoint/x", "no host of AWS"),
    ],
)
def test_a_grant_that_stands_for_no_exact_host_is_a_problem_with_a_remedy(action, resource, said):
    conditions = {"StringEquals": {"aws:RequestedRegion": ("us-east-1",)}}
    with pytest.raises(InputError) as caught:
        aws_hosts(
            tool(("dynamodb:Query", "arn:aws:dynamodb:us-east-1:1:table/t"), (action, resource, conditions)), NAMES
        )
    (problem,) = caught.value.problems
    assert (problem.key, said in problem.message, bool(problem.remedy)) == ("grants[1]", True, True), problem
    if "is in eu-west-1" not in said:
        assert [found.message for found in problems([tool((action, resource, conditions))])] == [problem.message]


def test_every_problem_of_every_tool_is_told_at_once():
    wide = tool(("s3:GetObject", "arn:aws:s3:::*/x"), name="wide")
    strange = tool(("iam:GetRole", "arn:aws:iam::1:role/x"), name="strange")
    with pytest.raises(InputError) as caught:
        ways_out([wide, strange], NAMES)
    assert len(caught.value.problems) == 2


def test_the_catalogs_tools_have_exactly_these_ways_out():
    policy = EgressPolicy(ways_out(load(CATALOG).tools, NAMES))
    policy.check()
    assert {item.name: item.aws_domains for item in policy.tools} == {
        "email-notifier": ("email.us-east-1.amazonaws.com",),
        "model-call": (),
        "s3-report-reader": ("example-reports-111122223333.s3.us-east-1.amazonaws.com",),
        "ticket-store": ("dynamodb.us-east-1.amazonaws.com",),
        "web-fetch": (),
    }
    # Fixed here on purpose, as in test_a_derived_port_never_moves; web-fetch's stands as it was without the others.
    assert policy.ports() == {
        "email-notifier": 15717, "s3-report-reader": 15880, "ticket-store": 15162, "web-fetch": 15130
    }  # fmt: skip
    assert EgressPolicy(ways_out(load(CATALOG).tools)).ports() == {"web-fetch": 15130}


def test_a_tool_with_domains_and_grants_has_one_listener_for_both():
    granted = tool(("s3:GetObject", "arn:aws:s3:::reports/*"), domains=("api.example.com",))
    (way,) = ways_out([granted], NAMES)
    assert way.domains == ("api.example.com", "reports.s3.us-east-1.amazonaws.com")
    assert EgressPolicy((way,)).domains() == way.domains


def test_the_catalogs_check_names_file_grant_and_remedy(tmp_path):
    folder = Path(shutil.copytree(CATALOG, tmp_path / "catalog"))
    good = CliRunner().invoke(commands, ["check", "--path", str(folder)])
    assert good.exit_code == 0, good.output
    notes = [line for line in good.output.splitlines() if line.startswith("note: ")]
    assert notes == ["note: email-notifier opens ses of every account: docs/threat-model.md"]
    file = folder / "tools" / "s3-report-reader.yaml"
    data = yaml.safe_load(file.read_text())
    data["grants"][0]["resources"] = ["arn:${partition}:s3:::example-reports-*/published/*"]
    file.write_text(yaml.safe_dump(data))
    refused = CliRunner().invoke(commands, ["check", "--path", str(folder)])
    (problem,) = refused.exception.problems
    assert (problem.where, problem.key) == ("catalog/tools/s3-report-reader.yaml", "grants[0]")
    assert "names no bucket exactly" in problem.message and "write each bucket's name" in problem.remedy
