"""Makes the next lockfile from the catalog and a preview, keeping what nobody changed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.catalog.model import Catalog, Tool
from ringfence.errors import InputError, Problem
from ringfence.iam.tool_documents import tool_documents
from ringfence.names import Names
from ringfence.review.changes import Change
from ringfence.review.compare import compare
from ringfence.review.facts import Fact, Slot, Surface
from ringfence.review.lockfile import (
    REVIEW_INTERVAL,
    Block,
    Content,
    Environment,
    Lockfile,
    catalogue_versions,
    grants_of,
)

# Name of a tool role's inline policy.
TOOL_POLICY = "grants"


@dataclass(frozen=True, slots=True)
class Approval:
    """Who approves, and what is written for grants that no catalog entry explains. today: the day of the approval."""

    approver: str
    today: datetime.date
    owner: str = ""
    justification: str = ""


def tool_of(subject: str, catalog: Catalog, names: Names) -> Tool | None:
    """The catalog tool that a subject belongs to."""
    return next((tool for tool in catalog.tools if subject == f"role/{names.tool_role(tool.name)}"), None)


def catalog_facts(catalog: Catalog, names: Names) -> list[Fact]:
    """What the catalog alone says of its tools' roles: trust and inline policy. Raises InputError on oversize."""
    found: list[Fact] = []
    for tool in catalog.tools:
        made = tool_documents(tool, names)
        subject, source = f"role/{made.role_name}", tool.source.file
        found.append(Fact(subject, Slot.EXISTS, "", True, source))
        found.append(Fact(subject, Slot.TRUST, "", json.loads(made.trust), source))
        if made.policy is not None:
            found.append(Fact(subject, Slot.INLINE, TOOL_POLICY, json.loads(made.policy), source))
    return found


def updated(
    names: Names, catalog: Catalog, facts: Iterable[Fact], previous: Lockfile | None, approval: Approval
) -> Content:
    """The lockfile's next content: exactly `facts`, each block with its metadata.

    A block that stays as it was keeps its approver and review date; a tool's owner, justification and review date come
    from the catalog, other new blocks take the approval's. Raises InputError for what can't be locked.
    """
    surface = Surface.of("candidate", facts)
    problems: list[Problem] = []
    blocks: dict[str, Block] = {}
    for subject in surface.subjects():
        grants, found = grants_of(surface.of_subject(subject))
        problems += found
        if found or not grants:
            continue
        before = previous.block(subject) if previous else None
        block, missing = _block(subject, grants, before, tool_of(subject, catalog, names), approval)
        problems += missing
        if block:
            blocks[subject] = block
    if problems:
        raise InputError(problems)
    return Content(environment=Environment.of(names), catalogue=catalogue_versions(), grants=blocks)


def _block(
    subject: str, grants: dict, before: Block | None, tool: Tool | None, approval: Approval
) -> tuple[Block | None, list[Problem]]:
    same = before is not None and before.grants == grants
    if tool is not None:
        owner, justification, review = tool.owner, tool.justification, tool.review_date
    else:
        owner = before.owner if before else approval.owner
        justification = before.justification if before else approval.justification
        review = before.review_date if same and before else approval.today + REVIEW_INTERVAL
    missing = [
        Problem(subject, key, "is new and nobody is named for it", f"pass --{key} for grants outside the catalog")
        for key, value in (("owner", owner), ("justification", justification))
        if not value
    ]
    if missing:
        return None, missing
    told = same and before is not None and (before.owner, before.justification) == (owner, justification)
    approver = before.approver if told and before else approval.approver
    return (
        Block(
            owner=owner,
            justification=justification,
            review_date=review,
            approver=approver,
            tool=tool.name if tool else None,
            grants=grants,
        ),
        [],
    )


def catalog_differences(lock: Lockfile, catalog: Catalog) -> tuple[list[Change], list[str]]:
    """Where the lockfile and the catalog's tools disagree: grants either way by meaning, and what else differs."""
    names = lock.content.environment.names()
    facts = catalog_facts(catalog, names)
    subjects = {fact.subject for fact in facts}
    # A tool's boundary is made from the same declarations: held against the approved one, what they gain would not count.
    unbounded = Surface.of(
        lock.surface.label,
        (
            fact
            for fact in lock.surface.facts.values()
            if fact.subject not in subjects or fact.slot is not Slot.BOUNDARY
        ),
    )
    changes = list(compare(unbounded, unbounded.with_facts(facts), subjects))
    told: list[str] = []
    for tool in catalog.tools:
        subject = f"role/{names.tool_role(tool.name)}"
        block = lock.block(subject)
        if block is None:
            told.append(f"tool {tool.name} ({tool.source.file}:{tool.source.line}) has no approved grants")
            continue
        if not tool.grants and lock.surface.of_slot(subject, Slot.INLINE):
            told.append(f"tool {tool.name} grants nothing, but the lockfile approves a policy for {subject}")
        for key, declared, approved in (
            ("owner", tool.owner, block.owner),
            ("justification", tool.justification, block.justification),
            ("reviewDate", tool.review_date, block.review_date),
        ):
            if declared != approved:
                told.append(f"{key} of tool {tool.name} is {declared} in the catalog, {approved} in the lockfile")
    for subject, block in lock.content.grants.items():
        if block.tool and subject not in subjects:
            told.append(f"{subject} is approved for the tool {block.tool}, which the catalog does not declare")
    return changes, told


def without_preview(previous: Lockfile | None, catalog: Catalog, names: Names) -> Surface:
    """What the lockfile already has, with the tools' own grants as the catalog declares them now."""
    facts = catalog_facts(catalog, names)
    declared = {fact.subject for fact in facts}
    held = previous.surface.facts.values() if previous else ()
    tools = {name for name, block in previous.content.grants.items() if block.tool} if previous else set()
    kept = [
        fact
        for fact in held
        if fact.subject not in tools - declared and not (fact.subject in declared and fact.slot is Slot.INLINE)
    ]
    return Surface.of("catalog", [*kept, *facts])
