"""A subject's approved grants in words."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.iam.escalation import find_escalations
from ringfence.iam.model import Document
from ringfence.review.changes import place_text, statement_text
from ringfence.review.documents import parsed, principal_set
from ringfence.review.facts import DOCUMENT_SLOTS, PRINCIPAL_KINDS, Slot, kind_of
from ringfence.review.lockfile import DOCUMENT_KINDS, Lockfile


def explain(lock: Lockfile, subject: str) -> Iterator[str]:
    """Lines that say who may become the subject, what it may do, within which limit, and who answers for it."""
    block = lock.content.grants[subject]
    yield f"{subject}{f' (tool {block.tool})' if block.tool else ''}"
    yield f"  why: {block.justification}"
    due = f"review by {block.review_date}" if block.review_date else "no review date"
    yield f"  owner: {block.owner}; approved by {block.approver}; {due}"
    for fact in lock.surface.of_subject(subject):
        if fact.slot in DOCUMENT_SLOTS:
            document = parsed(fact, DOCUMENT_KINDS[fact.slot])
            yield f"  {place_text('', fact.slot, fact.key).strip()}:"
            if isinstance(document, Document):
                for statement in document.statements:
                    yield f"    {statement_text(statement)}"
        elif fact.slot is Slot.BOUNDARY:
            yield f"  permissions boundary: {fact.value or 'none'}"
        elif fact.slot is not Slot.EXISTS:
            shown = "" if fact.value is True or fact.value == fact.key else f": {fact.value}"
            yield f"  {place_text('', fact.slot, fact.key).strip()}{shown}"
    if kind_of(subject) in PRINCIPAL_KINDS:
        found = find_escalations(principal_set(subject, lock.surface).permissions, include_named=True)
        for item in found:
            yield f"  escalation path: {item.path.name} ({item.id}, on {item.scope} resources)"
        if not found:
            yield "  escalation paths: none of the known ones"


def subjects_named(lock: Lockfile, name: str) -> list[str]:
    """The subjects that a name stands for: a subject itself, a tool, or the bare name of a role or other resource."""
    if name in lock.content.grants:
        return [name]
    return [
        subject
        for subject, block in sorted(lock.content.grants.items())
        if block.tool == name or subject.split("/", 1)[-1] == name
    ]
