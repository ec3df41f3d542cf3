"""Exceptions from the packs: one action on one resource, or one guardrail on one resource, with a reason and an end.

Nothing broader exists on purpose: a blanket suppression later lets through what nobody thought of.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic

from ringfence import strict_yaml, validation
from ringfence.errors import InputError, Problem
from ringfence.review.facts import Fact, Slot, Surface
from ringfence.validation import StrictModel

# An exception is a debt: longer than this it is a grant, which belongs into the lockfile.
MAX_DAYS = 92
_Reason = Annotated[str, pydantic.Field(min_length=20, max_length=1000)]


class GrantException(StrictModel):
    """One action on one resource that one principal may have beyond the lockfile."""

    subject: Annotated[str, pydantic.Field(pattern=r"^(role|user|group)/[\w+=,.@/-]+$")]
    action: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9-]+:[A-Za-z0-9]+$")]
    resource: Annotated[str, pydantic.Field(pattern=r"^(\*|arn:[^*?]+)$")]
    reason: _Reason
    expires: datetime.date


class GuardrailException(StrictModel):
    """One guardrail that one resource may break. resource: its Pulumi name."""

    rule: Annotated[str, pydantic.Field(pattern=r"^[a-z0-9-]+$")]
    resource: Annotated[str, pydantic.Field(min_length=1, max_length=300)]
    reason: _Reason
    expires: datetime.date


class _Content(StrictModel):
    grants: tuple[GrantException, ...] = ()
    guardrails: tuple[GuardrailException, ...] = ()


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The exceptions in force on a day, and those that have run out."""

    grants: tuple[GrantException, ...] = ()
    guardrails: tuple[GuardrailException, ...] = ()
    expired: tuple[GrantException | GuardrailException, ...] = ()

    def extend(self, baseline: Surface) -> Surface:
        """The baseline with what the grant exceptions allow."""
        facts = []
        for number, item in enumerate(self.grants):
            statement = {"Effect": "Allow", "Action": item.action, "Resource": item.resource}
            document = {"Version": "2012-10-17", "Statement": [statement]}
            facts.append(Fact(item.subject, Slot.INLINE, f"(exception {number})", document))
        return baseline.with_facts(facts) if facts else baseline


def read(path: Path, today: datetime.date) -> Exceptions:
    """The exceptions at `path`; none when there is no file. Raises InputError with every problem."""
    if not path.exists():
        return Exceptions()
    where = str(path)
    data, lines = strict_yaml.read(path, where)
    try:
        content = _Content.model_validate(data or {}, strict=False)
    except pydantic.ValidationError as error:
        raise InputError(validation.problems(error, where, lines)) from error
    everything: tuple[GrantException | GuardrailException, ...] = (*content.grants, *content.guardrails)
    limit = today + datetime.timedelta(days=MAX_DAYS)
    late = [
        Problem(where, "expires", f"{item.expires} is more than {MAX_DAYS} days away", "approve it as a grant instead")
        for item in everything
        if item.expires > limit
    ]
    if late:
        raise InputError(late)
    return Exceptions(
        tuple(item for item in content.grants if item.expires >= today),
        tuple(item for item in content.guardrails if item.expires >= today),
        tuple(item for item in everything if item.expires < today),
    )


def expired_text(item: GrantException | GuardrailException) -> str:
    """An expired exception in a sentence."""
    what = (
        f"{item.action} on {item.resource} for {item.subject}"
        if isinstance(item, GrantException)
        else f"{item.rule} on {item.resource}"
    )
    return (
        f"the exception for {what} expired on {item.expires}. Why it matters: what was meant to end goes on. "
        "Fix: remove the access and the exception. Approve: run `ringfence grants update`, or give it a new end and a "
        "new reason."
    )
