"""What `make up` promises: it stands, twice is the same as once, and the APIs say what the stack says."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

import pytest
from kubernetes import client, config

from components.tool_boundary import boundary_arn
from ringfence.catalog import load as load_catalog
from ringfence.local import target
from ringfence.names import Names
from tests.environment.conftest import PROJECT, Standing

pytestmark = pytest.mark.engine


def test_a_second_up_changes_nothing(standing: Standing):
    again = standing.embedded.up()
    assert set(again.changes) == {"same"}


def test_the_apis_say_what_the_state_says(standing: Standing):
    found = standing.engine().preview(refresh=True).check()
    assert [(step.op, step.urn, step.keys) for step in found.changed_steps] == []


def test_boto3_sees_a_role_for_every_tool_with_the_boundary(standing: Standing):
    iam = standing.client("iam")
    arns = standing.engine().outputs()["toolRoleArns"]
    tools = {tool.name for tool in load_catalog(PROJECT / "catalog").tools}
    assert set(arns) == tools
    for tool, arn in arns.items():
        role = iam.get_role(RoleName=arn.rsplit("/", 1)[1])["Role"]
        assert role["Arn"] == arn
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary_arn(
            Names("ringfence", "local", "123456789012", "us-east-1"), tool
        )


def test_boto3_sees_a_sandbox_subnet_without_a_default_route_beside_one_with(standing: Standing):
    ec2 = standing.client("ec2")
    vpc = standing.engine().outputs()["vpcId"]
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    by_name = {
        tag["Value"]: {route.get("DestinationCidrBlock") for route in table["Routes"]}
        for table in tables
        for tag in table["Tags"]
        if tag["Key"] == "Name"
    }
    sandbox = [routes for name, routes in by_name.items() if "sandbox" in name]
    assert len(sandbox) == 2
    assert all("0.0.0.0/0" not in routes for routes in sandbox)
    assert any("0.0.0.0/0" in routes for name, routes in by_name.items() if "public" in name)


def test_boto3_sees_the_cluster_private_and_its_access_entries(standing: Standing):
    eks = standing.client("eks")
    name = standing.engine().outputs()["clusterName"]
    cluster = eks.describe_cluster(name=name)["cluster"]
    assert cluster["resourcesVpcConfig"]["endpointPublicAccess"] is False
    assert cluster["encryptionConfig"]
    assert "arn:aws:iam::123456789012:role/operators" in eks.list_access_entries(clusterName=name)["accessEntries"]


def test_kubernetes_objects_are_made_after_the_administrators_access_and_deleted_before_it(standing: Standing):
    """The engine deletes a resource before its provider, and that before what it depends on."""
    resources = standing.engine().resources()
    (provider,) = (found for found in resources if found["type"] == "pulumi:providers:kubernetes")
    objects = [found for found in resources if found["type"].startswith("kubernetes:")]
    access = {found["urn"] for found in resources if found["type"].startswith("aws:eks/access")}
    assert len(access) == 2
    assert access <= set(provider["dependencies"])
    assert {found["provider"].rpartition("::")[0] for found in objects} == {provider["urn"]}


def test_tools_with_grants_reach_their_own_hosts_of_aws_and_the_resolver_lets_the_proxy_find_them(standing: Standing):
    resources = standing.engine().resources()
    (listeners,) = (
        found["inputs"]["content"] for found in resources if found.get("inputs", {}).get("key") == "egress/lds.json"
    )
    made = {listener["name"]: json.dumps(listener) for listener in json.loads(listeners)["resources"]}
    hosts = {
        "s3-report-reader": "example-reports-123456789012.s3.us-east-1.amazonaws.com",
        "ticket-store": "dynamodb.us-east-1.amazonaws.com",
        "email-notifier": "email.us-east-1.amazonaws.com",
    }
    for tool, host in hosts.items():
        assert [name for name, text in made.items() if f'"{host}' in text] == [tool]
    assert "model-call" not in made
    assert "bedrock" not in listeners
    lists = [found["inputs"]["domains"] for found in resources if found["type"].endswith(":ResolverFirewallDomainList")]
    assert any(set(hosts.values()) <= set(domains) for domains in lists)
    unit = json.loads(
        kubectl(standing, "get", "configmap", "sandbox-unit", "-n", "ringfence-system")["data"]["unit.json"]
    )
    assert set(unit["toolPorts"]) == {*hosts, "web-fetch"}


def test_boto3_sees_the_proxies_table_under_the_gateway_endpoints_of_s3_and_dynamodb(standing: Standing):
    ec2 = standing.client("ec2")
    vpc = {"Name": "vpc-id", "Values": [standing.engine().outputs()["vpcId"]]}
    (table,) = ec2.describe_route_tables(Filters=[vpc, {"Name": "tag:Name", "Values": ["ringfence-local-public"]}])[
        "RouteTables"
    ]
    found = {
        endpoint["ServiceName"].rpartition(".")[2]: endpoint
        for endpoint in ec2.describe_vpc_endpoints(Filters=[vpc])["VpcEndpoints"]
    }
    for service in ("s3", "dynamodb"):
        assert table["RouteTableId"] in found[service]["RouteTableIds"]
        statements = json.loads(found[service]["PolicyDocument"])["Statement"]
        (own,) = (item["Condition"]["StringEquals"] for item in statements if item["Sid"] == "OwnAccountOnly")
        assert own == {"aws:PrincipalAccount": ["123456789012"], "aws:ResourceAccount": ["123456789012"]}


def kubectl(standing: Standing, *arguments: str) -> Any:
    tools = standing.embedded.engine().tools
    command = [tools.path("kubectl"), "--kubeconfig", standing.home.kubeconfig, *arguments, "-o", "json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_kubectl_sees_the_admission_policies_bound_with_deny(standing: Standing):
    bindings = kubectl(standing, "get", "validatingadmissionpolicybindings")["items"]
    assert len(bindings) >= 6
    assert all("Deny" in binding["spec"]["validationActions"] for binding in bindings)


def test_kubectl_and_the_client_see_every_kubernetes_object_of_the_state(standing: Standing):
    configuration = client.Configuration()
    config.load_kube_config(str(standing.home.kubeconfig), client_configuration=configuration)
    names = {item.metadata.name for item in client.CoreV1Api(client.ApiClient(configuration)).list_namespace().items}
    assert "ringfence-system" in names
    count = sum(1 for entry in standing.engine().resources() if entry["type"].startswith("kubernetes:"))
    assert count >= 20


def test_pulumi_typed_by_hand_sees_no_changes(standing: Standing):
    """As after `eval "$(ringfence env)"`: the caller's shell has nothing but these variables."""
    values = target.environment(standing.home, standing.embedded.engine().tools)
    command = ["pulumi", "preview", "-s", "local", "--non-interactive", "--config-file", standing.engine().config_file]
    done = subprocess.run(
        [str(p) for p in command], cwd=PROJECT, env=values, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unchanged" in done.stdout


# A PEM private key's first line, plain and as a Kubernetes Secret's data holds it.
KEY_FORMS = ("-----BEGIN PRIVATE KEY-----\\n", base64.b64encode(b"-----BEGIN PRIVATE KEY-----").decode())


def test_private_keys_stand_in_the_state_only_as_ciphertext(standing: Standing):
    engine = standing.engine()
    state = engine.state_file.read_text()
    opened = json.dumps(engine.export(show_secrets=True))
    assert any(form in opened.replace("\\\\n", "\\n") for form in KEY_FORMS)
    assert not any(form in state.replace("\\\\n", "\\n") for form in KEY_FORMS)
    assert not any(form in json.dumps(engine.outputs()) for form in KEY_FORMS)


def test_a_role_widened_behind_pulumis_back_shows_in_a_preview_with_refresh(standing: Standing):
    iam = standing.client("iam")
    role = standing.engine().outputs()["toolRoleArns"]["s3-report-reader"].rsplit("/", 1)[1]
    name = "grants"
    before = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(wide))
    try:
        changed = standing.engine().preview(refresh=True).check().changed_steps
        assert [(step.op, step.type) for step in changed] == [("update", "aws:iam/rolePolicy:RolePolicy")]
    finally:
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(before))


def test_a_policy_added_to_a_role_behind_pulumis_back_shows_too(standing: Standing):
    iam = standing.client("iam")
    role = standing.engine().outputs()["toolRoleArns"]["web-fetch"].rsplit("/", 1)[1]
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=role, PolicyName="extra", PolicyDocument=json.dumps(wide))
    try:
        changed = standing.engine().preview(refresh=True).check().changed_steps
        assert "aws:iam/rolePoliciesExclusive:RolePoliciesExclusive" in {step.type for step in changed}
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="extra")
