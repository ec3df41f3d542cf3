"""Example data in the embedded account: put there, remembered, taken away, and nothing else with it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ringfence.local import examples
from ringfence.local.state import PORT_NAMES, Home, write_atomic

DATA = {"example-a": {"published/x.csv": "1\n"}, "example-b": {}}


@pytest.fixture
def home(start_aws_server, tmp_path: Path):
    home = Home.of(tmp_path / "home")
    with start_aws_server(home.root) as endpoint:
        ports = dict.fromkeys(PORT_NAMES, 1) | {"aws": urlsplit(endpoint).port}
        write_atomic(home.root / "ports.json", json.dumps(ports))
        yield home


def names(home: Home) -> set[str]:
    return {bucket["Name"] for bucket in examples._s3(home).list_buckets()["Buckets"]}


def test_buckets_are_made_once_and_filled_each_time(home: Home):
    assert examples.seed(home, DATA) == ["example-a", "example-b"]
    examples._s3(home).put_object(Bucket="example-a", Key="published/x.csv", Body=b"changed")
    assert examples.seed(home, DATA) == []
    assert examples._s3(home).get_object(Bucket="example-a", Key="published/x.csv")["Body"].read() == b"1\n"


def test_what_was_seeded_goes_with_what_came_into_it_and_nothing_else(home: Home):
    examples._s3(home).create_bucket(Bucket="somebodys")
    examples.seed(home, DATA | {"somebodys": {"x": "1"}})
    examples._s3(home).put_object(Bucket="example-b", Key="later", Body=b"x")
    assert sorted(examples.remove(home)) == ["example-a", "example-b"]
    assert names(home) == {"somebodys"}
    assert examples.remove(home) == []


def test_buckets_that_are_gone_already_are_no_error(home: Home):
    examples.seed(home, {"example-b": {}})
    examples._s3(home).delete_bucket(Bucket="example-b")
    assert examples.remove(home) == ["example-b"]
