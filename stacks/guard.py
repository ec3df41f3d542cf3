"""Refuses to touch a stack whose state belongs to another account or region than its settings say."""

from __future__ import annotations

import pulumi

from ringfence.errors import InputError, Problem
from ringfence.settings import Settings


def _recorded_outputs() -> dict[str, object]:
    """This stack's outputs as of its last update; empty before the first one."""
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    read = pulumi.runtime.invoke("pulumi:pulumi:readStackOutputs", {"name": stack})
    return dict((read.value or {}).get("outputs") or {})


def refuse_foreign_state(settings: Settings) -> None:
    """Compares account and region with the state's own. Raises InputError before anything is registered."""
    recorded = _recorded_outputs()
    problems = [
        Problem(
            f"stack {pulumi.get_stack()}",
            key,
            f"the state belongs to {recorded[key]!r}, the settings say {wanted!r}",
            "select the stack that belongs to these settings, or `pulumi stack init` a new one",
        )
        for key, wanted in (("accountId", settings.account_id), ("region", settings.region))
        if recorded.get(key) not in (None, wanted)
    ]
    if problems:
        raise InputError(problems)
