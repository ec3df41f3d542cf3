"""The broker of a stack: its clients, its ledger, its secret store, by where the stack stands."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from ringfence import catalog as catalogs
from ringfence.broker.broker import Broker
from ringfence.broker.dynamodb_ledger import DynamoDbLedger, ledger_table
from ringfence.broker.ledger import Ledger
from ringfence.broker.model import BrokerError
from ringfence.broker.secret_stores import SecretsManagerStore, SecretStore, VaultStore
from ringfence.broker.sqlite_ledger import SqliteLedger
from ringfence.catalog import Catalog
from ringfence.local.operator_key import operator_key
from ringfence.local.state import Home
from ringfence.local.target import endpoint
from ringfence.names import RUNNER_SERVICE_ACCOUNT, SYSTEM_NAMESPACE, Names
from ringfence.settings import Settings, load_stack

# As many calls at once as a runner has threads; IAM's throttling is waited for.
_CONFIG = Config(max_pool_connections=64, retries={"mode": "adaptive", "total_max_attempts": 8}, connect_timeout=5)
_LOCAL_CONFIG = Config(
    max_pool_connections=64, retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=5
)
# The embedded broker's session is taken anew about every minute, so that it outlives a restart of the embedded AWS:
# botocore renews what ends within 15 minutes.
_EMBEDDED_LIFE = timedelta(minutes=16)


@dataclass(frozen=True, slots=True)
class Clients:
    """Makes boto3 clients of the broker's role. endpoint: of the embedded AWS, None for AWS itself."""

    session: boto3.Session
    config: Config
    endpoint: str | None = None

    def client(self, service: str) -> Any:
        """A client of one service."""
        return self.session.client(service, config=self.config, endpoint_url=self.endpoint)


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as the broker sees it: its settings, its catalog, clients of the broker's role, its ledger."""

    settings: Settings
    catalog: Catalog
    clients: Clients
    ledger: Ledger


def broker_for(project_dir: Path, stack: str, home: Home | None = None) -> Broker:
    """The broker of a stack. home: of the embedded target, by default the project's. Raises as `stack_of` does."""
    found = stack_of(project_dir, stack, home)
    return Broker(
        found.settings.names,
        found.catalog,
        found.clients.client("sts"),
        found.clients.client("iam"),
        found.ledger,
        secret_store=_secret_store(found.settings, found.clients),
    )


def events_client(project_dir: Path, stack: str, home: Home | None = None) -> Any:
    """A CloudTrail client of the broker's role. Raises as `stack_of` does."""
    return stack_of(project_dir, stack, home).clients.client("cloudtrail")


def stack_of(project_dir: Path, stack: str, home: Home | None = None) -> Stack:
    """What a stack's broker works with.

    Raises InputError for bad settings or a bad catalog, BrokerError when the ledger can't be used. On AWS the process's
    own credentials must be the broker's role; on the embedded target the operator's key stands in for EKS's agent.
    """
    settings = load_stack(project_dir, stack)
    catalog = catalogs.load(project_dir / settings.catalog_path)
    if settings.target == "embedded":
        from ringfence.local.lifecycle import home_of

        home = home or Home.of(home_of(project_dir))
        clients = embedded_clients(home, settings.names)
        ledger: Ledger = SqliteLedger(home.root / "broker" / "ledger.sqlite")
    else:
        clients = Clients(boto3.Session(region_name=settings.region), _CONFIG)
        ledger = DynamoDbLedger(clients.client("dynamodb"), ledger_table(settings.names))
    return Stack(settings, catalog, clients, ledger)


def _secret_store(settings: Settings, clients: Clients) -> SecretStore:
    """Vault where the process is told of one (VAULT_ADDR, VAULT_CACERT: Vault's own names), else Secrets Manager."""
    address = os.environ.get("VAULT_ADDR", "")
    if address and settings.target != "embedded":
        authority = os.environ.get("VAULT_CACERT")
        return VaultStore(address, Path(authority) if authority else None)
    return SecretsManagerStore(clients.client("secretsmanager"), settings.names)


def embedded_clients(home: Home, names: Names) -> Clients:
    """Clients of the broker's role at the embedded AWS, whose credentials are renewed by themselves."""
    url = endpoint(home.kept_ports())
    operator = operator_key(home)
    agent = boto3.Session().client(
        "eks-auth",
        region_name=names.region,
        endpoint_url=url,
        aws_access_key_id=operator.access_key_id,
        aws_secret_access_key=operator.secret_access_key,
        config=_LOCAL_CONFIG,
    )

    def fetch() -> dict[str, Any]:
        try:
            answer = agent.assume_role_for_pod_identity(clusterName=names.base, token=_identity())
        except (ClientError, BotoCoreError) as error:
            raise BrokerError(f"the broker's role can't be had: {error}\n    remedy: `ringfence up`") from None
        given = answer["credentials"]
        return {
            "access_key": given["accessKeyId"],
            "secret_key": given["secretAccessKey"],
            "token": given["sessionToken"],
            "expiry_time": (datetime.now(UTC) + _EMBEDDED_LIFE).isoformat(),
        }

    core = botocore.session.Session()
    core.set_config_variable("config_file", os.devnull)
    core.set_config_variable("credentials_file", os.devnull)
    core.set_config_variable("region", names.region)
    core._credentials = DeferredRefreshableCredentials(fetch, "pod-identity")
    return Clients(boto3.Session(botocore_session=core), _LOCAL_CONFIG, url)


def _identity() -> str:
    """Who the broker is, in the form of a service account's token. Unsigned: at the embedded target the operator, whose
    key signs the request, vouches for it."""
    account = {"name": RUNNER_SERVICE_ACCOUNT}
    claims = {"kubernetes.io": {"namespace": SYSTEM_NAMESPACE, "serviceaccount": account, "pod": {"name": "broker"}}}
    parts = ({"alg": "none"}, claims)
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts), ""])
