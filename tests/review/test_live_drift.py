"""`ringfence drift --live` on the embedded account: seven out-of-band changes are each found, and nothing when undone."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from ringfence.catalog.model import Catalog
from ringfence.errors import InputError
from ringfence.local import operator_key
from ringfence.local.state import write_atomic
from ringfence.names import Names
from ringfence.review import live, lockfile, updating
from ringfence.review.commands import drift
from ringfence.review.lockfile import Lockfile

pytestmark = pytest.mark.e2e

ACCOUNT, REGION = "123456789012", "us-east-1"
NAMES = Names("shop", "test", ACCOUNT, REGION)
ROLE, CLUSTER, BUCKET = NAMES.name("app"), NAMES.name("cluster"), NAMES.bucket("data")
BOUNDARY = NAMES.iam_arn(f"policy/{NAMES.name('limit')}")


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions: Any, resources: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources, **more}


def trust(principal: Any) -> str:
    return document({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal})


BROKER = trust({"AWS": NAMES.iam_arn(f"role/{NAMES.name('broker')}")})
BUCKET_POLICY = document(
    allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/*", Principal={"AWS": NAMES.iam_arn("root")}),
)


class Account:
    """The embedded account, with clients made once."""

    def __init__(self, endpoint: str):
        self.session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        self.endpoint = endpoint
        self._clients: dict[str, Any] = {}

    def client(self, service: str, **options: Any) -> Any:
        if service not in self._clients:
            self._clients[service] = self.session.client(service, endpoint_url=self.endpoint, **options)
        return self._clients[service]

    def __getattr__(self, service: str) -> Any:
        return self.client(service)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    home = tmp_path_factory.mktemp("account")
    write_atomic(home / operator_key.FILE, json.dumps({"accessKeyId": "test", "secretAccessKey": "test"}))
    command = [sys.executable, "-m", "ringfence.local.aws_server", "--port", "0", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        made = Account(json.loads(process.stdout.readline())["endpoint"])
        stand_up(made)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def stand_up(account: Account) -> None:
    """The approved environment, beside things of others that are none of its business."""
    iam = account.iam
    iam.create_policy(PolicyName=NAMES.name("limit"), PolicyDocument=document(allow(["s3:*", "logs:*"])))
    for name in (ROLE, NAMES.name("nodes")):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=BROKER, PermissionsBoundary=BOUNDARY)
    iam.put_role_policy(
        RoleName=ROLE, PolicyName="grants", PolicyDocument=document(allow("s3:GetObject", f"arn:aws:s3:::{BUCKET}/*"))
    )
    iam.create_role(RoleName="somebody-else", AssumeRolePolicyDocument=trust("*"))
    account.s3.create_bucket(Bucket=BUCKET)
    account.s3.put_bucket_policy(Bucket=BUCKET, Policy=BUCKET_POLICY)
    account.sns.create_topic(Name=NAMES.name("alerts"))
    ec2 = account.ec2
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"{REGION}{z}")["Subnet"]["SubnetId"]
        for n, z in enumerate("ab")
    ]
    account.eks.create_cluster(
        name=CLUSTER,
        roleArn=NAMES.iam_arn(f"role/{NAMES.name('nodes')}"),
        resourcesVpcConfig={"subnetIds": subnets},
        accessConfig={"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False},
    )
    account.eks.create_access_entry(clusterName=CLUSTER, principalArn=NAMES.iam_arn("role/ops"))


@pytest.fixture(scope="module")
def approved(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Lockfile:
    """A lockfile of the environment as it was stood up."""
    approval = updating.Approval("lead@example.com", datetime.date(2026, 11, 1), "shop@example.com", "as stood up")
    path = tmp_path_factory.mktemp("lock") / "grants.lock.json"
    empty = updating.updated(NAMES, Catalog((), (), ()), [], None, approval)
    path.write_text(lockfile.render(empty), encoding="utf-8")
    found = live.read(lockfile.read(path), _Session(account))
    assert found.unread == ()
    content = updating.updated(NAMES, Catalog((), (), ()), found.surface.facts.values(), None, approval)
    path.write_text(lockfile.render(content), encoding="utf-8")
    return lockfile.read(path)


class _Session:
    """A boto3 session whose clients speak to the embedded account."""

    def __init__(self, account: Account):
        self._account = account

    def client(self, service: str, region_name: str | None = None) -> Any:
        return self._account.client(service)


Drift = Callable[[], tuple[int, dict[str, Any]]]


@pytest.fixture
def run(account: Account, approved: Lockfile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drift:
    """`ringfence drift --live` as a scheduled job runs it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.chdir(tmp_path)

    def call() -> tuple[int, dict[str, Any]]:
        arguments = ["--live", "--lockfile", str(approved.path), "--format", "json"]
        result = CliRunner().invoke(drift, arguments, catch_exceptions=False)
        return result.exit_code, json.loads(result.stdout)

    return call


def _inline(account: Account) -> Callable[[], Any]:
    account.iam.put_role_policy(RoleName=ROLE, PolicyName="late", PolicyDocument=document(allow("s3:DeleteObject")))
    return lambda: account.iam.delete_role_policy(RoleName=ROLE, PolicyName="late")


def _managed(account: Account) -> Callable[[], Any]:
    arn = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
    account.iam.attach_role_policy(RoleName=ROLE, PolicyArn=arn)
    return lambda: account.iam.detach_role_policy(RoleName=ROLE, PolicyArn=arn)


def _trust(account: Account) -> Callable[[], Any]:
    account.iam.update_assume_role_policy(
        RoleName=ROLE, PolicyDocument=trust({"AWS": "arn:aws:iam::999999999999:root"})
    )
    return lambda: account.iam.update_assume_role_policy(RoleName=ROLE, PolicyDocument=BROKER)


def _boundary(account: Account) -> Callable[[], Any]:
    account.iam.delete_role_permissions_boundary(RoleName=ROLE)
    return lambda: account.iam.put_role_permissions_boundary(RoleName=ROLE, PermissionsBoundary=BOUNDARY)


def _role(account: Account) -> Callable[[], Any]:
    name = NAMES.name("shadow")
    account.iam.create_role(RoleName=name, AssumeRolePolicyDocument=BROKER)
    return lambda: account.iam.delete_role(RoleName=name)


def _entry(account: Account) -> Callable[[], Any]:
    arn = NAMES.iam_arn("role/intruder")
    account.eks.create_access_entry(clusterName=CLUSTER, principalArn=arn, kubernetesGroups=["admins"])
    return lambda: account.eks.delete_access_entry(clusterName=CLUSTER, principalArn=arn)


def _bucket(account: Account) -> Callable[[], Any]:
    opened = document(allow("s3:*", f"arn:aws:s3:::{BUCKET}/*", Principal="*"))
    account.s3.put_bucket_policy(Bucket=BUCKET, Policy=opened)
    return lambda: account.s3.put_bucket_policy(Bucket=BUCKET, Policy=BUCKET_POLICY)


CHANGES: list[tuple[str, Callable[[Account], Callable[[], Any]], str, str]] = [
    ("inline policy", _inline, f"role/{ROLE}", "inline"),
    ("attached managed policy", _managed, f"role/{ROLE}", "managed"),
    ("trust widened", _trust, f"role/{ROLE}", "trust"),
    ("boundary removed", _boundary, f"role/{ROLE}", "boundary"),
    ("new role with the prefix", _role, f"role/{NAMES.name('shadow')}", "trust"),
    ("access entry", _entry, f"eks/{CLUSTER}/principal/role/intruder", "access-entry"),
    ("bucket policy", _bucket, f"bucket/{BUCKET}", "resource-policy"),
]


def test_an_untouched_account_shows_nothing(run: Drift) -> None:
    code, report = run()
    assert report["changes"] == []
    assert report["unread"] == []
    assert code == 0


@pytest.mark.parametrize(("make", "subject", "slot"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_an_out_of_band_change_is_found_and_gone_when_undone(
    run: Drift, account: Account, make: Callable[[Account], Callable[[], Any]], subject: str, slot: str
) -> None:
    undo = make(account)
    try:
        code, report = run()
    finally:
        undo()
    found = [change for change in report["changes"] if change["needsReview"]]
    assert code == 2
    assert {change["subject"] for change in found} == {subject}
    assert slot in {change["slot"] for change in found}
    assert run()[1]["changes"] == []


def test_the_account_of_another_environment_is_refused(account: Account, approved: Lockfile) -> None:
    elsewhere = dataclasses.replace(approved.content.environment, account="999999999999")
    content = dataclasses.replace(approved.content, environment=elsewhere)
    with pytest.raises(InputError, match="999999999999"):
        live.read(Lockfile(approved.path, content, {}), _Session(account))


def test_a_service_that_can_t_be_read_is_told_and_fails(
    run: Drift, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def refuse(scope: Any) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListKeys")

    monkeypatch.setitem(live._READERS, "kms", refuse)
    code, report = run()
    assert code == 1
    assert report["unread"][0].startswith("kms:")
