"""Tools' secrets from Vault, over real HTTP, and from Secrets Manager, on the embedded AWS."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from components import vault_config
from ringfence.broker import Broker, BrokerError, SecretsManagerStore, SqliteLedger, VaultStore
from ringfence.broker.model import SecretUnavailable
from ringfence.broker.secret_stores import VAULT_FOLDER, VAULT_ROLE, secret_name
from ringfence.catalog.model import Catalog
from ringfence.invocation import Invocation
from tests.broker.conftest import NAMES, REPORTS


class Vault(BaseHTTPRequestHandler):
    """The two paths of Vault's API that the broker uses, with its rules: role, token, lease."""

    secrets: ClassVar[dict[str, Any]] = {}
    tokens: ClassVar[set[str]] = set()
    logins = 0
    lease = 900

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/auth/kubernetes/login" or body != {"role": "broker", "jwt": "pod-token"}:
            return self.answer(400, {"errors": ["permission denied"]})
        type(self).logins += 1
        token = f"hvs.{self.logins}"
        self.tokens.add(token)
        self.answer(200, {"auth": {"client_token": token, "lease_duration": self.lease}})

    def do_GET(self) -> None:
        if self.headers.get("X-Vault-Token") not in self.tokens:
            return self.answer(403, {"errors": ["permission denied"]})
        found = self.secrets.get(self.path)
        self.answer(404 if found is None else 200, {"errors": []} if found is None else {"data": {"data": found}})

    def answer(self, status: int, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def vault() -> Iterator[tuple[str, type[Vault]]]:
    class Fresh(Vault):
        secrets: ClassVar[dict[str, Any]] = {"/v1/kv/data/tools/reports": {"api_key": "k-123456"}}
        tokens: ClassVar[set[str]] = set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fresh)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Fresh
    server.shutdown()
    server.server_close()


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("pod-token\n")
    return path


def test_the_store_s_contract_is_the_one_that_the_component_sets_up() -> None:
    assert f"kv/data/{vault_config.TOOL_SECRETS}" == VAULT_FOLDER
    assert VAULT_ROLE in vault_config.policies(vault_config.OPENBAO)
    assert f'"{VAULT_FOLDER}/*"' in vault_config.policies(vault_config.OPENBAO)[VAULT_ROLE]


def test_a_tool_s_secrets_come_from_vault_with_one_login(vault: Any, identity: Path) -> None:
    address, server = vault
    store = VaultStore(address, token_file=identity)
    assert [store.read("reports") for _ in range(3)] == [{"api_key": "k-123456"}] * 3
    assert store.read("tickets") == {}
    assert server.logins == 1


def test_a_token_is_renewed_before_its_end_and_after_it_was_revoked(vault: Any, identity: Path) -> None:
    address, server = vault
    now = [0.0]
    store = VaultStore(address, token_file=identity, clock=lambda: now[0])
    store.read("reports")
    now[0] = 830
    store.read("reports")
    assert server.logins == 1
    now[0] = 850
    store.read("reports")
    assert server.logins == 2
    server.tokens.clear()
    assert store.read("reports") == {"api_key": "k-123456"}
    assert server.logins == 3


def test_what_vault_refuses_or_garbles_is_an_error_without_values(vault: Any, identity: Path, tmp_path: Path) -> None:
    address, server = vault
    with pytest.raises(BrokerError, match="audience vault"):
        VaultStore(address, token_file=tmp_path / "none").read("reports")
    identity.write_text("another-token")
    with pytest.raises(BrokerError, match="refused role broker") as caught:
        VaultStore(address, token_file=identity).read("reports")
    assert "another-token" not in str(caught.value)
    identity.write_text("pod-token")
    server.secrets["/v1/kv/data/tools/reports"] = {"api_key": {"nested": "k-123456"}}
    with pytest.raises(BrokerError, match="names and texts") as caught:
        VaultStore(address, token_file=identity).read("reports")
    assert "k-123456" not in str(caught.value)
    with pytest.raises(BrokerError, match="does not answer"):
        VaultStore("http://127.0.0.1:9", token_file=identity).read("reports")


def test_vault_is_asked_over_https_alone() -> None:
    with pytest.raises(BrokerError, match="https"):
        VaultStore("http://vault.ringfence-vault.svc:8200")


def test_secrets_manager_gives_the_tool_s_secret_and_no_other(cloud: Any) -> None:
    manager = cloud.client("secretsmanager")
    for name, value in (("reports", {"api_key": "k-1"}), ("broken", ["x"])):
        manager.create_secret(Name=secret_name(NAMES, name), SecretString=json.dumps(value))
    manager.create_secret(Name="ringfence-test/other", SecretString="{}")
    own = cloud.as_(cloud.broker_credentials(), "secretsmanager")
    store = SecretsManagerStore(own, NAMES)
    assert store.read("reports") == {"api_key": "k-1"}
    assert store.read("tickets") == {}
    with pytest.raises(BrokerError, match="names and texts"):
        store.read("broken")
    with pytest.raises(own.exceptions.ClientError) as caught:
        own.get_secret_value(SecretId="ringfence-test/other")
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def declaring(*names: str) -> Catalog:
    return Catalog((REPORTS.model_copy(update={"secrets": names}),), (), ())


def test_a_tool_s_secrets_are_masked_from_then_on(
    cloud: Any, ledger: SqliteLedger, invoke: Callable[..., Invocation], vault: Any, identity: Path
) -> None:
    vault[1].secrets["/v1/kv/data/tools/reports"] = {"api_key": "k-123456", "other": "o-123456"}
    store = VaultStore(vault[0], token_file=identity)
    broker: Broker = cloud.broker(ledger, declaring("api_key"), secret_store=store)
    assert "k-123456" not in broker.secrets()
    assert broker.tool_secrets(invoke(), "reports") == {"api_key": "k-123456"}
    assert "k-123456" in broker.secrets() and "o-123456" not in broker.secrets()
    # What a tool doesn't declare isn't even asked for.
    assert cloud.broker(ledger, declaring(), secret_store=store).tool_secrets(invoke(), "reports") == {}


def test_a_declared_secret_that_can_t_be_had_is_an_error_with_a_remedy(
    cloud: Any, ledger: SqliteLedger, invoke: Callable[..., Invocation], vault: Any, identity: Path
) -> None:
    store = VaultStore(vault[0], token_file=identity)
    for stores, names, said in (
        ({"secret_store": store}, ("api_key", "token"), "no token of reports"),
        ({}, ("api_key",), "no secret store"),
        ({"secret_store": VaultStore("http://127.0.0.1:1", token_file=identity)}, ("api_key",), "does not answer"),
    ):
        with pytest.raises(SecretUnavailable, match=said) as caught:
            cloud.broker(ledger, declaring(*names), **stores).tool_secrets(invoke(), "reports")
        assert (caught.value.refusal.code, caught.value.refusal.subject) == ("secret_unavailable", "reports")
