"""The aws provider under the real engine, against the real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.local.aws_provider.conftest import KEY

pytestmark = [pytest.mark.engine, pytest.mark.e2e]

PROGRAM = """
    import json

    import pulumi
    import pulumi_aws as aws

    config = pulumi.Config()
    statement = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::engine-reports/*"}
    tags = {"ringfence.dev/environment": config.get("environment") or "local"}
    region = aws.Provider("aws", region="us-east-1")
    here = pulumi.ResourceOptions(provider=region)

    key = aws.kms.Key("key", description="reports", tags=tags, opts=here)
    bucket = aws.s3.Bucket("reports", bucket="engine-reports", tags=tags, opts=here)
    aws.s3.BucketServerSideEncryptionConfiguration(
        "encryption",
        bucket=bucket.bucket,
        rules=[{"apply_server_side_encryption_by_default": {"sse_algorithm": "aws:kms", "kms_master_key_id": key.arn}}],
        opts=here,
    )
    role = aws.iam.Role("reader", name="engine-reader", assume_role_policy=trust, tags=tags, opts=here)
    document = json.dumps({"Version": "2012-10-17", "Statement": [read]})
    inline = aws.iam.RolePolicy("reads", name="reads", role=role.name, policy=document, opts=here)
    aws.iam.RolePolicyAttachmentsExclusive("nothing-more", role_name=role.name, policy_arns=[], opts=here)
    aws.iam.RolePoliciesExclusive("nothing-else", role_name=role.name, policy_names=[inline.name], opts=here)
    vpc = aws.ec2.Vpc("network", cidr_block=config.get("cidr") or "10.0.0.0/16", tags=tags, opts=here)
    aws.ec2.DefaultSecurityGroup("closed", vpc_id=vpc.id, opts=here)
    subnet = aws.ec2.Subnet("sandbox", vpc_id=vpc.id, cidr_block="10.0.1.0/24", tags=tags, opts=here)
    token = aws.ssm.Parameter("token", name="/engine/token", type="SecureString", value="s3cr3t-value", opts=here)
    pulumi.export("roleArn", role.arn)
    pulumi.export("subnetId", subnet.id)
"""
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
NAMES = {"key", "reports", "encryption", "reader", "reads", "nothing-more", "nothing-else"}
NAMES |= {"network", "closed", "sandbox", "token"}


def _wide(action: str) -> str:
    statement = {"Effect": "Allow", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _names(result: Any, op: str) -> set[str]:
    return {step.name for step in result.changed_steps if step.op == op}


def test_an_aws_stack_lives_drifts_and_goes(
    engine_factory: Any, endpoint: str, inventory: Callable[[], Any], client: Callable[[str], Any]
) -> None:
    environment = {"AWS_ENDPOINT_URL": endpoint, **KEY}
    engine = engine_factory(PROGRAM, extra_env=environment)
    preview = engine.preview()
    preview.check()
    assert _names(preview, "create") >= NAMES
    engine.up().check()
    assert engine.outputs()["roleArn"] == "arn:aws:iam::123456789012:role/engine-reader"
    assert engine.up().changed_steps == ()
    assert engine.preview(refresh=True).changed_steps == ()
    state = "".join(path.read_text() for path in engine.home.backend.rglob("*.json"))
    assert "engine-reader" in state
    assert "s3cr3t-value" not in state

    iam = client("iam")
    iam.put_role_policy(RoleName="engine-reader", PolicyName="reads", PolicyDocument=_wide("s3:*"))
    assert _names(engine.preview(refresh=True), "update") == {"reads"}
    iam.attach_role_policy(RoleName="engine-reader", PolicyArn=ADMINISTRATOR)
    iam.put_role_policy(RoleName="engine-reader", PolicyName="more", PolicyDocument=_wide("iam:*"))
    client("ec2").delete_subnet(SubnetId=engine.outputs()["subnetId"])
    drifted = engine.preview(refresh=True)
    assert _names(drifted, "update") == {"reads", "nothing-more", "nothing-else"}
    assert _names(drifted, "create") == {"sandbox"}
    engine.up(refresh=True).check()
    assert iam.list_attached_role_policies(RoleName="engine-reader")["AttachedPolicies"] == []
    assert iam.list_role_policies(RoleName="engine-reader")["PolicyNames"] == ["reads"]
    assert engine.preview(refresh=True).changed_steps == ()

    engine.config["trial:environment"] = "dev"
    assert _names(engine.preview(), "update") == {"key", "reports", "reader", "network", "sandbox"}
    engine.config["trial:cidr"] = "10.0.0.0/8"
    assert _names(engine.preview(), "replace") == {"network", "closed", "sandbox"}
    engine.destroy().check()
    left = json.dumps(inventory())
    assert "engine-" not in left


MISTAKES = """
    import pulumi_aws as aws

    aws.iam.Role("reader", name="engine mistaken", assume_role_policy="{", max_session_duration=60)
"""


def test_mistakes_are_said_at_preview_by_key(engine_factory: Any, endpoint: str) -> None:
    engine = engine_factory(
        MISTAKES, config={"aws:region": "us-east-1"}, extra_env={"AWS_ENDPOINT_URL": endpoint, **KEY}
    )
    refused = engine.preview()
    assert not refused.ok
    said = refused.stdout + refused.stderr
    for key in ("name", "assumeRolePolicy", "maxSessionDuration"):
        assert key in said
    assert "Traceback" not in said


NAT = """
    import pulumi
    import pulumi_aws as aws

    ignored = pulumi.ResourceOptions(ignore_changes=pulumi.Config().get_object("ignored"))
    vpc = aws.ec2.Vpc("network", cidr_block="10.0.0.0/16")
    subnet = aws.ec2.Subnet("public", vpc_id=vpc.id, cidr_block="10.0.1.0/24")
    interface = aws.ec2.NetworkInterface("forwarding", subnet_id=subnet.id, source_dest_check=False)
    aws.ec2.Instance(
        "proxy",
        ami="ami-12c6146b",
        instance_type="t4g.nano",
        primary_network_interface={"network_interface_id": interface.id},
        opts=ignored,
    )
"""


def test_what_is_ignored_and_was_never_declared_stays_as_it_is(engine_factory: Any, endpoint: str) -> None:
    config = {"aws:region": "us-east-1", "ignored": '["sourceDestCheck"]'}
    engine = engine_factory(NAT, config=config, extra_env={"AWS_ENDPOINT_URL": endpoint, **KEY})
    engine.up().check()
    assert engine.up().changed_steps == ()
    assert engine.preview(refresh=True).changed_steps == ()
    engine.config["trial:ignored"] = "[]"
    assert _names(engine.preview(), "update") == {"proxy"}
    engine.destroy().check()
