"""The control side inside of the environment's cluster: the broker's role from Pod Identity, shared ledger and journal.

Trust zone: control side.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ringfence.broker.factory import broker_for
from ringfence.catalog import load
from ringfence.runner.assembly import Address, ControlSide, Plan, control_side
from ringfence.runner.executor import Report
from ringfence.runner.kubernetes_executor import KubernetesExecutor
from ringfence.runner.kubernetes_records import LeaseJournal, LeaseOwners
from ringfence.runner.places import GATEWAY_PORT, STATE_FOLDER
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
    settings = load_stack(project_dir, stack)
    executor = KubernetesExecutor.of(None)

    def make(_: Address) -> KubernetesExecutor:
        return executor

    plan = Plan(
        names=settings.names,
        catalog=load(project_dir / settings.catalog_path),
        folder=folder,
        make_broker=lambda: broker_for(project_dir, stack),
        make_executor=make,
        make_journal=lambda: LeaseJournal(executor.cluster),
        make_owners=lambda: LeaseOwners(executor.cluster),
        mirror=_said,
        host="0.0.0.0",  # noqa: S104 - in a pod; its NetworkPolicy lets sandboxes alone in
        port=GATEWAY_PORT,
        **options,
    )
    async with control_side(plan, report) as made:
        yield made
