"""Who calls: from a bearer token of the identity provider, or from a client certificate. Nothing else counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from ringfence.service.keys import ALGORITHMS, Keys

# The most that clocks may differ, in seconds (RFC 7519, section 4.1.4: "no more than a few minutes").
MAX_LEEWAY_S = 60
MAX_TOKEN_CHARACTERS = 16_384
MAX_GROUPS = 200
MAX_CLAIM_CHARACTERS = 256


class Unauthenticated(Exception):
    """No proof of who calls, or a bad one. code: for records; detail: for the caller, without the token's content."""

    def __init__(self, code: str, detail: str):
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Caller:
    """user, groups: as proven; source: the address that the connection comes from; how: ``oidc`` or ``mtls``."""

    user: str
    groups: tuple[str, ...]
    source: str
    how: str


@dataclass(frozen=True, slots=True)
class Oidc:
    """What a token must say. user_claim: whose value is the user; groups_claim: a list of group names; algorithms: the
    ones that the provider is known to use; leeway_s: how far clocks may differ."""

    issuer: str
    audience: str
    keys: Keys
    user_claim: str = "sub"
    groups_claim: str = "groups"
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway_s: float = 30

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience:
            raise ValueError("issuer and audience are needed | without them any token of the provider would do")
        if not self.algorithms or set(self.algorithms) - set(ALGORITHMS):
            raise ValueError(f"algorithms {self.algorithms} | some of {', '.join(ALGORITHMS)}")
        if not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            raise ValueError(f"leeway {self.leeway_s} s | 0 to {MAX_LEEWAY_S}")

    def caller(self, token: str, source: str) -> Caller:
        """Who the token is for. Raises Unauthenticated, and KeysUnavailable when it can't be told."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthenticated("token_too_large", f"the token has more than {MAX_TOKEN_CHARACTERS} characters")
        claims = self._claims(token)
        user = claims.get(self.user_claim)
        if not isinstance(user, str) or not 0 < len(user) <= MAX_CLAIM_CHARACTERS:
            raise Unauthenticated("token_without_user", f"the token's claim {self.user_claim!r} names no user")
        if self.user_claim == "email" and claims.get("email_verified") is not True:
            raise Unauthenticated("email_unverified", "the provider has not verified the token's email address")
        return Caller(user, _groups(claims.get(self.groups_claim)), source, "oidc")

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            key_id = header.get("kid")
            # Extensions that must be understood (RFC 7515, section 4.1.11): there are none that we do.
            if header.get("alg") not in self.algorithms or not isinstance(key_id, str) or "crit" in header:
                raise Unauthenticated("token_header", "the token's algorithm, key id or extensions are not accepted")
            key = self.keys.find(key_id)
            if key is None:
                raise Unauthenticated(
                    "token_key_unknown", "the token is signed with a key that the provider doesn't publish"
                )
            return jwt.decode(
                token,
                key,
                algorithms=list(self.algorithms),
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.leeway_s,
                options={"require": ["exp", "iat", "iss", "aud", self.user_claim]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("token_expired", "the token has expired") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("token_audience", "the token is for another service") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("token_issuer", "the token is from another provider") from None
        except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
            raise Unauthenticated("token_not_yet_valid", "the token is not valid yet") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthenticated("token_invalid", "the token is malformed or its signature doesn't fit") from None


def _groups(value: Any) -> tuple[str, ...]:
    """A claim that isn't a list of names gives no group at all."""
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        return ()
    fitting = all(isinstance(item, str) and 0 < len(item) <= MAX_CLAIM_CHARACTERS for item in value)
    return tuple(dict.fromkeys(value)) if fitting else ()


def certificate_caller(certificate: Mapping[str, Any], source: str) -> Caller:
    """Who a verified client certificate is for, as Kubernetes reads it: common name = user, organizations = groups.

    certificate: as `ssl.SSLSocket.getpeercert` gives it. Raises Unauthenticated when it names no user or several.
    """
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    users = [value for name, value in pairs if name == "commonName"]
    if len(users) != 1 or not 0 < len(users[0]) <= MAX_CLAIM_CHARACTERS:
        raise Unauthenticated("certificate_without_user", "the client certificate has no single common name")
    return Caller(users[0], _groups([value for name, value in pairs if name == "organizationName"]), source, "mtls")
