"""Short ways to state facts, and a lockfile of a small shop."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.catalog.model import Catalog
from ringfence.names import Names
from ringfence.review import lockfile, updating
from ringfence.review.facts import Fact, Slot, Surface

ACCOUNT = "123456789012"
ARN = f"arn:aws:iam::{ACCOUNT}"
NAMES = Names("shop", "test", ACCOUNT, "us-east-1")


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(actions: Any, resources: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resources, **more}


def trust(principal: Any, **more: Any) -> dict[str, Any]:
    return document({"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal, **more})


def role(name: str, *inline: dict[str, Any], boundary: str | None = None, who: Any = None) -> list[Fact]:
    subject = f"role/{name}"
    return [
        Fact(subject, Slot.EXISTS, "", True),
        Fact(subject, Slot.TRUST, "", trust(who or {"AWS": f"{ARN}:role/broker"})),
        Fact(subject, Slot.BOUNDARY, "", boundary),
        *(Fact(subject, Slot.INLINE, f"policy{index or ''}", item) for index, item in enumerate(inline)),
    ]


class Kit:
    """What tests use, handed over as a fixture because test modules import nothing from each other."""

    ARN, ACCOUNT, NAMES = ARN, ACCOUNT, NAMES
    document, allow, trust, role = staticmethod(document), staticmethod(allow), staticmethod(trust), staticmethod(role)

    @staticmethod
    def surface(*facts: Fact) -> Surface:
        return Surface.of("test", facts)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., lockfile.Lockfile]:
    """Writes a lockfile that approves facts, and reads it back."""

    def make(*facts: Fact, names: Names = NAMES, day: str = "2026-11-01") -> lockfile.Lockfile:
        approval = updating.Approval("lead@example.com", datetime.date.fromisoformat(day), "shop@example.com", "a test")
        content = updating.updated(names, Catalog((), (), ()), facts, None, approval)
        path = tmp_path / "grants.lock.json"
        path.write_text(lockfile.render(content), encoding="utf-8")
        return lockfile.read(path)

    return make
