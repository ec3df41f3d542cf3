"""Serves a pack's policies over the engine's analyzer protocol. Trust zone: operator.

The engine asks about every resource twice, one after the other, so that each call adds to the preview's time
(docs/decisions). Whatever is unexpected fails the call, and with it the preview. No call may end as UNIMPLEMENTED: that
the engine takes for "nothing to say". Only the packs load this module: the rest of ringfence runs without Pulumi.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2 as protocol
from pulumi.runtime.proto import analyzer_pb2_grpc, plugin_pb2

from ringfence.errors import InputError, Problem
from ringfence.review.analyzer_values import resource_of, stack_of
from ringfence.review.resource import Resource

# A document or a stack may be large; the same limit as the engine's own (400 MiB).
_MAX_MESSAGE_BYTES = 400 * 1024 * 1024
# How long calls that have begun may take to end after a cancellation, in seconds.
_GRACE_S = 1.0
_LEVELS = {
    protocol.ADVISORY: protocol.ADVISORY,
    protocol.MANDATORY: protocol.MANDATORY,
    protocol.DISABLED: protocol.DISABLED,
    # Nothing here changes a program, so what would have been remediated stays a violation.
    protocol.REMEDIATE: protocol.MANDATORY,
}
_SEVERITIES = {"high": protocol.POLICY_SEVERITY_HIGH, "critical": protocol.POLICY_SEVERITY_CRITICAL}
_EMPTY = protocol.AnalyzeResponse()

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. looks_at: whether it reads resources of a type; check: the violations of one resource; check_stack:
    those of all resources, each with its resource's URN or an empty text (exactly one of the two); settings: what
    `--policy-pack-config` may set besides `enforcementLevel`, all of them texts, with descriptions."""

    name: str
    description: str
    severity: Literal["high", "critical"]
    looks_at: Callable[[str], bool]
    check: Callable[[Resource, Config], Iterable[str]] | None = None
    check_stack: Callable[[list[Resource], Config], Iterable[tuple[str, str]]] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    remediation_steps: str = ""


@dataclass(frozen=True, slots=True)
class Pack:
    """A policy pack. Every policy is mandatory unless the user's configuration says otherwise."""

    name: str
    policies: tuple[Policy, ...]


def serve(pack: Pack) -> None:
    """Answers the engine until it cancels or ends this process. Prints the port, which is how the engine finds it."""
    stopped = threading.Event()
    server = grpc.server(
        ThreadPoolExecutor(max_workers=2), options=[("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
    )
    analyzer_pb2_grpc.add_AnalyzerServicer_to_server(Service(pack, stopped), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # What is loaded by now stays; the collector needn't look through it during the preview.
    gc.freeze()
    sys.stdout.buffer.write(f"{port}\n".encode())
    sys.stdout.buffer.flush()
    # The terminal interrupts the engine and its packs together.
    with contextlib.suppress(KeyboardInterrupt):
        stopped.wait()
    server.stop(_GRACE_S).wait()


class Service(analyzer_pb2_grpc.AnalyzerServicer):
    """The analyzer of one pack. stopped: set by Cancel."""

    def __init__(self, pack: Pack, stopped: threading.Event):
        self._pack = pack
        self._stopped = stopped
        # Rules keep what they have read and told.
        self._lock = threading.Lock()
        self._info = _info(pack)
        self._configured({policy.name: protocol.MANDATORY for policy in pack.policies}, {})

    def _configured(self, levels: Mapping[str, int], settings: Mapping[str, Config]) -> None:
        self._levels, self._settings = levels, settings
        self._active = [policy for policy in self._pack.policies if levels[policy.name] != protocol.DISABLED]
        self._by_type: dict[str, tuple[Policy, ...]] = {}
        self._not_remediated = protocol.RemediateResponse(
            not_applicable=[
                protocol.PolicyNotApplicable(policy_name=policy.name, reason="Policy does not implement remediate")
                for policy in self._active
                if policy.check and levels[policy.name] == protocol.REMEDIATE
            ]
        )

    # What the engine asks once.

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> protocol.AnalyzerHandshakeResponse:
        return protocol.AnalyzerHandshakeResponse()

    def GetAnalyzerInfo(self, request: Any, context: grpc.ServicerContext) -> protocol.AnalyzerInfo:
        return self._info

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=importlib.metadata.version("ringfence"))

    def ConfigureStack(
        self, request: protocol.AnalyzerStackConfigureRequest, context: grpc.ServicerContext
    ) -> protocol.AnalyzerStackConfigureResponse:
        return protocol.AnalyzerStackConfigureResponse()

    def Configure(self, request: protocol.ConfigureAnalyzerRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """Takes the user's configuration, which the engine has merged with the defaults. All of it or none."""
        levels = {policy.name: protocol.MANDATORY for policy in self._pack.policies}
        settings: dict[str, Config] = {}
        problems: list[Problem] = []
        policies = {policy.name: policy for policy in self._pack.policies}
        for name, given in request.policyConfig.items():
            if name in policies:
                levels[name] = given.enforcementLevel
                settings[name] = _settings(policies[name], given, problems)
            elif name != "all":  # which the engine has applied to each policy already
                remedy = f"use one of {', '.join(['all', *policies])}"
                problems.append(Problem(self._pack.name, name, "is no policy of this pack", remedy))
        if problems:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(InputError(problems)))
        with self._lock:
            self._configured(levels, settings)
        return empty_pb2.Empty()

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self._stopped.set()
        return empty_pb2.Empty()

    # What it asks about every resource.

    def Remediate(self, request: protocol.AnalyzeRequest, context: grpc.ServicerContext) -> protocol.RemediateResponse:
        return self._not_remediated

    def Analyze(self, request: protocol.AnalyzeRequest, context: grpc.ServicerContext) -> protocol.AnalyzeResponse:
        try:
            with self._lock:
                return self._analyze(request)
        except Exception as error:
            return _fail(context, request.urn, error)

    def AnalyzeStack(
        self, request: protocol.AnalyzeStackRequest, context: grpc.ServicerContext
    ) -> protocol.AnalyzeResponse:
        try:
            with self._lock:
                return self._analyze_stack(request)
        except Exception as error:
            return _fail(context, "the stack", error)

    def _analyze(self, request: protocol.AnalyzeRequest) -> protocol.AnalyzeResponse:
        policies = self._by_type.get(request.type)
        if policies is None:
            policies = tuple(policy for policy in self._active if policy.check and policy.looks_at(request.type))
            self._by_type[request.type] = policies
        if not policies:
            return _EMPTY
        resource = resource_of(request)
        told = [
            self._diagnostic(policy, text, "")
            for policy in policies
            if policy.check
            for text in policy.check(resource, self._settings.get(policy.name, {}))
        ]
        return protocol.AnalyzeResponse(diagnostics=told) if told else _EMPTY

    def _analyze_stack(self, request: protocol.AnalyzeStackRequest) -> protocol.AnalyzeResponse:
        policies = [policy for policy in self._active if policy.check_stack]
        resources = stack_of(request.resources, lambda type_: any(policy.looks_at(type_) for policy in policies))
        return protocol.AnalyzeResponse(
            diagnostics=[
                self._diagnostic(policy, text, urn)
                for policy in policies
                if policy.check_stack
                for text, urn in policy.check_stack(resources, self._settings.get(policy.name, {}))
            ]
        )

    def _diagnostic(self, policy: Policy, text: str, urn: str) -> protocol.AnalyzeDiagnostic:
        return protocol.AnalyzeDiagnostic(
            policyName=policy.name,
            policyPackName=self._pack.name,
            message=f"{policy.description}\n{text}",
            urn=urn,
            description=policy.description,
            enforcementLevel=_LEVELS[self._levels[policy.name]],
            severity=_SEVERITIES[policy.severity],
        )


def _info(pack: Pack) -> protocol.AnalyzerInfo:
    """What the engine shows of the pack and checks configurations against. The version is PulumiPolicy.yaml's."""
    info = protocol.AnalyzerInfo(name=pack.name, supportsConfig=True)
    for policy in pack.policies:
        told = info.policies.add(
            name=policy.name,
            description=policy.description,
            enforcementLevel=protocol.MANDATORY,
            policy_type=protocol.POLICY_TYPE_RESOURCE if policy.check else protocol.POLICY_TYPE_STACK,
            severity=_SEVERITIES[policy.severity],
            remediation_steps=policy.remediation_steps,
        )
        schema = {name: {"type": "string", "description": text} for name, text in policy.settings.items()}
        told.configSchema.properties.update(schema)
    return info


def _settings(policy: Policy, given: protocol.PolicyConfig, problems: list[Problem]) -> dict[str, str]:
    """A policy's settings. The engine has checked their types; names that it doesn't know it lets through."""
    if given.enforcementLevel not in _LEVELS:
        remedy = "use advisory, mandatory, remediate or disabled"
        problems.append(Problem(policy.name, "enforcementLevel", f"{given.enforcementLevel} is no level", remedy))
    found: dict[str, str] = {}
    for name, value in given.properties.fields.items():
        if name not in policy.settings:
            remedy = f"use one of {', '.join(['enforcementLevel', *policy.settings])}"
            problems.append(Problem(policy.name, name, "is no setting of this policy", remedy))
        elif value.WhichOneof("kind") != "string_value":
            problems.append(Problem(policy.name, name, "is no text", "write it as a JSON string"))
        else:
            found[name] = value.string_value
    return found


def _fail(context: grpc.ServicerContext, what: str, error: Exception) -> Any:
    """Ends a call, and with it the preview. The error's own words may hold a secret, so only its place is told."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    told = (
        f"{what} can't be checked, so it doesn't pass: {where}. This is a fault of the pack: report it with this line."
    )
    context.abort(grpc.StatusCode.INTERNAL, told)
