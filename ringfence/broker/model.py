"""What the broker hands out and what narrows it."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from ringfence.errors import RingfenceError
from ringfence.invocation import Refusal

# STS gives no shorter session; the session policy ends it earlier.
SESSION_SECONDS = 900
# Part of a session's name and tag, and of the list of revoked credentials, which has a quota: short. 40 random bits
# among the few thousand that live at once; the ledger refuses a second one of the same id.
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 8
# The whole of a sandbox's Secret is below the 1 MiB that Kubernetes stores.
MAX_SECRET_BYTES = 16 << 10
_TIME = "%Y-%m-%dT%H:%M:%SZ"


class BrokerError(RingfenceError):
    """A credential could not be issued, or could not be revoked for certain. Nothing was handed out."""


class SecretUnavailable(BrokerError):
    """A secret that a tool declares can't be had, so that its task is refused. tool: its name; refusal: as recorded."""

    def __init__(self, tool: str, text: str):
        super().__init__(text)
        self.refusal = Refusal("secret_unavailable", tool, text)


@dataclass(frozen=True, slots=True)
class Scope:
    """Narrows one credential below its tool's grants; None leaves that side as it is.

    actions: IAM actions (``s3:GetObject``); resources: ARNs, wildcards allowed.
    """

    actions: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """One issued session. issued: when it was asked for; expires: from when on its own policy denies everything; both
    aware, UTC. The secrets stay out of repr."""

    id: str
    invocation_id: str
    tool: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    role_arn: str
    session_name: str
    issued: datetime
    expires: datetime

    def credential_process(self) -> bytes:
        """The credential in the format that AWS SDKs read from a `credential_process`
        (docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html)."""
        document = {
            "Version": 1,
            "AccessKeyId": self.access_key_id,
            "SecretAccessKey": self.secret_access_key,
            "SessionToken": self.session_token,
            "Expiration": stamp(self.expires),
        }
        return json.dumps(document).encode() + b"\n"


def new_id() -> str:
    """A fresh credential id."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


def stamp(moment: datetime) -> str:
    """A time as IAM conditions and SDKs write it, to the second."""
    return moment.strftime(_TIME)
