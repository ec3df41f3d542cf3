"""The control side inside of the environment's cluster: the broker's role from Pod Identity, shared ledger and journal.

Trust zone: control side.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from ringfence.broker import DynamoDbLedger
from ringfence.broker.dynamodb_ledger import ledger_table
from ringfence.catalog.model import Catalog
from ringfence.names import Names
from ringfence.runner.assembly import Address, ControlSide, Plan, control_side
from ringfence.runner.executor import Report
from ringfence.runner.kubernetes_executor import KubernetesExecutor
from ringfence.runner.kubernetes_records import LeaseJournal, LeaseOwners

# Where the control side keeps what is its own: a volume.
FOLDER = Path("/var/lib/ringfence")
# Where sandboxes find the model gateway, behind the Service of the environment.
GATEWAY_PORT = 14000
# The broker is called from as many threads as there are tools of invocations under way.
_CLIENT = Config(
    retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=20, max_pool_connections=50
)


def _said(line: bytes) -> None:
    """The collector takes it from the pod's log, into the account's locked bucket."""
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


@asynccontextmanager
async def running(
    names: Names, catalog: Catalog, report: Report, *, folder: Path = FOLDER, **options: Any
) -> AsyncIterator[ControlSide]:
    """The control side of this pod, while the context is open. options: of `Plan`.

    Raises RingfenceError when the cluster or its settings can't be had.
    """
    session = boto3.session.Session(region_name=names.region)
    executor = KubernetesExecutor.of(None)

    def make(_: Address) -> KubernetesExecutor:
        return executor

    plan = Plan(
        names=names,
        catalog=catalog,
        folder=folder,
        sts=session.client("sts", config=_CLIENT),
        iam=session.client("iam", config=_CLIENT),
        make_executor=make,
        make_ledger=lambda: DynamoDbLedger(session.client("dynamodb", config=_CLIENT), ledger_table(names)),
        make_journal=lambda: LeaseJournal(executor.cluster),
        make_owners=lambda: LeaseOwners(executor.cluster),
        mirror=_said,
        host="0.0.0.0",  # noqa: S104 - in a pod; the NetworkPolicy lets sandboxes alone in
        port=GATEWAY_PORT,
        **options,
    )
    async with control_side(plan, report) as made:
        yield made
