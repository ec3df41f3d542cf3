"""Pushing: everything arrives and is checked, what is there isn't sent again, and what goes wrong is said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from ringfence.errors import RingfenceError
from ringfence.image import commands, oci, push
from ringfence.image.push import PushError, Registry
from ringfence.image.tree import file, to_tar
from tests.control_image.conftest import AUTHORIZATION, Shelf, digest_of

TAG = "sha256-0123"
NAME = "ringfence-test/control"


@pytest.fixture
def made() -> oci.Archive:
    images = [
        oci.Image(
            platform,
            [("base", to_tar({"shared": file("x" * 5000)})), ("own", to_tar({"a": file(platform * 300_000)}))],
            {"A": "b"}, ("/x",), "1:1", {},
        )
        for platform in ("linux/amd64", "linux/arm64")
    ]  # fmt: skip
    return oci.archive(images, "control:1")


Push = Callable[..., str]


@pytest.fixture
def pushed(shelf: Shelf, made: oci.Archive) -> Push:
    def run(said: list[str] | None = None, authorization: str = AUTHORIZATION) -> str:
        report = (said if said is not None else []).append
        return Registry(shelf.base, NAME, authorization, report, pause=0.01).push(made, TAG)

    return run


def test_everything_arrives_under_its_digest_and_the_tag(shelf, made, pushed):
    assert pushed() == made.digest
    kind, index = shelf.manifests[TAG]
    assert (kind, digest_of(index)) == (oci.INDEX, made.digest)
    for item in json.loads(index)["manifests"]:
        kind, manifest = shelf.manifests[item["digest"]]
        assert kind == oci.MANIFEST
        for part in (json.loads(manifest)["config"], *json.loads(manifest)["layers"]):
            assert len(shelf.blobs[part["digest"]]) == part["size"]


def test_what_is_there_is_not_sent_again(shelf, pushed):
    pushed()
    shelf.asked.clear()
    said: list[str] = []
    pushed(said)
    assert {method for method, _ in shelf.asked} == {"HEAD"}
    assert all("is there" in line for line in said)


def test_the_parts_are_counted_while_they_go(pushed):
    said: list[str] = []
    pushed(said)
    assert [line for line in said if "part 1 of 5" in line]


def test_the_credential_is_in_no_address_no_report_and_no_error(shelf, made):
    said: list[str] = []
    registry = Registry(shelf.base, NAME, "Basic d3Jvbmc=", said.append, pause=0.01)
    with pytest.raises(PushError, match=r"refuses the credentials \(401\)") as caught:
        registry.push(made, TAG)
    assert "ecr:PutImage" in str(caught.value)
    shown = "".join([*said, str(caught.value), repr(registry), *(path for _, path in shelf.asked)])
    assert "d3Jvbmc" not in shown
    assert len(shelf.asked) == 1, "what a registry refuses isn't asked again"


@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize("fault", ["503", "cut"])
def test_what_fails_for_a_moment_is_done_again(shelf, made, pushed, method, fault):
    shelf.faults[method] = [fault]
    said: list[str] = []
    assert pushed(said) == made.digest
    assert any("trying again" in line for line in said)
    assert all(digest_of(data) == digest for digest, data in shelf.blobs.items())


@pytest.mark.parametrize(("fault", "words"), [("500", "answered 500 BUSY"), ("cut", "the connection failed")])
def test_what_keeps_failing_is_an_error_with_what_was_said(shelf, pushed, fault, words):
    shelf.faults["PATCH"] = [fault] * 3
    with pytest.raises(PushError, match=words) as caught:
        pushed()
    assert "3 times in a row" in str(caught.value) and "remedy" in str(caught.value)
    assert TAG not in shelf.manifests


def test_a_registry_that_can_t_be_reached_is_said(made):
    with pytest.raises(PushError, match="the connection failed"):
        Registry("http://127.0.0.1:1", NAME, AUTHORIZATION, lambda line: None, pause=0.01).push(made, TAG)


def test_a_registry_that_answers_another_digest_is_refused(shelf, pushed):
    shelf.faults["lie"] = ["once"]
    with pytest.raises(PushError, match=f"answered digest sha256:{'0' * 64}, not sha256:"):
        pushed()


def test_a_tag_that_holds_other_content_is_refused(shelf, pushed):
    shelf.manifests[TAG] = (oci.INDEX, b"{}")
    with pytest.raises(PushError, match="see who else pushes"):
        pushed()


def test_no_upload_and_no_credential_go_to_another_host(shelf, pushed):
    shelf.elsewhere = "http://127.0.0.2:80"
    with pytest.raises(PushError, match=r"127\.0\.0\.2:80, which gets no credentials"):
        pushed()
    assert not [method for method, _ in shelf.asked if method in ("PATCH", "PUT")]


def test_bytes_that_change_on_the_way_are_refused_by_the_registry(shelf, made):
    digest = next(iter(made.blobs))
    broken = dataclasses.replace(made, blobs={**made.blobs, digest: b"other"})
    with pytest.raises(PushError, match="DIGEST_INVALID"):
        Registry(shelf.base, NAME, AUTHORIZATION, lambda line: None, pause=0.01).push(broken, TAG)


# The command


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "stacks").mkdir()
    config = {"accountId": "123456789012", "clusterAdmins": ["arn:aws:iam::123456789012:role/operators"]}
    for stack, more in (("dev", {}), ("local", {"target": "embedded"})):
        text = yaml.safe_dump({"config": {f"ringfence:{key}": value for key, value in (config | more).items()}})
        (tmp_path / "stacks" / f"Pulumi.{stack}.yaml").write_text(text)
    return tmp_path


def test_the_command_prints_references_and_how_to_set_them(shelf, made, project, monkeypatch):
    monkeypatch.setattr(commands, "_authorization", lambda settings, stack: AUTHORIZATION)
    monkeypatch.setattr(commands.Builder, "archive", lambda self, platforms: made)

    class Here(Registry):
        def __init__(self, base: str, *rest: object) -> None:
            assert base == "https://123456789012.dkr.ecr.us-east-1.amazonaws.com"
            super().__init__(shelf.base, *rest)

    monkeypatch.setattr(push, "Registry", Here)
    done = CliRunner().invoke(commands.image, ["push", "-s", "dev", "--project", str(project)])
    assert done.exit_code == 0, done.output
    registry = "123456789012.dkr.ecr.us-east-1.amazonaws.com/ringfence-dev"
    assert done.stdout.splitlines() == [
        f"{registry}/agent-runtime@{made.digest}",
        f"{registry}/control@{made.digest}",
        f"pulumi config set ringfence:sandboxImage {registry}/agent-runtime@{made.digest} -s dev",
        f"pulumi config set ringfence:serviceImage {registry}/control@{made.digest} -s dev",
    ]
    assert commands.tag_of(made) in shelf.manifests


def test_a_stack_of_this_machine_has_no_registry_to_push_to(project):
    done = CliRunner().invoke(commands.image, ["push", "-s", "local", "--project", str(project)])
    assert isinstance(done.exception, RingfenceError) and "no registry takes images" in str(done.exception)


@pytest.fixture
def account(monkeypatch):
    moto = pytest.importorskip("moto")
    for key, value in (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")):
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with moto.mock_aws():
        yield


def test_the_credential_is_the_account_s_own_and_another_account_is_refused(account, project):
    from ringfence.settings import load_stack

    settings = load_stack(project, "dev")
    assert commands._authorization(settings, "dev").startswith("Basic ")
    other = settings.model_copy(update={"account_id": "210987654321"})
    with pytest.raises(RingfenceError, match="belongs to 210987654321"):
        commands._authorization(other, "dev")
