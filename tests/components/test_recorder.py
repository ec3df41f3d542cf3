"""The recorder that every component test stands on must see what the engine would see."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws
import pytest


class _Pair(pulumi.ComponentResource):
    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None):
        super().__init__("ringfence:index:Pair", name, None, opts)
        self.vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block="10.0.0.0/16",
            opts=pulumi.ResourceOptions(parent=self, protect=True, ignore_changes=["tags"]),
        )
        self.subnet = aws.ec2.Subnet(
            f"{name}-a",
            vpc_id=self.vpc.id,
            cidr_block="10.0.0.0/20",
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.vpc], delete_before_replace=True),
        )
        self.register_outputs({})


def test_inputs_parents_and_options_are_recorded(record, preview, unknown):
    recording = record(lambda: _Pair("pair").vpc.id, preview=preview)
    vpc = recording.one("aws:ec2/vpc:Vpc")
    subnet = recording.one("aws:ec2/subnet:Subnet", "pair-a")
    assert vpc["cidrBlock"] == "10.0.0.0/16"
    assert vpc.options.protect and vpc.options.ignore_changes == ("tags",)
    assert vpc.parent_name == "pair" and vpc in recording.children_of(vpc.parent)
    assert subnet.options.delete_before_replace and not subnet.options.protect
    assert subnet["vpcId"] == (unknown if preview else "pair-vpc-id")
    assert recording.outputs == (unknown if preview else vpc.id)
    assert recording.unparented() == []


def test_a_resource_without_a_parent_is_found(record):
    recording = record(lambda: aws.ec2.Vpc("stray", cidr_block="10.0.0.0/16").id)
    assert [r.name for r in recording.unparented()] == ["stray"]


def test_an_explicit_dependency_is_told_from_an_implied_one(record):
    def program():
        first = aws.ec2.Vpc("first", cidr_block="10.0.0.0/16")
        aws.ec2.Vpc("second", cidr_block="10.1.0.0/16", opts=pulumi.ResourceOptions(depends_on=[first]))
        aws.ec2.Subnet("third", vpc_id=first.id)

    recording = record(program)
    first, second = recording.of_type("aws:ec2/vpc:Vpc")
    assert second.options.depends_on == (first.urn,)
    assert recording.one("aws:ec2/subnet:Subnet").options.depends_on == ()


def test_a_failing_assertion_in_an_apply_fails_the_run(record):
    def check(_value: str) -> None:
        raise AssertionError("seen")

    with pytest.raises(AssertionError, match="seen"):
        record(lambda: [None, aws.ec2.Vpc("v", cidr_block="10.0.0.0/16").id.apply(check)][0])


def test_a_document_made_of_an_unknown_is_unknown_in_a_preview_only(record, preview, unknown):
    def program():
        vpc = aws.ec2.Vpc("v", cidr_block="10.0.0.0/16")
        return {"document": pulumi.Output.json_dumps({"vpc": vpc.arn})}

    document = record(program, preview=preview).outputs["document"]
    assert document is unknown if preview else document.startswith('{"vpc": "arn:aws:mock')


def test_secrets_are_unwrapped_and_marked(record):
    def program():
        aws.ssm.Parameter("p", type="SecureString", value=pulumi.Output.secret("s3cret"))

    parameter = record(program).one("aws:ssm/parameter:Parameter")
    assert parameter["value"] == "s3cret" and "value" in parameter.secret_inputs


def test_a_computed_property_can_be_given(record):
    address = {"publicIp": "198.51.100.7"}
    recording = record(lambda: aws.ec2.Eip("ip").public_ip, computed=lambda type_, name, inputs: address)
    assert recording.outputs == "198.51.100.7"


def test_a_data_source_is_refused(record):
    with pytest.raises(Exception, match="data source"):
        record(lambda: aws.get_caller_identity_output().account_id)


def test_runs_do_not_share_state(record):
    first, second = (record(lambda: _Pair("pair").vpc.id) for _ in range(2))
    assert [r.urn for r in first.resources] == [r.urn for r in second.resources]
    assert len(first.resources) == 3


def test_two_resources_of_one_urn_are_refused(record):
    def program():
        aws.ec2.Vpc("same", cidr_block="10.0.0.0/16")
        aws.ec2.Vpc("same", cidr_block="10.0.0.0/16")

    with pytest.raises(AssertionError, match="same"):
        record(program)
