"""Where sandboxes find the proxy, also in an existing VPC, where its address is known only once it is made."""

from __future__ import annotations

import json

import pulumi
import pulumi_aws as aws

from components.sandbox import Sandbox, SandboxArgs
from components.service import Service, ServiceArgs
from ringfence.names import Names

NAMES = Names("ringfence", "test", "111122223333", "us-east-1")
IMAGE = f"111122223333.dkr.ecr.us-east-1.amazonaws.com/ringfence@sha256:{'a' * 64}"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"


def _sandbox(*cidrs: pulumi.Input[str]) -> Sandbox:
    return Sandbox("sandbox", SandboxArgs(NAMES, ("registry.example.com",), {"fetch": 15001}, cidrs))


def _chosen_by_aws() -> pulumi.Output[str]:
    return pulumi.Output.format("{}/32", aws.ec2.NetworkInterface("proxy", subnet_id="subnet-1").private_ip)


def _address(type_, name, inputs):
    return {"privateIp": "10.9.0.77"} if type_ == "aws:ec2/networkInterface:NetworkInterface" else {}


def _told(recording) -> object:
    return recording.one("kubernetes:core/v1:ConfigMap")["data"]["unit.json"]


def test_a_reserved_address_is_told_at_preview(record, preview):
    recording = record(lambda: _sandbox("10.42.192.10/32"), preview=preview)
    assert json.loads(_told(recording))["proxyCidrs"] == ["10.42.192.10/32"]


def test_an_address_that_aws_chooses_is_told_once_it_is_known(record, preview, unknown):
    recording = record(lambda: _sandbox("10.9.0.10/32", _chosen_by_aws()), preview=preview, computed=_address)
    if preview:
        assert _told(recording) is unknown
    else:
        assert json.loads(_told(recording))["proxyCidrs"] == ["10.9.0.10/32", "10.9.0.77/32"]


def test_the_services_pod_is_replaced_when_the_proxys_address_changes(record):
    def digest(address: str) -> str:
        def program() -> None:
            unit = _sandbox(_chosen_by_aws()).unit
            oidc = {"oidc_issuer": "https://id.example.com", "oidc_audience": "x"}
            Service("service", ServiceArgs(NAMES, "test", IMAGE, {}, "encrypted", "172.20.0.0/16", unit=unit, **oidc))

        deployment = record(program, computed=lambda *_: {"privateIp": address}).one(DEPLOYMENT)
        return deployment["spec"]["template"]["metadata"]["annotations"]["ringfence.dev/project-sha256"]

    assert digest("10.9.0.77") == digest("10.9.0.77") != digest("10.9.0.78")
