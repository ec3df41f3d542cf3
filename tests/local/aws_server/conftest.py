"""Clients of a real server process: boto3's own, and plain HTTP for what boto3 would not send."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

REGION = "us-east-1"
ACCOUNT = "123456789012"


@dataclass(frozen=True)
class Answer:
    """A plain HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Aws:
    """One server, seen by its users."""

    endpoint: str

    def client(self, service: str, create: str = "", delete: str = "", check: bool = True) -> Any:
        """A boto3 client without retries; `create` and `delete` are sent as the idempotency headers."""
        settings = Config(retries={"max_attempts": 0}, parameter_validation=check, s3={"addressing_style": "path"})
        client = boto3.session.Session().client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=settings,
        )

        def headers(request: Any, **_: Any) -> None:
            for name, value in (("X-Ringfence-Create", create), ("X-Ringfence-Delete", delete)):
                if value:
                    request.headers[name] = value

        client.meta.events.register("before-sign.*", headers)
        return client

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """One plain HTTP request."""
        target = urlsplit(self.endpoint)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=300)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def call(self, service: str, target: str, body: Any, version: str = "1.1", **headers: str) -> Answer:
        """One JSON-protocol API call as it is on the wire, with anything in it."""
        named = {"Content-Type": f"application/x-amz-json-{version}", "X-Amz-Target": target}
        return self.signed(service, "POST", "/", json.dumps(body).encode(), named | headers)

    def signed(
        self, service: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One plain HTTP request with the operator's signature."""
        request = AWSRequest(method, self.endpoint + path, dict(headers or {}), body)
        SigV4Auth(Credentials("test", "test"), service, REGION).add_auth(request)
        return self.send(method, path, body, dict(request.headers))

    def control(self, method: str, path: str) -> Answer:
        """A request to the server's own paths, as the operator."""
        return self.send(method, path, headers={"Authorization": "Bearer test"})

    def own(self, path: str) -> Any:
        """What `GET /ringfence/<path>` says."""
        answer = self.control("GET", f"/ringfence/{path}")
        assert answer.status == 200, answer
        return answer.json


@pytest.fixture(scope="session")
def aws(aws_server: str) -> Aws:
    """The session's server."""
    return Aws(aws_server)


@pytest.fixture(scope="session")
def connect() -> Callable[[str], Aws]:
    """Makes the same of another server's endpoint."""
    return Aws


@pytest.fixture(scope="session")
def network(aws: Aws) -> dict[str, Any]:
    """A VPC with a subnet in each of two zones."""
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{index}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
            "SubnetId"
        ]
        for index, zone in enumerate("ab")
    ]
    return {"vpc": vpc, "subnets": subnets}
