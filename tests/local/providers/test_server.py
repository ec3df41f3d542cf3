"""The protocol, over real gRPC, in front of a backend in memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from ringfence.local.providers.base import UNKNOWN, DiffResult
from ringfence.local.providers.proto import provider_pb2, status_pb2
from ringfence.local.providers.server import detailed_diff
from ringfence.local.providers.values import decode, decode_with_mask, encode

ROOT = Path(__file__).parents[3]


def _refusal(call: Any, *arguments: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value


def _kinds(response: Any) -> dict[str, str]:
    name = provider_pb2.PropertyDiff.Kind.Name
    return {path: name(detail.kind) for path, detail in response.detailedDiff.items()}


def test_the_plugin_says_what_it_can(engine: Any) -> None:
    handshake = engine.stub.Handshake(provider_pb2.ProviderHandshakeRequest())
    assert handshake.accept_secrets
    assert not handshake.accept_resources
    assert engine.stub.GetPluginInfo(Empty()).version == "1.2.3"
    configured = engine.stub.Configure(provider_pb2.ConfigureRequest(args=encode({"region": "eu-west-1"})))
    assert configured.acceptSecrets
    assert configured.supportsPreview


def test_settings_that_the_sdk_sends_as_json_text_have_their_types_back(engine: Any) -> None:
    sent = {"region": "eu-west-1", "skip": "true", "tags": '{"a": "b"}', "id": "012345678901", "odd": "{not json"}
    engine.stub.Configure(provider_pb2.ConfigureRequest(args=encode(sent)))
    assert engine.backend.settings == sent | {"skip": True, "tags": {"a": "b"}}


def test_a_refused_configuration_is_told_without_its_secrets(engine: Any) -> None:
    args = encode({"fail": "true", "key": "k3y-material"}, {"key": True})
    error = _refusal(engine.stub.Configure, provider_pb2.ConfigureRequest(args=args))
    assert error.details() == "configuring the test provider: the key [secret] is refused"


@pytest.mark.parametrize(
    ("olds", "news", "changes"),
    [
        ({"region": "a", "endpoints": [{"s3": "http://127.0.0.1:1"}]}, {"region": "a", "endpoints": []}, "DIFF_NONE"),
        ({"kubeconfig": "old"}, {"kubeconfig": "new"}, "DIFF_NONE"),
        ({"region": "a"}, {"region": "b"}, "DIFF_SOME"),
    ],
)
def test_a_provider_whose_api_moved_is_not_changed_and_never_replaced(
    engine: Any, olds: dict, news: dict, changes: str
) -> None:
    response = engine.stub.DiffConfig(provider_pb2.DiffRequest(old_inputs=encode(olds), news=encode(news)))
    assert provider_pb2.DiffResponse.DiffChanges.Name(response.changes) == changes
    assert not response.replaces


def test_check_fills_defaults_keeps_secrets_and_says_what_is_wrong(engine: Any) -> None:
    news = encode({"name": "n", "password": "hunter22"}, {"password": True})
    response = engine.stub.Check(provider_pb2.CheckRequest(urn=engine.urn, news=news))
    assert decode_with_mask(response.inputs) == ({"name": "n", "password": "hunter22", "size": 1}, {"password": True})
    refused = engine.stub.Check(provider_pb2.CheckRequest(urn=engine.urn, news=encode({"name": "n", "size": -1})))
    assert [(one.property, one.reason) for one in refused.failures] == [("size", "-1 is below 0: write 0 or more")]


def test_created_outputs_are_secret_where_their_inputs_or_their_type_say_so(engine: Any) -> None:
    inputs = {"name": "n", "login": {"user": "u", "password": "hunter22"}}
    response = engine.create(inputs, {"login": {"password": True}})
    outputs, mask = decode_with_mask(response.properties)
    assert response.id == "n"
    assert outputs["arn"] == "arn:n"
    assert mask == {"login": {"password": True}, "token": True}
    assert engine.backend.things == {"n": inputs}


def test_a_preview_creates_nothing_and_leaves_unknown_what_is_unknown(engine: Any) -> None:
    response = engine.create({"name": "n", "subnet": UNKNOWN}, preview=True)
    assert response.id == ""
    assert decode(response.properties) == {"name": "n", "subnet": UNKNOWN, "arn": UNKNOWN}
    assert engine.backend.things == {}


def test_a_read_marks_secrets_and_a_thing_that_is_gone_has_no_id(engine: Any) -> None:
    engine.create({"name": "n", "password": "hunter22"})
    request = provider_pb2.ReadRequest(
        id="n",
        urn=engine.urn,
        inputs=encode({"name": "n", "password": "hunter22"}, {"password": True}),
        properties=encode({"name": "n", "arn": "arn:n"}, {"arn": True}),
    )
    found = engine.stub.Read(request)
    assert decode_with_mask(found.inputs)[1] == {"password": True}
    assert decode_with_mask(found.properties)[1] == {"password": True, "arn": True, "token": True}
    engine.backend.things.clear()
    assert engine.stub.Read(request).id == ""


def test_an_import_reads_with_no_inputs(engine: Any) -> None:
    engine.backend.things["n"] = {"name": "n", "size": 3}
    found = engine.stub.Read(provider_pb2.ReadRequest(id="n", urn=engine.urn))
    assert (found.id, decode(found.inputs)) == ("n", {"name": "n", "size": 3})


def test_an_equal_document_is_no_change(engine: Any) -> None:
    response = engine.diff({"name": "n", "tags": {"a": "b"}}, {"tags": {"a": "b"}, "name": "n"})
    assert response.changes == provider_pb2.DiffResponse.DIFF_NONE


def test_a_diff_tells_each_path_and_which_of_them_replaces(engine: Any) -> None:
    olds = {"name": "a", "size": 1, "tags": {"x.y/z": "1", "drop": "1"}}
    news = {"name": "b", "size": 2, "tags": {"x.y/z": "2", "come": "1"}}
    response = engine.diff(olds, news)
    assert response.changes == provider_pb2.DiffResponse.DIFF_SOME
    assert _kinds(response) == {
        "name": "UPDATE_REPLACE",
        "size": "UPDATE",
        'tags["x.y/z"]': "UPDATE",
        "tags.drop": "DELETE",
        "tags.come": "ADD",
    }
    assert list(response.replaces) == ["name"]
    assert sorted(response.diffs) == ["name", "size", "tags"]
    assert response.deleteBeforeReplace
    assert all(detail.inputDiff for detail in response.detailedDiff.values())


def test_a_difference_that_only_the_live_thing_shows_is_not_one_between_inputs() -> None:
    details = detailed_diff(DiffResult(("state",)), {"name": "n"}, {"name": "n", "state": "off"}, {"name": "n"})
    assert not details["state"].inputDiff
    assert provider_pb2.PropertyDiff.Kind.Name(details["state"].kind) == "DELETE"


def test_an_unknown_input_counts_as_a_change(engine: Any) -> None:
    response = engine.diff({"name": "n"}, {"name": UNKNOWN})
    assert _kinds(response) == {"name": "UPDATE_REPLACE"}


def test_ignored_changes_reach_neither_diff_nor_update(engine: Any) -> None:
    olds, news = {"name": "a", "size": 1, "tags": {"t": "1"}}, {"name": "b", "size": 1, "tags": {"t": "2"}}
    changed = engine.diff(olds, news)
    assert sorted(changed.diffs) == ["name", "tags"]
    ignored = engine.diff(olds, news, ("name", "tags.t"))
    assert ignored.changes == provider_pb2.DiffResponse.DIFF_NONE
    engine.backend.things["i"] = {}
    request = provider_pb2.UpdateRequest(
        id="i", urn=engine.urn, old_inputs=encode(olds), olds=encode(olds), news=encode(news), ignoreChanges=["tags"]
    )
    engine.stub.Update(request)
    assert engine.backend.things["i"] == {"name": "b", "size": 1, "tags": {"t": "1"}}


def test_an_update_keeps_secrets_and_a_previewed_one_changes_nothing(engine: Any) -> None:
    engine.backend.things["i"] = {"password": "old"}
    arguments: dict[str, Any] = {
        "id": "i",
        "urn": engine.urn,
        "old_inputs": encode({"password": "old"}),
        "olds": encode({"password": "old"}),
        "news": encode({"password": "hunter22"}, {"password": True}),
    }
    previewed = engine.stub.Update(provider_pb2.UpdateRequest(preview=True, **arguments))
    assert engine.backend.things["i"] == {"password": "old"}
    done = engine.stub.Update(provider_pb2.UpdateRequest(**arguments))
    assert engine.backend.things["i"] == {"password": "hunter22"}
    assert decode_with_mask(previewed.properties)[1] == decode_with_mask(done.properties)[1] == {"password": True}


def test_deleting_twice_is_deleting_once(engine: Any) -> None:
    engine.create({"name": "n"})
    request = provider_pb2.DeleteRequest(id="n", urn=engine.urn, properties=encode({}), old_inputs=encode({}))
    engine.stub.Delete(request)
    assert engine.backend.things == {}
    engine.stub.Delete(request)


def test_a_refusal_names_the_thing_and_blanks_its_secrets(engine: Any) -> None:
    inputs = {"name": "n", "fail": "refused", "password": "hunter22"}
    error = _refusal(engine.create, inputs, {"password": True})
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "creating test:index:Thing 'thing-one': name n with [secret] is refused"
    shown = _refusal(engine.create, inputs)
    assert "hunter22" in shown.details()


def test_an_unexpected_failure_is_one_line_with_an_unknown_outcome(engine: Any) -> None:
    error = _refusal(engine.create, {"name": "n", "fail": "broken", "password": "hunter22"}, {"password": True})
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert error.details() == "creating test:index:Thing 'thing-one': RuntimeError: connection lost, sent [secret]"


def test_an_update_of_a_thing_that_is_gone_says_so(engine: Any) -> None:
    empty = encode({})
    request = provider_pb2.UpdateRequest(id="x", urn=engine.urn, old_inputs=empty, olds=empty, news=empty)
    error = _refusal(engine.stub.Update, request)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "x is gone: refresh the stack" in error.details()


def test_a_half_made_thing_is_handed_to_the_engine_with_its_id(engine: Any) -> None:
    inputs = {"name": "n", "fail": "partial", "password": "hunter22"}
    error = _refusal(engine.create, inputs, {"password": True})
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    detail = provider_pb2.ErrorResourceInitFailed()
    assert status.details[0].Unpack(detail)
    assert detail.id == "half"
    assert list(detail.reasons) == ["creating test:index:Thing 'thing-one': tags with [secret] failed"]
    outputs, mask = decode_with_mask(detail.properties)
    assert outputs["arn"] == "arn:half"
    assert mask == {"password": True, "token": True}


def test_a_function_called_with_a_secret_answers_with_secrets(engine: Any) -> None:
    plain = engine.stub.Invoke(provider_pb2.InvokeRequest(tok="t:f", args=encode({"a": "b"})))
    assert decode_with_mask(getattr(plain, "return")) == ({"token": "t:f", "echo": {"a": "b"}}, None)
    secret = engine.stub.Invoke(provider_pb2.InvokeRequest(tok="t:f", args=encode({"a": "b"}, {"a": True})))
    assert decode_with_mask(getattr(secret, "return"))[1] == {"token": True, "echo": True}


def test_after_cancel_nothing_new_is_begun(engine: Any) -> None:
    engine.create({"name": "before"})
    engine.stub.Cancel(Empty())
    error = _refusal(engine.create, {"name": "after"})
    assert error.code() is grpc.StatusCode.CANCELLED
    assert list(engine.backend.things) == ["before"]
    assert engine.backend.cancels == 1


def _serve(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ringfence.local.providers.random", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_provider_process_prints_its_port_and_ends_when_the_engine_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = _serve(f"127.0.0.1:{listener.getsockname()[1]}")
        assert process.stdout is not None
        port = int(process.stdout.readline())
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert process.poll() is None
    assert process.wait(timeout=300) == 0


def test_a_provider_process_ends_when_its_parent_was_killed() -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'ringfence.local.providers.random'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    lines = sorted((parent.stdout.readline(), parent.stdout.readline()), key=int)
    parent.kill()
    parent.wait()
    # The pipe is at its end when its last holder, the provider, is gone.
    assert parent.stdout.read() == ""
    assert len(lines) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_provider_process_ends_cleanly_when_asked(number: signal.Signals) -> None:
    process = _serve()
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, number)
    assert process.wait(timeout=300) == 0
