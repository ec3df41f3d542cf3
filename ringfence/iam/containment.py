"""Is everything that a candidate grants already granted by a baseline? Decided exactly, with a witness when not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ringfence.iam.model import Document, Permissions
from ringfence.iam.request import Request

PermissionSet = Document | Sequence[Document] | Permissions


class Outcome(StrEnum):
    """The four answers. Everything but `CONTAINED` counts as widened."""

    CONTAINED = "contained"
    WIDENED = "widened"
    WIDENED_UNCATALOGUED = "widened_uncatalogued"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class StatementRef:
    """A statement of the candidate or baseline. layer and document: as in `Permissions.layers`; index: 0-based."""

    layer: str
    document: int
    index: int
    sid: str


@dataclass(frozen=True, slots=True)
class Witness:
    """One request that the candidate allows and the baseline doesn't. statement: the candidate's that allows it;
    lost_deny: the baseline's Deny that stops it, None when the baseline merely never allows it."""

    request: Request
    statement: StatementRef
    lost_deny: StatementRef | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer. witness: confirmed by the plain evaluator, None when contained or undecided; reason: one sentence,
    empty when contained; catalogue_version: of the action data used; ms: time taken, in milliseconds."""

    outcome: Outcome
    witness: Witness | None
    reason: str
    catalogue_version: str
    ms: float

    @property
    def contained(self) -> bool:
        return self.outcome is Outcome.CONTAINED


def contains(
    baseline: PermissionSet, candidate: PermissionSet, *, deadline_s: float = 5.0, memory_mb: int = 192
) -> Decision:
    """Whether `baseline` contains `candidate`. Both are a document, documents (their union) or `Permissions`."""
    raise NotImplementedError
