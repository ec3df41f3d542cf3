"""What a comparison finds: one change per place, with what was added, a witness and the escalation paths completed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from ringfence.iam.model import Statement
from ringfence.iam.request import Request
from ringfence.review.facts import Fact, Slot

if TYPE_CHECKING:
    from ringfence.iam.escalation import Escalation


class ChangeKind(StrEnum):
    """How a place changed. Everything but `REMOVED` needs a review."""

    WIDENED = "widened"  # a document allows a request that nothing approved allowed
    ADDED = "added"  # an attachment, association, credential or principal that wasn't approved
    CHANGED = "changed"  # such a thing differs from what was approved
    UNDECIDED = "undecided"  # could not be decided, which counts as widened
    UNREVIEWABLE = "unreviewable"  # unknown at preview, encrypted, or no valid document
    REMOVED = "removed"  # grants less than approved


@dataclass(frozen=True, slots=True)
class Addition:
    """One statement of a document that isn't covered by what was approved. request: proves it; None when undecided."""

    statement: str
    request: Request | None


@dataclass(frozen=True, slots=True)
class Change:
    """One change. message: what changed, in a sentence; request: the witness, where there is one; source: URN or ARN
    of what states the new value; type: its Pulumi type token, if any."""

    kind: ChangeKind
    subject: str
    slot: Slot
    key: str
    message: str
    request: Request | None = None
    additions: tuple[Addition, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    source: str = ""
    type: str = ""

    @property
    def needs_review(self) -> bool:
        """Whether somebody must approve it."""
        return self.kind is not ChangeKind.REMOVED

    def without_values(self) -> Change:
        """This change with witnesses that tell which condition keys matter but no value of a condition."""
        additions = tuple(Addition(item.statement, _without_values(item.request)) for item in self.additions)
        return replace(self, request=_without_values(self.request), additions=additions)

    @property
    def place(self) -> str:
        """Subject, slot and key as one text, e.g. ``role/x inline policy main``."""
        return place_text(self.subject, self.slot, self.key)


_SLOT_TEXT = {
    Slot.EXISTS: "principal",
    Slot.TRUST: "trust policy",
    Slot.INLINE: "inline policy",
    Slot.INLINE_NAME: "kept inline policy",
    Slot.MANAGED: "attached policy",
    Slot.BOUNDARY: "permissions boundary",
    Slot.DOCUMENT: "policy document",
    Slot.RESOURCE_POLICY: "resource policy",
    Slot.MEMBERSHIP: "group membership",
    Slot.CREDENTIAL: "long-lived credential",
    Slot.INSTANCE_PROFILE: "instance profile",
    Slot.ACCESS_ENTRY: "cluster access entry",
    Slot.ACCESS_POLICY: "cluster access policy",
    Slot.POD_IDENTITY: "Pod Identity association",
    Slot.CLUSTER_ACCESS: "cluster authentication",
    Slot.KMS_GRANT: "key grant",
    Slot.PROVIDER: "identity provider",
    Slot.TEMPLATE: "template",
    Slot.FUNCTION_URL: "function URL authorization",
    Slot.ACCESS: "access of its own",
    Slot.AUTH_MAP: "aws-auth map",
}


def slot_text(slot: Slot) -> str:
    """A slot in words."""
    return _SLOT_TEXT[slot]


def place_text(subject: str, slot: Slot, key: str) -> str:
    """A place in words."""
    return f"{subject} {slot_text(slot)} {key}".rstrip()


# Keys whose values are what a caller must know, and so work as shared secrets: findings are public in a pull request.
_SHARED_SECRETS = frozenset({"aws:referer", "aws:useragent", "sts:externalid"})
NOT_SHOWN = "(value not shown)"


def _without_values(request: Request | None) -> Request | None:
    """A witness of a secret document. Who asks can come from a condition too."""
    if request is None:
        return None
    context = dict.fromkeys(request.context, (NOT_SHOWN,))
    asking = request.principal
    if asking is not None and asking.value:
        asking = replace(asking, value=NOT_SHOWN)
    return Request(request.action, request.resource, context, asking)


def shown_context(request: Request) -> dict[str, tuple[str, ...]]:
    """A witness's context as it may be shown: values that work as shared secrets are left out."""
    hidden = (NOT_SHOWN,)
    return {key: hidden if key.lower() in _SHARED_SECRETS else tuple(values) for key, values in request.context.items()}


def request_text(request: Request) -> str:
    """A witness in one line: action, resource, who asks, in which context."""
    parts = [f"{request.action} on {request.resource}"]
    if request.principal is not None:
        parts.append(f"by {request.principal.value or 'anybody'}")
    if request.context:
        pairs = (f"{key}={', '.join(values)}" for key, values in sorted(shown_context(request).items()))
        parts.append(f"with {'; '.join(pairs)}")
    return " ".join(parts)


def statement_text(statement: Statement) -> str:
    """A statement in one line. Conditions are named by operator and key only: their values can be secrets."""
    parts = [statement.effect]
    for label, entries in (
        ("", statement.actions),
        ("everything but ", statement.not_actions),
        ("on ", statement.resources),
        ("on everything but ", statement.not_resources),
        ("to ", tuple(f"{entry.type} {entry.value}".strip() for entry in statement.principals)),
        ("to everybody but ", tuple(f"{entry.type} {entry.value}" for entry in statement.not_principals)),
    ):
        if entries:
            parts.append(label + _few(entries))
    if statement.conditions:
        parts.append("if " + " and ".join(f"{c.full_operator} {c.key}" for c in statement.conditions))
    return " ".join(parts)


def _few(entries: tuple[str, ...], limit: int = 6) -> str:
    shown = ", ".join(entries[:limit])
    return f"{shown} and {len(entries) - limit} more" if len(entries) > limit else shown


def unreviewable(fact: Fact, reason: str) -> Change:
    """The change for a fact that nobody can review."""
    message = f"{place_text(fact.subject, fact.slot, fact.key)} is not reviewable: {reason}"
    return Change(
        ChangeKind.UNREVIEWABLE, fact.subject, fact.slot, fact.key, message, source=fact.source, type=fact.type
    )
