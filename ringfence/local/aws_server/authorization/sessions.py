"""Sessions that this server has issued, in its memory only: after a restart no session is known, and all are refused."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ringfence.iam.model import Document
from ringfence.iam.request import Principal

# Forms: docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
_ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TOKEN_START = "IQoJb3JpZ2luX2Vj"  # noqa: S105 - how AWS's tokens begin


@dataclass(frozen=True, slots=True)
class Session:
    """One assumed role. policies: session policies, None when none was passed; tags: session tags; issued, expires:
    aware, UTC."""

    role_arn: str
    role_id: str
    name: str
    arn: str
    issued: datetime
    expires: datetime
    policies: tuple[Document, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    source_identity: str = ""
    access_key: str = field(default_factory=lambda: "ASIA" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(16)))
    secret: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(30)).decode(), repr=False)
    token: str = field(
        default_factory=lambda: _TOKEN_START + base64.b64encode(secrets.token_bytes(240)).decode(), repr=False
    )

    @property
    def principal(self) -> Principal:
        """Who a request signed with this session comes from."""
        return Principal("AWS", self.arn)

    @property
    def user_id(self) -> str:
        """``<role id>:<session name>``, the condition key aws:userid."""
        return f"{self.role_id}:{self.name}"


class Sessions:
    """All sessions by access key. Not synchronised: the application's lock is held around every use."""

    def __init__(self) -> None:
        self._by_key: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """Remembers a session; forgets those that ended before it began."""
        self._by_key = {key: kept for key, kept in self._by_key.items() if kept.expires > session.issued}
        self._by_key[session.access_key] = session

    def get(self, access_key: str) -> Session | None:
        """The session of an access key, also one that has expired lately; None when there never was one."""
        return self._by_key.get(access_key)

    def clear(self) -> None:
        """Forgets all."""
        self._by_key.clear()
