"""Turns pydantic's findings into Problems: where, key, value, remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pydantic
from pydantic.alias_generators import to_camel

from ringfence.errors import Problem
from ringfence.strict_yaml import Position, dotted


class StrictModel(pydantic.BaseModel):
    """Base of everything declared in files: camelCase keys, unknown keys refused, no coercion surprises, immutable."""

    model_config = pydantic.ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, validate_by_name=True, validate_default=True
    )


# pydantic's error type → what to do about it. Types not listed carry their remedy in the message.
_REMEDIES = {
    "missing": "add it",
    "extra_forbidden": "remove it, or correct its spelling",
    "string_pattern_mismatch": "write it in the form shown",
    "enum": "use one of the values shown",
    "literal_error": "use one of the values shown",
}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def problems(
    error: pydantic.ValidationError,
    where: str,
    lines: Mapping[Position, int] | None = None,
    remedies: Mapping[str, str] | None = None,
) -> Iterator[Problem]:
    """One Problem per finding. `remedies` maps a top-level key to its own remedy (e.g. its documented default)."""
    for finding in error.errors():
        path: Position = tuple(finding["loc"])
        line = 0
        if lines:
            for end in range(len(path), -1, -1):
                if path[:end] in lines:
                    line = lines[path[:end]]
                    break
        message = finding["msg"].removeprefix("Value error, ")
        message, _, own_remedy = message.partition(" | ")
        if finding["type"] == "missing":
            message = "is missing"
        elif finding["type"] == "extra_forbidden":
            message = "is not a known key"
        else:
            message = f"{message} (is: {_shown(finding['input'])})" if path else message
        remedy = own_remedy or _REMEDIES.get(finding["type"], "")
        if not own_remedy and remedies and path and str(path[0]) in remedies:
            remedy = remedies[str(path[0])]
        yield Problem(
            where, dotted(path), message.replace("Input should", "should"), remedy or "correct the value", line
        )
