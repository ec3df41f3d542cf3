"""Runs the guardrails over one resource or a stack, minus what exceptions excuse."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
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
# Rules on a stack also read resources that others are linked to, so every type of these providers.
_PROVIDERS = tuple(sorted({f"{prefix.split(':', 1)[0]}:" for rule in GUARDRAILS for prefix in rule.types}))


def in_topic(topic: str, type_: str) -> bool:
    """Whether any rule of a topic looks at single resources of a type."""
    return any(rule.topic == topic and rule.check and type_.startswith(rule.types) for rule in GUARDRAILS)


def in_stack_rules(type_: str) -> bool:
    """Whether any rule on a whole stack may read a resource of a type."""
    return type_.startswith(_PROVIDERS)


@dataclass(frozen=True, slots=True)
class _Excused:
    """(rule, resource name) pairs excused, and what is to be told of the exceptions themselves."""

    pairs: frozenset[tuple[str, str]] = frozenset()
    told: tuple[str, ...] = ()


@dataclass
class GuardrailRules:
    """The rules with their exceptions. folder: what a relative path of the exceptions file starts from."""

    folder: Path
    today: datetime.date = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date())
    _read: dict[str, _Excused] = field(default_factory=dict)

    def _exceptions(self, config: Mapping[str, Any]) -> _Excused:
        name = str(config.get("exceptions") or "catalog/exceptions.yaml")
        if name not in self._read:
            self._read[name] = self._read_file(self.folder / name)
        return self._read[name]

    def _read_file(self, path: Path) -> _Excused:
        if not path.exists():
            return _Excused()
        # Loaded only when needed: most programs have no exceptions, and every preview waits for this.
        from ringfence.review import exceptions

        try:
            found = exceptions.read(path, self.today)
        except InputError as error:
            return _Excused(told=(f"the exceptions can't be read, so none counts: {error}",))
        pairs = frozenset((item.rule, item.resource) for item in found.guardrails)
        return _Excused(pairs, tuple(exceptions.expired_text(item) for item in found.expired))

    def check_resource(self, topic: str, resource: Resource, config: Mapping[str, Any]) -> Iterator[Violation]:
        """What one resource breaks of a topic's rules."""
        excused = self._exceptions(config).pairs
        for rule in GUARDRAILS:
            if rule.topic == topic and rule.check is not None and resource.type.startswith(rule.types):
                if (rule.id, resource.name) in excused:
                    continue
                for what in rule.check(resource):
                    yield Violation(rule.id, rule.text(what), resource.urn)

    def check_stack(self, resources: Sequence[Resource], config: Mapping[str, Any]) -> Iterator[Violation]:
        """What only several resources together break, and what is wrong with the exceptions."""
        excused = self._exceptions(config)
        for text in excused.told:
            yield Violation("exceptions", text, "")
        for rule in GUARDRAILS:
            if rule.stack_check is None:
                continue
            looked_at = [resource for resource in resources if resource.type.startswith(rule.types)]
            for resource, what in rule.stack_check(looked_at):
                if (rule.id, resource.name) not in excused.pairs:
                    yield Violation(rule.id, rule.text(what), resource.urn)
