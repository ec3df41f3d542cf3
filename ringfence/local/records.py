"""What the states of a home say stands, whether it still does, and what no state knows yet."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.local.control_plane import existing_kubeconfig
from ringfence.local.stack import Engine, OnEvent
from ringfence.local.state import Home, read_json, write_atomic


def states(home: Home) -> Iterator[tuple[str, dict[str, Any]]]:
    """(project/stack, state) of every stack of a home that has a state."""
    for path in sorted((home.backend / ".pulumi" / "stacks").rglob("*.json")):
        yield f"{path.parent.name}/{path.stem}", read_json(path).get("checkpoint", {}).get("latest") or {}


def _recorded(home: Home) -> list[str]:
    """The stacks whose state speaks of anything, or can't be read."""
    paths = (home.backend / ".pulumi" / "stacks").rglob("*.json")
    unreadable = {f"{path.parent.name}/{path.stem}" for path in paths if not read_json(path)}
    return [name for name, state in states(home) if state.get("resources") or name in unreadable]


def note_up(engine: Engine, now: Mapping[str, str], count: int) -> None:
    """Keeps when, with how many resources and on which incarnation of the services an `up` came to its end."""
    stacks = dict(read_json(engine.home.last_up).get("stacks") or {}) | {_name(engine): now}
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"incarnation": now, "stacks": stacks, "at": at, "count": count}
    write_atomic(engine.home.last_up, json.dumps(record, indent=2) + "\n")


def memory_lost(engine: Engine, now: Mapping[str, str]) -> bool:
    """Whether the state speaks of resources that a service has forgotten, or of an `up` that never came to its end."""
    return bool(engine.resources()) and _seen(engine.home, _name(engine)) != now


def nothing_stands(home: Home, now: Mapping[str, str]) -> bool:
    """Whether everything that any state speaks of went with an earlier incarnation of the AWS server, or none speaks of
    anything; and nobody else's cluster is used.

    Then an `up` may write its state at its end only: what a killed one made can be forgotten whole.
    """
    recorded = [_seen(home, name) for name in _recorded(home)]
    return not existing_kubeconfig() and all(seen and seen.get("aws") != now["aws"] for seen in recorded)


def stands_alone(engine: Engine) -> bool:
    """Whether no other stack of the home has anything, and nobody else's cluster is used.

    Then a `down` may write its state at its end only: what a killed one left can be forgotten whole.
    """
    return not existing_kubeconfig() and not set(_recorded(engine.home)) - {_name(engine)}


@contextlib.contextmanager
def unrecorded(engine: Engine) -> Iterator[OnEvent]:
    """Marks what is made or deleted meanwhile as known to no state, until the state is written. A kill leaves the mark.

    Gives what has to see the engine's events: one that ended before its first step has made nothing.
    """
    began = False

    def on_event(event: dict[str, Any]) -> None:
        nonlocal began
        began = began or "resourcePreEvent" in event

    mark = {"stack": _name(engine), "written": _written(engine.home, _name(engine))}
    write_atomic(engine.home.unrecorded, json.dumps(mark) + "\n")
    try:
        yield on_event
    finally:
        if not began or not left_unrecorded(engine.home):
            engine.home.unrecorded.unlink()


def left_unrecorded(home: Home) -> bool:
    """Whether the run that left a mark ended without writing its state, so that no state says what stands."""
    if not home.unrecorded.exists():
        return False
    mark = read_json(home.unrecorded)
    return "stack" not in mark or _written(home, str(mark["stack"])) == mark.get("written")


def _name(engine: Engine) -> str:
    return f"{engine.project}/{engine.stack}"


def _seen(home: Home, name: str) -> dict[str, str] | None:
    return (read_json(home.last_up).get("stacks") or {}).get(name)


def _written(home: Home, name: str) -> int:
    """When a stack's state was last written, in nanoseconds."""
    try:
        return (home.backend / ".pulumi" / "stacks" / f"{name}.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0
