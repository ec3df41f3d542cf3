"""The analyzer protocol as the engine speaks it: configuration, levels, values of every kind, and calls that must fail."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import analyzer_pb2 as protocol
from pulumi.runtime.proto import analyzer_pb2_grpc

from ringfence.review.analyzer_service import Config, Pack, Policy, Service
from ringfence.review.analyzer_values import resource_of, stack_of
from ringfence.review.facts import AT_PREVIEW
from ringfence.review.resource import Resource
from ringfence.review.rpc_server import Server

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
ASSET = "c44067f5952c0a294b673a41bacd8c17"
# One per type of value, as the engine writes them.
UNKNOWNS = (
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
    "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
    "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
    "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
    "030794c1-ac77-496b-92df-f27374a8bd58",
    "e48ece36-62e2-4504-bad9-02848725956a",
    "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
)


def looks_at(type_: str) -> bool:
    return type_.startswith("aws:")


def one(resource: Resource, config: Config) -> Iterator[str]:
    if resource.props.get("break"):
        raise RuntimeError("hunter2 is not a number")
    yield f"{resource.name} {config.get('lockfile', 'default')}"


def several(resources: list[Resource], config: Config) -> Iterator[tuple[str, str]]:
    for resource in resources:
        if resource.props.get("break"):
            raise KeyError("hunter2")
        yield f"{resource.name} holds {sorted(resource.props)} from {sorted(resource.links)}", resource.urn


PACK = Pack(
    "trial",
    (
        Policy("each", "About each.", "high", looks_at, check=one, settings={"lockfile": "a path"}),
        Policy("all-of-them", "About all.", "critical", looks_at, check_stack=several, remediation_steps="Mend it."),
    ),
)


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(values)
    return made


def request(type_: str = "aws:x:Y", name: str = "thing", /, **props: Any) -> protocol.AnalyzeRequest:
    return protocol.AnalyzeRequest(type=type_, urn=f"urn:{name}", name=name, properties=struct(props))


def in_stack(name: str, type_: str, comes_from: dict[str, list[str]], /, **props: Any) -> protocol.AnalyzerResource:
    links = {prop: protocol.AnalyzerPropertyDependencies(urns=urns) for prop, urns in comes_from.items()}
    return protocol.AnalyzerResource(
        type=type_, urn=f"urn:{name}", name=name, properties=struct(props), propertyDependencies=links
    )


def configuration(**policies: tuple[int, dict[str, Any]]) -> protocol.ConfigureAnalyzerRequest:
    made = protocol.ConfigureAnalyzerRequest()
    for name, (level, settings) in policies.items():
        made.policyConfig[name.replace("_", "-")].CopyFrom(
            protocol.PolicyConfig(enforcementLevel=level, properties=struct(settings))
        )
    return made


@contextmanager
def serving(pack: Pack, stopped: threading.Event) -> Iterator[Any]:
    server = Server(Service(pack, stopped).methods())
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield analyzer_pb2_grpc.AnalyzerStub(channel)


@pytest.fixture
def stopped() -> threading.Event:
    return threading.Event()


@pytest.fixture
def stub(stopped: threading.Event) -> Iterator[Any]:
    with serving(PACK, stopped) as made:
        yield made


def levels(response: Any) -> list[int]:
    return [diagnostic.enforcementLevel for diagnostic in response.diagnostics]


def test_the_pack_tells_its_policies_with_levels_settings_and_words(stub: Any) -> None:
    info = stub.GetAnalyzerInfo(empty_pb2.Empty())
    each, everything = info.policies
    assert (info.name, info.supportsConfig) == ("trial", True)
    assert (each.name, each.policy_type, each.enforcementLevel) == (
        "each",
        protocol.POLICY_TYPE_RESOURCE,
        protocol.MANDATORY,
    )
    assert each.configSchema.properties["lockfile"]["type"] == "string"
    assert (everything.policy_type, everything.severity) == (
        protocol.POLICY_TYPE_STACK,
        protocol.POLICY_SEVERITY_CRITICAL,
    )
    assert everything.remediation_steps == "Mend it."
    assert stub.GetPluginInfo(empty_pb2.Empty()).version
    stub.Handshake(protocol.AnalyzerHandshakeRequest(engine_address="127.0.0.1:1"))
    stub.ConfigureStack(protocol.AnalyzerStackConfigureRequest(stack="dev", project="p"))


def test_without_configuration_every_policy_is_mandatory(stub: Any) -> None:
    told = stub.Analyze(request()).diagnostics
    assert [(item.policyName, item.message, item.enforcementLevel) for item in told] == [
        ("each", "About each.\nthing default", protocol.MANDATORY)
    ]
    assert levels(stub.AnalyzeStack(protocol.AnalyzeStackRequest(resources=[in_stack("a", "aws:x:Y", {})]))) == [
        protocol.MANDATORY
    ]


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (protocol.ADVISORY, [protocol.ADVISORY]),
        (protocol.MANDATORY, [protocol.MANDATORY]),
        (protocol.REMEDIATE, [protocol.MANDATORY]),
        (protocol.DISABLED, []),
    ],
)
def test_each_policy_has_the_level_that_the_user_gives_it(stub: Any, level: int, told: list[int]) -> None:
    assert levels(stub.Analyze(request())) == [protocol.MANDATORY]
    stub.Configure(configuration(each=(level, {}), all_of_them=(level, {})))
    assert levels(stub.Analyze(request())) == told
    everything = stub.AnalyzeStack(protocol.AnalyzeStackRequest(resources=[in_stack("a", "aws:x:Y", {})])).diagnostics
    assert [item.enforcementLevel for item in everything if item.urn] == told
    lowered = [item for item in everything if not item.urn]
    assert len(lowered) == (2 if level in (protocol.ADVISORY, protocol.DISABLED) else 0)
    for item, name in zip(lowered, ("each", "all-of-them"), strict=False):
        assert f"The configuration makes {name} {'advisory' if told else 'disabled'}" in item.message
        assert item.enforcementLevel == protocol.ADVISORY


def test_a_policy_is_handed_its_own_settings(stub: Any) -> None:
    # The engine applies `all` to each policy and hands it over besides.
    stub.Configure(configuration(each=(protocol.MANDATORY, {"lockfile": "other.json"}), all=(protocol.MANDATORY, {})))
    assert [item.message for item in stub.Analyze(request()).diagnostics] == ["About each.\nthing other.json"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (configuration(ech=(protocol.ADVISORY, {})), "ech"),
        (configuration(each=(protocol.ADVISORY, {"lokfile": "x"})), "lokfile"),
        (configuration(each=(protocol.ADVISORY, {"lockfile": 7})), "lockfile"),
        (configuration(each=(9, {})), "enforcementLevel"),
    ],
)
def test_a_configuration_with_a_fault_is_refused_whole(stub: Any, wrong: Any, told: str) -> None:
    wrong.policyConfig["all-of-them"].enforcementLevel = protocol.DISABLED
    with pytest.raises(grpc.RpcError) as refused:
        stub.Configure(wrong)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert told in refused.value.details()
    assert levels(stub.Analyze(request())) == [protocol.MANDATORY]
    assert levels(stub.AnalyzeStack(protocol.AnalyzeStackRequest(resources=[in_stack("a", "aws:x:Y", {})]))) == [
        protocol.MANDATORY
    ]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_preparation_that_breaks_leaves_the_checks_as_they_are(stopped: threading.Event) -> None:
    seen: list[Config] = []
    prepared = threading.Event()

    def prepare(config: Config) -> None:
        seen.append(config)
        prepared.set()
        raise RuntimeError("hunter2")

    pack = Pack("trial", tuple(dataclasses.replace(policy, prepare=prepare) for policy in PACK.policies))
    with serving(pack, stopped) as stub:
        stub.Configure(configuration(each=(protocol.MANDATORY, {"lockfile": "x"})))
        assert prepared.wait(10)
        assert levels(stub.Analyze(request())) == [protocol.MANDATORY]
    assert seen == [{"lockfile": "x"}]


def test_a_rule_that_breaks_fails_the_call_without_telling_what_it_read(stub: Any) -> None:
    broken = in_stack("a", "aws:x:Y", {}, **{"break": True})
    for call in (
        lambda: stub.Analyze(request(**{"break": True})),
        lambda: stub.AnalyzeStack(protocol.AnalyzeStackRequest(resources=[broken])),
    ):
        with pytest.raises(grpc.RpcError) as failed:
            call()
        # UNIMPLEMENTED would count as nothing to say.
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert "test_analyzer_protocol.py" in failed.value.details()
        assert "hunter2" not in failed.value.details()
    assert levels(stub.Analyze(request())) == [protocol.MANDATORY]


@pytest.mark.parametrize("special", ["5cf8f73096256a8f31e491e813e4eb8e", SECRET, ""])
def test_a_value_of_no_known_kind_fails_the_call_for_a_type_that_is_looked_at(stub: Any, special: str) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        stub.Analyze(request(policy={SIGNATURE: special, "other": "x"}))
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    # A type that no rule looks at is answered without reading it.
    assert levels(stub.Analyze(request("random:x:Y", policy={SIGNATURE: special}))) == []


def test_a_value_without_any_kind_fails_the_call(stub: Any) -> None:
    asked = request()
    asked.properties.fields["policy"].SetInParent()
    with pytest.raises(grpc.RpcError) as failed:
        stub.Analyze(asked)
    assert failed.value.code() is grpc.StatusCode.INTERNAL


def test_nothing_is_ever_remediated(stub: Any) -> None:
    assert stub.Remediate(request()) == protocol.RemediateResponse()
    stub.Configure(configuration(each=(protocol.REMEDIATE, {})))
    answer = stub.Remediate(request())
    assert [item.policy_name for item in answer.not_applicable] == ["each"]
    assert not answer.remediations


def test_a_cancelled_analyzer_stops(stub: Any, stopped: threading.Event) -> None:
    stub.Cancel(empty_pb2.Empty())
    assert stopped.is_set()


def test_values_arrive_plain_with_unknowns_and_secrets_marked() -> None:
    asked = request(
        number=2,
        flag=True,
        nothing=None,
        items=["a", {"b": [1]}],
        unknown=list(UNKNOWNS),
        inside=f"arn:aws:iam::{UNKNOWNS[2]}:role/x",
        code={SIGNATURE: ASSET, "text": "print()"},
    )
    resource = resource_of(asked)
    assert resource.props == {
        "number": 2.0,
        "flag": True,
        "nothing": None,
        "items": ["a", {"b": [1.0]}],
        "unknown": [AT_PREVIEW] * len(UNKNOWNS),
        "inside": AT_PREVIEW,
        "code": {"text": "print()"},
    }
    assert isinstance(resource.props["number"], float)
    assert not resource.secret
    nested = resource_of(request(list=[{"policy": {SIGNATURE: SECRET, "value": {"a": "b"}}}]))
    assert nested.secret
    assert nested.props == {"list": [{"policy": {"a": "b"}}]}


def test_only_what_was_not_declared_and_names_nothing_is_taken_for_filled_in_by_the_provider() -> None:
    props = {
        "policy": UNKNOWNS[2],
        "arn": UNKNOWNS[2],
        "topicName": UNKNOWNS[2],
        "tags": {"a": UNKNOWNS[2]},
        "known": "x",
    }
    items = [in_stack("a", "aws:x:Y", {}, **props)]
    assert set(stack_of(items, looks_at, {"urn:a": {"known"}})[0].props) == {"arn", "topicName", "tags", "known"}
    # Declared, or never checked by itself: the unknown counts.
    assert set(stack_of(items, looks_at, {"urn:a": {"known", "policy"}})[0].props) == set(props)
    assert set(stack_of(items, looks_at, {"urn:b": {"known"}})[0].props) == set(props)


def test_resources_of_a_stack_are_linked_also_through_types_that_no_rule_reads() -> None:
    role = in_stack("role", "aws:x:Role", {}, name="app")
    made_up = in_stack("made-up", "random:x:Y", {"of": ["urn:role"]}, result={SIGNATURE: "unheard of"})
    policy = in_stack("policy", "aws:x:Policy", {"role": ["urn:made-up", "urn:elsewhere"]}, role=UNKNOWNS[2])
    found = {resource.name: resource for resource in stack_of([policy, made_up, role], looks_at, {})}
    assert found["made-up"].props == {}
    assert [origin.name for origin in found["policy"].origins("role", "aws:x:Role")] == ["role"]
