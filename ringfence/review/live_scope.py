"""Which things of an account belong to an environment, and how its APIs are paged through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ringfence.names import Names
from ringfence.review.facts import Surface


@dataclass
class Scope:
    """An account as seen by one environment. approved: the lockfile's surface."""

    session: Any
    names: Names
    approved: Surface
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """A boto3 client of the environment's region, made once."""
        if service not in self._clients:
            self._clients[service] = self.session.client(service, region_name=self.names.region)
        return self._clients[service]

    def pages(self, service: str, operation: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every page of a listing."""
        yield from self.client(service).get_paginator(operation).paginate(**params)

    def covers(self, kind: str, name: str) -> bool:
        """Whether a thing is the environment's: by its prefix, or named in the lockfile."""
        return name.startswith(f"{self.names.base}-") or f"{kind}/{name}" in self._approved_subjects

    @property
    def _approved_subjects(self) -> set[str]:
        return set(self.approved.subjects())
