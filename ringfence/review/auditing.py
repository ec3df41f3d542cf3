"""The quarterly audit of what was approved."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from ringfence.review import exceptions
from ringfence.review.lockfile import Lockfile
from ringfence.review.usage import Usage, unused


def findings(lock: Lockfile, exceptions_path: Path, used: Mapping[str, Usage], today: datetime.date) -> list[str]:
    """What an auditor has to deal with, a sentence each: overdue first. Raises InputError for unreadable exceptions."""
    overdue: list[tuple[datetime.date, str]] = []
    missing: list[str] = []
    for subject, block in sorted(lock.content.grants.items()):
        if block.review_date is None:
            missing.append(f"no review date: {subject}, owner {block.owner}: set reviewDate and approve it")
        elif block.review_date < today:
            days = (today - block.review_date).days
            text = (
                f"overdue by {days} day{'s' if days != 1 else ''}: {subject} was to be reviewed by {block.review_date}, "
                f"owner {block.owner}, approved by {block.approver}"
            )
            overdue.append((block.review_date, text))
    told = [text for _, text in sorted(overdue)] + missing
    told += [f"expired: {exceptions.expired_text(item)}" for item in exceptions.read(exceptions_path, today).expired]
    told += [
        f"unused: {item.subject} never used {item.action} of {item.policy}: take it out, or say why it stays"
        for item in unused(lock.surface, used)
    ]
    return told
