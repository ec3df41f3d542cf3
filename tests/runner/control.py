"""A whole control side in one folder, from its real parts; a killed process's successor builds the same one again."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from kubernetes import client

from ringfence import access, image
from ringfence.audit import Refusals, Trail
from ringfence.broker import Broker, SecretsManagerStore, SqliteLedger
from ringfence.catalog.loader import load
from ringfence.catalog.model import Catalog
from ringfence.gateway import Gateway
from ringfence.gateway.scripted import Scripted
from ringfence.gateway.scripted import load as load_script
from ringfence.gateway.serving import serving
from ringfence.iam.tool_documents import broker_role_name
from ringfence.local import toolchain
from ringfence.names import RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Names
from ringfence.runner.journal import SqliteJournal
from ringfence.runner.kubernetes_client import connect
from ringfence.runner.kubernetes_executor import KubernetesExecutor
from ringfence.runner.local_executor import LocalExecutor, Root, Ways
from ringfence.runner.manifests import UnitLimits
from ringfence.runner.owners import ProcessOwners
from ringfence.runner.ports import Collaborators
from ringfence.runner.threads import LoopThread
from ringfence.runner.unit_settings import GatewayAddress, UnitSettings

ROOT = Path(__file__).resolve().parents[2]
NAMES = Names("ringfence", "test", "123456789012", "us-east-1")
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
IMAGE = f"{REGISTRY}/agent@sha256:{'a' * 64}"
RUNNER_USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{RUNNER_SERVICE_ACCOUNT}"
PROXY = "10.42.0.5/32"
WEB_PORT = 15123
TOOL_PORTS = {"web-fetch": WEB_PORT, "s3-report-reader": 15124, "ticket-store": 15125, "email-notifier": 15126}
GROUPS = ("analysts",)
OPERATOR = ("operator", "operator-secret")
REPORTS = f"example-reports-{NAMES.account_id}"
SCRIPT = "steps:\n  - say: done\n    repeat: forever\n"


def catalog() -> Catalog:
    """The example environment's."""
    return load(ROOT / "catalog")


def as_runner(kubeconfig: Path) -> client.ApiClient:
    """A client with the rights of the runner's service account and no others."""
    api_client = connect(kubeconfig)
    api_client.set_default_header("Impersonate-User", RUNNER_USER)
    api_client.set_default_header("Impersonate-Group", f"system:serviceaccounts:{SYSTEM_NAMESPACE}")
    return api_client


def unit_settings(gateway: tuple[str, int]) -> UnitSettings:
    """What the environment says of units."""
    return UnitSettings(
        limits=UnitLimits(),
        registries=(REGISTRY,),
        proxy_cidrs=(PROXY,),
        tool_ports=TOOL_PORTS,
        image=IMAGE,
        gateway=GatewayAddress(*gateway),
    )


@dataclass
class Control:
    """parts: what a runner gets; gateway, broker, trail: the same, typed."""

    folder: Path
    parts: Collaborators
    gateway: Gateway
    broker: Broker
    trail: Trail

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """The audit trail's records, of one kind if given."""
        lines = self.trail.path.read_text().splitlines() if self.trail.path.exists() else []
        found = [json.loads(line) for line in lines]
        return [record for record in found if not kind or record["metadata"]["event_code"] == kind]


def gateway_of(folder: Path, **options: Any) -> Gateway:
    """The gateway with the scripted model, on the folder's ledger. options: the Gateway's."""
    script = folder / "script.yaml"
    if not script.exists():
        script.write_text(SCRIPT)
    return Gateway(folder / "gateway.sqlite", [Scripted(load_script(script))], **options)


def clients(endpoint: str, key: str, secret: str, token: str | None = None) -> Callable[[str], Any]:
    """Makes boto3 clients of whoever has that key."""

    def make(service: str) -> Any:
        return boto3.session.Session().client(
            service,
            region_name=NAMES.region,
            endpoint_url=endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=Config(retries={"max_attempts": 2}, max_pool_connections=64, connect_timeout=10, read_timeout=60),
        )

    return make


def broker_of(folder: Path, endpoint: str) -> Broker:
    """The broker on the folder's ledger, with a session of its own role."""
    own = clients(endpoint, *OPERATOR)("sts").assume_role(
        RoleArn=NAMES.iam_arn(f"role/{broker_role_name(NAMES)}"), RoleSessionName="broker-1"
    )["Credentials"]
    aws = clients(endpoint, own["AccessKeyId"], own["SecretAccessKey"], own["SessionToken"])
    secrets = SecretsManagerStore(aws("secretsmanager"), NAMES)
    return Broker(
        NAMES, catalog(), aws("sts"), aws("iam"), SqliteLedger(folder / "broker.sqlite"), secret_store=secrets
    )


def control(
    folder: Path,
    endpoint: str,
    executor: Callable[[tuple[str, int]], Any],
    address: tuple[str, int],
    gateway: Gateway,
) -> Control:
    """Builds it. endpoint: of the embedded AWS; executor: makes one for a gateway's address."""
    broker = broker_of(folder, endpoint)
    trail = Trail(folder / "audit.jsonl")
    parts = Collaborators(
        names=NAMES,
        access=functools.partial(access.decide, catalog()),
        gateway=gateway,
        broker=broker,
        executor=executor(address),
        audit=trail,
        refusals=Refusals(trail),
        journal=SqliteJournal(folder / "journal.sqlite"),
        owners=ProcessOwners(),
    )
    return Control(folder, parts, gateway, broker, trail)


def kubernetes(kubeconfig: Path) -> Callable[[tuple[str, int]], KubernetesExecutor]:
    """Makes executors on a cluster."""
    return lambda address: KubernetesExecutor(as_runner(kubeconfig), unit_settings(address))


def local(folder: Path, endpoint: str) -> Callable[[tuple[str, int]], LocalExecutor]:
    """Makes executors of real gVisor sandboxes on this machine, with the runtime image in them."""
    aws = urlsplit(endpoint)
    runsc = toolchain.resolve(["runsc"], report=_told).path("runsc")
    root = Root(image.rootfs(_told), "/usr/bin/python3", image.COMMAND, tuple(image.ENVIRONMENT.items()))

    def make(address: tuple[str, int]) -> LocalExecutor:
        ways = Ways(gateway=address, aws=(aws.hostname or "", aws.port or 0))
        return LocalExecutor(folder / "sandboxes", runsc, root, ways)

    return make


def _told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def served(gateway: Gateway) -> Iterator[tuple[str, int]]:
    """Serves the gateway on 127.0.0.1 from a thread of its own."""
    loop, address, ready, end = LoopThread("gateway"), [], threading.Event(), asyncio.Event()

    async def serve() -> None:
        try:
            async with serving(gateway, "127.0.0.1") as bound:
                address.append(bound)
                ready.set()
                await end.wait()
        finally:
            ready.set()

    future = asyncio.run_coroutine_threadsafe(serve(), loop.running())
    assert ready.wait(30)
    assert address, future.exception()
    try:
        yield address[0]
    finally:
        loop.call(end.set)
        future.result(timeout=300)
        loop.stop()
        gateway.stop()
