"""Runs the guardrails over one resource or a stack, minus what exceptions excuse."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.review import exceptions
from ringfence.review.exceptions import Exceptions
from ringfence.review.guardrails import compute, network, pods, storage
from ringfence.review.guardrails.model import Guardrail, Violation
from ringfence.review.resource import Resource

GUARDRAILS: tuple[Guardrail, ...] = (
    *compute.GUARDRAILS,
    *storage.GUARDRAILS,
    *network.GUARDRAILS,
    *pods.GUARDRAILS,
)
TOPICS: tuple[str, ...] = tuple(dict.fromkeys(rule.topic for rule in GUARDRAILS))


@dataclass
class GuardrailRules:
    """The rules with their exceptions. folder: what a relative path of the exceptions file starts from."""

    folder: Path
    today: datetime.date = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date())
    _read: dict[str, tuple[Exceptions, str]] = field(default_factory=dict)

    def _exceptions(self, config: Mapping[str, Any]) -> tuple[Exceptions, str]:
        name = str(config.get("exceptions") or "catalog/exceptions.yaml")
        if name not in self._read:
            try:
                self._read[name] = (exceptions.read(self.folder / name, self.today), "")
            except InputError as error:
                self._read[name] = (Exceptions(), str(error))
        return self._read[name]

    def check_resource(self, topic: str, resource: Resource, config: Mapping[str, Any]) -> Iterator[Violation]:
        """What one resource breaks of a topic's rules."""
        excused, _ = self._exceptions(config)
        for rule in GUARDRAILS:
            if rule.topic == topic and rule.check is not None and resource.type.startswith(rule.types):
                if excused.excuses(rule.id, resource.name):
                    continue
                for what in rule.check(resource):
                    yield Violation(rule.id, rule.text(what), resource.urn)

    def check_stack(self, resources: Sequence[Resource], config: Mapping[str, Any]) -> Iterator[Violation]:
        """What only several resources together break, and what is wrong with the exceptions."""
        excused, problem = self._exceptions(config)
        if problem:
            yield Violation("exceptions", f"the exceptions can't be read, so none counts: {problem}", "")
        for item in excused.expired:
            yield Violation("exceptions", exceptions.expired_text(item), "")
        for rule in GUARDRAILS:
            if rule.stack_check is None:
                continue
            looked_at = [resource for resource in resources if resource.type.startswith(rule.types)]
            for resource, what in rule.stack_check(looked_at):
                if not excused.excuses(rule.id, resource.name):
                    yield Violation(rule.id, rule.text(what), resource.urn)
