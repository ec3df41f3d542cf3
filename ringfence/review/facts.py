"""What grants access, as facts: one per document, attachment, boundary, trust, association or credential.

A subject is who or what the fact is about: ``role/x``, ``user/x``, ``group/x``, ``policy/x``, ``bucket/x``,
``key/x``, ``eks/<cluster>/principal/<arn>``. A slot says which kind of fact it is, a key tells facts of one slot apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Slot(StrEnum):
    """The kinds of facts. Documents are compared by meaning, everything else by equality."""

    EXISTS = "exists"  # a principal is there at all
    TRUST = "trust"  # document: who may become the role
    INLINE = "inline"  # document, by policy name
    INLINE_NAME = "inline-name"  # an exclusive list keeps an inline policy of this name
    MANAGED = "managed"  # attached managed policy, by ARN
    BOUNDARY = "boundary"  # permissions boundary: an ARN, or None for none
    DOCUMENT = "document"  # document of a customer-managed policy
    RESOURCE_POLICY = "resource-policy"  # document on a resource, by statement id where statements are separate
    MEMBERSHIP = "membership"  # a user is in the group that the key names
    CREDENTIAL = "credential"  # a long-lived credential of a user
    INSTANCE_PROFILE = "instance-profile"  # EC2 instances with this profile hold the role
    ACCESS_ENTRY = "access-entry"  # an IAM principal may log in to a cluster
    ACCESS_POLICY = "access-policy"  # and holds this cluster access policy
    POD_IDENTITY = "pod-identity"  # pods of a service account hold the role
    CLUSTER_ACCESS = "cluster-access"  # how a cluster authenticates
    KMS_GRANT = "kms-grant"
    PROVIDER = "identity-provider"  # an OIDC or SAML provider that trust policies can name
    TEMPLATE = "template"  # digest of a template that makes IAM resources itself
    FUNCTION_URL = "function-url"  # who may call a function over its URL
    ACCESS = "access"  # what AWS gives without a policy document: who gets what
    AUTH_MAP = "aws-auth"  # the older ConfigMap that maps IAM principals to cluster groups


DOCUMENT_SLOTS = frozenset({Slot.TRUST, Slot.INLINE, Slot.DOCUMENT, Slot.RESOURCE_POLICY})
PRINCIPAL_KINDS = ("role", "user", "group")


class Unknown:
    """A value that can't be reviewed, and why: unknown at preview, or encrypted."""

    __slots__ = ("reason",)

    def __init__(self, reason: str):
        self.reason = reason

    def __repr__(self) -> str:
        return f"Unknown({self.reason!r})"


AT_PREVIEW = Unknown("unknown until the update")
ENCRYPTED = Unknown("encrypted as a secret")
CONTRADICTED = Unknown("declared more than once with different contents, and nobody can tell which one will count")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact. value: a document (JSON text or mapping), an ARN, a mapping, None, or an `Unknown`; source: URN or ARN
    of what states it; type: the Pulumi type token where a Pulumi resource states it; secret: whether it may come from a
    value marked secret, so that no finding may show it."""

    subject: str
    slot: Slot
    key: str
    value: Any
    source: str = ""
    type: str = ""
    secret: bool = False

    @property
    def unknown(self) -> Unknown | None:
        """Why the value can't be reviewed, None when it can."""
        return self.value if isinstance(self.value, Unknown) else None

    @property
    def refers_to(self) -> tuple[str, ...]:
        """The customer-managed policy that an attachment or boundary names, if it is one."""
        name = self.key if self.slot is Slot.MANAGED else self.value if self.slot is Slot.BOUNDARY else None
        return (name,) if isinstance(name, str) and name.startswith("policy/") else ()

    @property
    def place(self) -> tuple[str, Slot, str]:
        """What the fact is about; two facts about the same place contradict or repeat each other."""
        return self.subject, self.slot, self.key


@dataclass(frozen=True)
class Surface:
    """All facts of an environment by subject, slot and key. label: what a report calls this side."""

    label: str
    facts: Mapping[tuple[str, Slot, str], Fact] = field(default_factory=dict)

    @classmethod
    def of(cls, label: str, facts: Iterable[Fact]) -> Surface:
        """The surface of `facts`. Of several about one place the unknown one counts, else the last."""
        by_place: dict[tuple[str, Slot, str], Fact] = {}
        for fact in facts:
            held = by_place.get(fact.place)
            if held is None or not held.unknown:
                by_place[fact.place] = fact
        return cls(label, by_place)

    def subjects(self) -> tuple[str, ...]:
        """Every subject, sorted."""
        return tuple(sorted({subject for subject, _, _ in self.facts}))

    def of_subject(self, subject: str) -> Iterator[Fact]:
        """The facts of one subject in a stable order."""
        yield from self._by_subject.get(subject, ())

    def of_slot(self, subject: str, slot: Slot) -> tuple[Fact, ...]:
        """The facts of one subject in one slot."""
        return tuple(fact for fact in self.of_subject(subject) if fact.slot is slot)

    def value(self, subject: str, slot: Slot, key: str = "") -> Any:
        """The value at a place, None when there is no fact."""
        fact = self.facts.get((subject, slot, key))
        return fact.value if fact else None

    def with_facts(self, facts: Iterable[Fact]) -> Surface:
        """This surface with `facts` added or put in the place of those there."""
        return Surface(self.label, {**self.facts, **{fact.place: fact for fact in facts}})

    def only(self, subjects: Iterable[str]) -> Surface:
        """This surface without other subjects, but with the policies that those kept refer to."""
        kept = [fact for subject in subjects for fact in self.of_subject(subject)]
        referred = {policy for fact in kept for policy in fact.refers_to}
        kept += [fact for policy in referred for fact in self.of_subject(policy)]
        return Surface(self.label, {fact.place: fact for fact in kept})

    @property
    def _by_subject(self) -> dict[str, list[Fact]]:
        cached = self.__dict__.get("_index")
        if cached is None:
            cached = {}
            for place in sorted(self.facts):
                cached.setdefault(place[0], []).append(self.facts[place])
            object.__setattr__(self, "_index", cached)
        return cached


def kind_of(subject: str) -> str:
    """``role`` of ``role/x``."""
    return subject.split("/", 1)[0]


def plain_document(value: Any) -> Any:
    """A document as a mapping where it is readable JSON text, else as it is: parsing proper names every fault."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def last_part(value: str) -> str:
    """The bare name in a name, path, ARN or URL: ``x`` of ``arn:aws:iam::1:role/a/x``."""
    return value.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]
