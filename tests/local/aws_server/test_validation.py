"""Requests to recorded services are checked against AWS's own request model, which boto3 does only in part."""

from __future__ import annotations

from typing import Any

import pytest
from moto.core.utils import get_service_model

from ringfence.local.aws_server.recorded.registry import MODULES, table
from ringfence.local.aws_server.validation import compiled

RESOLVER = "Route53Resolver"
GOOD_RULE = {
    "CreatorRequestId": "1",
    "FirewallRuleGroupId": "rslvr-frg-1",
    "FirewallDomainListId": "rslvr-fdl-1",
    "Priority": 1,
    "Action": "ALLOW",
    "Name": "rule",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Action": "MAYBE"}, "Action: 'MAYBE' is not one of ALLOW, BLOCK, ALERT"),
        ({"Priority": "1"}, "Priority: a number (integer) is expected, not '1'"),
        ({"Priority": True}, "Priority: a number (integer) is expected, not True"),
        ({"Name": None}, "Name: required member is missing"),
        ({"Name": "no/slash"}, "Name: 'no/slash' does not match"),
        ({"Name": "x" * 65}, "Name: 65 characters is more than 64"),
        ({"Surprise": 1}, "Surprise: unknown member; known are Action,"),
    ],
)
def test_a_request_that_the_model_refuses_is_refused_and_says_why(aws: Any, change: dict[str, Any], said: str) -> None:
    answer = aws.call("route53resolver", f"{RESOLVER}.CreateFirewallRule", GOOD_RULE | change)
    assert answer.status == 400
    assert answer.json["__type"].endswith("ValidationException")
    assert said in answer.json["Message"], answer.json


def test_the_same_request_unchanged_passes_the_model(aws: Any) -> None:
    answer = aws.call("route53resolver", f"{RESOLVER}.CreateFirewallRule", GOOD_RULE)
    assert answer.json["__type"].endswith("ResourceNotFoundException")


def test_all_problems_are_told_at_once(aws: Any) -> None:
    answer = aws.call("route53resolver", f"{RESOLVER}.CreateFirewallRule", {"Action": "MAYBE", "Odd": 1})
    message = answer.json["Message"]
    for part in (
        "Odd: unknown",
        "CreatorRequestId: required",
        "Action: 'MAYBE'",
        "Name: required",
        "Priority: required",
    ):
        assert part in message


def test_nested_members_are_checked_too(aws: Any) -> None:
    body = {
        "FirewallPolicyName": "p",
        "FirewallPolicy": {
            "StatelessDefaultActions": ["aws:drop"],
            "StatelessFragmentDefaultActions": "aws:drop",
            "StatefulEngineOptions": {"RuleOrder": "RANDOM", "Typo": 1},
        },
    }
    answer = aws.call("network-firewall", "NetworkFirewall_20201112.CreateFirewallPolicy", body, version="1.0")
    message = answer.json["Message"]
    assert "FirewallPolicy.StatelessFragmentDefaultActions: a list is expected, not str" in message
    assert "FirewallPolicy.StatefulEngineOptions.RuleOrder: 'RANDOM' is not one of" in message
    assert "FirewallPolicy.StatefulEngineOptions.Typo: unknown member" in message


def rest(aws: Any, method: str, path: str, body: bytes) -> Any:
    return aws.signed("eks", method, path, body, {"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"addonName":"a","resolveConflicts":"MAYBE"}', "resolveConflicts: 'MAYBE' is not one of"),
        (b'{"addonName":"a","surprise":true}', "surprise: unknown member"),
        (b'{"addonVersion":"v1"}', "addonName: required member is missing"),
        (b'{"addonName":"a","name":"other"}', "name: does not belong in the body"),
        (b"[1]", "the body is not a JSON object"),
        (b"{", "the "),
    ],
)
def test_rest_requests_are_checked_in_path_query_and_body(aws: Any, body: bytes, said: str) -> None:
    answer = rest(aws, "POST", "/clusters/any/addons", body)
    assert answer.status == 400
    assert answer.headers["X-Amzn-Errortype"] == "InvalidParameterException"
    assert said in answer.json["message"], answer.json


def test_form_requests_are_checked_for_unknown_members(aws: Any) -> None:
    form = b"Action=ModifyVpcBlockPublicAccessOptions&Version=2016-11-15&InternetGatewayBlockMode=off"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert aws.signed("ec2", "POST", "/", form, headers).status == 200
    answer = aws.signed("ec2", "POST", "/", form + b"&Surprise=1", headers)
    assert answer.status == 400
    assert b"Surprise: unknown member" in answer.body


@pytest.mark.parametrize("service", sorted(MODULES))
def test_every_recorded_operation_exists_and_every_pattern_of_its_service_can_be_applied(service: str) -> None:
    model = get_service_model(service)
    assert table(service).keys() <= set(model.operation_names)
    patterns = {shape["pattern"] for shape in model._service_description["shapes"].values() if "pattern" in shape}
    for pattern in patterns:
        compiled(pattern)
