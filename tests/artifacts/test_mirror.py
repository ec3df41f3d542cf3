"""Mirroring releases: checked before they are copied, copied once."""

from __future__ import annotations

import hashlib
import io

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from ringfence.artifacts import Artifact, gvisor_artifacts, mirror
from ringfence.artifacts_commands import mirror as command
from ringfence.egress.artifact import envoy_artifacts
from ringfence.errors import RingfenceError
from ringfence.names import Names
from ringfence.versions import GVISOR_RELEASE

NAMES = Names("ringfence", "test", "123456789012", "us-east-1")
BUCKET = "ringfence-test-artifacts-123456789012-us-east-1"
CONTENT = b"a release"
ARTIFACT = Artifact("gvisor/1/aarch64/gvisor.tar.bz2", "https://example.invalid/x", hashlib.sha512(CONTENT).hexdigest())


@pytest.fixture
def s3(monkeypatch):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=BUCKET)
        yield client


def _source(tmp_path, content: bytes):
    path = tmp_path / "release"
    path.write_bytes(content)
    return {ARTIFACT.key: path}


def test_a_checked_release_is_copied_once(s3, tmp_path):
    said: list[str] = []
    assert mirror(s3, NAMES, [ARTIFACT], said.append, _source(tmp_path, CONTENT)) == 1
    assert s3.get_object(Bucket=BUCKET, Key=ARTIFACT.key)["Body"].read() == CONTENT
    assert mirror(s3, NAMES, [ARTIFACT], said.append, {}) == 0
    assert said[-1].endswith("already there")


def test_an_altered_release_is_not_copied(s3, tmp_path):
    with pytest.raises(RingfenceError, match="SHA-512"):
        mirror(s3, NAMES, [ARTIFACT], print, _source(tmp_path, CONTENT + b"!"))
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)


def test_an_object_without_the_pinned_digest_is_replaced(s3, tmp_path):
    s3.upload_fileobj(io.BytesIO(b"older"), BUCKET, ARTIFACT.key)
    assert mirror(s3, NAMES, [ARTIFACT], print, _source(tmp_path, CONTENT)) == 1
    assert s3.get_object(Bucket=BUCKET, Key=ARTIFACT.key)["Body"].read() == CONTENT


def test_an_address_without_tls_is_never_fetched(s3):
    plain = Artifact("k", "http://example.invalid/x", ARTIFACT.sha512)
    with pytest.raises(RingfenceError, match="only https"):
        mirror(s3, NAMES, [plain], print)


def test_a_missing_bucket_is_told_plainly(tmp_path, s3):
    s3.delete_bucket(Bucket=BUCKET)
    with pytest.raises(RingfenceError, match="can't be written"):
        mirror(s3, NAMES, [ARTIFACT], print, _source(tmp_path, CONTENT))


def test_every_pinned_architecture_is_mirrored_under_the_key_that_nodes_fetch():
    assert [item.key for item in gvisor_artifacts()] == [
        f"gvisor/{GVISOR_RELEASE}/{machine}/gvisor.tar.bz2" for machine in ("aarch64", "x86_64")
    ]


@pytest.mark.parametrize(("owner", "code"), [("123456789012", 0), ("210987654321", 1)])
def test_only_the_stacks_own_account_is_written(s3, tmp_path, owner, code):
    bucket = Names("ringfence", "test", owner, "us-east-1").bucket("artifacts")
    if bucket != BUCKET:
        s3.create_bucket(Bucket=bucket)
    held = (*envoy_artifacts(), *gvisor_artifacts())
    for item in held:  # there already, so that nothing is fetched
        s3.put_object(Bucket=bucket, Key=item.key, Metadata={"sha512": item.sha512})
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks/Pulumi.test.yaml").write_text(
        f"config:\n  ringfence:accountId: '{owner}'\n  ringfence:clusterAdmins: ['arn:aws:iam::{owner}:role/ops']\n"
    )
    result = CliRunner().invoke(command, ["-s", "test", "--project", str(tmp_path)])
    assert result.exit_code == code
    if code:
        assert isinstance(result.exception, RingfenceError) and "belongs to 210987654321" in str(result.exception)
    else:
        assert f"0 copied, {len(held)} already there" in result.output
