"""The rules of the permission-creep pack over plain values; the pack itself only hands resources over.

A resource alone is compared as it comes, before it is made. What takes several resources together (a Deny dropped with
its policy, a policy attached to a role that another resource declares) is decided over the whole stack at preview.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ringfence.errors import RingfenceError
from ringfence.review import lockfile, wording
from ringfence.review.changes import Change
from ringfence.review.compare import compare
from ringfence.review.conflicts import resolved
from ringfence.review.documents import equal_documents
from ringfence.review.extract import facts_of, facts_of_all
from ringfence.review.extract_iam import UNNAMED
from ringfence.review.extract_policies import policy_owner
from ringfence.review.facts import DOCUMENT_SLOTS, Fact, Slot, Surface
from ringfence.review.resource import Resource

# Subjects whose name only other resources tell: a key's id is made up at creation.
_TOLD_BY_LINKS = frozenset({"aws:kms/keyPolicy:KeyPolicy", "aws:kms/grant:Grant"})


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was approved, exceptions that have run out, and what is wrong with the files that say so."""

    surface: Surface
    expired: tuple[str, ...] = ()
    problem: str = ""


@dataclass
class CreepRules:
    """The rules with their files. folder: what relative paths start from; stack: whose lockfile."""

    folder: Path
    stack: str
    today: datetime.date = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date())
    _told: set[tuple[str, Slot, str]] = field(default_factory=set)
    _baselines: dict[tuple[str, str], Baseline] = field(default_factory=dict)

    def baseline(self, config: Mapping[str, Any]) -> Baseline:
        """The baseline that a pack's configuration names. Files that can't be read approve nothing."""
        lock, excuse = str(config.get("lockfile") or ""), str(config.get("exceptions") or "")
        if (lock, excuse) not in self._baselines:
            self._baselines[lock, excuse] = self._read(lock, excuse)
        return self._baselines[lock, excuse]

    def prepare(self, config: Mapping[str, Any]) -> None:
        """Reads the baseline ahead, and what comparing with it takes."""
        for fact in self.baseline(config).surface.facts.values():
            if fact.slot in DOCUMENT_SLOTS:
                equal_documents(fact.value, "")

    def _read(self, lock: str, excuse: str) -> Baseline:
        folder = self.folder / lockfile.DEFAULT_PATH.parent
        path = self.folder / lock if lock else lockfile.path_for(self.stack, folder)
        excuse_path = self.folder / excuse if excuse else folder / "exceptions.yaml"
        problems: list[str] = []
        surface, expired = Surface(str(path)), ()
        try:
            surface = _as_texts(lockfile.read(path).surface)
            if excuse_path.exists():
                # Loaded only when needed: most programs have no exceptions, and every preview waits for this.
                from ringfence.review import exceptions

                excused = exceptions.read(excuse_path, self.today)
                surface = excused.extend(surface)
                expired = tuple(exceptions.expired_text(item) for item in excused.expired)
        except RingfenceError as error:
            problems.append(str(error))
        return Baseline(surface, expired, "\n".join(problems))

    def check_resource(self, resource: Resource, config: Mapping[str, Any]) -> list[str]:
        """The violations of one resource, each the text that a pull request shows."""
        stated = facts_of(resource)
        if not stated:
            return []
        held = self.baseline(config)
        if held.problem:
            return [_no_baseline(held.problem)]
        # Most resources say just what was approved, and the preview waits for each.
        if all(_as_approved(fact, held.surface) for fact in stated):
            return []
        facts = [fact for fact in resolved(stated, declared=True) if not _deferred(fact, held.surface)]
        subjects = {fact.subject for fact in facts} | _holders(facts, held.surface)
        # Only what matters here: an environment has thousands of facts, and this runs once for each of its resources.
        approved = held.surface.only(subjects | {policy for fact in facts for policy in fact.refers_to})
        changes = compare(approved, approved.with_facts(facts), subjects)
        self._told |= {(change.subject, change.slot, change.key) for change in changes}
        return _texts(changes)

    def check_stack(self, resources: Iterable[Resource], config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The violations that only the whole stack shows, each with the URN that it belongs to."""
        declared = tuple(resources)
        facts = resolved(facts_of_all(declared), declared=False)
        # A resource that is there without its policy has lost the policy's denies.
        bare = set(filter(None, map(policy_owner, declared)))
        if not facts and not bare:
            return []
        held = self.baseline(config)
        if held.problem:
            return []
        candidate = Surface.of("stack", facts)
        changes = compare(held.surface, candidate, {*candidate.subjects(), *bare})
        new = [change for change in changes if (change.subject, change.slot, change.key) not in self._told]
        return [(text, change.source) for change in new if change.needs_review for text in _texts([change])]

    def check_exceptions(self, config: Mapping[str, Any]) -> list[str]:
        """Exceptions that have run out."""
        return list(self.baseline(config).expired)


def _as_texts(approved: Surface) -> Surface:
    """The same with documents as texts: what a text says is worked out once, however often it is compared."""
    return approved.with_facts(
        replace(fact, value=json.dumps(fact.value))
        for fact in approved.facts.values()
        if fact.slot in DOCUMENT_SLOTS and isinstance(fact.value, dict)
    )


def _as_approved(fact: Fact, approved: Surface) -> bool:
    """Whether a fact is approved as it stands, so that there is nothing to decide. An unknown one never is."""
    held = approved.facts.get(fact.place)
    if held is None:
        return fact.slot is Slot.BOUNDARY and fact.value is None
    if fact.slot in DOCUMENT_SLOTS:
        return equal_documents(fact.value, held.value)
    return fact.unknown is None and bool(fact.value == held.value)


def _deferred(fact: Fact, approved: Surface) -> bool:
    """Whether only the whole stack can tell what the fact is about. An unreadable document never waits."""
    if fact.unknown:
        return fact.slot not in DOCUMENT_SLOTS and fact.slot is not Slot.TEMPLATE
    # The ids of what is shared and with whom are made up at creation: the stack alone tells what they are of.
    if fact.slot is Slot.ACCESS and not fact.key:
        return True
    if UNNAMED in fact.subject or UNNAMED in fact.key or fact.type in _TOLD_BY_LINKS:
        return True
    # Another resource of the same program may hold the document.
    customers = fact.slot is Slot.MANAGED and not fact.key.startswith("aws:")
    return customers and approved.value(fact.key, Slot.DOCUMENT) is None


def _holders(facts: Iterable[Fact], baseline: Surface) -> set[str]:
    """Principals that an approved attachment or boundary ties to a policy among `facts`."""
    policies = {fact.subject for fact in facts if fact.slot is Slot.DOCUMENT}
    if not policies:
        return set()
    return {
        fact.subject
        for fact in baseline.facts.values()
        if (fact.slot is Slot.MANAGED and fact.key in policies)
        or (fact.slot is Slot.BOUNDARY and fact.value in policies)
    }


def _texts(changes: Iterable[Change]) -> list[str]:
    return ["\n    ".join(wording.lines(change)) for change in changes if change.needs_review]


def _no_baseline(problem: str) -> str:
    return (
        f"there is no readable baseline to compare with, so nothing counts as approved: {problem}\n    Why it matters: "
        "without a baseline every permission would pass.\n    Fix: point the pack's `lockfile` setting at the lockfile."
        "\n    Approve: make a lockfile with `ringfence grants update --preview FILE --approver YOU`."
    )


def stack_of(environment: Mapping[str, str] = os.environ) -> str:
    """The stack that the engine runs a pack for."""
    return environment.get("PULUMI_STACK", "").rsplit("/", 1)[-1]
