"""Refuses to touch a stack whose state belongs to another account or region than its settings say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pulumi

from ringfence.errors import InputError, Problem
from ringfence.settings import Settings

STACK, PROVIDER = "pulumi:pulumi:Stack", "pulumi:providers:aws"


def _recorded() -> Mapping[str, Any]:
    """URN → type and outputs of everything in this stack's state, also after an update that was cut off."""
    stack = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    read = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack})
    return dict((read.value or {}).get("outputs") or {})


def belongings(recorded: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, value) that a state says it belongs to: by the stack's outputs, which exist only after a first
    successful update, and by the AWS providers, which are there before anything else is."""
    for resource in recorded.values():
        outputs = resource.get("outputs") or {}
        if resource["type"] == STACK:
            yield from ((key, outputs[key]) for key in ("accountId", "region") if key in outputs)
        elif resource["type"] == PROVIDER:
            accounts = outputs.get("allowedAccountIds") or []
            # A provider's settings are kept as JSON text.
            yield from (("accountId", account) for account in _parsed(accounts))
            if outputs.get("region"):
                yield "region", outputs["region"]


def _parsed(value: Any) -> list[str]:
    return json.loads(value) if isinstance(value, str) else list(value)


def refuse_foreign_state(settings: Settings) -> None:
    """Compares account and region with the state's own. Raises InputError before anything is registered."""
    wanted = {"accountId": settings.account_id, "region": settings.region}
    problems = [
        Problem(
            f"stack {pulumi.get_stack()}",
            key,
            f"the state belongs to {value!r}, the settings say {wanted[key]!r}",
            "select the stack that belongs to these settings, or `pulumi stack init` a new one",
        )
        for key, value in sorted(set(belongings(_recorded())))
        if value != wanted[key]
    ]
    if problems:
        raise InputError(problems)
