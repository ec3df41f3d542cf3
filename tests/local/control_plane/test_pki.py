"""Certificates of the control plane."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from ringfence.local import pki
from ringfence.local.pki import Authority, Pair, signing_key


def _load(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def _handshake(authority: Authority, server: Pair, client: Pair | None, name: str = "127.0.0.1") -> str:
    """ "ok", or the verdict of whichever side refused."""
    inward = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    inward.verify_mode = ssl.CERT_REQUIRED
    inward.load_cert_chain(server.certificate, server.key)
    outward = ssl.create_default_context(cafile=str(authority.certificate))
    if client is not None:
        outward.load_cert_chain(client.certificate, client.key)
    verdicts: list[str] = []

    def accept(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        try:
            with inward.wrap_socket(connection, server_side=True) as secure:
                secure.sendall(b"x")
        except OSError as error:
            verdicts.append(str(error))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname()) as plain,
                outward.wrap_socket(plain, server_hostname=name) as secure,
            ):
                secure.recv(1)
        except OSError as error:
            verdicts.append(str(error))
        thread.join()
    return "; ".join(verdicts) or "ok"


def test_every_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    authority.server("server")
    authority.client("client", "somebody", "group")
    signing_key(tmp_path, "tokens")
    files = list(tmp_path.iterdir())
    assert len(files) == 8
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_server_and_a_client_of_one_authority_trust_each_other(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    server, client = authority.server("server", ["kubernetes"]), authority.client("client", "somebody")
    assert _handshake(authority, server, client) == "ok"
    assert _handshake(authority, server, client, "kubernetes") == "ok"
    assert "Hostname mismatch" in _handshake(authority, server, client, "elsewhere")


def test_no_certificate_another_authority_and_a_servers_certificate_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    server = authority.server("server")
    stranger = Authority(tmp_path / "other", "ca").client("client", "somebody")
    assert "peer did not return a certificate" in _handshake(authority, server, None)
    assert "certificate verify failed" in _handshake(authority, server, stranger)
    assert "unsuitable certificate purpose" in _handshake(authority, server, server)


def test_user_and_group_are_in_the_subject(tmp_path: Path) -> None:
    subject = _load(Authority(tmp_path, "ca").client("admin", "somebody", "system:masters")).subject
    assert subject.rfc4514_string() == "CN=somebody,O=system:masters"


def test_certificates_stay_until_they_must_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path, "ca")
    first = _load(authority.server("server"))
    assert _load(authority.server("server")) == first
    monkeypatch.setattr(pki, "RENEW_BEFORE", pki.LEAF_LIFE + datetime.timedelta(days=1))
    assert _load(authority.server("server")) != first


def test_a_new_authority_means_new_leaves(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    first = _load(authority.server("server"))
    authority.certificate.unlink()
    assert _load(authority.server("server")) != first


def test_a_key_that_was_cut_short_is_made_anew_with_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    pair = authority.client("client", "somebody")
    first = _load(pair)
    pair.key.write_text(pair.key.read_text()[:40])
    authority.client("client", "somebody")
    assert _load(pair) != first
    assert _handshake(authority, authority.server("server"), pair) == "ok"


def test_the_signing_key_stays(tmp_path: Path) -> None:
    first = signing_key(tmp_path, "tokens").key.read_bytes()
    assert signing_key(tmp_path, "tokens").key.read_bytes() == first
