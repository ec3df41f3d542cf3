"""The bucket that nodes install from."""

from __future__ import annotations

import pytest

from components.artifacts import Artifacts, ArtifactsArgs, read_statement
from components.iam_documents import document
from ringfence.artifacts import gvisor_key
from ringfence.iam.request import Principal

BUCKET = "arn:aws:s3:::ringfence-test-artifacts-111122223333-us-east-1"
SECURE = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.2"}
OBJECT = f"{BUCKET}/gvisor/20260928.0/aarch64/gvisor.tar.bz2"


def _with_allow(policy: str) -> str:
    allow = '{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}'
    return policy.replace('"Statement":[', f'"Statement":[{allow},', 1)


def test_only_the_own_account_reads_and_only_over_tls(record, preview, names, resource_permits):
    recording = record(lambda: Artifacts("artifacts", ArtifactsArgs(names)), preview=preview)
    policy = _with_allow(recording.one("aws:s3/bucketPolicy:BucketPolicy")["policy"])
    own = Principal("AWS", "arn:aws:sts::111122223333:assumed-role/ringfence-test-sandbox-node/i-1")
    foreign = Principal("AWS", "arn:aws:sts::444455556666:assumed-role/ringfence-test-sandbox-node/i-1")
    assert resource_permits(policy, own, "s3:GetObject", OBJECT, SECURE)
    assert not resource_permits(policy, foreign, "s3:GetObject", OBJECT, SECURE)
    assert not resource_permits(policy, Principal("Anonymous"), "s3:GetObject", OBJECT, SECURE)
    assert not resource_permits(policy, own, "s3:GetObject", OBJECT, SECURE | {"aws:SecureTransport": "false"})
    assert not resource_permits(policy, own, "s3:GetObject", OBJECT, SECURE | {"s3:TlsVersion": "1.1"})
    assert recording.unparented() == []


def test_the_bucket_is_private_versioned_and_encrypted(record, names):
    recording = record(lambda: Artifacts("artifacts", ArtifactsArgs(names)))
    block = recording.one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
    assert all(value is True for key, value in block.inputs.items() if key != "bucket")
    assert recording.one("aws:s3/bucketVersioning:BucketVersioning")["versioningConfiguration"]["status"] == "Enabled"
    rule = recording.one("aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration")
    assert rule["rules"][0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "AES256"


@pytest.mark.parametrize(
    ("action", "arn", "allowed"),
    [
        ("s3:GetObject", OBJECT, True),
        ("s3:PutObject", OBJECT, False),
        ("s3:GetObject", f"{BUCKET}/envoy/1.40.0/envoy", False),
        ("s3:GetObject", "arn:aws:s3:::another/gvisor/20260928.0/aarch64/gvisor.tar.bz2", False),
    ],
)
def test_a_node_fetches_its_own_release_and_nothing_else(identity_permits, names, action, arn, allowed):
    policy = document(read_statement(names, "gvisor/20260928.0"))
    assert gvisor_key("20260928.0", "aarch64") == "gvisor/20260928.0/aarch64/gvisor.tar.bz2"
    assert identity_permits([policy], action, arn, SECURE) is allowed
