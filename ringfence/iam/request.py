"""A request as IAM sees it: who asks for what on which resource, in which context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

PrincipalType = Literal["AWS", "Service", "Federated", "CanonicalUser", "Anonymous"]

_SERVICE_NAMES = "aws:principalservicenameslist"
_PRINCIPAL_KEYS = frozenset(
    ("aws:principalarn", "aws:principalaccount", "aws:principaltype", "aws:principalservicename", _SERVICE_NAMES)
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. value: for AWS an ARN of a root, user, role or assumed-role session; for Service a host name such as
    ``eks.amazonaws.com``; for Federated a provider's ARN or host name; empty for Anonymous.
    """

    type: PrincipalType
    value: str = ""

    @property
    def account(self) -> str:
        """The account of an AWS principal, empty for others."""
        parts = self.value.split(":")
        return parts[4] if self.type == "AWS" and len(parts) >= 6 else ""

    @property
    def role_arn(self) -> str:
        """For an assumed-role session the ARN of its role (without path, which a session ARN doesn't tell)."""
        parts = self.value.split(":", 5)
        if self.type == "AWS" and len(parts) == 6 and parts[2] == "sts" and parts[5].startswith("assumed-role/"):
            return f"{parts[0]}:{parts[1]}:iam::{parts[4]}:role/{parts[5].split('/')[1]}"
        return ""

    def context(self) -> dict[str, tuple[str, ...]]:
        """The global condition keys that follow from who asks. Source: IAM User Guide, "AWS global condition context
        keys", properties of the principal; of an anonymous caller only the type is sure."""
        if self.type == "AWS":
            kind = self.value.split(":", 5)[-1].split("/")[0]
            kinds = {"root": "Account", "user": "User", "federated-user": "FederatedUser"}
            return {
                "aws:PrincipalArn": (self.role_arn or self.value,),
                "aws:PrincipalAccount": (self.account,),
                "aws:PrincipalType": (kinds.get(kind, "AssumedRole"),),
                "aws:PrincipalIsAWSService": ("false",),
            }
        if self.type == "Service":
            return {"aws:PrincipalIsAWSService": ("true",), "aws:PrincipalServiceName": (self.value,)}
        if self.type == "Anonymous":
            return {"aws:PrincipalType": ("Anonymous",), "aws:PrincipalIsAWSService": ("false",)}
        return {}

    def never(self) -> frozenset[str]:
        """Lower-case names of the properties of a principal that the request can't have, whoever asks. Source: as of
        `context`."""
        own = {key.lower() for key in self.context()}
        return _PRINCIPAL_KEYS - own - ({_SERVICE_NAMES} if self.type == "Service" else set())


@dataclass(frozen=True)
class Request:
    """One request. action: ``service:Name``; resource: an ARN, or ``*`` for actions without one; context: condition
    keys (any case) with their values, an absent key being absent; principal: None where no policy asks for it.
    """

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    principal: Principal | None = None

    @cached_property
    def values(self) -> dict[str, tuple[str, ...]]:
        """The context by lower-case key. A key with no value is absent."""
        return {key.lower(): tuple(values) for key, values in self.context.items() if values}
