"""Tools' secrets that are not AWS's, behind one interface: the environment's Vault, or Secrets Manager.

One secret per tool: names and texts. Where it lies follows from the tool's name, and so does who may read it.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from ringfence.broker.model import BrokerError
from ringfence.names import Names

# Contract with components/vault_config.py: auth role, folder of the engine `kv`.
VAULT_ROLE = "broker"
VAULT_FOLDER = "kv/data/tools"
# Where the broker's pod has the token that Kubernetes makes for audience `vault`.
TOKEN_FILE = Path("/var/run/secrets/vault/token")
_TIMEOUT_SECONDS = 10
# A store's token is used until this long before its end.
_RENEW_SECONDS = 60


class SecretStore(Protocol):
    """Where tools' secrets are."""

    def read(self, tool: str) -> Mapping[str, str]:
        """The secrets of a tool by name; empty when it has none. Raises BrokerError when that can't be told."""


class SecretsManagerStore:
    """One secret ``<prefix>-<environment>/tools/<tool>`` per tool: a JSON object of texts. client: boto3's."""

    def __init__(self, client: Any, names: Names):
        self._client = client
        self._names = names

    def read(self, tool: str) -> Mapping[str, str]:
        where = secret_name(self._names, tool)
        try:
            answer = self._client.get_secret_value(SecretId=where)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                return {}
            raise BrokerError(f"secret {where} can't be read: {error.response['Error']['Code']}") from None
        except BotoCoreError as error:
            raise BrokerError(f"secret {where} can't be read: {error}") from None
        try:
            return _texts(json.loads(answer.get("SecretString") or ""), where)
        except ValueError:
            raise BrokerError(f"secret {where} is not a JSON object\n    remedy: write names and texts") from None


def secret_name(names: Names, tool: str) -> str:
    """Name of a tool's secret in Secrets Manager."""
    return f"{names.base}/tools/{tool}"


class VaultStore:
    """``kv/data/tools/<tool>`` of Vault or OpenBao, read with the broker's Kubernetes identity.

    address: ``https://host:port``; ca_file: the store's certificate authority; token_file: the pod's projected token.
    """

    def __init__(
        self,
        address: str,
        ca_file: Path | None = None,
        token_file: Path = TOKEN_FILE,
        clock: Callable[[], float] = time.monotonic,
    ):
        if not address.startswith("https://") and not address.startswith("http://127.0.0.1:"):
            raise BrokerError(f"{address} is not https\n    remedy: give the store's https:// address")
        self._address = address.rstrip("/")
        self._token_file = token_file
        self._clock = clock
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        # Without the caller's proxies: the store is in the same cluster.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def read(self, tool: str) -> Mapping[str, str]:
        where = f"{VAULT_FOLDER}/{tool}"
        status, answer = self._ask("GET", where, token=self._login())
        if status == 403:
            # The token was revoked on the store's side: once more with a new one.
            status, answer = self._ask("GET", where, token=self._login(fresh=True))
        if status == 404:
            return {}
        if status != 200:
            raise BrokerError(f"secret {where} can't be read: the store answered {status}")
        data = answer.get("data")
        return _texts(data.get("data") if isinstance(data, Mapping) else None, where)

    def _login(self, fresh: bool = False) -> str:
        with self._lock:
            if fresh or not self._token or self._clock() >= self._until:
                try:
                    identity = self._token_file.read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise BrokerError(
                        f"{self._token_file} can't be read: {error.strerror}\n    remedy: project a service account token "
                        "for audience vault into the pod"
                    ) from None
                body = {"role": VAULT_ROLE, "jwt": identity}
                status, answer = self._ask("POST", "auth/kubernetes/login", body=body)
                auth = answer.get("auth")
                if status != 200 or not isinstance(auth, Mapping) or not auth.get("client_token"):
                    raise BrokerError(f"the secret store refused role {VAULT_ROLE}: it answered {status}")
                self._token = str(auth["client_token"])
                self._until = self._clock() + max(0, float(auth.get("lease_duration") or 0) - _RENEW_SECONDS)
            return self._token

    def _ask(self, method: str, path: str, *, token: str = "", body: object = None) -> tuple[int, Mapping[str, Any]]:
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if token:
            headers["X-Vault-Token"] = token
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            f"{self._address}/v1/{path}", method=method, data=data, headers=headers
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise BrokerError(f"the secret store at {self._address} does not answer: {reason}") from None
        try:
            found = json.loads(raw or b"{}")
        except ValueError:
            found = {}
        return status, found if isinstance(found, dict) else {}


def _texts(found: object, where: str) -> Mapping[str, str]:
    if not isinstance(found, Mapping) or not all(isinstance(value, str) for value in found.values()):
        raise BrokerError(f"secret {where} is not names and texts\n    remedy: write each value as text")
    return {str(name): str(value) for name, value in found.items()}
