"""The secrets store's own certificate authority and server certificate, made from random seeds and nothing else.

Everything is a function of its arguments (Ed25519 signatures are deterministic and no clock is read), so the next run
makes the same bytes and Pulumi sees no difference.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ringfence.errors import Problem

SEED_BYTES = 32  # an Ed25519 private key (RFC 8032, section 5.1.5)
# The longest that clients which follow the CA/Browser Forum's former limit accept; renewed by a new `tls_rotation`.
SERVER_DAYS = 825
WARN_DAYS = 60
# The authority outlives its server certificates, so that a rotation changes nothing for clients.
AUTHORITY_FROM = date(2026, 1, 1)
AUTHORITY_UNTIL = date(2046, 1, 1)
DEFAULT_ROTATION = "2026-11-01"
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")


@dataclass(frozen=True)
class ServerCredentials:
    """PEM texts: certificate (public) and PKCS #8 private key (secret)."""

    certificate: str
    private_key: str


def rotation_problems(rotation: str, today: date) -> list[Problem]:
    """What is wrong with a `tls_rotation` on the day `today`: not a date, in the future, or its certificate expired."""
    remedy = f"write the day of the rotation, for example {today.isoformat()}"
    try:
        start = date.fromisoformat(rotation)
    except ValueError:
        return [Problem("vault", "tls_rotation", f"{rotation!r} is not a date", remedy)]
    if start > today:
        return [Problem("vault", "tls_rotation", f"{rotation} is in the future: no certificate is valid yet", remedy)]
    if start < AUTHORITY_FROM or expiry(rotation) > AUTHORITY_UNTIL:
        limits = f"{AUTHORITY_FROM} to {AUTHORITY_UNTIL - timedelta(days=SERVER_DAYS)}"
        return [
            Problem("vault", "tls_rotation", f"{rotation} is outside of the authority's life", f"a day in {limits}")
        ]
    if expiry(rotation) <= today:
        return [
            Problem("vault", "tls_rotation", f"the certificate of {rotation} expired on {expiry(rotation)}", remedy)
        ]
    return []


def expiry(rotation: str) -> date:
    """The day on which the server certificate of a rotation (ISO date) ends."""
    return date.fromisoformat(rotation) + timedelta(days=SERVER_DAYS)


def authority_certificate(seed: bytes, name: str, namespaces: Sequence[str]) -> str:
    """The authority's self-signed certificate as PEM.

    name: common name. namespaces: DNS suffixes (``ringfence-vault.svc``) that it may vouch for, besides this host
    itself: a stolen authority key can't make a certificate for anything else.
    """
    key = _key(seed)
    permitted: list[x509.GeneralName] = [x509.DNSName(suffix) for suffix in (*namespaces, "localhost")]
    permitted.append(x509.IPAddress(ipaddress.IPv4Network(f"{LOOPBACK}/32")))
    builder = (
        _builder(key.public_key(), name, name, AUTHORITY_FROM, AUTHORITY_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
    )
    return _sign(builder, key)


def server_credentials(
    authority_seed: bytes, authority_name: str, server_seed: bytes, hosts: Sequence[str], rotation: str
) -> ServerCredentials:
    """A certificate for `hosts` (the first is the common name), localhost and 127.0.0.1, from the day `rotation` on."""
    key, authority = _key(server_seed), _key(authority_seed)
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in (*hosts, "localhost")]
    builder = (
        _builder(key.public_key(), hosts[0], authority_name, date.fromisoformat(rotation), expiry(rotation))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*names, x509.IPAddress(LOOPBACK)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return ServerCredentials(_sign(builder, authority), private)


def _key(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def _builder(key: Ed25519PublicKey, name: str, issuer: str, start: date, end: date) -> x509.CertificateBuilder:
    public = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    digest = hashlib.sha256(public + f"{name}\0{issuer}\0{start}\0{end}".encode()).digest()
    # RFC 5280, 4.1.2.2: positive, at most 20 octets.
    serial = int.from_bytes(digest[:20], "big") >> 1 or 1
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(datetime.combine(start, time(), UTC))
        .not_valid_after(datetime.combine(end, time(), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _sign(builder: x509.CertificateBuilder, key: Ed25519PrivateKey) -> str:
    return builder.sign(key, algorithm=None).public_bytes(Encoding.PEM).decode()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
