"""Certificates of the embedded control plane: one authority per trust, short-lived leaves, every key with mode 0600.

ECDSA on P-256: an authority and a leaf take milliseconds to make, and every part of the control plane accepts them.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ringfence.local.state import write_atomic

AUTHORITY_LIFE = datetime.timedelta(days=3650)
LEAF_LIFE = datetime.timedelta(days=365)
# A leaf with less left is made anew at the next start.
RENEW_BEFORE = datetime.timedelta(days=30)
# Clocks of containers and hosts differ a little.
SKEW = datetime.timedelta(minutes=5)
LOOPBACK = ipaddress.ip_address("127.0.0.1")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, as files in PEM."""

    certificate: Path
    key: Path

    @classmethod
    def at(cls, folder: Path, name: str) -> Pair:
        return cls(folder / f"{name}.crt", folder / f"{name}.key")


def _private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _read(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """The pair, or None when it is missing, cut short, or expires soon."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        return None
    fresh = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > RENEW_BEFORE
    matches = isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key()
    return (certificate, key) if fresh and matches else None


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    # The key first: a crash in between leaves a pair that doesn't match, which `_read` takes for none.
    write_atomic(pair.key, _private_pem(key), mode=0o600)
    write_atomic(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM).decode(), mode=0o600)


def _builder(
    subject: x509.Name, life: datetime.timedelta, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a folder; made on first use, and with it everything below it."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        return Pair.at(self.folder, self.name).certificate

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        pair = Pair.at(self.folder, self.name)
        found = _read(pair)
        if found is not None:
            return found
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ringfence {self.name}")])
        certificate = (
            _builder(name, AUTHORITY_LIFE, key.public_key())
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(pair, certificate, key)
        return certificate, key

    def server(self, name: str, dns_names: Sequence[str] = (), addresses: Sequence[str] = ()) -> Pair:
        """A server's certificate for localhost, 127.0.0.1, and what else is given."""
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(LOOPBACK)]
        names += [x509.DNSName(item) for item in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(item)) for item in addresses]
        return self._leaf(name, name, "", ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, name: str, user: str, group: str = "") -> Pair:
        """A client's certificate; to Kubernetes its common name is the user and its organisation the group."""
        return self._leaf(name, user, group, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def _leaf(
        self, name: str, user: str, group: str, usage: x509.ObjectIdentifier, names: list[x509.GeneralName]
    ) -> Pair:
        pair = Pair.at(self.folder, name)
        issuer, issuer_key = self._load()
        found = _read(pair)
        if found is not None and _signed_by(found[0], issuer):
            return pair
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if group:
            parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = (
            _builder(x509.Name(parts), LEAF_LIFE, key.public_key())
            .issuer_name(issuer.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        _write(pair, builder.sign(issuer_key, hashes.SHA256()), key)
        return pair


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # any reason at all means that the leaf is made anew
        return False
    return True


def signing_key(folder: Path, name: str) -> Pair:
    """A key pair that isn't certified: the key that signs service-account tokens. `certificate` is the public key."""
    pair = Pair(folder / f"{name}.pub", folder / f"{name}.key")
    try:
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        key = ec.generate_private_key(ec.SECP256R1())
        write_atomic(pair.key, _private_pem(key), mode=0o600)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    write_atomic(pair.certificate, key.public_key().public_bytes(serialization.Encoding.PEM, form).decode(), mode=0o600)
    return pair


def private_folder(path: Path) -> Path:
    """`path` as a folder that only this user can enter, made when missing."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path, 0o700)
    return path
