"""Which models an invocation's tools may call besides the agent's own: those that their grants name."""

from __future__ import annotations

from collections.abc import Iterable

from ringfence.catalog.model import Tool
from ringfence.iam.session_grants import invokes_models

_RESOURCES = ("foundation-model/", "inference-profile/")


def tool_models(tools: Iterable[Tool]) -> tuple[str, ...]:
    """Ids of the models that the tools' grants name one by one; a pattern names none."""
    found = {
        resource.rpartition("/")[2]
        for tool in tools
        for grant in tool.grants
        if any(map(invokes_models, grant.actions))
        for resource in grant.resources
        if any(kind in resource for kind in _RESOURCES) and not set("*?$") & set(resource.rpartition("/")[2])
    }
    return tuple(sorted(found))
