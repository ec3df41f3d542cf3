"""What the backend promises for every type: refusals, comparison by meaning, names, previews, headers, concurrency."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from ringfence.local.providers.aws import registry
from ringfence.local.providers.aws.backend import AwsBackend
from ringfence.local.providers.aws.cloud import Cloud, refuse_remote
from ringfence.local.providers.base import UNKNOWN, NotFound, PartialCreate, ProviderError
from tests.local.aws_provider.documents import allow, bucket, resource_policy, role, trust, vpc
from tests.local.aws_provider.life_cycle import World

ROLE = "aws:iam/role:Role"
URN = f"urn:pulumi:local::ringfence::{ROLE}::reports"


def _check(backend: AwsBackend, type_: str, news: dict[str, Any], olds: dict[str, Any] | None = None) -> Any:
    return backend.check(type_, f"urn:pulumi:local::ringfence::{type_}::reports", olds or {}, news, b"\x01" * 16)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "https://iam.amazonaws.com",
        "http://10.0.0.1:5000",
        "http://127.0.0.1.example.com",
        "ftp://127.0.0.1",
        "localhost:4566",
    ],
)
def test_an_endpoint_that_is_not_loopback_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ProviderError, match="loopback address only"):
        AwsBackend().configure({"region": "us-east-1"})


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"])
def test_a_loopback_endpoint_is_accepted(endpoint: str) -> None:
    assert refuse_remote(endpoint) == endpoint


def test_an_endpoint_in_the_provider_settings_must_be_loopback_too(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    AwsBackend().configure({"region": "us-east-1", "endpoints": [{"s3": "http://127.0.0.1:1"}]})
    with pytest.raises(ProviderError, match="loopback address only"):
        AwsBackend().configure({"region": "us-east-1", "endpoints": [{"s3": "https://s3.amazonaws.com"}]})


@pytest.mark.parametrize("setting", ["profile", "assumeRoles", "defaultTags"])
def test_a_setting_that_would_change_what_is_created_is_refused(
    setting: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    AwsBackend().configure({"region": "us-east-1", setting: None})
    with pytest.raises(ProviderError, match=f"aws:{setting} is not supported"):
        AwsBackend().configure({"region": "us-east-1", setting: [{"x": "y"}]})


def test_a_missing_region_and_a_missing_configuration_are_said(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(ProviderError, match="aws:region is not set"):
        AwsBackend().configure({})
    with pytest.raises(ProviderError, match="not configured yet"):
        AwsBackend().check(ROLE, URN, {}, {"assumeRolePolicy": trust()}, b"0123")


def test_a_user_s_own_aws_settings_and_proxies_are_left_alone(endpoint: str, tmp_path: Any) -> None:
    config = tmp_path / "config"
    config.write_text("this is [no configuration\n")
    program = (
        "from ringfence.local.providers.aws.cloud import Cloud; import sys;"
        "print(Cloud(sys.argv[1], 'us-east-1').account)"
    )
    environment = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "missing",
        "AWS_ENDPOINT_URL_STS": "http://192.0.2.1",
        "HTTP_PROXY": "http://192.0.2.1:3128",
        "http_proxy": "http://192.0.2.1:3128",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, endpoint], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == "123456789012", done.stderr


def test_a_type_that_is_not_embedded_is_refused_by_name(backend: AwsBackend) -> None:
    with pytest.raises(ProviderError, match="aws:rds/instance:Instance is not among the"):
        _check(backend, "aws:rds/instance:Instance", {})
    with pytest.raises(ProviderError, match="getAmi"):
        backend.invoke("aws:ec2/getAmi:getAmi", {})


def test_every_mistake_is_named_with_its_key_and_remedy(backend: AwsBackend) -> None:
    declared = {
        "assumeRolePolicy": "{",
        "maxSessionDuration": 60,
        "path": "no-slash",
        "descriptoin": "x",
        "tags": {"ringfence.dev/n": 1},
        "forceDetachPolicies": "yes",
    }
    _, failures = _check(backend, ROLE, declared)
    said = {failure.property: failure.reason for failure in failures}
    assert set(said) == {
        "assumeRolePolicy",
        "maxSessionDuration",
        "path",
        "descriptoin",
        'tags["ringfence.dev/n"]',
        "forceDetachPolicies",
    }
    assert "did you mean description" in said["descriptoin"]
    assert "3600 to 43200" in said["maxSessionDuration"]
    assert "expected boolean" in said["forceDetachPolicies"]
    assert "required" in _check(backend, ROLE, {})[1][0].reason


def test_a_boolean_is_no_number_and_a_number_no_text(backend: AwsBackend) -> None:
    _, failures = _check(backend, ROLE, {"assumeRolePolicy": trust(), "maxSessionDuration": True, "description": 5})
    assert {failure.property for failure in failures} == {"maxSessionDuration", "description"}


def test_an_automatic_name_is_stable_and_fits(backend: AwsBackend) -> None:
    first, _ = _check(backend, ROLE, {"assumeRolePolicy": trust()})
    assert first["name"] == "reports-0101010"
    again, _ = backend.check(ROLE, URN, first, {"assumeRolePolicy": trust()}, b"other seed")
    assert again["name"] == first["name"]
    long = f"urn:pulumi:local::ringfence::{ROLE}::{'x' * 90}"
    inputs, failures = backend.check(ROLE, long, {}, {"assumeRolePolicy": trust()}, b"\x01" * 16)
    assert failures == []
    assert len(inputs["name"]) == 64


def test_equal_documents_are_no_difference_and_wider_ones_are(world: World) -> None:
    two = [
        {"Sid": "A", "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"},
        {"Effect": "Deny", "Action": "iam:*", "Resource": "*", "Condition": {"Bool": {"aws:ViaAWSService": "false"}}},
    ]
    made = world.make("aws:iam/policy:Policy", policy=json.dumps({"Version": "2012-10-17", "Statement": two}))
    respelled = [
        {
            "Effect": "Deny",
            "Action": ["IAM:*"],
            "Resource": ["*"],
            "Condition": {"Bool": {"aws:ViaAWSService": [False]}},
        },
        {"Sid": "A", "Effect": "Allow", "Resource": ["*"], "Action": ["s3:ListBucket", "s3:GetObject"]},
    ]
    same = json.dumps({"Statement": respelled, "Version": "2012-10-17"}, indent=2)
    assert world.changes(made, made.inputs | {"policy": same}) == ()
    for path, value in (("Resource", "arn:aws:s3:::x"), ("Effect", "Deny"), ("Action", ["s3:*"])):
        other = json.dumps({"Statement": [respelled[0], respelled[1] | {path: value}], "Version": "2012-10-17"})
        assert world.changes(made, made.inputs | {"policy": other}) == ("policy",)


def test_sets_have_no_order_and_lists_do(world: World) -> None:
    rules = [
        {"id": "a", "status": "Enabled", "expiration": {"days": 1}},
        {"id": "b", "status": "Enabled", "expiration": {"days": 2}},
    ]
    type_ = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
    made = world.make(type_, bucket=bucket(world).id, rules=rules)
    assert world.changes(made, made.inputs | {"rules": rules[::-1]}) == ()
    assert world.changes(made, made.inputs | {"rules": rules[:1]}) == ("rules",)


def test_a_declared_default_is_the_same_as_none(world: World) -> None:
    made = role(world)
    defaults = {"path": "/", "maxSessionDuration": 3600, "description": "", "forceDetachPolicies": False, "tags": {}}
    assert world.changes(made, made.inputs | defaults) == ()


def test_a_replacement_of_a_fixed_name_deletes_first_and_of_a_new_name_last(world: World) -> None:
    made = role(world)
    assert world.diff(made, made.inputs | {"path": "/x/"}).delete_before_replace
    renamed = world.diff(made, made.inputs | {"path": "/x/", "name": "other"})
    assert set(renamed.replaces) == {"path", "name"}
    assert not renamed.delete_before_replace


def test_a_preview_creates_nothing_and_knows_names_and_arns(world: World) -> None:
    inputs, _ = _check(world.backend, ROLE, {"assumeRolePolicy": UNKNOWN, "name": "previewed", "path": "/tools/"})
    id_, outputs = world.backend.create(ROLE, URN, inputs, True)
    assert id_ == ""
    assert outputs["arn"] == "arn:aws:iam::123456789012:role/tools/previewed"
    assert outputs["assumeRolePolicy"] is UNKNOWN
    assert outputs["uniqueId"] is UNKNOWN
    with pytest.raises(Exception, match="NoSuchEntity"):
        world.client("iam").get_role(RoleName="previewed")


def test_updating_what_is_gone_says_so(world: World) -> None:
    made = role(world)
    world.client("iam").delete_role(RoleName=made.id)
    with pytest.raises(NotFound, match="not there any more"):
        world.update(made, made.inputs | {"description": "x"})
    assert world.read(made) is None


def test_only_the_api_s_word_makes_a_thing_count_as_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = role(world)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    cut_off = AwsBackend()
    cut_off.configure({"region": "us-east-1"})
    with pytest.raises(ProviderError, match="the call to the embedded AWS failed"):
        cut_off.read(made.type, made.urn, made.id, made.inputs, made.outputs)
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetRole")
    with monkeypatch.context() as patch, pytest.raises(ProviderError, match="GetRole was refused: AccessDenied"):
        patch.setattr(Cloud, "call", Mock(side_effect=error))
        world.read(made)
    assert world.read(made) is not None


def test_an_api_error_names_the_type_the_call_and_what_was_said(world: World) -> None:
    with pytest.raises(
        ProviderError, match="aws:iam/rolePolicy:RolePolicy: iam PutRolePolicy was refused: NoSuchEntity"
    ):
        world.make("aws:iam/rolePolicy:RolePolicy", role="missing", policy=allow("s3:GetObject"))


def test_a_thing_that_is_only_half_made_is_remembered_as_it_is(world: World) -> None:
    type_ = "aws:iam/instanceProfile:InstanceProfile"
    inputs, _ = _check(world.backend, type_, {"name": world.name(), "role": "missing"})
    with pytest.raises(PartialCreate, match=r"is not complete: .*NoSuchEntity") as caught:
        world.backend.create(type_, "urn:x::profile", inputs, False)
    half = caught.value
    assert half.id == inputs["name"]
    assert "role" not in half.outputs
    assert world.backend.diff(type_, "urn:x::profile", half.id, inputs, half.outputs, inputs).changed == ("role",)
    world.backend.delete(type_, "urn:x::profile", half.id, inputs, half.outputs)


def _forgetful(backend: AwsBackend) -> AwsBackend:
    """A provider process that has been started again: it knows nothing of what the other did."""
    fresh = AwsBackend()
    fresh._cloud = backend.cloud
    return fresh


def test_a_creation_that_the_engine_forgot_is_answered_again_not_made_twice(world: World) -> None:
    type_ = "aws:ec2/vpc:Vpc"
    urn = f"urn:pulumi:local::ringfence::{type_}::{world.name()}"
    inputs = {"cidrBlock": "10.7.0.0/16", "enableDnsHostnames": True, "tags": {"a": "b"}}
    first, outputs = world.backend.create(type_, urn, inputs, False)
    again, _ = _forgetful(world.backend).create(type_, urn, inputs, False)
    assert again == first
    other, _ = _forgetful(world.backend).create(type_, f"{urn}-other", inputs, False)
    assert other != first
    # A deliberate replacement knows the id of what it replaces.
    replacing = _forgetful(world.backend)
    replacing.diff(type_, urn, first, inputs, outputs, inputs)
    replacement, _ = replacing.create(type_, urn, inputs, False)
    assert replacement not in (first, other)
    for id_ in (first, replacement):
        world.backend.delete(type_, urn, id_, inputs, {})
    made_anew, _ = _forgetful(world.backend).create(type_, urn, inputs, False)
    assert made_anew != first
    for made_urn, id_ in ((urn, made_anew), (f"{urn}-other", other)):
        world.backend.delete(type_, made_urn, id_, inputs, {})


def test_many_resources_are_made_at_once(world: World) -> None:
    policies = [allow(f"s3:Get{index}") for index in range(40)]
    owner = role(world)

    def make(index: int) -> Any:
        made = world.make(ROLE, name=f"many-{index}", assumeRolePolicy=trust())
        inline = world.make("aws:iam/rolePolicy:RolePolicy", name="own", role=made.id, policy=policies[index])
        return made, inline

    with ThreadPoolExecutor(16) as pool:
        pairs = list(pool.map(make, range(40)))
    client = world.client("iam")
    for index, (made, _) in enumerate(pairs):
        document = client.get_role_policy(RoleName=made.id, PolicyName="own")["PolicyDocument"]
        assert document["Statement"][0]["Action"] == [f"s3:Get{index}"]
    for made, inline in pairs:
        world.delete(inline)
        world.delete(made)
    assert owner in world.made


def test_a_role_is_created_in_one_call_and_nothing_is_called_to_compare_it(world: World) -> None:
    calls: list[str] = []
    handler = lambda model, **_: calls.append(model.name)  # noqa: E731 - registered and unregistered by identity
    events = world.backend.cloud.client("iam").meta.events
    events.register("before-call", handler)
    try:
        made = role(world)
        world.changes(made)
    finally:
        events.unregister("before-call", handler)
    assert calls == ["CreateRole"]


def test_the_program_may_ask_who_and_where_it_is(backend: AwsBackend) -> None:
    assert backend.invoke("aws:index/getCallerIdentity:getCallerIdentity", {})["accountId"] == "123456789012"
    assert backend.invoke("aws:index/getRegion:getRegion", {})["name"] == "us-east-1"
    assert backend.invoke("aws:index/getPartition:getPartition", {})["partition"] == "aws"
    assert "us-east-1a" in backend.invoke("aws:index/getAvailabilityZones:getAvailabilityZones", {})["names"]


def test_the_program_may_look_up_how_a_subnet_is_routed(world: World) -> None:
    """As the official provider shows a table: without the VPC's own route and gateway endpoints' routes."""
    network = vpc(world)
    place = world.make("aws:ec2/subnet:Subnet", vpcId=network.id, cidrBlock="10.0.9.0/24")
    table = world.make("aws:ec2/routeTable:RouteTable", vpcId=network.id, tags={"a": "b"})
    world.make("aws:ec2/routeTableAssociation:RouteTableAssociation", routeTableId=table.id, subnetId=place.id)
    endpoint = world.make(
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        vpcId=network.id,
        serviceName="com.amazonaws.us-east-1.s3",
        vpcEndpointType="Gateway",
    )
    tie = {"vpcEndpointId": endpoint.id, "routeTableId": table.id}
    world.make("aws:ec2/vpcEndpointRouteTableAssociation:VpcEndpointRouteTableAssociation", **tie)
    look_up = "aws:ec2/getRouteTable:getRouteTable"
    found = world.backend.invoke(look_up, {"routeTableId": table.id})
    assert found["routes"] == [] and found["vpcId"] == network.id and found["tags"] == {"a": "b"}
    assert [tie["subnetId"] for tie in found["associations"]] == [place.id]
    gateway = world.make("aws:ec2/internetGateway:InternetGateway", vpcId=network.id)
    out = {"destinationCidrBlock": "0.0.0.0/0", "gatewayId": gateway.id}
    world.make("aws:ec2/route:Route", routeTableId=table.id, **out)
    (route,) = world.backend.invoke(look_up, {"subnetId": place.id})["routes"]
    assert (route["cidrBlock"], route["gatewayId"], route["natGatewayId"]) == ("0.0.0.0/0", gateway.id, "")
    with pytest.raises(ProviderError, match="0 route tables"):
        world.backend.invoke(look_up, {"routeTableId": "rtb-0123456789abcdef0"})
    with pytest.raises(ProviderError, match="takes routeTableId"):
        world.backend.invoke(look_up, {"filters": []})


def test_every_type_is_registered_under_its_own_token() -> None:
    for token, resource in registry.all_types().items():
        assert token == resource.pulumi_type
        service, rest = token.removeprefix("aws:").split("/")
        module, name = rest.split(":")
        assert service and module == name[0].lower() + name[1:]


def test_an_import_reads_everything_that_was_declared(world: World) -> None:
    document = resource_policy("s3:GetObject", "arn:aws:s3:::x/*")
    made = world.make("aws:s3/bucketPolicy:BucketPolicy", bucket=bucket(world).id, policy=document)
    found = world.backend.read(made.type, made.urn, made.id, {}, {})
    assert set(found.inputs) == {"bucket", "policy"}
    assert world.backend.diff(made.type, made.urn, made.id, {}, found.outputs, made.inputs).changed == ()
    network = vpc(world)
    assert world.backend.read(network.type, network.urn, network.id, {}, {}).inputs == network.inputs


def test_nothing_is_left_after_all_of_it(world: World, inventory: Any) -> None:
    role(world)
    vpc(world)
    world.clear()
    left = inventory()
    assert "iam" not in left
    assert "VPC" not in left.get("ec2", {})
