"""Example data of demonstrations in the embedded account: put there, remembered, and taken away by `down`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config

from ringfence.local.operator_key import operator_key
from ringfence.local.state import Home, read_json, write_atomic
from ringfence.local.target import AWS_REGION, endpoint

# Which buckets are examples: below the home.
RECORD = "examples.json"


def _s3(home: Home) -> Any:
    key = operator_key(home)
    # Path style and no proxy: the server is an address of this machine.
    config = Config(retries={"total_max_attempts": 2}, proxies={}, s3={"addressing_style": "path"})
    session = boto3.session.Session(key.access_key_id, key.secret_access_key, region_name=AWS_REGION)
    return session.client("s3", endpoint_url=endpoint(home.kept_ports()), config=config)


def _known(home: Home) -> list[str]:
    return [str(name) for name in read_json(home.root / RECORD).get("buckets", [])]


def seed(home: Home, buckets: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Puts objects into buckets of the embedded account: bucket → key → text. Returns the buckets that were made now."""
    if not buckets:
        return []
    s3 = _s3(home)
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    made = [bucket for bucket in buckets if bucket not in there]
    # Before they are made, so that none is left unknown.
    record = {"buckets": sorted({*_known(home), *made})}
    write_atomic(home.root / RECORD, json.dumps(record, indent=2) + "\n")
    for bucket in made:
        s3.create_bucket(Bucket=bucket)
    for bucket, objects in buckets.items():
        for key, text in objects.items():
            s3.put_object(Bucket=bucket, Key=key, Body=text.encode())
    return made


def remove(home: Home) -> list[str]:
    """Takes the example buckets away, with whatever is in them now. Returns their names; twice is the same as once."""
    known = _known(home)
    if known:
        s3 = _s3(home)
        there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
        for bucket in there & set(known):
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for item in page.get("Contents", ()):
                    s3.delete_object(Bucket=bucket, Key=item["Key"])
            s3.delete_bucket(Bucket=bucket)
    (home.root / RECORD).unlink(missing_ok=True)
    return known
