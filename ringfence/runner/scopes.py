"""What a call narrows its tools' credentials to: role ∩ this call. A scope takes away and never adds.

As users say it: tool → ``{"actions": [...], "resources": [...]}``, either left out; on the command line TOOL=ACTION or
TOOL=ARN, any number of times. Trust zone: control side; the caller's values are not trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ringfence.broker.model import Scope
from ringfence.broker.session_policy import session_policy
from ringfence.catalog.model import Catalog
from ringfence.errors import InputError, Problem
from ringfence.iam.session_grants import needs_credential
from ringfence.iam.tool_documents import expand
from ringfence.names import Names

MAX_VALUES, MAX_CHARACTERS = 50, 2_000
_SIDES = ("actions", "resources")
_REMEDY = 'give {"actions": [...], "resources": [...]}, either or both'


def scopes_of(given: Any, where: str = "task") -> tuple[dict[str, Scope], list[Problem]]:
    """Scopes as the runner takes them, out of what a caller gave, and every problem of its form."""
    if not isinstance(given, Mapping):
        return {}, [Problem(where, "scopes", f"is {type(given).__name__}", "give a mapping of tool to scope")]
    made: dict[str, Scope] = {}
    problems: list[Problem] = []
    for tool, value in given.items():
        found = [value] if isinstance(value, Scope) else _form(f"scopes.{tool}", value, where)
        problems += [item for item in found if isinstance(item, Problem)]
        made |= {str(tool): item for item in found if isinstance(item, Scope)}
    return made, problems


def _form(key: str, value: Any, where: str) -> list[Scope | Problem]:
    if not isinstance(value, Mapping) or not set(value) <= set(_SIDES):
        return [Problem(where, key, "is no scope", _REMEDY)]
    sides = {side: value[side] for side in _SIDES if value.get(side) is not None}
    if not sides:
        return [Problem(where, key, "narrows nothing", f"{_REMEDY}, or leave it out")]
    for side, items in sides.items():
        listed = isinstance(items, Sequence) and not isinstance(items, str | bytes) and 0 < len(items) <= MAX_VALUES
        if not listed or not all(isinstance(item, str) and 0 < len(item) <= MAX_CHARACTERS for item in items):
            return [Problem(where, f"{key}.{side}", "is no list of texts", f"give 1 to {MAX_VALUES} of them")]
    return [Scope(**{side: tuple(items) for side, items in sides.items()})]


def scopes_of_options(options: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Scopes out of TOOL=ACTION and TOOL=ARN. Raises InputError."""
    made: dict[str, dict[str, list[str]]] = {}
    problems = []
    for option in options:
        tool, separator, value = option.partition("=")
        if not separator or not tool or ":" not in value:
            problems.append(
                Problem("run", "--scope", f"{option!r} is no scope", "write TOOL=service:Action or TOOL=arn:...")
            )
            continue
        side = "resources" if value.startswith("arn:") else "actions"
        made.setdefault(tool, {}).setdefault(side, []).append(value)
    if problems:
        raise InputError(problems)
    return made


def checked(
    given: Any, tools: Sequence[str], catalog: Catalog, names: Names, where: str = "task"
) -> dict[str, dict[str, list[str]]]:
    """What was given, placeholders filled in, as plain data. Raises InputError with everything that lies outside of the
    tools' grants, of the tools asked for, or of what a scope may be."""
    scopes, problems = scopes_of(given, where)
    plain: dict[str, dict[str, list[str]]] = {}
    for tool, scope in scopes.items():
        key = f"scopes.{tool}"
        if tool not in tools:
            problems.append(Problem(where, key, "is for a tool that isn't asked for", "name the tool, or leave it out"))
        elif not catalog.has(tool) or not needs_credential(catalog.tool(tool)):
            problems.append(Problem(where, key, "is for a tool without a credential", "leave it out"))
        else:
            full = Scope(scope.actions, scope.resources and tuple(expand(item, names) for item in scope.resources))
            try:
                session_policy(catalog.tool(tool), names, datetime.now(UTC), full)
            except InputError as error:
                problems += [
                    Problem(where, f"{key}.{_side(item.key)}", item.message, item.remedy) for item in error.problems
                ]
            plain[tool] = {side: list(values) for side in _SIDES if (values := getattr(full, side)) is not None}
    if problems:
        raise InputError(problems)
    return plain


def _side(key: str) -> str:
    """``scope.actions`` of a session policy's problem is ``scopes.TOOL.actions`` of a task's."""
    return key.removeprefix("scope.")
