"""What is refused before or instead of being answered, each beside the same request let in."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from ringfence.local.aws_server.guard import MAX_BODY


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost", 200),
        ("bucket.localhost:{port}", 200),
        ("bucket.s3.us-east-1.amazonaws.com", 200),
        ("evil.example", 403),
        ("amazonaws.com.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_only_loopback_and_aws_names_are_accepted_as_host(aws: Any, host: str, status: int) -> None:
    port = urlsplit(aws.endpoint).port
    assert aws.send("GET", "/ringfence/health", headers={"Host": host.format(port=port)}).status == status


@pytest.mark.parametrize("header", [{"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "same-origin"}])
def test_a_web_page_is_refused(aws: Any, header: dict[str, str]) -> None:
    assert aws.send("POST", "/ringfence/health", headers=header).status == 403
    assert aws.send("GET", "/ringfence/health").status == 200


def test_the_server_listens_on_loopback_only(aws: Any) -> None:
    port = urlsplit(aws.endpoint).port
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        outside = probe.getsockname()[0]
    assert not outside.startswith("127.")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outside, port), timeout=5)


def test_an_oversize_body_is_refused_unread(aws: Any) -> None:
    target = urlsplit(aws.endpoint)
    for size, expected in ((10, b" 200 "), (MAX_BODY + 1, b" 413 ")):
        with socket.create_connection((target.hostname, target.port), timeout=300) as connection:
            head = f"GET /ringfence/health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 10)
            assert expected in connection.recv(200)


@pytest.mark.parametrize(
    "path", ["/moto-api/reset", "/moto-api/data.json", "/latest/meta-data/iam/security-credentials/"]
)
def test_motos_own_control_paths_and_instance_metadata_are_closed(aws: Any, path: str) -> None:
    assert aws.send("POST" if "reset" in path else "GET", path).status == 404
    assert aws.own("health")["moto_version"] == "5.2.5"


@pytest.mark.parametrize(
    ("service", "operation", "arguments"),
    [
        ("eks", "list_capabilities", {"clusterName": "any"}),
        ("s3", "list_bucket_metrics_configurations", {"Bucket": "any"}),
        ("iam", "simulate_custom_policy", {"PolicyInputList": ["{}"], "ActionNames": ["s3:GetObject"]}),
        ("imagebuilder", "list_images", {}),
    ],
)
def test_an_operation_that_nobody_answers_is_refused_by_name(
    aws: Any, service: str, operation: str, arguments: dict[str, Any]
) -> None:
    client = aws.client(service)
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)(**arguments)
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert response["Error"]["Code"] == "NotImplemented"
    assert client.meta.method_to_api_mapping[operation] in response["Error"]["Message"]


def test_operations_that_moto_has_still_pass(aws: Any) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="door")
    s3.put_bucket_lifecycle_configuration(
        Bucket="door",
        LifecycleConfiguration={
            "Rules": [{"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
        },
    )
    s3.put_object(Bucket="door", Key="a b/ü", Body=b"content", Metadata={"my_key": "1"})
    found = s3.get_object(Bucket="door", Key="a b/ü")
    assert (found["Body"].read(), found["Metadata"]) == (b"content", {"my_key": "1"})
    assert s3.head_object(Bucket="door", Key="a b/ü")["ContentLength"] == 7
    assert aws.client("sts").get_caller_identity()["Account"] == "123456789012"


def test_a_target_that_is_no_operation_is_refused(aws: Any) -> None:
    answer = aws.call("logs", "Logs_20140328.NoSuchThing", {})
    assert answer.status == 501
    assert "Logs_20140328.NoSuchThing" in answer.json["message"]


def test_a_service_that_does_not_exist_is_refused(aws: Any) -> None:
    answer = aws.call("nonsense", "Nonsense.Do", {})
    assert answer.status == 501
    assert "'nonsense'" in answer.json["message"]


def test_an_unknown_path_of_our_own_is_refused(aws: Any) -> None:
    assert aws.send("GET", "/ringfence/nothing").status == 404
    assert aws.send("GET", "/ringfence/reset").status == 404


def test_what_is_recorded_says_so(aws: Any) -> None:
    recorded = {entry["service"]: entry for entry in aws.own("recorded")["recorded_not_emulated"]}
    assert "CreateAddon" in recorded["eks"]["operations"]
    aws.client("accessanalyzer").create_analyzer(analyzerName="counted", type="ACCOUNT")
    again = {entry["service"]: entry for entry in aws.own("recorded")["recorded_not_emulated"]}
    assert (
        again["accessanalyzer"]["resources"]["analyzer"]
        == recorded["accessanalyzer"]["resources"].get("analyzer", 0) + 1
    )
    aws.client("accessanalyzer").delete_analyzer(analyzerName="counted")
