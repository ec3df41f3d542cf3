"""Where resources come from without an account: the engine's preview as JSON, and a stack's exported state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ringfence.errors import InputError, Problem
from ringfence.review.conflicts import resolved
from ringfence.review.extract import facts_of_all
from ringfence.review.facts import Surface
from ringfence.review.resource import Resource, holds_secret, plain

# Far above any real preview: 1,000 resources are about 10 MB.
MAX_BYTES = 500_000_000
# Steps after which the resource isn't there any more, or that only repeat another step of the same resource.
_GONE = frozenset({"delete", "delete-replaced", "discard", "discard-replaced", "remove-pending-replace", "replace"})


def _load(path: Path) -> Any:
    where = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError([Problem(where, "", f"is larger than {MAX_BYTES:,} bytes", "pass a preview or a state")])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError([Problem(where, "", f"can't be read: {error.strerror}", "check the path")]) from error
    except UnicodeDecodeError as error:
        raise InputError([Problem(where, "", "is not UTF-8", "write it again")]) from error
    return _parse(text, where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "write it with `pulumi preview --json --show-sames` or `pulumi stack export`"
        raise InputError([Problem(where, "", "is not valid JSON", remedy)]) from error


def preview_resources(path: Path) -> list[Resource]:
    """The resources that would stand after the update of a `pulumi preview --json --show-sames`.

    Raises InputError when the file is no preview, one that failed, or one that leaves out what doesn't change: half a
    preview must not pass as a whole.
    """
    return _preview(_load(path), str(path))


def preview_of(text: str, where: str) -> list[Resource]:
    """The same from the engine's own output."""
    return _preview(_parse(text, where), where)


def _preview(data: Any, where: str) -> list[Resource]:
    steps = data.get("steps") if isinstance(data, dict) else None
    if not isinstance(steps, list):
        remedy = "write it with: pulumi preview --json --show-sames > preview.json"
        raise InputError([Problem(where, "steps", "is missing: this is no preview", remedy)])
    diagnostics = [item for item in data.get("diagnostics") or () if isinstance(item, dict)]
    if failed := [item for item in diagnostics if item.get("severity") == "error"]:
        message = f"the preview failed: {str(failed[0].get('message', '')).strip()[:300]}"
        raise InputError([Problem(where, "diagnostics", message, "mend the program and preview again")])
    # The engine counts what doesn't change, and leaves its steps out unless asked.
    counted = (data.get("changeSummary") or {}).get("same", 0)
    shown = sum(1 for step in steps if isinstance(step, dict) and step.get("op") == "same")
    if not isinstance(counted, int) or counted > shown:
        remedy = "write it with: pulumi preview --json --show-sames > preview.json"
        raise InputError([Problem(where, "steps", f"leave out unchanged resources: {shown} of {counted}", remedy)])
    made: dict[str, tuple[Mapping[str, Any], Any]] = {}
    for step in steps:
        state = step.get("newState") if isinstance(step, dict) else None
        if isinstance(state, dict) and step.get("op") not in _GONE:
            made[str(step.get("urn"))] = (state, state.get("inputs") or {})
    return _linked(made)


def state_resources(path: Path) -> list[Resource]:
    """The resources of a `pulumi stack export`, as the last update or refresh left them. Raises InputError."""
    data = _load(path)
    deployment = data.get("deployment") if isinstance(data, dict) else None
    entries = deployment.get("resources") if isinstance(deployment, dict) else None
    if not isinstance(entries, list):
        # A stack without resources is exported without the list.
        if isinstance(deployment, dict) and "manifest" in deployment:
            return []
        remedy = "write it with: pulumi stack export > state.json"
        raise InputError([Problem(str(path), "deployment.resources", "is missing: this is no state", remedy)])
    made = {
        str(entry.get("urn")): (entry, _present(entry.get("inputs") or {}, entry.get("outputs") or {}))
        for entry in entries
        if isinstance(entry, dict) and not entry.get("delete")
    }
    return _linked(made)


def _present(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs over inputs: a refresh writes what it found there into the outputs."""
    return {**inputs, **{key: value for key, value in outputs.items() if value is not None}}


def _linked(made: Mapping[str, tuple[Mapping[str, Any], Any]]) -> list[Resource]:
    bare = {
        urn: Resource(
            str(state.get("type") or urn.split("::")[2].rsplit("$", 1)[-1]),
            urn.rsplit("::", 1)[-1],
            urn,
            plain(props),
            id=str(state.get("id") or ""),
            secret=holds_secret(props),
        )
        for urn, (state, props) in made.items()
    }
    for urn, (state, _) in made.items():
        for name, urns in (state.get("propertyDependencies") or {}).items():
            others = tuple(bare[other] for other in urns or () if other in bare)
            if others:
                bare[urn].links[str(name)] = others
    return list(bare.values())


def surface_of(label: str, resources: Iterable[Resource], *, declared: bool = True) -> Surface:
    """What resources grant. declared: as a preview has them, not as a state."""
    return Surface.of(label, resolved(facts_of_all(resources), declared=declared))
