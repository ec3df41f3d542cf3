"""Certificates made from seeds: the same bytes each time, good for a real handshake, and for nothing else."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import date
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from components import vault_tls as tls
from components.vault_config import HOST, authority_namespaces, peer_host, server_hosts

AUTHORITY, SERVER, OTHER = b"a" * 32, b"s" * 32, b"o" * 32
NAME, ROTATION = "ringfence-test-vault-authority", "2026-11-01"
INSIDE = date(2026, 11, 20)


def authority(seed: bytes = AUTHORITY) -> str:
    return tls.authority_certificate(seed, NAME, authority_namespaces())


def credentials(hosts: tuple[str, ...] = server_hosts(), rotation: str = ROTATION) -> tls.ServerCredentials:
    return tls.server_credentials(AUTHORITY, NAME, SERVER, hosts, rotation)


def test_the_same_seeds_give_the_same_bytes_and_another_rotation_other_ones():
    assert authority() == authority()
    assert credentials() == credentials()
    assert credentials().certificate != credentials(rotation="2026-11-02").certificate
    assert authority(OTHER) != authority()


def test_the_server_certificate_is_valid_from_the_rotation_for_825_days():
    certificate = x509.load_pem_x509_certificate(credentials().certificate.encode())
    assert certificate.not_valid_before_utc.date() == date(2026, 11, 1)
    assert certificate.not_valid_after_utc.date() == tls.expiry(ROTATION) == date(2029, 2, 3)


def test_the_private_key_belongs_to_the_certificate_and_not_to_the_authority():
    made = credentials()
    key = load_pem_private_key(made.private_key.encode(), None)
    assert key.public_key() == x509.load_pem_x509_certificate(made.certificate.encode()).public_key()
    assert key.public_key() != x509.load_pem_x509_certificate(authority().encode()).public_key()


def handshake(tmp_path: Path, made: tls.ServerCredentials, trusted: str, host: str, **changes) -> str:
    """The TLS version that a client which trusts `trusted` agrees on with a server that has `made`."""
    for file, text in (("tls.crt", made.certificate), ("tls.key", made.private_key)):
        (tmp_path / file).write_text(text)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cadata=trusted)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            try:
                serving.wrap_socket(connection, server_side=True).close()
            except (ssl.SSLError, OSError):
                connection.close()  # the client says why

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=300) as plain,
                client.wrap_socket(plain, server_hostname=host) as secure,
            ):
                return str(secure.version())
        finally:
            thread.join(300)


@pytest.mark.parametrize("host", [HOST, peer_host(0), peer_host(2), f"{HOST}.cluster.local", "localhost", "127.0.0.1"])
def test_a_real_client_that_trusts_the_authority_shakes_hands(tmp_path, host):
    assert handshake(tmp_path, credentials(), authority(), host) == "TLSv1.3"


def test_a_client_refuses_another_name_or_another_authority(tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tmp_path, credentials(), authority(), "broker.ringfence-system.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, credentials(), authority(OTHER), HOST)


def test_the_authority_can_vouch_for_nothing_but_the_store(tmp_path):
    forged = credentials(("sts.us-east-1.amazonaws.com",))
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(tmp_path, forged, authority(), "sts.us-east-1.amazonaws.com")


@pytest.mark.parametrize(
    ("rotation", "says"),
    [
        ("yesterday", "not a date"),
        ("2026-11-21", "in the future"),
        ("2023-11-01", "outside of the authority's life"),
        ("2045-01-01", "in the future"),
    ],
)
def test_a_rotation_that_gives_no_valid_certificate_is_a_problem(rotation, says):
    problems = tls.rotation_problems(rotation, INSIDE)
    assert [says in problem.message for problem in problems] == [True]
    assert problems[0].remedy


def test_an_expired_certificate_is_a_problem_and_a_valid_one_is_none():
    assert tls.rotation_problems(ROTATION, INSIDE) == []
    assert "expired on 2029-02-03" in tls.rotation_problems(ROTATION, date(2029, 2, 3))[0].message
    assert tls.rotation_problems(ROTATION, date(2029, 2, 2)) == []
