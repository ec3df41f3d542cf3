"""The types of policy documents: what a document says, free of how it is spelt.

Reference: IAM User Guide, "IAM JSON policy elements reference" and "Grammar of the IAM JSON policy language".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["identity", "trust", "resource", "session", "boundary", "scp"]
KINDS: tuple[str, ...] = get_args(Kind)
Effect = Literal["Allow", "Deny"]

# The version that enables policy variables; the older one, also the default, reads `${...}` as plain text.
CURRENT_VERSION = "2012-10-17"
LEGACY_VERSION = "2008-10-17"


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one condition key: ``operator`` over ``values`` (any of them, or none for a negated operator).

    operator: canonical base name, e.g. ``StringLike``; key: as written (IAM compares it without case);
    quantifier: ``""``, ``ForAllValues`` or ``ForAnyValue``; if_exists: an absent key satisfies it.
    """

    operator: str
    key: str
    values: tuple[str, ...]
    quantifier: str = ""
    if_exists: bool = False

    @property
    def full_operator(self) -> str:
        """The operator as a document spells it, e.g. ``ForAllValues:StringLikeIfExists``."""
        prefix = f"{self.quantifier}:" if self.quantifier else ""
        return f"{prefix}{self.operator}{'IfExists' if self.if_exists else ''}"


@dataclass(frozen=True, slots=True)
class PrincipalEntry:
    """One entry of a Principal element. type: ``AWS``, ``Service``, ``Federated``, ``CanonicalUser`` or ``*``.

    ``"Principal": "*"`` is ``PrincipalEntry("*", "*")``; ``{"AWS": "*"}`` means the same and is kept as written.
    """

    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. Of each pair (actions, not_actions), (resources, not_resources), (principals, not_principals)
    at most one is non-empty. A trust statement has no resources: it speaks of the role that it is attached to.

    index: 0-based place in its document; sid: empty when the document gives none.
    """

    index: int
    effect: Effect
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    not_resources: tuple[str, ...] = ()
    principals: tuple[PrincipalEntry, ...] = ()
    not_principals: tuple[PrincipalEntry, ...] = ()
    conditions: tuple[Condition, ...] = ()
    sid: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One policy document. version: ``2012-10-17``, or ``2008-10-17`` (also when absent), which has no variables."""

    kind: Kind
    statements: tuple[Statement, ...]
    version: str = LEGACY_VERSION
    id: str = ""

    @property
    def variables_enabled(self) -> bool:
        """Whether ``${...}`` in this document is a policy variable."""
        return self.version == CURRENT_VERSION


@dataclass(frozen=True, slots=True)
class Permissions:
    """Everything that decides what one principal may do. A request passes when every layer given allows it and no
    document of any layer denies it.

    identity: inline and managed policies together (their union); boundary: the permissions boundary, None for none;
    session: session policies (their union), None when the session has none; scp: one tuple of documents per level of
    the organisation (root, unit, account), each level a union, every level must allow.
    """

    identity: tuple[Document, ...] = ()
    boundary: Document | None = None
    session: tuple[Document, ...] | None = None
    scp: tuple[tuple[Document, ...], ...] = ()

    def layers(self) -> tuple[tuple[str, tuple[Document, ...]], ...]:
        """Each layer's name and documents: ``identity`` first, then ``boundary``, ``session``, ``scp[0]``, …"""
        layers: list[tuple[str, tuple[Document, ...]]] = [("identity", self.identity)]
        if self.boundary is not None:
            layers.append(("boundary", (self.boundary,)))
        if self.session is not None:
            layers.append(("session", self.session))
        layers.extend((f"scp[{level}]", documents) for level, documents in enumerate(self.scp))
        return tuple(layers)
