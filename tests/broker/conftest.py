"""An embedded AWS in this process, under a clock of the test's own, reached by real boto3 over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from ringfence.broker import Broker, Credential, SqliteLedger
from ringfence.broker.dynamodb_ledger import ledger_table
from ringfence.catalog.model import Catalog, Grant, Tool
from ringfence.iam.tool_documents import broker_role_name
from ringfence.invocation import Invocation, new_id
from ringfence.names import Names
from tests.aws_roles import make_roles

ACCOUNT, REGION = "123456789012", "us-east-1"
NAMES = Names("ringfence", "test", ACCOUNT, REGION)
OPERATOR = ("operator", "operator-secret")
BUCKET, NEXT_BUCKET = f"reports-{ACCOUNT}", f"payroll-{ACCOUNT}"


@dataclass
class Clock:
    """The time, for the server and the broker alike; starts at the real time, since boto3 signs with that."""

    offset: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += timedelta(seconds=seconds)


def tool(name: str, *grants: Grant, **values: Any) -> Tool:
    return Tool(
        name=name, description="A tool", owner="a@example.com", justification="Agents need it for the test's sake.",
        review_date=date(2030, 1, 1), grants=grants, **values,
    )  # fmt: skip


def grant(actions: list[str], resources: list[str], conditions: dict[str, Any] | None = None) -> Grant:
    return Grant(actions=tuple(actions), resources=tuple(resources), conditions=conditions or {}, reason="r")


REPORTS = tool(
    "reports",
    grant(["s3:GetObject"], ["arn:${partition}:s3:::reports-${account}/published/*"]),
    grant(
        ["s3:ListBucket"],
        ["arn:${partition}:s3:::reports-${account}"],
        {"StringLike": {"s3:prefix": ("published/*",)}},
    ),
)
TICKETS = tool(
    "tickets",
    grant(["dynamodb:GetItem"], ["arn:${partition}:dynamodb:${region}:${account}:table/support-tickets"]),
    grant(
        ["dynamodb:UpdateItem"],
        ["arn:${partition}:dynamodb:${region}:${account}:table/support-tickets"],
        {
            "ForAllValues:StringEquals": {"dynamodb:Attributes": ("ticket_id", "agent_note")},
            "Null": {"dynamodb:Attributes": ("false",)},
        },
    ),
)
CATALOG = Catalog((REPORTS, TICKETS, tool("web")), (), ())


@dataclass
class Cloud:
    """The account, its clock, and clients of whoever is asked for."""

    endpoint: str
    clock: Clock
    application: Any
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, key: str = OPERATOR[0], secret: str = OPERATOR[1], token: str | None = None) -> Any:
        """A boto3 client without retries."""
        if (service, key) not in self.clients or token or secret != OPERATOR[1]:
            config = Config(retries={"max_attempts": 0}, max_pool_connections=64, connect_timeout=10, read_timeout=60)
            self.clients[service, key] = boto3.session.Session().client(
                service, region_name=REGION, endpoint_url=self.endpoint, aws_access_key_id=key,
                aws_secret_access_key=secret, aws_session_token=token, config=config,
            )  # fmt: skip
        return self.clients[service, key]

    def as_(self, credential: Credential | dict[str, Any], service: str) -> Any:
        """A client of an issued credential, or of STS's own answer."""
        if isinstance(credential, dict):
            return self.client(
                service, credential["AccessKeyId"], credential["SecretAccessKey"], credential["SessionToken"]
            )
        return self.client(service, credential.access_key_id, credential.secret_access_key, credential.session_token)

    def stand_up(self, names: Names = NAMES, catalog: Catalog = CATALOG) -> None:
        """The broker's role and the tools' roles as the components make them."""
        make_roles(self.client("iam"), names, catalog)

    def fill(self) -> None:
        """Two buckets with the same objects, and a table; IAM is called once, so that its client is made."""
        self.client("iam").list_roles()
        s3 = self.client("s3")
        for bucket in (BUCKET, NEXT_BUCKET):
            s3.create_bucket(Bucket=bucket)
            for key in ("published/may.csv", "drafts/june.csv"):
                s3.put_object(Bucket=bucket, Key=key, Body=b"figures")
        dynamodb = self.client("dynamodb")
        dynamodb.create_table(
            TableName="support-tickets", BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "ticket_id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "ticket_id", "KeyType": "HASH"}],
        )  # fmt: skip
        dynamodb.put_item(TableName="support-tickets", Item={"ticket_id": {"S": "t1"}, "customer": {"S": "c"}})

    def broker_credentials(self) -> dict[str, Any]:
        """A session of the broker's role."""
        answer = self.client("sts").assume_role(
            RoleArn=NAMES.iam_arn(f"role/{broker_role_name(NAMES)}"), RoleSessionName="broker-1"
        )
        return answer["Credentials"]

    def broker(self, ledger: Any, catalog: Catalog = CATALOG, **values: Any) -> Broker:
        """A broker with a session of its own role."""
        own = self.broker_credentials()
        return Broker(NAMES, catalog, self.as_(own, "sts"), self.as_(own, "iam"), ledger, self.clock, **values)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, Clock]]:
    """The application behind a real socket."""
    from ringfence.local.aws_server.app import Application
    from ringfence.local.aws_server.bucket_policies import leave_undecided
    from ringfence.local.aws_server.journal import Journal
    from ringfence.local.aws_server.server import LoopbackServer
    from ringfence.local.operator_key import OperatorKey

    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        leave_undecided()
        clock = Clock()
        folder = tmp_path_factory.mktemp("cloud")
        application = Application(ACCOUNT, Journal(folder), OperatorKey(*OPERATOR), clock=clock)
        listening = LoopbackServer(0, application)
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield application, f"http://127.0.0.1:{listening.port}", clock
        listening.shutdown()
        listening.server_close()


@pytest.fixture(scope="module")
def stores(server: tuple[Any, str, Clock]) -> Cloud:
    """What tools read from, and the operator's clients."""
    application, endpoint, clock = server
    made = Cloud(endpoint, clock, application)
    # moto's memory is the process's: tests elsewhere that mock AWS empty it.
    application._reset({})
    made.fill()
    return made


@pytest.fixture
def cloud(stores: Cloud) -> Cloud:
    """An environment that stands, at the present time, with no session issued, as if no test had been before."""
    from moto.iam.models import iam_backends

    iam_backends[ACCOUNT]["aws"].reset()
    stores.application._authorize.forget()
    stores.clock.offset = timedelta(0)
    made = Cloud(stores.endpoint, stores.clock, stores.application, dict(stores.clients))
    dynamodb = made.client("dynamodb")
    if ledger_table(NAMES) in dynamodb.list_tables()["TableNames"]:
        dynamodb.delete_table(TableName=ledger_table(NAMES))
    made.stand_up()
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    made = SqliteLedger(tmp_path / "broker" / "ledger.sqlite")
    yield made
    made.close()


@pytest.fixture
def broker(cloud: Cloud, ledger: SqliteLedger) -> Broker:
    return cloud.broker(ledger)


@pytest.fixture
def invoke(cloud: Cloud) -> Callable[..., Invocation]:
    """Makes invocations that start now."""

    def make(user: str = "ana@example.com", seconds: int = 300, **values: Any) -> Invocation:
        now = cloud.clock()
        return Invocation(
            new_id(), user, "prompt", ("reports", "tickets"), now, now + timedelta(seconds=seconds), **values
        )

    return make
