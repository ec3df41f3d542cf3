"""The control side on the environment's own cluster: the broker's role from Pod Identity, shared ledger and journal.

Trust zone: control side.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from ringfence.broker import lookup
from ringfence.broker.factory import broker_for, events_client
from ringfence.catalog import load
from ringfence.runner.assembly import Address, ControlSide, Plan, collaborators, control_side
from ringfence.runner.executor import Report
from ringfence.runner.kubernetes_executor import KubernetesExecutor
from ringfence.runner.kubernetes_records import LeaseJournal, LeaseOwners
from ringfence.runner.places import GATEWAY_PORT, STATE_FOLDER
from ringfence.runner.ports import Collaborators
from ringfence.settings import load_stack


def _said(line: bytes) -> None:
    """The collector takes it from the pod's log, and the log into the account."""
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


@asynccontextmanager
async def running(
    project_dir: Path, stack: str, report: Report, *, folder: Path = STATE_FOLDER, **options: Any
) -> AsyncIterator[ControlSide]:
    """The control side of this pod, while the context is open. options: of `Plan`.

    Raises RingfenceError when the cluster or its settings can't be had.
    """
    plan = _plan(
        project_dir,
        stack,
        KubernetesExecutor.of(None),
        folder=folder,
        mirror=_said,
        host="0.0.0.0",  # noqa: S104 - in a pod; its NetworkPolicy lets sandboxes alone in
        port=GATEWAY_PORT,
        events=functools.partial(lookup, events_client(project_dir, stack)),
        **options,
    )
    async with control_side(plan, report) as made:
        yield made


@contextmanager
def parts(
    project_dir: Path, stack: str, folder: Path, kubeconfig: Path, context: str | None = None
) -> Iterator[Collaborators]:
    """What a reaper outside of the cluster works with. folder: for its own record; the gateway's books are the pod's, which
    closes what is over by itself. Raises as `running` does."""
    with collaborators(_plan(project_dir, stack, KubernetesExecutor.of(kubeconfig, context), folder=folder)) as made:
        yield made


def _plan(project_dir: Path, stack: str, executor: KubernetesExecutor, **options: Any) -> Plan:
    settings = load_stack(project_dir, stack)

    def make(_: Address) -> KubernetesExecutor:
        return executor

    return Plan(
        names=settings.names,
        catalog=load(project_dir / settings.catalog_path),
        make_broker=lambda: broker_for(project_dir, stack),
        make_executor=make,
        make_journal=lambda: LeaseJournal(executor.cluster),
        make_owners=lambda: LeaseOwners(executor.cluster),
        **options,
    )
