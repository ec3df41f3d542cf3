"""What a candidate grants beyond a baseline, and what it no longer grants, decided by meaning.

Documents are never compared as text: splitting, reordering or re-spelling statements is no change. A principal's
inline and attached policies count together, within its boundary; each other fact stands for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from ringfence.iam.model import Document, Permissions, Statement
from ringfence.review.changes import Addition, Change, ChangeKind, place_text, slot_text, statement_text, unreviewable
from ringfence.review.documents import (
    PrincipalSet,
    Unreadable,
    allow_everything,
    equal_documents,
    holds_deny,
    managed_document,
    parsed,
    principal_set,
)
from ringfence.review.facts import DOCUMENT_SLOTS, PRINCIPAL_KINDS, Fact, Slot, Surface, kind_of

if TYPE_CHECKING:
    from ringfence.iam.containment import Decision, PermissionSet
    from ringfence.iam.escalation import Escalation

_OF_PRINCIPALS = frozenset({Slot.INLINE, Slot.MANAGED, Slot.BOUNDARY})
_DOCUMENT_KINDS = {Slot.TRUST: "trust", Slot.RESOURCE_POLICY: "resource", Slot.DOCUMENT: "identity"}


def compare(baseline: Surface, candidate: Surface, subjects: Iterable[str] | None = None) -> tuple[Change, ...]:
    """Every change from `baseline` to `candidate`, in the order of subjects.

    subjects: only these; None for all of both sides.
    """
    candidate = _completed(baseline, candidate)
    names = sorted(subjects) if subjects is not None else sorted({*baseline.subjects(), *candidate.subjects()})
    changed_policies = frozenset(_changed_policies(baseline, candidate))
    found: list[Change] = []
    for subject in names:
        found += _Subject(subject, baseline, candidate, changed_policies).changes()
    return tuple(found)


def _completed(baseline: Surface, candidate: Surface) -> Surface:
    """The candidate with what was approved for principals that it adds to but doesn't declare: a program that only adds
    a policy to another program's role says nothing of the role's boundary and other policies."""
    partly = [
        subject
        for subject in candidate.subjects()
        if kind_of(subject) in PRINCIPAL_KINDS
        and (subject, Slot.EXISTS, "") not in candidate.facts
        and (subject, Slot.EXISTS, "") in baseline.facts
    ]
    held = [fact for subject in partly for fact in baseline.of_subject(subject)]
    held += [
        fact for policy in {name for fact in held for name in fact.refers_to} for fact in baseline.of_subject(policy)
    ]
    missing = [fact for fact in held if fact.place not in candidate.facts]
    return candidate.with_facts(missing) if missing else candidate


def _changed_policies(baseline: Surface, candidate: Surface) -> Iterator[str]:
    for (subject, slot, key), fact in candidate.facts.items():
        if slot is Slot.DOCUMENT and not equal_documents(fact.value, baseline.value(subject, slot, key)):
            yield subject
    for subject, slot, key in baseline.facts:
        if slot is Slot.DOCUMENT and (subject, slot, key) not in candidate.facts:
            yield subject


class _Subject:
    """The comparison of one subject."""

    def __init__(self, subject: str, baseline: Surface, candidate: Surface, changed_policies: frozenset[str]):
        self.subject = subject
        self.baseline, self.candidate = baseline, candidate
        self.changed_policies = changed_policies
        self.before = {(fact.slot, fact.key): fact for fact in baseline.of_subject(subject)}
        self.after = {(fact.slot, fact.key): fact for fact in candidate.of_subject(subject)}

    def changes(self) -> list[Change]:
        if self._unchanged():
            return []
        found = [unreviewable(fact, fact.unknown.reason) for fact in self.after.values() if fact.unknown]
        if kind_of(self.subject) in PRINCIPAL_KINDS:
            found += self._permissions()
        for slot in _DOCUMENT_KINDS:
            found += self._documents(slot)
        found += self._records()
        if self.secret:
            found = [change.without_values() for change in found]
        return self._without_mere_existence(found)

    def _unchanged(self) -> bool:
        """Whether both sides say the same of everything, as of most subjects: a quick yes."""
        return self.before.keys() == self.after.keys() and all(
            self._same(before, self.after[place]) for place, before in self.before.items()
        )

    def _same(self, before: Fact, after: Fact) -> bool:
        if after.slot in DOCUMENT_SLOTS:
            return equal_documents(before.value, after.value)
        return (
            after.unknown is None and before.value == after.value and self.changed_policies.isdisjoint(after.refers_to)
        )

    @cached_property
    def secret(self) -> bool:
        """Whether a value marked secret may be part of what is compared."""
        facts = list(self.after.values())
        referred = {policy for fact in facts for policy in fact.refers_to}
        facts += [fact for policy in referred for fact in self.candidate.of_subject(policy)]
        return any(fact.secret for fact in facts)

    def _without_mere_existence(self, found: list[Change]) -> list[Change]:
        """A new or vanished principal is told once, by what it grants; by its existence only if it grants nothing."""
        telling = [change for change in found if change.slot is not Slot.EXISTS]
        return telling or found

    # Inline and attached policies within the boundary.

    def _permissions(self) -> list[Change]:
        if not self._permissions_differ():
            return []
        before = principal_set(self.subject, self.baseline)
        after = principal_set(self.subject, self.candidate)
        found = [unreviewable(fact, reason) for fact, reason in after.unreadable]
        decision = _contains(before.permissions, after.permissions)
        escalations = () if decision.contained else _newly_complete(before.permissions, after.permissions)
        if not decision.contained:
            found += self._widened_documents(before, after, decision)
        told = {change.key for change in found if change.slot is Slot.MANAGED}
        found += [change for change in self._new_attachments() if change.key not in told]
        found += self._boundary(before, after, decision)
        if not found and not decision.contained:
            place = Fact(self.subject, Slot.INLINE, "", None, self._any_source())
            found.append(self._widened(place, decision, ()))
        if escalations:
            found = _with_escalations(found, escalations)
        return found or self._narrowed(before, after)

    def _permissions_differ(self) -> bool:
        places = {place for place in (*self.before, *self.after) if place[0] in _OF_PRINCIPALS}
        return any(self._differs(self.before.get(place), self.after.get(place)) for place in places)

    def _differs(self, before: Fact | None, after: Fact | None) -> bool:
        fact = before or after
        if fact is None or before is None or after is None:
            return fact is not None and (fact.slot is not Slot.BOUNDARY or fact.value is not None)
        if fact.slot is Slot.INLINE:
            return not equal_documents(before.value, after.value)
        referred = after.key if fact.slot is Slot.MANAGED else after.value
        return before.value != after.value or referred in self.changed_policies

    def _widened_documents(self, before: PrincipalSet, after: PrincipalSet, decision: Decision) -> list[Change]:
        """One change for each inline or attached policy with a statement that isn't covered."""
        denies = after.denies()
        found: list[Change] = []
        for fact, document in after.documents:
            additions = []
            for statement in document.statements:
                if statement.effect != "Allow":
                    continue
                alone = replace(document, statements=(statement,))
                part = _contains(before.permissions, replace(after.permissions, identity=(alone, *denies)))
                if not part.contained:
                    additions.append(Addition(statement_text(statement), part.witness and part.witness.request))
            if additions:
                found.append(self._widened(fact, decision, tuple(additions)))
        return found

    def _new_attachments(self) -> list[Change]:
        """Attached policies that nobody can decide about: AWS's own, and those whose document isn't at hand."""
        found = []
        for (slot, key), fact in self.after.items():
            if slot is not Slot.MANAGED or fact.unknown:
                continue
            held = (slot, key) in self.before
            opaque = not key.startswith("aws:") and managed_document(key, self.candidate) is None
            if not held and key.startswith("aws:"):
                message = f"{self.subject} gains the attached policy {key}, whose content AWS can change"
                found.append(self._change(ChangeKind.ADDED, fact, message))
            elif opaque and (not held or managed_document(key, self.baseline) is not None):
                message = f"{self.subject} has the attached policy {key}, whose document isn't part of this program"
                found.append(self._change(ChangeKind.ADDED, fact, message))
        return found

    def _boundary(self, before: PrincipalSet, after: PrincipalSet, decision: Decision) -> list[Change]:
        fact = self.after.get((Slot.BOUNDARY, ""))
        if before.boundary is None or before.boundary == after.boundary or not self.after or (fact and fact.unknown):
            return []
        fact = fact or Fact(self.subject, Slot.BOUNDARY, "", None, self._any_source())
        what = f"changes to {after.boundary}" if after.boundary else "is removed"
        message = f"the permissions boundary {before.boundary} of {self.subject} {what}"
        request = decision.witness.request if decision.witness else None
        return [self._change(ChangeKind.CHANGED, fact, message, request=request)]

    def _narrowed(self, before: PrincipalSet, after: PrincipalSet) -> list[Change]:
        lost = _contains(after.permissions, before.permissions)
        if lost.contained:
            return []
        request = lost.witness.request if lost.witness else None
        place = Fact(self.subject, Slot.INLINE, "", None)
        return [self._change(ChangeKind.REMOVED, place, f"{self.subject} is granted less", request=request)]

    # Trust policies, resource policies and managed policies by themselves.

    def _documents(self, slot: Slot) -> list[Change]:
        before = [fact for fact in self.before.values() if fact.slot is slot]
        after = [fact for fact in self.after.values() if fact.slot is slot and not fact.unknown]
        known = {fact.key: fact.value for fact in before}
        if len(before) == len(after) and all(
            fact.key in known and equal_documents(fact.value, known[fact.key]) for fact in after
        ):
            return []
        kind = _DOCUMENT_KINDS[slot]
        old = [document for fact in before if isinstance(document := parsed(fact, kind), Document)]
        found: list[Change] = []
        new: list[tuple[Fact, Document]] = []
        for fact in after:
            document = parsed(fact, kind)
            if isinstance(document, Unreadable):
                found.append(unreviewable(fact, document.reason))
            elif document is not None:
                new.append((fact, document))
        found += self._widened_slot(slot, old, new)
        if not found and not any(fact.unknown for fact in self.after.values()):
            found += self._narrowed_slot(slot, old, [document for _, document in new])
        return found

    def _widened_slot(self, slot: Slot, old: list[Document], new: list[tuple[Fact, Document]]) -> list[Change]:
        documents = [document for _, document in new]
        decision = _contains(old, documents)
        if decision.contained:
            return self._dropped_deny(slot, old, new)
        denies = [_only(document, "Deny") for document in documents if holds_deny(document)]
        found: list[Change] = []
        for fact, document in new:
            additions = []
            for statement in document.statements:
                alone = [replace(document, statements=(statement,)), *denies]
                if statement.effect == "Allow" and not (part := _contains(old, alone)).contained:
                    additions.append(Addition(statement_text(statement), part.witness and part.witness.request))
            if additions:
                found.append(self._widened(fact, decision, tuple(additions)))
        if not found:
            found.append(self._widened(new[0][0], decision, ()))
        if slot is Slot.DOCUMENT:
            escalations = _newly_complete(old, documents)
            found = _with_escalations(found, escalations) if escalations else found
        return found

    def _dropped_deny(self, slot: Slot, old: list[Document], new: list[tuple[Fact, Document]]) -> list[Change]:
        """A Deny dropped from a resource or managed policy widens what identity policies elsewhere allow."""
        if slot is Slot.TRUST or not any(map(holds_deny, old)):
            return []
        everything = allow_everything(old[0].kind)
        documents = [document for _, document in new]
        decision = _contains([*old, everything], [*documents, everything])
        if decision.contained:
            return []
        fact = new[0][0] if new else Fact(self.subject, slot, "", None, self._any_source())
        message = f"{place_text(self.subject, slot, fact.key)} no longer denies what was approved as denied"
        request = decision.witness.request if decision.witness else None
        kind = ChangeKind.WIDENED if request else ChangeKind.UNDECIDED
        return [self._change(kind, fact, message, request=request)]

    def _narrowed_slot(self, slot: Slot, old: list[Document], new: list[Document]) -> list[Change]:
        lost = _contains(new, old)
        if lost.contained:
            return []
        request = lost.witness.request if lost.witness else None
        fact = Fact(self.subject, slot, "", None, self._any_source())
        message = f"{self.subject} {slot_text(slot)} allows less"
        return [self._change(ChangeKind.REMOVED, fact, message, request=request)]

    # Everything compared by equality.

    def _records(self) -> list[Change]:
        found: list[Change] = []
        for place, fact in self.after.items():
            if place[0] in _OF_PRINCIPALS or place[0] in _DOCUMENT_KINDS or fact.unknown:
                continue
            before = self.before.get(place)
            if before is None:
                if place[0] is not Slot.INLINE_NAME or (Slot.INLINE, fact.key) not in self.before:
                    message = f"{self.subject} gains {_a(slot_text(fact.slot))}{_detail(fact)}"
                    found.append(self._change(ChangeKind.ADDED, fact, message))
            elif before.value != fact.value:
                message = f"{place_text(*fact.place)} changes{_detail(before, ' from')}{_detail(fact, ' to')}"
                found.append(self._change(ChangeKind.CHANGED, fact, message))
        for place, fact in self.before.items():
            compared_elsewhere = place[0] in _OF_PRINCIPALS or place[0] in _DOCUMENT_KINDS
            if place not in self.after and not compared_elsewhere:
                message = f"{self.subject} loses its {slot_text(fact.slot)}{_detail(fact)}"
                found.append(self._change(ChangeKind.REMOVED, fact, message))
        return found

    # Making changes.

    def _widened(self, fact: Fact, decision: Decision, additions: tuple[Addition, ...]) -> Change:
        from ringfence.iam.containment import Outcome

        if decision.outcome is Outcome.UNDECIDED:
            reason = "undecided" if self.secret else decision.reason
            message = f"{place_text(*fact.place)} can't be shown to stay within what was approved: {reason}"
            return self._change(ChangeKind.UNDECIDED, fact, message, additions=additions)
        request = next((item.request for item in additions if item.request), None)
        request = request or (decision.witness.request if decision.witness else None)
        message = f"{place_text(*fact.place)} allows more than was approved"
        return self._change(ChangeKind.WIDENED, fact, message, request=request, additions=additions)

    def _change(self, kind: ChangeKind, fact: Fact, message: str, **more: object) -> Change:
        return Change(kind, self.subject, fact.slot, fact.key, message, source=fact.source, type=fact.type, **more)  # type: ignore[arg-type]

    def _any_source(self) -> str:
        return next((fact.source for fact in self.after.values() if fact.source), "")


# What decides is loaded with the first document that differs: most previews change none, and each waits for what a pack
# loads.


def _contains(baseline: PermissionSet, candidate: PermissionSet) -> Decision:
    from ringfence.iam.containment import contains

    return contains(baseline, candidate)


def _newly_complete(baseline: PermissionSet, candidate: PermissionSet) -> tuple[Escalation, ...]:
    from ringfence.iam.escalation import newly_complete

    return newly_complete(baseline, candidate)


def _with_escalations(found: list[Change], escalations: tuple) -> list[Change]:
    """Escalation paths belong to the subject as a whole; they are told with its first change that needs a review."""
    for index, change in enumerate(found):
        if change.needs_review:
            return [*found[:index], replace(change, escalations=escalations), *found[index + 1 :]]
    return found


def _only(document: Document, effect: str) -> Document:
    kept: tuple[Statement, ...] = tuple(s for s in document.statements if s.effect == effect)
    return replace(document, statements=kept)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _detail(fact: Fact, lead: str = ":") -> str:
    if fact.value is True or fact.slot is Slot.TEMPLATE or fact.secret:
        return f"{lead} {fact.key}" if fact.key else ""
    if isinstance(fact.value, dict):
        pairs = ", ".join(f"{key} {value}" for key, value in fact.value.items() if value not in (None, "", []))
        text = f"{fact.key} ({pairs})" if fact.key else pairs
    elif isinstance(fact.value, list):
        text = ", ".join(map(str, fact.value))
    else:
        text = f"{fact.key} ({fact.value})" if fact.key and fact.key != fact.value else str(fact.value)
    return f"{lead} {text[:200]}"


def permissions_of(surface: Surface, subject: str) -> Permissions:
    """What a principal's policies let it do, as far as their documents are known."""
    return principal_set(subject, surface).permissions
