"""Witnesses that people recognise: made-up parts of an ARN replaced by plausible ones, where that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ringfence.iam.request import Request

# Plausible values per part of an ARN, in the order tried.
_PARTITIONS = ("aws", "aws-us-gov", "aws-cn")
_REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2")
_ACCOUNTS = ("123456789012", "210987654321")
_PLACES = ((1, _PARTITIONS), (3, _REGIONS), (4, _ACCOUNTS), (5, ("example",)))
# What the search puts where any text will do.
_MADE_UP = ("x", "0")


def presentable(request: Request, holds: Callable[[Request], bool], *, typed: bool) -> Request | None:
    """The request with plausible names where made-up ones stand and `holds` still does; None when it holds for none.

    typed: the resource has the shape that the catalogue gives for the action; then parts left empty stay so.
    """
    if not holds(request):
        return None
    everywhere = request.resource
    for place, plausible in _PLACES:
        everywhere = next(_replaced(everywhere, place, plausible, typed), everywhere)
    if everywhere == request.resource:
        return request
    polished = replace(request, resource=everywhere)
    if holds(polished):
        return polished
    for place, plausible in _PLACES:
        for resource in _replaced(request.resource, place, plausible, typed):
            polished = replace(request, resource=resource)
            if holds(polished):
                request = polished
                break
    return request


def _replaced(resource: str, place: int, plausible: tuple[str, ...], typed: bool) -> Iterator[str]:
    """The resource with each replacement that fits one part of it."""
    parts = resource.split(":", 5)
    if len(parts) == 6:
        for text in _replacements(parts[place], place, plausible, typed):
            yield ":".join([*parts[:place], text, *parts[place + 1 :]])


def _replacements(part: str, place: int, plausible: tuple[str, ...], typed: bool) -> tuple[str, ...]:
    if part in _MADE_UP or (not typed and not part):
        return plausible
    if place == 1 and part not in plausible:
        return plausible
    if place == 5 and part.endswith(("/x", ":x", "/", ":")):
        return tuple(part.rstrip("x") + text for text in plausible)
    return ()
