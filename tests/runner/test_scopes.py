"""A scope narrows a tool's credential to this call, from wherever it comes; outside of the grants it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ringfence.broker import Scope
from ringfence.errors import InputError
from ringfence.invocation import Status
from ringfence.runner.agent import SecureAgentRunner
from ringfence.runner.scopes import checked, scopes_of, scopes_of_options
from tests.runner import control
from tests.runner.test_rounds import Pretended

TOOL = "s3-report-reader"
FILES = "arn:${partition}:s3:::example-reports-${account}/published/"
MAY = f"arn:aws:s3:::{control.REPORTS}/published/may.csv"


def check(given: Any, tools: tuple[str, ...] = (TOOL,)) -> Any:
    return checked(given, tools, control.catalog(), control.NAMES)


def test_actions_and_arns_of_the_command_line_are_told_apart_and_placeholders_filled_in() -> None:
    options = [f"{TOOL}=s3:GetObject", f"{TOOL}={FILES}may.csv", f"{TOOL}={FILES}june.csv"]
    assert check(scopes_of_options(options)) == {
        TOOL: {"actions": ["s3:GetObject"], "resources": [MAY, MAY.replace("may", "june")]}
    }


@pytest.mark.parametrize("option", ["", TOOL, f"{TOOL}=", f"{TOOL}=read", "=s3:GetObject"])
def test_an_option_that_is_no_scope_is_refused_with_how_to_write_it(option: str) -> None:
    with pytest.raises(InputError, match="TOOL=service:Action"):
        scopes_of_options([option])


BAD = {
    "of a tool that isn't asked for": ({"web-fetch": {"actions": ["s3:GetObject"]}}, "isn't asked for"),
    "of a tool without a credential": ({"model-call": {"actions": ["bedrock:InvokeModel"]}}, "without a credential"),
    "an action beyond the grants": ({TOOL: {"actions": ["s3:PutObject"]}}, "is not granted"),
    "an ARN beyond the grants": ({TOOL: {"resources": ["arn:aws:s3:::example-payroll-123456789012/*"]}}, "is not granted"),
    "everything": ({TOOL: {"resources": ["*"]}}, "is not granted"),
    "nothing": ({TOOL: {}}, "narrows nothing"),
    "an empty list": ({TOOL: {"actions": []}}, "is no list of texts"),
    "a text": ({TOOL: {"actions": "s3:GetObject"}}, "is no list of texts"),
    "another key": ({TOOL: {"effect": ["Allow"]}}, "is no scope"),
    "no mapping": ([TOOL], "give a mapping"),
    "more than a session policy takes": (
        {TOOL: {"resources": [f"{FILES}{place:03d}-{'x' * 60}" for place in range(40)]}}, "name fewer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_scope_is_refused_with_its_place_and_a_remedy(what: str) -> None:
    given, said = BAD[what]
    tools = (TOOL, "model-call")
    with pytest.raises(InputError) as caught:
        check(given, tools)
    assert said in str(caught.value)
    assert all(item.remedy and "scopes" in item.key for item in caught.value.problems)


def test_the_runner_takes_scopes_as_data_too() -> None:
    made, problems = scopes_of({TOOL: {"actions": ["s3:GetObject"]}, "b": Scope(resources=("arn:x",))})
    assert problems == [] and made[TOOL] == Scope(actions=("s3:GetObject",)) and made["b"].resources == ("arn:x",)


class Reading(Pretended):
    """Reads, in the place of a sandbox, with the credentials that one would get."""

    def __init__(self, cloud: Any) -> None:
        super().__init__()
        self.cloud = cloud
        self.read: dict[str, bool] = {}

    async def start(self, unit: Any, report: Any) -> None:
        given = json.loads(unit.credentials[f"{TOOL}.json"])
        s3 = self.cloud.client("s3", given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        for key in ("may", "june"):
            self.read[key] = True
            try:
                s3.get_object(Bucket=control.REPORTS, Key=f"published/{key}.csv")
            except ClientError as error:
                assert error.response["Error"]["Code"] == "AccessDenied"
                self.read[key] = False


@pytest.mark.parametrize("narrow", [False, True])
def test_the_credential_of_a_task_is_narrowed_by_it(cloud: Any, tmp_path: Path, narrow: bool) -> None:
    cloud.client("s3").put_object(Bucket=control.REPORTS, Key="published/june.csv", Body=b"figures")
    executor = Reading(cloud)
    side = control.control(tmp_path, cloud.endpoint, lambda _: executor, ("127.0.0.1", 1), control.gateway_of(tmp_path))
    scopes = check({TOOL: {"resources": [MAY]}}) if narrow else {}
    with SecureAgentRunner(side.parts) as runner:
        runner.execute_agent_task("ann", "hello", [TOOL], groups=control.GROUPS, model="scripted", scopes=scopes)
    assert executor.read == {"may": True, "june": not narrow}


def test_a_scope_beyond_the_grants_is_refused_by_the_runner_itself_before_anything_is_made(
    cloud: Any, tmp_path: Path
) -> None:
    executor = Reading(cloud)
    side = control.control(tmp_path, cloud.endpoint, lambda _: executor, ("127.0.0.1", 1), control.gateway_of(tmp_path))
    with SecureAgentRunner(side.parts) as runner:
        result = runner.execute_agent_task(
            "ann",
            "hello",
            [TOOL],
            groups=control.GROUPS,
            model="scripted",
            scopes={TOOL: Scope(actions=("s3:PutObject",))},
        )
    assert (result.status, [item.code for item in result.refusals]) == (Status.REFUSED, ["scope_not_granted"])
    assert executor.read == {} and side.records("invocation.started") == []
    assert len(side.records("access.refused")) == 1
