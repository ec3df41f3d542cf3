"""Witnesses that people recognise: made-up parts of an ARN replaced by plausible ones, where that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ringfence.iam.request import Request

_PARTITION, _REGION, _ACCOUNT = "aws", "us-east-1", "123456789012"


def presentable(request: Request, *, typed: bool) -> Iterator[Request]:
    """The request in ever less polished forms, the one that was found last; the caller takes the first that holds.

    typed: the resource has the shape that the catalogue gives for the action, which polishing keeps.
    """
    resource = _polished(request.resource, ("x", "0") if typed else ("", "x", "0"))
    if resource != request.resource:
        yield replace(request, resource=resource)
    yield request


def _polished(resource: str, made_up: tuple[str, ...]) -> str:
    parts = resource.split(":", 5)
    if len(parts) != 6:
        return resource
    for place, plausible in ((1, _PARTITION), (3, _REGION), (4, _ACCOUNT)):
        if parts[place] in made_up:
            parts[place] = plausible
    if parts[5] in made_up:
        parts[5] = "example"
    elif parts[5].endswith(("/x", ":x")):
        parts[5] = parts[5][:-1] + "example"
    return ":".join(parts)
