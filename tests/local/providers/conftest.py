"""A backend whose things live in a dict, served over real gRPC, and a client that says what the engine says."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from ringfence.local.providers.base import (
    UNKNOWN,
    CheckFailure,
    DiffResult,
    NotFound,
    PartialCreate,
    ProviderError,
    ReadResult,
)
from ringfence.local.providers.paths import changed_paths, format_path
from ringfence.local.providers.proto import provider_pb2, provider_pb2_grpc
from ringfence.local.providers.server import start
from ringfence.local.providers.values import encode

URN = "urn:pulumi:test::project::test:index:Thing::thing-one"


class MemoryBackend:
    """Type ``test:index:Thing``: `name` replaces, `token` is always secret, `fail` chooses a way to fail."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Any]] = {}
        self.settings: dict[str, Any] = {}
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.cancels = 0

    def configure(self, args: dict[str, Any]) -> None:
        if args.get("fail"):
            raise ProviderError(f"the key {args['key']} is refused")
        self.settings = args

    def check(
        self, type_: str, urn: str, olds: dict[str, Any], news: dict[str, Any], random_seed: bytes
    ) -> tuple[dict[str, Any], list[CheckFailure]]:
        inputs = {"size": 1} | news
        failures = []
        if inputs["size"] is not UNKNOWN and inputs["size"] < 0:
            failures.append(CheckFailure("size", f"{inputs['size']} is below 0: write 0 or more"))
        return inputs, failures

    def diff(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
    ) -> DiffResult:
        self.seen.append(("diff", news))
        changed = tuple(format_path(path) for path in changed_paths(old_inputs, news))
        replaces = tuple(path for path in changed if path == "name")
        return DiffResult(changed, replaces, delete_before_replace=bool(replaces))

    def create(self, type_: str, urn: str, inputs: dict[str, Any], preview: bool) -> tuple[str, dict[str, Any]]:
        self.seen.append(("create", inputs))
        if preview:
            return "", inputs | {"arn": UNKNOWN}
        match inputs.get("fail"):
            case "refused":
                raise ProviderError(f"name {inputs['name']} with {inputs['password']} is refused")
            case "broken":
                raise RuntimeError(f"connection lost, sent {inputs['password']}")
            case "partial":
                raise PartialCreate(
                    "half", inputs | {"arn": "arn:half", "token": "t"}, f"tags with {inputs['password']} failed"
                )
        id_ = inputs["name"]
        self.things[id_] = copy.deepcopy(inputs)
        return id_, inputs | {"arn": f"arn:{id_}", "token": "s3cr3t-token"}

    def read(
        self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> ReadResult | None:
        thing = self.things.get(id_)
        return None if thing is None else ReadResult(id_, thing, thing | {"arn": f"arn:{id_}", "token": "s3cr3t-token"})

    def update(
        self,
        type_: str,
        urn: str,
        id_: str,
        old_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
        news: dict[str, Any],
        preview: bool,
    ) -> dict[str, Any]:
        self.seen.append(("update", news))
        if preview:
            return news
        if id_ not in self.things:
            raise NotFound(f"{id_} is gone: refresh the stack")
        self.things[id_] = copy.deepcopy(news)
        return old_outputs | news

    def delete(self, type_: str, urn: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        self.things.pop(id_, None)

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"token": token, "echo": args}

    def secret_outputs(self, type_: str) -> frozenset[str]:
        return frozenset({"token"})

    def cancel(self) -> None:
        self.cancels += 1


class Engine:
    """Sends requests as the engine does, with secrets and unknowns on the wire."""

    urn = URN

    def __init__(self, port: int, backend: MemoryBackend):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.stub = provider_pb2_grpc.ResourceProviderStub(self.channel)
        self.backend = backend

    def create(self, inputs: dict[str, Any], mask: Any = None, preview: bool = False) -> Any:
        request = provider_pb2.CreateRequest(urn=URN, properties=encode(inputs, mask), preview=preview)
        return self.stub.Create(request)

    def diff(self, olds: dict[str, Any], news: dict[str, Any], ignore: tuple[str, ...] = ()) -> Any:
        request = provider_pb2.DiffRequest(
            id="i", urn=URN, old_inputs=encode(olds), olds=encode(olds), news=encode(news), ignoreChanges=ignore
        )
        return self.stub.Diff(request)


@pytest.fixture
def engine() -> Iterator[Engine]:
    backend = MemoryBackend()
    server, port = start(backend, "test", "1.2.3")
    client = Engine(port, backend)
    yield client
    client.channel.close()
    server.stop(None).wait()
