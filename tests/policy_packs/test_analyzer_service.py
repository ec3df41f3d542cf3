"""The packs behind the analyzer's real gRPC service, with real protobuf values, unknowns and secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

PACKS = Path(__file__).parents[2] / "policy-packs"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
DOCUMENT = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'

Analyze = Callable[..., list[Any]]


def serve(pack: str) -> Iterator[Analyze]:
    process = subprocess.Popen(
        [sys.executable, str(PACKS / pack)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PULUMI_STACK": "test"},
        cwd=PACKS / pack,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = analyzer_pb2_grpc.AnalyzerStub(channel)

            def analyze(type_: str, props: dict[str, Any], *, stack: bool = False, name: str = "thing") -> list[Any]:
                values = struct_pb2.Struct()
                values.update(props)
                urn = f"urn:pulumi:test::p::{type_}::{name}"
                if stack:
                    resource = analyzer_pb2.AnalyzerResource(type=type_, urn=urn, name=name, properties=values)
                    return list(stub.AnalyzeStack(analyzer_pb2.AnalyzeStackRequest(resources=[resource])).diagnostics)
                request = analyzer_pb2.AnalyzeRequest(type=type_, urn=urn, name=name, properties=values)
                return list(stub.Analyze(request).diagnostics)

            yield analyze
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def creep() -> Iterator[Analyze]:
    yield from serve("permission-creep")


@pytest.fixture(scope="module")
def guardrails() -> Iterator[Analyze]:
    yield from serve("sandbox-guardrails")


def mandatory(diagnostics: list[Any]) -> list[str]:
    assert all(item.enforcementLevel == analyzer_pb2.MANDATORY for item in diagnostics)
    return [item.message for item in diagnostics]


def test_an_unknown_never_turns_a_rule_into_advice(creep: Analyze) -> None:
    props = {"name": "x", "assumeRolePolicy": UNKNOWN, "inlinePolicies": [{"name": UNKNOWN, "policy": UNKNOWN}]}
    assert mandatory(creep("aws:iam/role:Role", props))


def test_unknowns_do_not_stop_the_rules_on_a_stack(guardrails: Analyze) -> None:
    props = {"bucket": UNKNOWN, "tags": UNKNOWN}
    told = mandatory(guardrails("aws:s3/bucket:Bucket", props, stack=True, name="audit"))
    assert any("has no public access block" in message for message in told)


def test_what_the_provider_fills_in_for_a_new_role_is_no_policy_that_nobody_can_read(creep: Analyze) -> None:
    props = {"name": "fresh", "assumeRolePolicy": DOCUMENT}
    filled_in = {"managedPolicyArns": UNKNOWN, "inlinePolicies": UNKNOWN, "arn": UNKNOWN, "uniqueId": UNKNOWN}
    creep("aws:iam/role:Role", props, name="fresh")
    assert "unknown" not in str(creep("aws:iam/role:Role", props | filled_in, stack=True, name="fresh"))


@pytest.mark.parametrize("given", ["managedPolicyArns", "inlinePolicies"])
def test_the_same_unknowns_count_where_the_program_declares_them_and_where_nothing_was_declared(
    creep: Analyze, given: str
) -> None:
    props = {"name": given, "assumeRolePolicy": DOCUMENT, given: UNKNOWN}
    assert "unknown until the update" in str(creep("aws:iam/role:Role", props, stack=True, name=f"unseen-{given}"))
    assert "nobody can read it" in str(creep("aws:iam/role:Role", props, name=f"declared-{given}"))


def test_a_missing_lockfile_approves_nothing(creep: Analyze) -> None:
    told = mandatory(creep("aws:iam/rolePolicy:RolePolicy", {"name": "p", "role": "x", "policy": DOCUMENT}))
    assert told
    assert "Approve:" in told[0]


def test_a_resource_that_grants_nothing_is_not_asked_about(creep: Analyze) -> None:
    assert creep("aws:ec2/vpc:Vpc", {"cidrBlock": "10.0.0.0/16", "tags": {"a": UNKNOWN}}) == []


def test_a_secret_document_is_not_echoed(creep: Analyze) -> None:
    text = DOCUMENT.replace('"*"}', '"arn:aws:s3:::b","Condition":{"StringEquals":{"aws:Referer":"hunter2"}}}')
    props = {"name": "p", "role": "x", "policy": {**SECRET, "value": text}}
    told = mandatory(creep("aws:iam/rolePolicy:RolePolicy", props))
    assert told
    assert not any("hunter2" in message for message in told)


@pytest.mark.parametrize(
    ("type_", "extra", "statement"),
    [
        ("aws:iam/rolePolicy:RolePolicy", {"role": "x"}, '"Resource":"arn:aws:s3:::b"'),
        ("aws:sqs/queuePolicy:QueuePolicy", {"queueUrl": "q"}, '"Principal":"*","Resource":"*"'),
    ],
)
@pytest.mark.parametrize(
    ("key", "value"),
    [("aws:PrincipalTag/cell", "hunter2"), ("aws:PrincipalArn", "arn:aws:iam::123456789012:role/hunter2")],
)
def test_no_condition_value_of_a_secret_document_is_shown(
    creep: Analyze, type_: str, extra: dict[str, str], statement: str, key: str, value: str
) -> None:
    operator = "ArnEquals" if key.endswith("Arn") else "StringEquals"
    condition = f'"Condition":{{"{operator}":{{"{key}":"{value}"}}}}'
    text = f'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"sqs:*",{statement},{condition}}}]}}'
    told = mandatory(creep(type_, {"name": "p", **extra, "policy": {**SECRET, "value": text}}))
    assert any(key in message for message in told)
    assert not any("hunter2" in message for message in told)
    # The same document in the clear is shown with its witness in full.
    assert any("hunter2" in message for message in mandatory(creep(type_, {"name": "p", **extra, "policy": text})))


def test_numbers_arrive_as_floats_and_lists_in_full(guardrails: Analyze) -> None:
    options = {"httpTokens": "required", "httpPutResponseHopLimit": 2}
    props = {"metadataOptions": options, "blockDeviceMappings": [{"ebs": {"encrypted": False}}]}
    told = mandatory(guardrails("aws:ec2/launchTemplate:LaunchTemplate", props))
    assert any("httpPutResponseHopLimit is 2" in message for message in told)
    assert any("is not encrypted" in message for message in told)


def test_unknown_settings_of_a_sandbox_pod_are_mandatory_violations(guardrails: Analyze) -> None:
    props = {"metadata": {"namespace": UNKNOWN}, "spec": UNKNOWN}
    assert mandatory(guardrails("kubernetes:core/v1:Pod", props))
