"""Serves a pack's policies over the engine's analyzer protocol. Trust zone: operator.

The engine asks about every resource twice, one after the other, so that each call adds to the preview's time
(docs/decisions). Whatever is unexpected fails the call, and with it the preview; as INTERNAL, never as UNIMPLEMENTED,
which the engine takes for "nothing to say". Only the packs load this module: the rest of ringfence runs without Pulumi.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from ringfence.errors import InputError, Problem
from ringfence.review.analyzer_protocol import analyzer_pb2 as protocol
from ringfence.review.analyzer_protocol import plugin_pb2
from ringfence.review.analyzer_values import resource_of, stack_of
from ringfence.review.resource import Resource
from ringfence.review.rpc_server import INTERNAL, INVALID_ARGUMENT, Handler, RpcError, Server

_LEVELS = {
    protocol.ADVISORY: protocol.ADVISORY,
    protocol.MANDATORY: protocol.MANDATORY,
    protocol.DISABLED: protocol.DISABLED,
    # Nothing here changes a program, so what would have been remediated stays a violation.
    protocol.REMEDIATE: protocol.MANDATORY,
}
_SEVERITIES = {"high": protocol.POLICY_SEVERITY_HIGH, "critical": protocol.POLICY_SEVERITY_CRITICAL}

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. looks_at: whether it reads resources of a type; check: the violations of one resource; check_stack:
    those of all resources, each with its resource's URN or an empty text (exactly one of the two); prepare: reads ahead
    what the checks will read; settings: what `--policy-pack-config` may set besides `enforcementLevel`, all of them texts,
    with descriptions."""

    name: str
    description: str
    severity: Literal["high", "critical"]
    looks_at: Callable[[str], bool]
    check: Callable[[Resource, Config], Iterable[str]] | None = None
    check_stack: Callable[[list[Resource], Config], Iterable[tuple[str, str]]] | None = None
    prepare: Callable[[Config], object] | None = None
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
    server = Server(Service(pack, stopped).methods())
    server.start()
    # What is loaded by now stays, and what the rules make while the engine waits for them is hardly ever a cycle: looking
    # for some at every 700 new objects took a quarter of what the pack adds to a preview of 500 roles.
    gc.freeze()
    gc.set_threshold(100_000)
    sys.stdout.buffer.write(f"{server.port}\n".encode())
    sys.stdout.buffer.flush()
    # The terminal interrupts the engine and its packs together.
    with contextlib.suppress(KeyboardInterrupt):
        stopped.wait()
        # The cancellation itself is answered before this process ends.
        with server.answering:
            pass


class Service:
    """The analyzer of one pack, for one call at a time. stopped: set by Cancel."""

    def __init__(self, pack: Pack, stopped: threading.Event):
        self._pack = pack
        self._stopped = stopped
        # Against the preparation, which goes on beside the start of the program.
        self._lock = threading.Lock()
        self._info = _info(pack)
        # URN → names of the properties that a resource was declared with.
        self._given: dict[str, frozenset[str]] = {}
        self._configured({policy.name: protocol.MANDATORY for policy in pack.policies}, {})

    def methods(self) -> dict[str, Handler]:
        """Every call of the protocol (pulumi/pulumi, proto/pulumi/analyzer.proto) by its path."""
        answers: dict[str, Handler] = {
            "Handshake": lambda body: protocol.AnalyzerHandshakeResponse().SerializeToString(),
            "GetAnalyzerInfo": lambda body: self._info.SerializeToString(),
            "GetPluginInfo": lambda body: _plugin_info().SerializeToString(),
            "ConfigureStack": lambda body: protocol.AnalyzerStackConfigureResponse().SerializeToString(),
            "Configure": lambda body: self.configure(protocol.ConfigureAnalyzerRequest.FromString(body)),
            "Cancel": lambda body: self.cancel(),
            # Nothing is ever remediated, whatever the resource.
            "Remediate": lambda body: self._not_remediated,
            "Analyze": lambda body: self.analyze(protocol.AnalyzeRequest.FromString(body)),
            "AnalyzeStack": lambda body: self.analyze_stack(protocol.AnalyzeStackRequest.FromString(body)),
        }
        return {f"/pulumirpc.Analyzer/{name}": _failing_closed(name, answer) for name, answer in answers.items()}

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
        ).SerializeToString()

    def configure(self, request: protocol.ConfigureAnalyzerRequest) -> bytes:
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
            raise RpcError(INVALID_ARGUMENT, str(InputError(problems)))
        with self._lock:
            self._configured(levels, settings)
        threading.Thread(target=self._prepare, daemon=True).start()
        return empty_pb2.Empty().SerializeToString()

    def _prepare(self) -> None:
        """Reads ahead while the engine starts the program. What fails here fails again, and counts, in a check."""
        with self._lock, contextlib.suppress(Exception):
            for policy in self._active:
                if policy.prepare:
                    policy.prepare(self._settings.get(policy.name, {}))

    def cancel(self) -> bytes:
        """Ends the service once this is answered."""
        self._stopped.set()
        return empty_pb2.Empty().SerializeToString()

    def analyze(self, request: protocol.AnalyzeRequest) -> bytes:
        """What the rules on single resources say of one."""
        self._given[request.urn] = frozenset(request.properties.fields)
        policies = self._by_type.get(request.type)
        if policies is None:
            policies = tuple(policy for policy in self._active if policy.check and policy.looks_at(request.type))
            self._by_type[request.type] = policies
        if not policies:
            return b""
        resource = resource_of(request)
        with self._lock:
            told = [
                self._diagnostic(policy, text, "")
                for policy in policies
                if policy.check
                for text in policy.check(resource, self._settings.get(policy.name, {}))
            ]
        return protocol.AnalyzeResponse(diagnostics=told).SerializeToString()

    def analyze_stack(self, request: protocol.AnalyzeStackRequest) -> bytes:
        """What the rules on all resources say of a stack."""
        policies = [policy for policy in self._active if policy.check_stack]
        looked_at = functools.cache(lambda type_: any(policy.looks_at(type_) for policy in policies))
        resources = stack_of(request.resources, looked_at, self._given)
        with self._lock:
            told = [
                self._diagnostic(policy, text, urn)
                for policy in policies
                if policy.check_stack
                for text, urn in policy.check_stack(resources, self._settings.get(policy.name, {}))
            ]
        told += self._lowered()
        return protocol.AnalyzeResponse(diagnostics=told).SerializeToString()

    def _lowered(self) -> list[protocol.AnalyzeDiagnostic]:
        """What the configuration has made weaker: who reads a preview that passes must not take it for a full one."""
        words = {protocol.ADVISORY: "advisory, so what it finds stops nothing", protocol.DISABLED: "disabled"}
        return [
            protocol.AnalyzeDiagnostic(
                policyName=policy.name,
                policyPackName=self._pack.name,
                message=f"{policy.description}\nThe configuration makes {policy.name} {words[self._levels[policy.name]]}.",
                description=policy.description,
                enforcementLevel=protocol.ADVISORY,
                severity=_SEVERITIES[policy.severity],
            )
            for policy in self._pack.policies
            if self._levels[policy.name] in words
        ]

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


def _plugin_info() -> Message:
    import importlib.metadata

    return plugin_pb2.PluginInfo(version=importlib.metadata.version("ringfence"))


def _failing_closed(name: str, answer: Handler) -> Handler:
    """The same call, whose errors fail the preview. An error's own words may hold a secret: only its place is told."""

    def answered(body: bytes) -> bytes:
        try:
            return answer(body)
        except RpcError:
            raise
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            told = (
                f"{name} can't be answered, so nothing passes: {where}. This is a fault of the pack: report this line."
            )
            raise RpcError(INTERNAL, told) from error

    return answered
