"""A real server on a free port, a provider of tokens, and a runner whose tasks end when the test says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from ringfence.audit import Refusals, Trail
from ringfence.catalog import load
from ringfence.invocation import Result, Status, Usage, new_id
from ringfence.names import Names
from ringfence.redaction import Redactor
from ringfence.runner.progress import Progress, State
from ringfence.service.app import application
from ringfence.service.desk import Desk
from ringfence.service.identity import Oidc
from ringfence.service.keys import FileKeys
from ringfence.service.limits import Rate
from ringfence.service.metrics import Metrics
from ringfence.service.protocol import DeadlineProtocol
from ringfence.service.routes import Parts, Rates
from ringfence.service.server import Listen, Server, server
from ringfence.service.store import Store

NAMES = Names("ringfence", "test", "123456789012", "us-east-1")
CATALOG = Path(__file__).parents[2] / "catalog"
ISSUER, AUDIENCE, KEY_ID = "https://id.example.com", "ringfence", "key-1"


class Provider:
    """Signs tokens."""

    def __init__(self, folder: Path):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.jwks = folder / "jwks.json"
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        self.jwks.write_text(json.dumps({"keys": [public | {"kid": KEY_ID, "use": "sig", "alg": "RS256"}]}))

    def token(self, user: str = "ana@example.com", groups: Any = ("analysts",), **changes: Any) -> str:
        """A good token, apart from `changes` (a claim of None is left out)."""
        key, algorithm = changes.pop("key", self.key), changes.pop("algorithm", "RS256")
        headers = {
            name: value for name, value in ({"kid": KEY_ID} | changes.pop("headers", {})).items() if value is not None
        }
        now = int(time.time())
        groups = list(groups) if isinstance(groups, tuple) else groups
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + 300, "groups": groups}
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


class ScriptedRunner:
    """Takes tasks as the real runner does. `hold`: they run until released or cancelled; `failure`: raised instead."""

    def __init__(self) -> None:
        self.hold = False
        self.failure: Exception | None = None
        self.calls: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = []
        self.running: dict[str, asyncio.Event] = {}
        self.cancelled: set[str] = set()
        self.most = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, user_id: str, task_prompt: str, allowed_tools: Sequence[str], **options: Any) -> Result:
        self._loop = asyncio.get_running_loop()
        report = options.pop("report")
        self.calls.append((user_id, task_prompt, tuple(allowed_tools), options))
        if self.failure:
            raise self.failure
        invocation_id, done = new_id(), asyncio.Event()
        self.running[invocation_id] = done
        self.most = max(self.most, len(self.running))
        report(Progress(invocation_id, "record", State.BEGIN, "", datetime.now(UTC)))
        if self.hold:
            await done.wait()
        else:
            await asyncio.sleep(0)
        del self.running[invocation_id]
        status = Status.CANCELLED if invocation_id in self.cancelled else Status.SUCCEEDED
        result = Result(
            invocation_id, status, f"did: {task_prompt}", Usage(10, 5, 1, 1), Decimal("0.01"), new_id(), 0.1
        )
        report(Progress(invocation_id, "result", State.ENDED, status.value, datetime.now(UTC), result))
        return result

    def cancel(self, invocation_id: str) -> bool:
        if invocation_id not in self.running:
            return False
        self.cancelled.add(invocation_id)
        self.running[invocation_id].set()
        return True

    def release(self) -> None:
        """Lets every held task end. From any thread."""
        self.hold = False
        for done in list(self.running.values()):
            self._loop.call_soon_threadsafe(done.set)


@dataclasses.dataclass
class Service:
    """A service that runs."""

    url: str
    port: int
    client: httpx.Client
    runner: ScriptedRunner
    server: Server
    parts: Parts
    trail: Path
    provider: Provider
    thread: threading.Thread

    def headers(self, user: str = "ana@example.com", groups: Any = ("analysts",), **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.provider.token(user, groups, **changes)}"}

    def invoke(
        self, prompt: str = "read", tools: Sequence[str] = ("s3-report-reader",), **options: Any
    ) -> httpx.Response:
        headers = options.pop("headers", None) or self.headers()
        wait = {"wait": options.pop("wait", 0)}
        body = {"prompt": prompt, "tools": list(tools), **options}
        return self.client.post("/v1/invocations", json=body, headers=headers, params=wait, timeout=300)

    def kinds(self) -> list[str]:
        return [json.loads(line)["metadata"]["event_code"] for line in self.trail.read_text().splitlines()]


ServiceFactory = Callable[..., Any]


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Provider:
    return Provider(tmp_path_factory.mktemp("provider"))


@contextmanager
def _running(folder: Path, provider: Provider, **options: Any) -> Iterator[Service]:
    runner = options.pop("runner", None) or ScriptedRunner()
    trail = Trail(folder / "audit" / "trail.jsonl")
    store, metrics = Store(folder / "service" / "requests.sqlite"), Metrics()
    desk_options = {key: options.pop(key) for key in ("max_running", "max_open") if key in options}
    desk = Desk(runner, store, metrics, **desk_options)
    rate = options.pop("rate", None) or (60_000, 10_000)
    listen = options.pop("listen", None) or Listen(port=0)
    oidc = None if options.pop("only_certificates", False) else Oidc(ISSUER, AUDIENCE, FileKeys(provider.jwks))
    parts = Parts(
        load(CATALOG), desk, store, trail, Refusals(trail), metrics, Redactor(), oidc, listen.client_ca is not None,
        Rates(Rate(*rate), Rate(*rate), Rate(30, 30)), "scripted", options.pop("more_metrics", str), NAMES,
    )  # fmt: skip
    guard = {key: options.pop(key) for key in ("max_body_bytes", "body_s") if key in options}
    made = server(application(parts, **guard), desk, listen, options.pop("drain_s", 5.0))
    deadlines = {key: options.pop(key) for key in ("head_s", "drain_write_s") if key in options}
    if deadlines:
        values = {"head_s": deadlines.get("head_s", 10.0), "drain_s": deadlines.get("drain_write_s", 30.0)}
        made.config.http_protocol_class = type("Quick", (DeadlineProtocol,), values)
    assert not options, options
    sock = socket.create_server((listen.host, 0))
    port = sock.getsockname()[1]
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(sockets=[sock])), daemon=True)
    thread.start()
    while not made.started and thread.is_alive():
        time.sleep(0.01)
    scheme = "https" if listen.certificate else "http"
    url = f"{scheme}://{listen.host}:{port}"
    client = httpx.Client(base_url=url, trust_env=False, timeout=300)
    try:
        yield Service(url, port, client, runner, made, parts, trail.path, provider, thread)
    finally:
        client.close()
        if runner.running:
            runner.release()
        if thread.is_alive():
            made._loop.call_soon_threadsafe(made.begin_to_drain)
        thread.join(30)
        store.close()
        assert not thread.is_alive(), "the server did not end"


@pytest.fixture
def start_service(tmp_path: Path, provider: Provider) -> ServiceFactory:
    """`with start_service(**options) as service`: see `_running`."""

    def start(**options: Any) -> Any:
        return _running(options.pop("folder", tmp_path), provider, **options)

    return start


@pytest.fixture
def service(start_service: ServiceFactory) -> Iterator[Service]:
    with start_service() as running:
        yield running
