"""The credential broker: per-invocation credentials of a tool's role, their ledger, and their end.

Trust zone: control side. Nothing here runs in a sandbox.
"""

from ringfence.broker.anomalies import Anomaly, lookup, records
from ringfence.broker.broker import Broker, Pruned
from ringfence.broker.dynamodb_ledger import DynamoDbLedger
from ringfence.broker.ledger import Entry, Ledger, State
from ringfence.broker.model import BrokerError, Credential, Scope
from ringfence.broker.secret_stores import SecretsManagerStore, SecretStore, VaultStore
from ringfence.broker.sqlite_ledger import SqliteLedger

__all__ = [
    "Anomaly",
    "Broker",
    "BrokerError",
    "Credential",
    "DynamoDbLedger",
    "Entry",
    "Ledger",
    "Pruned",
    "Scope",
    "SecretStore",
    "SecretsManagerStore",
    "SqliteLedger",
    "State",
    "VaultStore",
    "lookup",
    "records",
]
