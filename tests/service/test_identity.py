"""Who calls: every way in which a token or a certificate can be wrong is refused, recorded, and told without detail."""

from __future__ import annotations

import base64
import datetime
import json
import time
from pathlib import Path

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ringfence.errors import InputError
from ringfence.service.identity import Oidc, Unauthenticated, certificate_caller
from ringfence.service.keys import STALE_S, UNKNOWN_S, FileKeys, KeysUnavailable, RemoteKeys
from ringfence.service.server import Listen

OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def now() -> int:
    return int(time.time())


def without_signature(provider) -> str:
    _header, claims, _ = provider.token().split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "key-1"}).encode()).decode().rstrip("=")
    return f"{none}.{claims}."


def signed_with_the_public_key(provider) -> str:
    """The known confusion of algorithms: HMAC with the public key as the secret."""
    pem = provider.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    import hashlib
    import hmac

    def part(value: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    text = f"{part({'alg': 'HS256', 'kid': 'key-1'})}.{part(claims)}"
    mac = hmac.new(pem, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def changed_claims(provider) -> str:
    header, claims, signature = provider.token().split(".")
    raw = json.loads(base64.urlsafe_b64decode(claims + "=="))
    forged = base64.urlsafe_b64encode(json.dumps(raw | {"groups": ["support"]}).encode()).decode().rstrip("=")
    return f"{header}.{forged}.{signature}"


BAD_TOKENS = {
    "expired": (lambda p: p.token(exp=now() - 100, iat=now() - 400), "token_expired"),
    "not yet valid": (lambda p: p.token(nbf=now() + 600), "token_not_yet_valid"),
    "issued in the future": (lambda p: p.token(iat=now() + 600), "token_not_yet_valid"),
    "another audience": (lambda p: p.token(aud="billing"), "token_audience"),
    "no audience": (lambda p: p.token(aud=None), "token_invalid"),
    "another issuer": (lambda p: p.token(iss="https://evil.example.com"), "token_issuer"),
    "no issuer": (lambda p: p.token(iss=None), "token_invalid"),
    "no expiry": (lambda p: p.token(exp=None), "token_invalid"),
    "no user": (lambda p: p.token(sub=None), "token_invalid"),
    "an empty user": (lambda p: p.token(user=""), "token_without_user"),
    "another key": (lambda p: p.token(key=OTHER), "token_invalid"),
    "an unknown key id": (lambda p: p.token(headers={"kid": "key-2"}), "token_key_unknown"),
    "no key id": (lambda p: p.token(headers={"kid": None}), "token_header"),
    "algorithm none": (without_signature, "token_header"),
    "HMAC with the public key": (signed_with_the_public_key, "token_header"),
    "an algorithm that isn't pinned": (lambda p: p.token(algorithm="RS512"), "token_header"),
    "an extension that must be understood": (lambda p: p.token(headers={"crit": ["x"], "x": 1}), "token_invalid"),
    "changed claims": (changed_claims, "token_invalid"),
    "cut off": (lambda p: p.token()[:-20], "token_invalid"),
    "noise": (lambda p: "a.b.c", "token_invalid"),
    "not a token": (lambda p: "x" * 100, "token_invalid"),
    "too large": (lambda p: "x" * 20_000, "token_too_large"),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_a_bad_token_is_refused_with_its_code_and_recorded(service, case: str):
    make, code = BAD_TOKENS[case]
    answer = service.client.get("/v1/tools", headers={"Authorization": f"Bearer {make(service.provider)}"})
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert service.kinds().count("authentication.refused") == 1
    assert service.client.get("/v1/tools", headers=service.headers()).status_code == 200


def test_clocks_may_differ_a_little_and_no_more(service):
    assert service.client.get("/v1/tools", headers=service.headers(exp=int(time.time()) - 5)).status_code == 200
    assert service.client.get("/v1/tools", headers=service.headers(exp=int(time.time()) - 40)).status_code == 401


@pytest.mark.parametrize("value", ["", "Bearer", "Basic YTpi", "bearer", "Token x"])
def test_another_kind_of_proof_is_refused(service, value: str):
    answer = service.client.get("/v1/tools", headers={"Authorization": value})
    assert (answer.status_code, answer.json()["code"]) == (401, "authorization_malformed")


def test_two_proofs_are_refused(service):
    good = service.headers()["Authorization"]
    answer = service.client.get("/v1/tools", headers=[("Authorization", good), ("Authorization", good)])
    assert answer.status_code == 401


def test_without_any_proof_nobody_gets_in(service):
    answer = service.client.get("/v1/tools")
    assert (answer.status_code, answer.json()["code"]) == (401, "identity_missing")


@pytest.mark.parametrize(
    "groups", ["analysts", {"analysts": True}, ["analysts", 7], ["analysts", ""], ["analysts"] + ["g"] * 200, None, 7]
)
def test_a_groups_claim_that_is_not_a_list_of_names_gives_no_group(service, groups: object):
    answer = service.client.get("/v1/tools", headers=service.headers(groups=groups))
    assert (answer.status_code, answer.json()["code"]) == (403, "no_role")


def test_failed_proofs_are_all_counted_but_do_not_fill_the_trail(service):
    for _ in range(100):
        assert service.client.get("/v1/tools", headers={"Authorization": "Bearer a.b.c"}).status_code == 401
    assert service.kinds().count("authentication.refused") <= 40
    assert service.kinds().count("alert.refusals") >= 1
    assert 'ringfence_refusals_total{code="token_invalid"} 100' in service.client.get("/metrics").text


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": ""},
        {"audience": ""},
        {"algorithms": ()},
        {"algorithms": ("HS256",)},
        {"algorithms": ("none",)},
        {"leeway_s": 61},
        {"leeway_s": -1},
    ],
)
def test_a_lax_configuration_is_refused(provider, wrong: dict):
    good = {"issuer": "https://id.example.com", "audience": "ringfence", "keys": FileKeys(provider.jwks)}
    Oidc(**good)
    with pytest.raises(ValueError, match="\\|"):
        Oidc(**good | wrong)


def test_an_email_counts_only_when_the_provider_verified_it(provider):
    oidc = Oidc("https://id.example.com", "ringfence", FileKeys(provider.jwks), user_claim="email")
    assert oidc.caller(provider.token(email="a@b.c", email_verified=True), "").user == "a@b.c"
    for verified in (False, None, "true"):
        with pytest.raises(Unauthenticated, match="not verified"):
            oidc.caller(provider.token(email="a@b.c", email_verified=verified), "")


# The provider's keys


class Answers:
    """An identity provider's two documents."""

    def __init__(self, provider):
        self.jwks, self.asked, self.up = provider.jwks.read_text(), [], True
        self.issuer = "https://id.example.com"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if not self.up:
            return httpx.Response(500)
        if request.url.path.startswith("/.well-known"):
            return httpx.Response(200, json={"issuer": self.issuer, "jwks_uri": "https://id.example.com/keys"})
        return httpx.Response(200, text=self.jwks)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def remote(provider):
    answers, clock = Answers(provider), Clock()
    client = httpx.Client(transport=httpx.MockTransport(answers))
    return RemoteKeys("https://id.example.com", client=client, clock=clock), answers, clock


def test_keys_are_discovered_once_and_unknown_ids_make_no_flood(remote):
    keys, answers, clock = remote
    assert keys.find("key-1") is not None
    for index in range(100):
        assert keys.find(f"unknown-{index}") is None
    assert answers.asked == ["/.well-known/openid-configuration", "/keys"]
    clock.now += UNKNOWN_S + 1
    keys.find("unknown")
    assert len(answers.asked) == 4


def test_a_new_key_is_found_after_a_moment_and_a_removed_one_ends(remote):
    keys, answers, clock = remote
    keys.find("key-1")
    answers.jwks = answers.jwks.replace("key-1", "key-2")
    clock.now += UNKNOWN_S + 1
    assert keys.find("key-2") is not None and keys.find("key-1") is None


def test_keys_do_not_outlive_the_provider_for_long(remote):
    keys, answers, clock = remote
    keys.find("key-1")
    answers.up = False
    clock.now += STALE_S - 1
    assert keys.find("key-1") is not None
    clock.now += UNKNOWN_S
    with pytest.raises(KeysUnavailable):
        keys.find("key-1")


def test_a_discovery_document_of_another_issuer_gives_no_keys(remote):
    keys, answers, _ = remote
    answers.issuer = "https://evil.example.com"
    with pytest.raises(KeysUnavailable):
        keys.find("key-1")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"keys": 1}', '{"keys": []}', '{"keys": [{"kid": "a", "kty": "oct", "k": "c2VjcmV0"}]}']
)
def test_a_key_file_without_signing_keys_is_refused(tmp_path: Path, text: str):
    (tmp_path / "jwks.json").write_text(text)
    with pytest.raises(InputError):
        FileKeys(tmp_path / "jwks.json")


# Client certificates


def certificate(folder: Path, name: str, subject: list[tuple], issuer: tuple | None = None, ca: bool = False):
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(names)
        .issuer_name(issuer[0].subject if issuer else names)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca, None), True)
    )
    if not ca:
        import ipaddress

        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
    made = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, key


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    ca = certificate(folder, "ca", [(NameOID.COMMON_NAME, "ca")], ca=True)
    rogue = certificate(folder, "rogue", [(NameOID.COMMON_NAME, "rogue")], ca=True)
    certificate(folder, "server", [(NameOID.COMMON_NAME, "server")], ca)
    ana = [(NameOID.COMMON_NAME, "ana@example.com"), (NameOID.ORGANIZATION_NAME, "analysts")]
    certificate(folder, "ana", ana, ca)
    certificate(folder, "forged", ana, rogue)
    certificate(folder, "stranger", [(NameOID.COMMON_NAME, "eve")], ca)
    return folder


def over_tls(service, pki: Path, name: str = "") -> httpx.Client:
    import ssl

    context = ssl.create_default_context(cafile=pki / "ca.pem")
    # The test's authority has no key usage extension, which Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if name:
        context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    return httpx.Client(base_url=service.url, verify=context, trust_env=False, timeout=300)


def test_a_client_certificate_is_a_proof_its_common_name_the_user_its_organizations_the_groups(
    start_service, pki: Path
):
    listen = Listen(port=0, certificate=pki / "server.pem", key=pki / "server.key", client_ca=pki / "ca.pem")
    with start_service(listen=listen, only_certificates=True) as service:
        with over_tls(service, pki, "ana") as client:
            assert client.get("/v1/tools").json()["user"] == "ana@example.com"
            # A bearer token is not even looked at where none is configured.
            assert client.get("/v1/tools", headers={"Authorization": "Bearer x"}).status_code == 401
        with over_tls(service, pki, "stranger") as client:
            assert client.get("/v1/tools").json()["code"] == "no_role"
        with over_tls(service, pki) as client:
            assert client.get("/v1/tools").json()["code"] == "identity_missing"
            assert client.get("/healthz").status_code == 200
        with over_tls(service, pki, "forged") as client, pytest.raises(httpx.TransportError):
            client.get("/healthz")


def test_with_a_token_given_the_token_alone_counts(start_service, pki: Path):
    listen = Listen(port=0, certificate=pki / "server.pem", key=pki / "server.key", client_ca=pki / "ca.pem")
    with start_service(listen=listen) as service, over_tls(service, pki, "ana") as client:
        assert client.get("/v1/tools").status_code == 200
        assert client.get("/v1/tools", headers={"Authorization": "Bearer a.b.c"}).status_code == 401
        assert (
            client.get("/v1/tools", headers=service.headers("sam@example.com", ("support",))).json()["user"]
            == "sam@example.com"
        )


@pytest.mark.parametrize("names", [[], ["a", "b"], [""]])
def test_a_certificate_without_one_common_name_names_nobody(names: list[str]):
    with pytest.raises(Unauthenticated):
        certificate_caller({"subject": tuple((("commonName", name),) for name in names)}, "")


@pytest.mark.parametrize(
    "wrong",
    [
        Listen("0.0.0.0"),
        Listen("10.0.0.1"),
        Listen("example.com"),
        Listen(certificate=Path("nope.pem"), key=Path("nope.key")),
        Listen(client_ca=Path(__file__)),
    ],
)
def test_an_address_that_would_carry_tokens_in_the_clear_is_refused(wrong: Listen):
    Listen("127.0.0.1").check()
    with pytest.raises(InputError):
        wrong.check()
