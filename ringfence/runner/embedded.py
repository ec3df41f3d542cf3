"""The control side on this machine: sandboxes by gVisor here, AWS by the embedded server.

Trust zone: control side.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from ringfence.broker import Credential, lookup
from ringfence.broker.factory import broker_for, events_client
from ringfence.catalog import load as load_catalog
from ringfence.catalog.model import Catalog
from ringfence.egress.policy import ways_out
from ringfence.errors import RingfenceError
from ringfence.local import services, target, toolchain
from ringfence.local.lifecycle import Embedded
from ringfence.local.operator_key import operator_key
from ringfence.local.state import Home, read_json
from ringfence.runner.assembly import SANDBOXES, Address, ControlSide, MakeExecutor, Plan, collaborators, control_side
from ringfence.runner.executor import Executor, Report
from ringfence.runner.kubernetes_executor import KubernetesExecutor
from ringfence.runner.local_executor import LocalExecutor, Proxy, Ways, image_root
from ringfence.runner.ports import Collaborators
from ringfence.settings import Settings, load_stack

# No retry helps against a server on this machine, and no answer takes long.
_CLIENT = Config(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=30, proxies={})

# The embedded AWS tells of a call at once.
_EVENTS_LATE, _WATCH_SECONDS = timedelta(seconds=30), 10.0


@dataclass(frozen=True, slots=True)
class Ground:
    """The embedded target as a control side needs it."""

    project_dir: Path
    stack: str
    home: Home
    settings: Settings
    catalog: Catalog

    @property
    def endpoint(self) -> str:
        """The embedded AWS server."""
        return target.endpoint(self.home.kept_ports())

    def client_of(self, credential: Credential, service: str) -> Any:
        """A client with a credential that the broker issued."""
        session = boto3.session.Session(
            credential.access_key_id,
            credential.secret_access_key,
            credential.session_token,
            region_name=self.settings.region,
        )
        return session.client(service, endpoint_url=self.endpoint, config=_CLIENT)

    def secrets(self) -> tuple[str, ...]:
        """What nothing may show: the operator's key."""
        return (operator_key(self.home).secret_access_key,)


def stands(embedded: Embedded) -> bool:
    """Whether the environment stands and its services are those that hold it."""
    home = embedded.home
    if services.aws_health(home) is None:
        return False
    try:
        return read_json(home.last_up).get("incarnation") == services.incarnation(home)
    except (RingfenceError, OSError):
        return False


def ground(embedded: Embedded, stack: str) -> Ground:
    """What runs there. Stands it up first when it doesn't stand. Raises RingfenceError, InputError."""
    settings = load_stack(embedded.project_dir, stack)
    catalog = load_catalog(embedded.project_dir / settings.catalog_path)
    if settings.target != "embedded":
        raise RingfenceError(
            f"stack {stack} is on AWS: this command runs sandboxes on this machine\n"
            "    remedy: pick an embedded stack, or call the environment's service"
        )
    if not stands(embedded):
        embedded.clock.say("the environment does not stand here: standing it up first, once")
        embedded.up()
    return Ground(embedded.project_dir, stack, embedded.home, settings, catalog)


def _local(found: Ground, report: Report, proxy: Proxy) -> MakeExecutor:
    runsc = toolchain.resolve(["runsc"], report=report).path("runsc")
    root = image_root(report)
    aws: Address = ("127.0.0.1", found.home.kept_ports()["aws"])

    def make(gateway: Address) -> Executor:
        ways = Ways(gateway=gateway, tools=proxy.listeners, aws=aws, proxy=proxy)
        return LocalExecutor(found.home.root / SANDBOXES, runsc, root, ways)

    return make


def _kubernetes(found: Ground) -> MakeExecutor:
    path = Path(found.settings.kubeconfig) if found.settings.kubeconfig else found.home.kubeconfig

    def make(_: Address) -> Executor:
        return KubernetesExecutor.of(path)

    return make


def _plan(found: Ground, report: Report, executor: str, script: Path | None, options: Mapping[str, Any]) -> Plan:
    if executor == "kubernetes":
        make, egress = _kubernetes(found), None
    else:
        proxy = Proxy(ways_out(found.catalog.tools))
        make, egress = _local(found, report, proxy), proxy.serving
    return Plan(
        names=found.settings.names,
        catalog=found.catalog,
        folder=found.home.root,
        make_broker=lambda: broker_for(found.project_dir, found.stack, found.home),
        make_executor=make,
        egress=egress,
        secrets=found.secrets,
        script=script,
        events=functools.partial(lookup, events_client(found.project_dir, found.stack, found.home)),
        late=_EVENTS_LATE,
        watch_seconds=_WATCH_SECONDS,
        **options,
    )


@contextmanager
def parts(found: Ground, report: Report, *, executor: str = "local") -> Iterator[Collaborators]:
    """What a reaper works with. executor: as in `running`."""
    with collaborators(_plan(found, report, executor, None, {})) as made:
        yield made


@asynccontextmanager
async def running(
    found: Ground, report: Report, *, executor: str = "local", script: Path | None = None, **options: Any
) -> AsyncIterator[ControlSide]:
    """The control side on this machine, while the context is open.

    executor: ``local`` (gVisor here) or ``kubernetes`` (the cluster of the settings' kubeconfig); options: of `Plan`.
    Raises RingfenceError when a part can't be had; never by running with less isolation.
    """
    async with control_side(_plan(found, report, executor, script, options), report) as made:
        yield made


__all__ = ["Ground", "ground", "parts", "running", "stands"]
