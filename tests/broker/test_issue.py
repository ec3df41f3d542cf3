"""Issuing: what a credential can do, for how long, and what narrows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.iam.models import iam_backends

from ringfence.broker import Broker, BrokerError, Scope, State
from ringfence.catalog.model import Catalog
from ringfence.errors import InputError
from ringfence.invocation import Invocation
from tests.broker.conftest import CATALOG, NAMES, grant, tool

Invoke = Callable[..., Invocation]
BUCKET, NEXT_BUCKET = "reports-123456789012", "payroll-123456789012"


def read(cloud: Any, credential: Any, bucket: str = BUCKET, key: str = "published/may.csv") -> bytes:
    return cloud.as_(credential, "s3").get_object(Bucket=bucket, Key=key)["Body"].read()


def refused(probe: Callable[[], Any], code: str = "AccessDenied") -> str:
    """The service's sentence for a refusal."""
    with pytest.raises(ClientError) as caught:
        probe()
    assert caught.value.response["Error"]["Code"] == code, caught.value
    return str(caught.value.response["Error"]["Message"])


def test_a_credential_reads_the_granted_object_and_not_the_next_bucket(
    cloud: Any, broker: Broker, invoke: Invoke
) -> None:
    credential = broker.issue(invoke(), "reports")
    assert read(cloud, credential) == b"figures"
    said = refused(lambda: read(cloud, credential, NEXT_BUCKET))
    assert "because no" in said and f"arn:aws:s3:::{NEXT_BUCKET}/published/may.csv" in said
    refused(lambda: read(cloud, credential, key="drafts/june.csv"))
    listing = cloud.as_(credential, "s3").list_objects_v2
    assert listing(Bucket=BUCKET, Prefix="published/")["KeyCount"] == 1
    refused(lambda: listing(Bucket=BUCKET, Prefix="drafts/"))
    refused(lambda: listing(Bucket=BUCKET))


def test_a_credential_works_at_290_seconds_and_not_at_305(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    credential = broker.issue(invoke(), "reports")
    assert credential.expires - credential.issued <= timedelta(seconds=300)
    cloud.clock.advance(290)
    assert read(cloud, credential) == b"figures"
    cloud.clock.advance(15)
    assert "explicit deny in a session policy" in refused(lambda: read(cloud, credential))


def test_a_credential_ends_with_its_invocation(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    credential = broker.issue(invoke(seconds=60), "reports")
    cloud.clock.advance(55)
    assert read(cloud, credential) == b"figures"
    cloud.clock.advance(10)
    refused(lambda: read(cloud, credential))


def test_nothing_is_issued_past_the_deadline(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    late = invoke(seconds=10)
    cloud.clock.advance(11)
    with pytest.raises(BrokerError, match="past its deadline"):
        broker.issue(late, "reports")
    assert broker.list(active=False) == []


def test_a_session_policy_alone_stops_what_the_role_was_given_behind_everybodys_back(
    cloud: Any, broker: Broker, invoke: Invoke
) -> None:
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam = cloud.client("iam")
    iam.put_role_policy(RoleName="ringfence-test-tool-reports", PolicyName="wide", PolicyDocument=json.dumps(wide))
    iam.delete_role_permissions_boundary(RoleName="ringfence-test-tool-reports")
    credential = broker.issue(invoke(), "reports")
    assert read(cloud, credential) == b"figures"
    assert "no session policy allows" in refused(lambda: read(cloud, credential, NEXT_BUCKET))
    # Without a session policy the same role reads the next bucket: the probe can succeed.
    tags = [{"Key": key, "Value": "reports"} for key in ("tool", "invocation", "user", "credential")]
    bare = cloud.as_(cloud.broker_credentials(), "sts").assume_role(
        RoleArn=credential.role_arn, RoleSessionName="bare", SourceIdentity="x1", Tags=tags
    )["Credentials"]
    assert read(cloud, bare, NEXT_BUCKET) == b"figures"


def test_attributes_of_an_item_are_part_of_the_decision(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    table = cloud.as_(broker.issue(invoke(), "tickets"), "dynamodb")
    key = {"ticket_id": {"S": "t1"}}
    assert table.get_item(TableName="support-tickets", Key=key)["Item"]["customer"] == {"S": "c"}

    def update(expression: str) -> Any:
        return table.update_item(
            TableName="support-tickets", Key=key, UpdateExpression=expression,
            ExpressionAttributeValues={":v": {"S": "x"}},
        )  # fmt: skip

    update("SET agent_note = :v")
    refused(lambda: update("SET customer = :v"), "AccessDeniedException")
    refused(lambda: update("SET agent_note = :v, customer = :v"), "AccessDeniedException")
    refused(lambda: table.delete_item(TableName="support-tickets", Key=key), "AccessDeniedException")
    refused(lambda: table.scan(TableName="support-tickets"), "AccessDeniedException")


@pytest.mark.parametrize(
    "scope",
    [
        Scope(resources=(f"arn:aws:s3:::{BUCKET}/published/may.csv",)),
        Scope(actions=("s3:GetObject",), resources=(f"arn:aws:s3:::{BUCKET}/published/*",)),
    ],
)
def test_a_scope_narrows(cloud: Any, broker: Broker, invoke: Invoke, scope: Scope) -> None:
    invocation = invoke()
    narrow, whole = broker.issue(invocation, "reports", scope), broker.issue(invocation, "reports")
    assert read(cloud, narrow) == b"figures"
    assert cloud.as_(whole, "s3").list_objects_v2(Bucket=BUCKET, Prefix="published/")["KeyCount"] == 1
    refused(lambda: cloud.as_(narrow, "s3").list_objects_v2(Bucket=BUCKET, Prefix="published/"))


@pytest.mark.parametrize(
    "scope",
    [
        Scope(actions=("s3:PutObject",)),
        Scope(actions=("s3:GetObject", "iam:PassRole")),
        Scope(resources=(f"arn:aws:s3:::{NEXT_BUCKET}/*",)),
        Scope(resources=("*",)),
        Scope(resources=(f"arn:aws:s3:::{BUCKET}/*",)),
        Scope(actions=()),
        Scope(resources=()),
    ],
)
def test_a_scope_outside_of_the_grants_is_refused_before_anything_is_issued(
    broker: Broker, invoke: Invoke, scope: Scope
) -> None:
    with pytest.raises(InputError):
        broker.issue(invoke(), "reports", scope)
    assert broker.list(active=False) == []


def test_a_tool_that_calls_models_gets_no_credential_that_could(cloud: Any, ledger: Any, invoke: Invoke) -> None:
    """Model calls are counted at the gateway; a credential beside it would spend without limit."""
    model = "arn:${partition}:bedrock:${region}::foundation-model/anthropic.claude-v2:1"
    invokes = grant(["bedrock:InvokeModel"], [model])
    both = tool("both", grant(["s3:GetObject"], ["arn:${partition}:s3:::reports-${account}/published/*"]), invokes)
    catalog = Catalog((both, tool("only", invokes)), (), ())
    iam_backends[NAMES.account_id]["aws"].reset()
    cloud.stand_up(catalog=catalog)
    broker = cloud.broker(ledger, catalog)
    with pytest.raises(InputError, match="only calls models"):
        broker.issue(invoke(), "only")
    assert broker.list(active=False) == []
    credential = broker.issue(invoke(), "both")
    assert read(cloud, credential) == b"figures"
    call = {"modelId": "anthropic.claude-v2:1", "body": b"{}"}
    said = refused(lambda: cloud.as_(credential, "bedrock-runtime").invoke_model(**call), "AccessDeniedException")
    assert "no session policy allows" in said
    # Control: the role itself may, so that it is the session policy that stops it.
    tags = [{"Key": key, "Value": "both"} for key in ("tool", "invocation", "user", "credential")]
    bare = cloud.as_(cloud.broker_credentials(), "sts").assume_role(
        RoleArn=credential.role_arn, RoleSessionName="bare", SourceIdentity="x1", Tags=tags
    )["Credentials"]
    assert cloud.as_(bare, "bedrock-runtime").invoke_model(**call)["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_grants_that_fit_no_session_policy_are_refused_and_never_widened(
    cloud: Any, ledger: Any, invoke: Invoke
) -> None:
    wide = tool(
        "wide", *(grant(["s3:GetObject"], [f"arn:aws:s3:::reports-${{account}}/{place:03d}/*"]) for place in range(60))
    )
    catalog = Catalog((wide, *CATALOG.tools), (), ())
    broker = cloud.broker(ledger, catalog)
    with pytest.raises(InputError, match="split the tool"):
        broker.issue(invoke(), "wide")
    long = Scope(resources=tuple(f"arn:aws:s3:::{BUCKET}/published/{place:03d}" for place in range(60)))
    with pytest.raises(InputError, match=r"scope[\s\S]*name fewer"):
        broker.issue(invoke(), "reports", long)
    assert broker.list(active=False) == []


def test_who_can_t_be_tagged_and_what_needs_no_credential_is_refused(broker: Broker, invoke: Invoke) -> None:
    for invocation, name in ((invoke(user="ana\n"), "reports"), (invoke(), "web"), (invoke(), "unknown")):
        with pytest.raises(InputError) as caught:
            broker.issue(invocation, name)
        assert caught.value.problems[0].remedy
    assert broker.list(active=False) == []


def test_the_ledger_knows_the_credential_and_holds_no_secret(
    broker: Broker, invoke: Invoke, tmp_path: Any, ledger: Any
) -> None:
    invocation = invoke()
    credential = broker.issue(invocation, "reports")
    (entry,) = broker.list()
    assert (entry.id, entry.invocation_id, entry.user) == (credential.id, invocation.id, invocation.user)
    assert (entry.state, entry.access_key_id, entry.tool) == (State.ISSUED, credential.access_key_id, "reports")
    ledger.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "broker").iterdir())
    assert credential.access_key_id.encode() in kept
    for secret in (credential.secret_access_key, credential.session_token):
        assert secret.encode() not in kept
        assert secret not in repr(credential)
        assert secret in broker.secrets()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "broker").iterdir())


def test_secrets_are_masked_a_while_longer_than_they_work_and_then_forgotten(
    cloud: Any, broker: Broker, invoke: Invoke
) -> None:
    credential = broker.issue(invoke(), "reports")
    cloud.clock.advance(301)
    assert credential.session_token in broker.secrets()
    cloud.clock.advance(900)
    assert broker.secrets() == ()


def test_the_credential_process_is_what_sdks_read(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    credential = broker.issue(invoke(), "reports")
    document = json.loads(credential.credential_process())
    assert document["Version"] == 1 and document["Expiration"].endswith("Z")
    assert read(cloud, {**document}) == b"figures"


def test_two_hundred_credentials_at_once_are_all_different_and_all_on_record(
    cloud: Any, broker: Broker, invoke: Invoke
) -> None:
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda _: broker.issue(invoke(), "reports"), range(200)))
        assert len({credential.access_key_id for credential in made}) == 200
        assert {entry.id for entry in broker.list()} == {credential.id for credential in made}
        assert all(entry.state is State.ISSUED for entry in broker.list())
        list(pool.map(lambda credential: broker.revoke(invocation_id=credential.invocation_id), made))
    assert broker.list() == []
    for credential in made[::40]:
        refused(lambda credential=credential: read(cloud, credential))


def test_what_sts_refuses_is_on_record_and_says_the_remedy(cloud: Any, broker: Broker, invoke: Invoke) -> None:
    role = "ringfence-test-tool-reports"
    trust = cloud.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    trust["Statement"][0]["Effect"] = "Deny"
    cloud.client("iam").update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
    with pytest.raises(BrokerError, match="remedy: "):
        broker.issue(invoke(), "reports")
    assert broker.list(active=False) == []
