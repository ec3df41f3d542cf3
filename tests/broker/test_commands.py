"""`ringfence credentials` on the embedded target: the real server process, the broker's role by its pod identity."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from components.pod_identity import pod_identity_trust
from ringfence.broker.commands import credentials
from ringfence.broker.factory import broker_for, embedded_clients
from ringfence.catalog import load as load_catalog
from ringfence.errors import InputError, RingfenceError
from ringfence.iam.tool_documents import broker_role_name
from ringfence.invocation import Invocation, new_id
from ringfence.local.operator_key import operator_key
from ringfence.local.services import aws_health, aws_server
from ringfence.local.state import Home
from ringfence.local.supervise import Child
from ringfence.settings import load_stack
from tests.aws_roles import make_roles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder with the repository's catalog and settings, whose embedded AWS runs with the broker's things."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("catalog", "stacks"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Pulumi.yaml", folder)
    home = Home.of(folder / ".ringfence")
    settings = load_stack(folder, "local")
    child: Child = aws_server(home, home.ports(), settings.account_id)
    child.start(lambda: aws_health(home) is not None, 120)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RINGFENCE_HOME", raising=False)
        _stand_up(home, folder, settings)
        yield folder
    child.stop()


def _stand_up(home: Home, folder: Path, settings: Any) -> None:
    names, key = settings.names, operator_key(home)

    def client(service: str) -> Any:
        return boto3.session.Session().client(
            service, region_name=names.region, endpoint_url=f"http://127.0.0.1:{home.kept_ports()['aws']}",
            aws_access_key_id=key.access_key_id, aws_secret_access_key=key.secret_access_key,
        )  # fmt: skip

    iam, ec2, eks = client("iam"), client("ec2"), client("eks")
    trust = pod_identity_trust(names, names.base, "ringfence-system", "runner")
    make_roles(iam, names, load_catalog(folder / settings.catalog_path), trust)
    broker = names.iam_arn(f"role/{broker_role_name(names)}")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{place}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
        for place, zone in enumerate(settings.availability_zones)
    ]
    eks.create_cluster(name=names.base, roleArn=broker, resourcesVpcConfig={"subnetIds": subnets})
    eks.create_pod_identity_association(
        clusterName=names.base, namespace="ringfence-system", serviceAccount="runner", roleArn=broker
    )


def run(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(credentials, [arguments[0], "--project", str(project), *arguments[1:]])


def invocation() -> Invocation:
    now = datetime.now(UTC)
    return Invocation(new_id(), "ana@example.com", "p", ("s3-report-reader",), now, now + timedelta(seconds=300))


def test_credentials_are_listed_revoked_and_pruned(project: Path) -> None:
    broker = broker_for(project, "local")
    first, second = (broker.issue(invocation(), "s3-report-reader") for _ in range(2))
    shown = run(project, "list", "--json").output.splitlines()
    assert {json.loads(line)["id"] for line in shown} == {first.id, second.id}
    assert not any(secret in "".join(shown) for secret in broker.secrets())
    assert "1 active credential revoked" in run(project, "revoke", first.invocation_id).output
    assert "0 active credentials revoked" in run(project, "revoke", first.invocation_id).output
    assert first.id not in run(project, "list").output and second.id in run(project, "list").output
    assert "revoked" in run(project, "list", "--all").output
    assert "1 active credential revoked" in run(project, "revoke", "--tool", "s3-report-reader").output
    assert run(project, "list").output == "no credential is in use\n"
    assert "0 revoked, 0 closed, 0 old records deleted" in run(project, "prune").output


def test_exactly_one_thing_is_revoked_at_a_time(project: Path) -> None:
    for arguments in ((), ("a", "--tool", "s3-report-reader"), ("--tool", "unknown")):
        assert isinstance(run(project, "revoke", *arguments).exception, InputError), arguments


def test_anomalies_in_files_end_with_code_two(project: Path, tmp_path: Path) -> None:
    role = "arn:aws:iam::123456789012:role/ringfence-local-tool-s3-report-reader"
    event = {
        "eventTime": "2026-01-01T00:00:00Z", "eventSource": "sts.amazonaws.com", "eventName": "AssumeRole",
        "requestParameters": {"roleArn": role, "roleSessionName": "by-hand"}, "userIdentity": {},
    }  # fmt: skip
    path = tmp_path / "events.json"
    path.write_text(json.dumps({"Records": [event]}))
    result = run(project, "anomalies", str(path))
    assert result.exit_code == 2 and "unknown-session" in result.output
    path.write_text(json.dumps(event) + "\n" + json.dumps(event) + "\n")
    assert json.loads(run(project, "anomalies", "--json", str(path)).output)["session_name"] == "by-hand"
    path.write_text("[]")
    assert run(project, "anomalies", str(path)).output == "no anomaly\n"
    path.write_text("{")
    assert isinstance(run(project, "anomalies", str(path)).exception, InputError)


def test_only_the_broker_s_own_service_account_gets_its_role(project: Path) -> None:
    home = Home.of(project / ".ringfence")
    names = load_stack(project, "local").names
    clients = embedded_clients(home, names)
    assert broker_role_name(names) in clients.client("sts").get_caller_identity()["Arn"]
    agent = boto3.session.Session().client(
        "eks-auth", region_name=names.region, endpoint_url=f"http://127.0.0.1:{home.kept_ports()['aws']}",
        aws_access_key_id=operator_key(home).access_key_id, aws_secret_access_key=operator_key(home).secret_access_key,
    )  # fmt: skip
    for token, code in (("x.e30.", "InvalidTokenException"), ("junk", "InvalidTokenException"), (
        # {"kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "broker"}}}
        "e30.eyJrdWJlcm5ldGVzLmlvIjogeyJuYW1lc3BhY2UiOiAiZGVmYXVsdCIsICJzZXJ2aWNlYWNjb3VudCI6IHsibmFtZSI6ICJicm9rZXIifX19.",
        "ResourceNotFoundException",
    )):  # fmt: skip
        with pytest.raises(agent.exceptions.ClientError) as caught:
            agent.assume_role_for_pod_identity(clusterName=names.base, token=token)
        assert caught.value.response["Error"]["Code"] == code


def test_an_embedded_target_that_does_not_run_is_said_with_the_remedy(project: Path, tmp_path: Path) -> None:
    with pytest.raises(RingfenceError, match="remedy: `ringfence up`"):
        broker_for(project, "local", Home.of(tmp_path)).issue(invocation(), "s3-report-reader")
