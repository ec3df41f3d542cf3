"""The real server process denies for real: each denial beside the same probe where it is allowed.

Each layer (role, boundary, session policy, trust, tags, source identity, signature) is taken out in a test of its own,
by making the same request pass once that layer allows it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

REGION, ACCOUNT = "us-east-1", "123456789012"
pytestmark = pytest.mark.filterwarnings("ignore:Exception.*does not match an error shape")


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: Any, resource: Any = "*", **condition: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource} | ({"Condition": condition} if condition else {})


def trust(**condition: Any) -> str:
    actions = ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]
    statement = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": actions}
    return document(statement | ({"Condition": condition} if condition else {}))


@dataclass
class Roles:
    """Roles and sessions of one server."""

    aws: Any

    def make(self, policy: str | None, *, trusted: str = trust(), boundary: str | None = None) -> str:
        """A role's ARN."""
        iam, name = self.aws.client("iam"), f"r-{uuid.uuid4().hex[:12]}"
        extra = {}
        if boundary:
            extra["PermissionsBoundary"] = iam.create_policy(PolicyName=name, PolicyDocument=boundary)["Policy"]["Arn"]
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trusted, **extra)["Role"]["Arn"]
        if policy:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
        return arn

    def assume(self, arn: str, sts: Any = None, **parameters: Any) -> dict[str, Any]:
        """STS's answer."""
        return (sts or self.aws.client("sts")).assume_role(RoleArn=arn, RoleSessionName="session", **parameters)

    def client(self, service: str, arn: str, **parameters: Any) -> Any:
        """A client of a new session."""
        return self.of(service, self.assume(arn, **parameters)["Credentials"])

    def of(self, service: str, keys: dict[str, Any], **changed: str) -> Any:
        """A client of a session's keys, some of them changed."""
        keys = keys | changed
        return boto3.session.Session().client(
            service, region_name=REGION, endpoint_url=self.aws.endpoint, aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"], aws_session_token=keys["SessionToken"],
            config=Config(retries={"max_attempts": 0}),
        )  # fmt: skip


@pytest.fixture(scope="session")
def roles(aws: Any) -> Roles:
    s3 = aws.client("s3")
    for bucket in ("first-bucket", "next-bucket"):
        s3.create_bucket(Bucket=bucket)
        for key in ("in/a", "out/a"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    return Roles(aws)


FIRST = document(allow("s3:*", ["arn:aws:s3:::first-bucket", "arn:aws:s3:::first-bucket/in/*"]))


def refused(probe: Callable[[], Any], code: str = "AccessDenied") -> str:
    with pytest.raises(ClientError) as caught:
        probe()
    assert caught.value.response["Error"]["Code"] == code, caught.value
    return str(caught.value.response["Error"]["Message"])


def reads(client: Any, bucket: str = "first-bucket", key: str = "in/a") -> bool:
    try:
        client.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied", error
        return False
    return True


def test_a_role_reaches_its_bucket_and_not_the_next(roles: Roles) -> None:
    client = roles.client("s3", roles.make(FIRST))
    assert reads(client)
    assert not reads(client, "next-bucket") and not reads(client, key="out/a")
    said = refused(lambda: client.get_object(Bucket="next-bucket", Key="in/a"))
    assert said.endswith(
        "is not authorized to perform: s3:GetObject on resource: arn:aws:s3:::next-bucket/in/a because no identity-based "
        "policy allows the s3:GetObject action"
    )
    assert reads(roles.client("s3", roles.make(document(allow("s3:*")))), "next-bucket")


def test_a_change_of_the_role_counts_for_sessions_that_are_there(roles: Roles) -> None:
    arn = roles.make(FIRST)
    client = roles.client("s3", arn)
    assert reads(client)
    roles.aws.client("iam").delete_role_policy(RoleName=arn.rpartition("/")[2], PolicyName="p")
    assert not reads(client)
    managed = roles.aws.client("iam").create_policy(PolicyName=f"m-{uuid.uuid4().hex}", PolicyDocument=FIRST)
    roles.aws.client("iam").attach_role_policy(RoleName=arn.rpartition("/")[2], PolicyArn=managed["Policy"]["Arn"])
    assert reads(client)


@pytest.mark.parametrize("layer", ["boundary", "session"])
def test_boundary_and_session_policy_each_cap_the_role(roles: Roles, layer: str) -> None:
    everything = document(allow("s3:*"))
    capped, open_ = {
        "boundary": (roles.make(everything, boundary=FIRST), roles.make(everything, boundary=everything)),
        "session": (roles.make(everything), roles.make(everything)),
    }[layer]
    parameters = [{"Policy": FIRST}, {"Policy": everything}] if layer == "session" else [{}, {}]
    narrow = roles.client("s3", capped, **parameters[0])
    assert reads(narrow) and not reads(narrow, "next-bucket")
    assert reads(roles.client("s3", open_, **parameters[1]), "next-bucket")


def test_an_explicit_deny_says_where_it_stands(roles: Roles) -> None:
    deny = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"}
    said = refused(
        lambda: roles.client("s3", roles.make(FIRST), Policy=document(allow("*"), deny)).get_object(
            Bucket="first-bucket", Key="in/a"
        )
    )
    assert said.endswith("with an explicit deny in a session policy")


def test_session_tags_and_source_identity_are_part_of_the_decision(roles: Roles) -> None:
    condition = {"StringEquals": {"aws:PrincipalTag/user": "ana", "aws:SourceIdentity": "inv1"}}
    arn = roles.make(document(allow("s3:*", **condition)))

    def session(user: str, identity: str) -> Any:
        return roles.client("s3", arn, Tags=[{"Key": "user", "Value": user}], SourceIdentity=identity)

    assert reads(session("ana", "inv1"))
    assert not reads(session("eve", "inv1")) and not reads(session("ana", "inv2"))
    assert not reads(roles.client("s3", arn))


@pytest.mark.parametrize(
    ("condition", "good", "bad"),
    [
        ({"StringLike": {"sts:SourceIdentity": "inv*"}}, {"SourceIdentity": "inv1"}, {}),
        ({"StringLike": {"sts:SourceIdentity": "inv*"}}, {"SourceIdentity": "inv1"}, {"SourceIdentity": "x1"}),
        (
            {"StringEquals": {"aws:RequestTag/tool": "a"}},
            {"Tags": [{"Key": "tool", "Value": "a"}]},
            {"Tags": [{"Key": "tool", "Value": "b"}]},
        ),
        ({"StringEquals": {"sts:ExternalId": "e2"}}, {"ExternalId": "e2"}, {"ExternalId": "e3"}),
    ],
)
def test_a_trust_policy_decides_for_the_operator_too(
    roles: Roles, condition: dict[str, Any], good: dict[str, Any], bad: dict[str, Any]
) -> None:
    arn = roles.make(FIRST, trusted=trust(**condition))
    assert roles.assume(arn, **good)["Credentials"]
    refused(lambda: roles.assume(arn, **bad))


def test_a_role_that_trusts_nobody_or_is_not_there_is_not_assumed(roles: Roles) -> None:
    service = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    assert roles.assume(roles.make(FIRST))["Credentials"]
    refused(lambda: roles.assume(roles.make(FIRST, trusted=document(service))))
    refused(lambda: roles.assume(f"arn:aws:iam::{ACCOUNT}:role/nobody"))


def test_a_session_becomes_another_role_only_if_both_allow_it(roles: Roles) -> None:
    asking = roles.make(document(allow("sts:AssumeRole", f"arn:aws:iam::{ACCOUNT}:role/*")))
    silent = roles.make(FIRST)
    target = roles.make(FIRST)
    assert roles.assume(target, roles.client("sts", asking))["Credentials"]
    refused(lambda: roles.assume(target, roles.client("sts", silent)))
    closed = roles.make(FIRST, trusted=trust(StringEquals={"aws:PrincipalArn": silent}))
    refused(lambda: roles.assume(closed, roles.client("sts", asking)))
    # A source identity stays through the chain.
    trusting = document(allow(["sts:AssumeRole", "sts:SetSourceIdentity"]))
    first = roles.client("sts", roles.make(trusting), SourceIdentity="inv1")
    assert roles.assume(target, first)["SourceIdentity"] == "inv1"
    refused(lambda: roles.assume(target, first, SourceIdentity="inv2"))


def test_a_session_knows_itself_and_not_a_word_more(roles: Roles) -> None:
    arn = roles.make(None)
    name = arn.rpartition("/")[2]
    assert (
        roles.client("sts", arn).get_caller_identity()["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/session"
    )
    refused(lambda: roles.client("s3", arn).list_buckets())


def test_the_wrong_key_token_or_signature_gets_nowhere(roles: Roles) -> None:
    keys = roles.assume(roles.make(FIRST))["Credentials"]
    assert reads(roles.of("s3", keys))
    get = {"Bucket": "first-bucket", "Key": "in/a"}
    refused(lambda: roles.of("s3", keys, SecretAccessKey="x" * 40).get_object(**get), "SignatureDoesNotMatch")
    refused(lambda: roles.of("s3", keys, SessionToken="other").get_object(**get), "InvalidToken")
    refused(lambda: roles.of("s3", keys, AccessKeyId="ASIAUNKNOWN000000000").get_object(**get), "InvalidAccessKeyId")
    for service, probe, code in (
        ("dynamodb", "list_tables", "UnrecognizedClientException"),
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("sesv2", "list_email_identities", "UnrecognizedClientException"),
    ):
        client = roles.of(service, keys, AccessKeyId="ASIAUNKNOWN000000000")
        refused(getattr(client, probe), code)
    # The operator's key with a wrong secret, and nobody at all.
    refused(lambda: roles.of("s3", {**keys, "AccessKeyId": "test"}).get_object(**get), "SignatureDoesNotMatch")
    assert roles.aws.send("GET", "/first-bucket/in/a").status == 403
    assert roles.aws.client("s3").get_object(**get)["Body"].read() == b"x"


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "code"),
    [
        ("iam", "list_roles", {}, "AccessDenied"),
        ("iam", "create_user", {"UserName": "eve"}, "AccessDenied"),
        ("ec2", "describe_vpcs", {}, "UnauthorizedOperation"),
        ("s3", "put_bucket_policy", {"Bucket": "first-bucket", "Policy": "{}"}, "AccessDenied"),
        ("dynamodb", "execute_statement", {"Statement": "SELECT * FROM t"}, "AccessDeniedException"),
        ("sesv2", "create_email_identity", {"EmailIdentity": "a.example.com"}, "AccessDeniedException"),
        ("ses", "send_raw_email", {"RawMessage": {"Data": b"From: a@b.c\n\nx"}}, "AccessDenied"),
        ("lambda", "list_functions", {}, "AccessDeniedException"),
    ],
)
def test_what_is_not_mapped_is_denied_to_an_administrator_s_session_too(
    roles: Roles, service: str, operation: str, parameters: dict[str, Any], code: str
) -> None:
    administrator = roles.make(document(allow("*")))
    assert reads(roles.client("s3", administrator))
    client = roles.client(service, administrator)
    refused(lambda: getattr(client, operation)(**parameters), code)


def test_a_condition_on_a_key_that_is_not_emulated_is_a_no(roles: Roles) -> None:
    deny = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"}
    unknown = deny | {"Condition": {"StringEquals": {"s3:ExistingObjectTag/class": "secret"}}}
    elsewhere = deny | {"Resource": "arn:aws:s3:::next-bucket/*", "Condition": unknown["Condition"]}
    client = roles.client("s3", roles.make(document(allow("s3:*"), unknown)))
    assert "s3:existingobjecttag/class is not emulated" in refused(
        lambda: client.get_object(Bucket="first-bucket", Key="in/a")
    )
    assert reads(roles.client("s3", roles.make(document(allow("s3:*"), elsewhere))))


def test_mail_goes_only_from_and_to_whom_the_policy_names(roles: Roles) -> None:
    roles.aws.client("ses").verify_domain_identity(Domain="agents.example.com")
    condition = {
        "StringEquals": {"ses:FromAddress": "notifications@agents.example.com"},
        "ForAllValues:StringLike": {"ses:Recipients": ["*@example.com"]},
        "Null": {"ses:Recipients": "false"},
    }
    identity = f"arn:aws:ses:{REGION}:{ACCOUNT}:identity/agents.example.com"
    arn = roles.make(document(allow("ses:SendEmail", identity, **condition)))
    one, two = roles.client("ses", arn), roles.client("sesv2", arn)
    text = {"Subject": {"Data": "s"}, "Body": {"Text": {"Data": "b"}}}

    def first(sender: str = "notifications@agents.example.com", **to: list[str]) -> Any:
        return one.send_email(Source=sender, Destination=to or {"ToAddresses": ["ana@example.com"]}, Message=text)

    def second(sender: str = "notifications@agents.example.com", **to: list[str]) -> Any:
        return two.send_email(
            FromEmailAddress=sender, Destination=to or {"ToAddresses": ["ana@example.com"]}, Content={"Simple": text}
        )

    for send, code in ((first, "AccessDenied"), (second, "AccessDeniedException")):
        assert send()["MessageId"]
        assert send("Notes <notifications@agents.example.com>")["MessageId"]
        refused(lambda send=send: send("root@agents.example.com"), code)
        refused(lambda send=send: send(ToAddresses=["ana@example.com"], BccAddresses=["eve@evil.example"]), code)
        refused(lambda send=send: send(ToAddresses=["ana@example.com, eve@evil.example"]), code)
        refused(lambda send=send: send(ToAddresses=["eve@evil.example <ana@example.com"]), code)


def test_one_model_is_invoked_and_no_other(roles: Roles) -> None:
    model = "anthropic.claude-sonnet-4-20250514-v1:0"
    arn = roles.make(document(allow("bedrock:InvokeModel", f"arn:aws:bedrock:{REGION}::foundation-model/{model}")))
    client = roles.client("bedrock-runtime", arn)

    def invoke(name: str) -> Any:
        return client.invoke_model(modelId=name, body=b"{}", contentType="application/json")

    assert invoke(model)["ResponseMetadata"]["HTTPStatusCode"] == 200
    refused(lambda: invoke("anthropic.claude-opus-4-20250514-v1:0"), "AccessDeniedException")
    refused(lambda: invoke(f"us.{model}"), "AccessDeniedException")
    refused(lambda: client.invoke_model_with_response_stream(modelId=model, body=b"{}"), "AccessDeniedException")


def send(roles: Roles, keys: dict[str, Any], service: str, method: str, path: str, body: bytes = b"",
         **headers: str) -> int:  # fmt: skip
    """The status of a request as boto3 would not send it, rightly signed."""
    request = AWSRequest(method, roles.aws.endpoint + path, headers, body)
    request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD" if service == "s3" else ""
    if service != "s3":
        del request.headers["X-Amz-Content-SHA256"]
    SigV4Auth(
        Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]), service, REGION
    ).add_auth(request)
    return int(roles.aws.send(method, path, body, dict(request.headers)).status)


def test_a_request_that_two_readers_could_take_differently_is_refused(roles: Roles) -> None:
    keys = roles.assume(roles.make(FIRST))["Credentials"]
    listing = roles.make(document(allow("s3:ListBucket", **{"StringLike": {"s3:prefix": "in/*"}})))
    narrow = roles.assume(listing)["Credentials"]
    assert send(roles, narrow, "s3", "GET", "/first-bucket?list-type=2&prefix=in%2F") == 200
    assert send(roles, narrow, "s3", "GET", "/first-bucket?list-type=2&prefix=in%2F&prefix=out%2F") == 403
    assert send(roles, narrow, "s3", "GET", "/first-bucket?list-type=2&prefix=in%2F&surprise=1") == 403
    assert send(roles, keys, "s3", "GET", "/first-bucket/in/a") == 200
    # The host would name the bucket, and the path a key in it.
    assert send(roles, keys, "s3", "GET", "/first-bucket/in/a", Host="next-bucket.s3.amazonaws.com") == 403
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    assert send(roles, keys, "sts", "POST", "/", body, **form) == 200
    assert send(roles, keys, "sts", "POST", "/?Action=GetCallerIdentity", body, **form) == 403
    assert send(roles, keys, "sts", "POST", "/", body + b"&Action=AssumeRole", **form) == 403


def test_the_server_s_own_paths_are_the_operator_s(roles: Roles) -> None:
    for method, path in (("GET", "inventory"), ("GET", "recorded"), ("GET", "creations"), ("POST", "reset")):
        assert roles.aws.send(method, f"/ringfence/{path}").status == 403
        wrong = {"Authorization": "Bearer wrong"}
        assert roles.aws.send(method, f"/ringfence/{path}", headers=wrong).status == 403
    assert roles.aws.own("inventory")["count"] > 0
    assert roles.aws.send("GET", "/ringfence/health").status == 200


def test_kept_answers_of_the_operator_are_not_a_session_s(roles: Roles) -> None:
    policy = document(allow(["dynamodb:DescribeTable", "dynamodb:PutItem"]))
    keys = roles.assume(roles.make(policy))["Credentials"]
    table = {
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    roles.aws.client("dynamodb", create="urn:x;h;").create_table(TableName="kept-table", **table)
    client = roles.of("dynamodb", keys)
    client.meta.events.register(
        "before-sign.*", lambda request, **_: request.headers.add_header("X-Ringfence-Create", "urn:x;h;")
    )
    refused(lambda: client.create_table(TableName="kept-table", **table), "AccessDeniedException")
    client.put_item(TableName="kept-table", Item={"id": {"S": "1"}})
    assert "PutItem" not in json.dumps(roles.aws.own("creations"))


def test_a_restart_forgets_every_session(start_aws_server: Any, connect: Callable[[str], Any], tmp_path: Path) -> None:
    with start_aws_server(tmp_path) as endpoint:
        first = Roles(connect(endpoint))
        keys = first.assume(first.make(FIRST))["Credentials"]
        assert first.of("sts", keys).get_caller_identity()["Account"] == ACCOUNT
    with start_aws_server(tmp_path) as endpoint:
        again = Roles(connect(endpoint))
        refused(lambda: again.of("sts", keys).get_caller_identity(), "InvalidClientTokenId")
        assert again.aws.client("sts").get_caller_identity()["Account"] == ACCOUNT


def test_the_operator_s_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    from ringfence.errors import RingfenceError
    from ringfence.local.operator_key import FILE, operator_key
    from ringfence.local.state import Home

    home, other = Home.of(tmp_path / "a"), Home.of(tmp_path / "b")
    key = operator_key(home)
    assert operator_key(home) == key and len(key.secret_access_key) == 40
    assert operator_key(other).secret_access_key != key.secret_access_key
    assert key.secret_access_key not in repr(key)
    path = home.root / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(RingfenceError, match="remedy: chmod 600"):
        operator_key(home)
