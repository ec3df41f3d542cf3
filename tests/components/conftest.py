"""Runs a program under Pulumi mocks and records every registration: inputs, place in the tree and resource options.

    def test_the_bucket_is_kept(record, preview):
        recording = record(lambda: AuditTrail("audit", args), preview=preview)
        bucket = recording.one("aws:s3/bucket:Bucket")
        assert bucket.options.protect
        assert bucket.parent.endswith("$ringfence:index:AuditTrail::audit")

A run has its own Pulumi context, waits for every resource, `apply` and output, and re-raises what any of them raised.
In a preview a created resource's id and computed properties are unknown (`UNKNOWN`), as they are with a real provider.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from google.protobuf import json_format
from pulumi.runtime import mocks, rpc
from pulumi.runtime.settings import SETTINGS
from pulumi.runtime.stack import run_pulumi_func

GOLDEN = Path(__file__).parent / "golden"


class _Unknown:
    """The one value that stands for "known only after creation" in recorded inputs and outputs."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class Options:
    """Resource options as the engine receives them. `depends_on` holds the URNs of explicit dependencies."""

    protect: bool = False
    delete_before_replace: bool = False
    retain_on_delete: bool = False
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    additional_secret_outputs: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    deleted_with: str = ""
    provider: str = ""
    import_id: str = ""
    custom_timeouts: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Registered:
    """One registration. `inputs` have the provider's own (camelCase) keys, secrets unwrapped; `parent` is a URN."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    urn: str
    parent: str
    custom: bool
    options: Options
    secret_inputs: frozenset[str]

    @property
    def id(self) -> str:
        """The id that the mock gives it outside of a preview."""
        return f"{self.name}-id"

    @property
    def parent_name(self) -> str:
        """Logical name of the parent resource."""
        return self.parent.rpartition("::")[2]

    @property
    def parent_type(self) -> str:
        """Type token of the parent resource; the stack's own is ``pulumi:pulumi:Stack``."""
        return self.parent.split("::")[2].rpartition("$")[2]

    def __getitem__(self, key: str) -> Any:
        return self.inputs[key]


Computed = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]
Called = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class Recording:
    """What one run registered, and `outputs`: the program's return value with every Output in it resolved."""

    preview: bool
    resources: list[Registered]
    outputs: Any = None

    def of_type(self, type_: str) -> list[Registered]:
        """Every resource of that type token, in order of logical name."""
        return sorted((r for r in self.resources if r.type == type_), key=lambda r: r.name)

    def one(self, type_: str, name: str | None = None) -> Registered:
        """The only resource of that type (and logical name); an assertion error names what there is otherwise."""
        found = [r for r in self.of_type(type_) if name is None or r.name == name]
        assert len(found) == 1, f"{len(found)} of {type_} {name or ''}; there are {sorted(map(_label, self.resources))}"
        return found[0]

    def children_of(self, urn: str) -> list[Registered]:
        """The resources whose direct parent is `urn`."""
        return [r for r in self.resources if r.parent == urn]

    def unparented(self) -> list[Registered]:
        """Cloud resources that hang on the stack itself instead of on a component."""
        return [
            r
            for r in self.resources
            if r.custom and r.parent_type == "pulumi:pulumi:Stack" and not r.type.startswith("pulumi:providers:")
        ]

    def types(self) -> dict[str, int]:
        """How many resources of each type there are."""
        names = [r.type for r in self.resources]
        return {name: names.count(name) for name in sorted(set(names))}


def _label(resource: Registered) -> str:
    return f"{resource.type} {resource.name}"


class _Mocks(mocks.Mocks):
    def __init__(self, preview: bool, computed: Computed | None, called: Called | None):
        self._preview, self._computed, self._called = preview, computed, called

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict]:
        if not args.custom:
            return "", dict(args.inputs)
        if args.typ.startswith("pulumi:providers:"):
            return f"{args.name}-provider", dict(args.inputs)
        if self._preview:
            return "", dict(args.inputs)
        state = {"arn": f"arn:aws:mock:us-east-1:111122223333:{args.name}", **args.inputs}
        if self._computed:
            state |= self._computed(args.typ, args.name, _plain(args.inputs))
        return f"{args.name}-id", state

    def call(self, args: mocks.MockCallArgs) -> tuple[dict, list | None]:
        assert self._called is not None, f"the program called the data source {args.token}; components may not"
        return dict(self._called(args.token, _plain(args.args))), []


class _Monitor(mocks.MockMonitor):
    """Keeps the whole registration request, since `MockResourceArgs` drops the options."""

    def __init__(self, recorder: _Mocks, recorded: list[Registered]):
        super().__init__(recorder)
        self._recorded = recorded

    def RegisterResource(self, request: Any) -> Any:  # name fixed by the gRPC service
        if request.type != "pulumi:pulumi:Stack":
            urn = self.make_urn(request.parent, request.type, request.name)
            assert urn not in {r.urn for r in self._recorded}, f"two resources have the URN {urn}"
            self._recorded.append(_registered(request, urn))
        return super().RegisterResource(request)


def _registered(request: Any, urn: str) -> Registered:
    raw = rpc.deserialize_properties(request.object, keep_unknowns=True)
    implied = {u for d in request.propertyDependencies.values() for u in d.urns}
    timeouts = request.customTimeouts
    options = Options(
        protect=request.protect,
        delete_before_replace=request.deleteBeforeReplace,
        retain_on_delete=request.retainOnDelete,
        ignore_changes=tuple(request.ignoreChanges),
        replace_on_changes=tuple(request.replaceOnChanges),
        additional_secret_outputs=tuple(request.additionalSecretOutputs),
        depends_on=tuple(sorted(set(request.dependencies) - implied)),
        deleted_with=request.deletedWith,
        provider=request.provider,
        import_id=request.importId,
        custom_timeouts={k: getattr(timeouts, k) for k in ("create", "update", "delete") if getattr(timeouts, k)},
        aliases=tuple(json_format.MessageToDict(alias) for alias in request.aliases),
    )
    secret = frozenset(key for key, value in raw.items() if rpc.is_rpc_secret(value))
    return Registered(request.type, request.name, _plain(raw), urn, request.parent, request.custom, options, secret)


def _plain(value: Any) -> Any:
    """Python data with secrets unwrapped and `UNKNOWN` for unknowns."""
    if isinstance(value, pulumi.output.Unknown):
        return UNKNOWN
    if rpc.is_rpc_secret(value):
        return _plain(value["value"])
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


async def _resolve(value: Any) -> Any:
    """`value` with each Output replaced by its value, or by `UNKNOWN`."""
    if isinstance(value, pulumi.Output):
        known = await value.is_known()
        return await _resolve(await value.future(with_unknowns=True)) if known else UNKNOWN
    if isinstance(value, pulumi.output.Unknown):
        return UNKNOWN
    if isinstance(value, Mapping):
        return {key: await _resolve(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [await _resolve(item) for item in value]
    return value


class Recorder:
    """Callable `record(program, preview=False, computed=None) -> Recording`.

    program: makes the resources; what it returns (Outputs, in dicts and lists too) ends up in `Recording.outputs`.
    computed: `(type, name, inputs) -> properties` that the provider computes, added outside of previews.
    called: `(token, arguments) -> result` of a data source; without it none may be called.
    """

    def __call__(
        self,
        program: Callable[[], Any],
        *,
        preview: bool = False,
        computed: Computed | None = None,
        called: Called | None = None,
        project: str = "ringfence",
        stack: str = "test",
    ) -> Recording:
        recording = Recording(preview, [])

        def run() -> None:
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            try:
                recorder = _Mocks(preview, computed, called)
                mocks.set_mocks(recorder, project, stack, preview, monitor=_Monitor(recorder, recording.resources))
                SETTINGS.outputs = set()  # set_mocks leaves the previous run's pending outputs in place
                returned: list[Any] = []

                async def body() -> None:
                    result = program()
                    returned.append(await result if inspect.isawaitable(result) else result)

                loop.run_until_complete(run_pulumi_func(body))
                recording.outputs = loop.run_until_complete(_resolve(returned[0]))
            finally:
                left = asyncio.all_tasks(loop)  # only after a failure
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
                asyncio.set_event_loop(None)
                loop.close()

        contextvars.Context().run(run)
        return recording


@pytest.fixture
def record() -> Recorder:
    """Runs a program under mocks; see `Recorder`."""
    return Recorder()


@pytest.fixture(params=[True, False], ids=["preview", "up"])
def preview(request: pytest.FixtureRequest) -> bool:
    """Both kinds of run: a test that takes it runs once as a preview and once as an update."""
    return bool(request.param)


@pytest.fixture
def unknown() -> object:
    """The sentinel for a value known only after creation: `assert r["vpcId"] is unknown`."""
    return UNKNOWN


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """`golden("egress/envoy.json", text)` compares with the committed file; with UPDATE_GOLDEN=1 set, rewrites it."""

    def check(path: str, text: str) -> None:
        file = GOLDEN / path
        if os.environ.get("UPDATE_GOLDEN") == "1":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"no golden file {path}; write it with UPDATE_GOLDEN=1 and review it"
        assert text == file.read_text(encoding="utf-8"), f"{path} differs; if meant, rewrite it with UPDATE_GOLDEN=1"

    return check
