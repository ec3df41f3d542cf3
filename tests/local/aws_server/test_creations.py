"""Creating calls repeated with the same header make one thing; deleted things are made anew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

URN = "urn:pulumi:local::ringfence::aws:ec2/vpc:Vpc::"


def vpcs(aws: Any, cidr: str) -> list[str]:
    found = aws.client("ec2").describe_vpcs(Filters=[{"Name": "cidr", "Values": [cidr]}])["Vpcs"]
    return [vpc["VpcId"] for vpc in found]


def make(aws: Any, cidr: str, create: str) -> str:
    return str(aws.client("ec2", create=create).create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"])


def test_the_same_creation_twice_makes_one_vpc(aws: Any) -> None:
    header = f"{URN}twice;hash;"
    assert make(aws, "10.1.0.0/16", header) == make(aws, "10.1.0.0/16", header)
    assert len(vpcs(aws, "10.1.0.0/16")) == 1


def test_without_the_header_two_calls_make_two(aws: Any) -> None:
    assert make(aws, "10.2.0.0/16", "") != make(aws, "10.2.0.0/16", "")


@pytest.mark.parametrize("other", ["other;hash;", "known;changed;", "known;hash;vpc-1"])
def test_another_urn_hash_or_known_id_makes_another(aws: Any, other: str) -> None:
    first = make(aws, "10.3.0.0/16", f"{URN}known;hash;")
    assert make(aws, "10.3.0.0/16", URN + other) != first


def test_one_step_may_call_an_operation_several_times(aws: Any) -> None:
    ec2 = aws.client("ec2", create=f"{URN}steps;hash;")
    vpc = ec2.create_vpc(CidrBlock="10.4.0.0/16")["Vpc"]["VpcId"]
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "a", "Value": "1"}])
    ec2.create_tags(Resources=[vpc], Tags=[{"Key": "b", "Value": "2"}])
    tags = aws.client("ec2").describe_vpcs(VpcIds=[vpc])["Vpcs"][0]["Tags"]
    assert {tag["Key"] for tag in tags} == {"a", "b"}


def test_concurrent_repetitions_wait_for_the_first(aws: Any) -> None:
    header = f"{URN}concurrent;hash;"
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: make(aws, "10.5.0.0/16", header), range(16)))
    assert len(set(made)) == 1
    assert vpcs(aws, "10.5.0.0/16") == [made[0]]


def test_random_client_tokens_do_not_matter(aws: Any) -> None:
    resolver = aws.client("route53resolver", create=f"{URN}tokens;hash;")
    ids = {
        resolver.create_firewall_rule_group(CreatorRequestId=token, Name="tokens")["FirewallRuleGroup"]["Id"]
        for token in "ab"
    }
    assert len(ids) == 1


def test_an_error_is_not_remembered(aws: Any) -> None:
    logs = aws.client("logs", create=f"{URN}error;hash;")
    stream = {"logGroupName": "/later", "logStreamName": "s"}
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.create_log_stream(**stream)
    aws.client("logs").create_log_group(logGroupName="/later")
    logs.create_log_stream(**stream)
    assert len(logs.describe_log_streams(logGroupName="/later")["logStreams"]) == 1


def test_a_delete_with_the_urn_forgets_its_creations(aws: Any) -> None:
    header = f"{URN}deleted;hash;"
    first = make(aws, "10.7.0.0/16", header)
    aws.client("ec2", delete=f"{URN}deleted").delete_vpc(VpcId=first)
    second = make(aws, "10.7.0.0/16", header)
    assert second != first
    assert vpcs(aws, "10.7.0.0/16") == [second]


def test_a_delete_behind_the_engines_back_forgets_too(aws: Any) -> None:
    header = f"{URN}drifted;hash;"
    first = make(aws, "10.8.0.0/16", header)
    aws.client("ec2").delete_vpc(VpcId=first)
    assert vpcs(aws, "10.8.0.0/16") == []
    second = make(aws, "10.8.0.0/16", header)
    assert vpcs(aws, "10.8.0.0/16") == [second]


def test_a_delete_that_failed_forgets_nothing(aws: Any) -> None:
    header = f"{URN}busy;hash;"
    first = make(aws, "10.9.0.0/16", header)
    aws.client("ec2").create_subnet(VpcId=first, CidrBlock="10.9.1.0/24")
    with pytest.raises(ClientError, match="DependencyViolation"):
        aws.client("ec2", delete=f"{URN}busy").delete_vpc(VpcId=first)
    assert make(aws, "10.9.0.0/16", header) == first


def test_creations_are_listed_so_that_orphans_can_be_found(aws: Any) -> None:
    urn = f"{URN}orphan"
    made = [make(aws, f"10.1{index}.0.0/16", f"{urn};hash{index};") for index in range(2)]
    listed = aws.own(f"creations?urn={urn}")["creations"]
    assert [entry["response"]["Vpc"]["VpcId"] for entry in listed] == made
    assert [entry["request"]["CidrBlock"] for entry in listed] == ["10.10.0.0/16", "10.11.0.0/16"]
    assert {entry["operation"] for entry in listed} == {"CreateVpc"}


def test_secrets_are_not_listed(aws: Any) -> None:
    urn = f"{URN}secret"
    manager = aws.client("secretsmanager", create=f"{urn};hash;")
    manager.create_secret(Name="orphan", SecretString="do-not-show")
    iam = aws.client("iam", create=f"{urn};hash;")
    iam.create_user(UserName="someone")
    key = iam.create_access_key(UserName="someone")["AccessKey"]
    shown = aws.control("GET", f"/ringfence/creations?urn={urn}").body.decode()
    assert key["AccessKeyId"] in shown
    assert key["SecretAccessKey"] not in shown
    assert "do-not-show" not in shown


def test_many_threads_creating_at_once_lose_nothing(aws: Any) -> None:
    ec2, iam = aws.client("ec2"), aws.client("iam")
    vpc = make(aws, "10.20.0.0/16", "")

    def one(index: int) -> tuple[str, str]:
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{index}.0/24")["Subnet"]["SubnetId"]
        ec2.create_tags(Resources=[subnet], Tags=[{"Key": "Index", "Value": str(index)}])
        role = iam.create_role(RoleName=f"many-{index}", AssumeRolePolicyDocument="{}")["Role"]["RoleName"]
        ec2.describe_subnets()
        iam.list_roles()
        return subnet, role

    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(one, range(64)))
    found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    assert {subnet["SubnetId"] for subnet in found} == {subnet for subnet, _ in made}
    assert {tag["Value"] for subnet in found for tag in subnet["Tags"]} == {str(index) for index in range(64)}
    roles = [role["RoleName"] for page in iam.get_paginator("list_roles").paginate() for role in page["Roles"]]
    assert {role for _, role in made} <= set(roles)
