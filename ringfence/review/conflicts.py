"""One fact for each place, where several resources, or one of them twice, state something of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ringfence.review.documents import equal_documents
from ringfence.review.extract_iam import ROLE
from ringfence.review.extract_policies import OWNERS
from ringfence.review.facts import CONTRADICTED, DOCUMENT_SLOTS, Fact, Slot

# Types whose outputs repeat what other resources put on theirs.
_REPEATING = OWNERS | {ROLE}


def resolved(facts: Iterable[Fact], *, declared: bool) -> list[Fact]:
    """The facts with one for each place: the unknown one if any is, unknown too where they contradict each other.

    declared: whether they are of inputs alone. Among outputs, what a bucket or role repeats of its policies may be older
    than the policy itself, which counts then. The order of `facts` doesn't matter: the engine's is arbitrary.
    """
    by_place: dict[tuple[str, Slot, str], list[Fact]] = {}
    for fact in facts:
        by_place.setdefault(fact.place, []).append(fact)
    return [held[0] if len(held) == 1 else _one(held, declared) for held in by_place.values()]


def _one(held: list[Fact], declared: bool) -> Fact:
    secret = any(fact.secret for fact in held)
    unknown = next((fact for fact in held if fact.unknown), None)
    if unknown is not None:
        return replace(unknown, secret=secret)
    counting = held if declared else [fact for fact in held if fact.type not in _REPEATING] or held
    first = replace(counting[0], secret=secret)
    agree = all(_same(first, fact) for fact in counting[1:])
    return first if agree else replace(first, value=CONTRADICTED)


def _same(one: Fact, other: Fact) -> bool:
    if one.slot in DOCUMENT_SLOTS:
        return equal_documents(one.value, other.value)
    return bool(one.value == other.value)
