"""What is left: nothing in a fresh account, everything that was made, nothing again after its deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROLE_TRUST = '{"Version":"2012-10-17","Statement":[]}'


@pytest.fixture(scope="module")
def own(
    start_aws_server: Any, connect: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A server that nobody else uses."""
    with start_aws_server(tmp_path_factory.mktemp("inventory")) as endpoint:
        yield connect(endpoint)


def touch_everything(aws: Any) -> None:
    """Reads that make moto set up a fresh account's defaults."""
    aws.client("ec2").describe_vpcs()
    aws.client("ec2").describe_images(Owners=["amazon"])
    aws.client("iam").list_policies(Scope="AWS")
    aws.client("kms").list_aliases()
    aws.client("events").list_event_buses()
    aws.client("ssm").get_parameters_by_path(Path="/aws/service/ami-amazon-linux-latest")
    for service, read in (
        ("s3", "list_buckets"),
        ("sns", "list_topics"),
        ("logs", "describe_log_groups"),
        ("cloudtrail", "describe_trails"),
        ("cloudwatch", "describe_alarms"),
        ("secretsmanager", "list_secrets"),
        ("route53", "list_hosted_zones"),
        ("ecr", "describe_repositories"),
        ("sqs", "list_queues"),
        ("dynamodb", "list_tables"),
    ):
        getattr(aws.client(service), read)()


def test_a_fresh_account_has_nothing_left(own: Any) -> None:
    touch_everything(own)
    assert own.own("inventory") == {"count": 0, "left": {}, "pending_deletion": {}}


def test_everything_made_is_there_and_gone_when_deleted(own: Any) -> None:
    ec2, iam, s3, logs = (own.client(name) for name in ("ec2", "iam", "s3", "logs"))
    resolver, sns, eks = (own.client(name) for name in ("route53resolver", "sns", "eks"))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=f"us-east-1{z}")["Subnet"]["SubnetId"]
        for i, z in enumerate("ab")
    ]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    (instance,) = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=subnets[0])["Instances"]
    nat = ec2.create_nat_gateway(SubnetId=subnets[0], AllocationId=address)["NatGateway"]["NatGatewayId"]
    endpoint = ec2.create_vpc_endpoint(VpcId=vpc, ServiceName="com.amazonaws.us-east-1.s3")["VpcEndpoint"]
    template = ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData={"InstanceType": "t3.micro"})
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=ROLE_TRUST)
    iam.create_instance_profile(InstanceProfileName="p")
    s3.create_bucket(Bucket="left-over")
    s3.put_object(Bucket="left-over", Key="k", Body=b"v")
    logs.create_log_group(logGroupName="/left")
    topic = sns.create_topic(Name="left")["TopicArn"]
    domains = resolver.create_firewall_domain_list(CreatorRequestId="1", Name="left")["FirewallDomainList"]["Id"]
    eks.create_cluster(
        name="left", roleArn="arn:aws:iam::123456789012:role/r", resourcesVpcConfig={"subnetIds": subnets}
    )
    eks.create_addon(clusterName="left", addonName="coredns", addonVersion="v1")
    left = own.own("inventory")["left"]
    for service, kind, name in (
        ("ec2", "VPC", vpc),
        ("ec2", "Subnet", subnets[0]),
        ("ec2", "InternetGateway", gateway),
        ("ec2", "NatGateway", nat),
        ("ec2", "VPCEndPoint", endpoint["VpcEndpointId"]),
        ("iam", "Role", "r"),
        ("s3", "FakeBucket", "left-over"),
        ("logs", "LogGroup", "/left"),
        ("sns", "Topic", topic),
        ("route53resolver", "firewallDomainList", domains),
        ("eks", "addon", "left/coredns"),
    ):
        assert any(name in entry for entry in left[service][kind]), (service, kind, left.get(service))
    assert left["eks"]["Cluster"] and left["ec2"]["LaunchTemplate"] and left["ec2"]["Reservation"]

    eks.delete_cluster(name="left")
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    ec2.delete_nat_gateway(NatGatewayId=nat)
    ec2.release_address(AllocationId=address)
    ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint["VpcEndpointId"]])
    ec2.delete_launch_template(LaunchTemplateId=template["LaunchTemplate"]["LaunchTemplateId"])
    ec2.delete_internet_gateway(InternetGatewayId=gateway)
    for subnet in subnets:
        ec2.delete_subnet(SubnetId=subnet)
    ec2.delete_vpc(VpcId=vpc)
    iam.delete_instance_profile(InstanceProfileName="p")
    iam.delete_role(RoleName="r")
    s3.delete_object(Bucket="left-over", Key="k")
    s3.delete_bucket(Bucket="left-over")
    logs.delete_log_group(logGroupName="/left")
    sns.delete_topic(TopicArn=topic)
    resolver.delete_firewall_domain_list(FirewallDomainListId=domains)
    assert own.own("inventory") == {"count": 0, "left": {}, "pending_deletion": {}}


def test_an_encrypted_root_volume_leaves_nothing_behind_unless_it_is_to_be_kept(own: Any) -> None:
    ec2 = own.client("ec2")
    device = ec2.describe_images(ImageIds=["ami-12c6146b"])["Images"][0]["RootDeviceName"]
    launch = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1}

    def live_and_die(**volume: Any) -> None:
        mappings = [{"DeviceName": device, "Ebs": {"VolumeSize": 8, "Encrypted": True, **volume}}]
        made = ec2.run_instances(**launch, BlockDeviceMappings=mappings)["Instances"][0]["InstanceId"]
        assert own.own("inventory")["left"]["ec2"]["Volume"]
        ec2.terminate_instances(InstanceIds=[made])

    live_and_die()
    assert own.own("inventory")["left"] == {}
    live_and_die(DeleteOnTermination=False)
    (kept,) = own.own("inventory")["left"]["ec2"]["Volume"]
    ec2.delete_volume(VolumeId=kept)
    assert own.own("inventory")["left"] == {}


def test_a_hosted_zone_takes_its_name_servers_with_it(own: Any) -> None:
    route53 = own.client("route53")
    vpc = own.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    kept = route53.create_reusable_delegation_set(CallerReference="kept")["DelegationSet"]["Id"]
    private = {"Name": "proxy.internal", "VPC": {"VPCRegion": "us-east-1", "VPCId": vpc}}
    public = {"Name": "a.example"}
    zones = [route53.create_hosted_zone(**given, CallerReference=given["Name"]) for given in (private, public)]
    assert len(zones[1]["DelegationSet"]["NameServers"]) == 4
    assert len(route53.list_reusable_delegation_sets()["DelegationSets"]) == 1
    for zone in zones:
        route53.delete_hosted_zone(Id=zone["HostedZone"]["Id"])
    assert list(own.own("inventory")["left"]["route53"]) == ["DelegationSet"]
    route53.delete_reusable_delegation_set(Id=kept)
    assert own.own("inventory")["left"] == {}


def test_keys_and_secrets_in_their_waiting_period_are_told_apart(own: Any) -> None:
    kms, secrets = own.client("kms"), own.client("secretsmanager")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/left", TargetKeyId=key)
    secret = secrets.create_secret(Name="left", SecretString="x")["ARN"]
    before = own.own("inventory")
    assert before["count"] >= 2
    assert any(key in name for name in before["left"]["kms"]["Key"])
    kms.delete_alias(AliasName="alias/left")
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    secrets.delete_secret(SecretId=secret, RecoveryWindowInDays=7)
    after = own.own("inventory")
    assert (after["count"], after["left"]) == (0, {})
    assert any(key in name for name in after["pending_deletion"]["kms"]["Key"])
    assert any("left" in name for name in after["pending_deletion"]["secretsmanager"]["FakeSecret"])


def test_a_reset_empties_the_account(own: Any) -> None:
    own.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")
    own.client("accessanalyzer").create_analyzer(analyzerName="a", type="ACCOUNT")
    assert own.own("inventory")["count"] > 0
    assert own.control("POST", "/ringfence/reset").status == 200
    touch_everything(own)
    assert own.own("inventory")["count"] == 0
    assert len(own.client("ec2").describe_vpcs()["Vpcs"]) == 1
