"""What is wrong with declared inputs: unknown properties, wrong types, values that botocore's model of the API refuses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ringfence.local.providers.aws.documents import canonical_json, canonical_policy
from ringfence.local.providers.aws.schema import Case, Prop, Props
from ringfence.local.providers.base import UNKNOWN, CheckFailure
from ringfence.local.providers.paths import Path, format_path

if TYPE_CHECKING:
    from botocore.model import Shape

_PYTHON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "text_boolean": (bool, str),
    "policy": (str,),
    "json": (str,),
    "map": (dict,),
    "list": (list,),
    "set": (list,),
    "object": (dict,),
}
_TYPE_NAMES: Mapping[str, str] = {
    "text_boolean": 'true, false, "true" or "false"',
    "policy": "the JSON text of an IAM policy document",
    "json": "a JSON text",
    "map": "an object with text values",
    "set": "list",
}


def shown(value: Any) -> str:
    """`value` for a message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def failures(
    props: Props, values: Mapping[str, Any], case: Case, shape: Shape | None, path: Path = ()
) -> Iterator[CheckFailure]:
    """Everything wrong with `values`. shape: botocore's model of the object they become, where there is one."""
    for name in values:
        if name not in props:
            near = difflib.get_close_matches(name, props, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(props))}"
            yield CheckFailure(
                format_path((*path, name)), f"is not a property that the embedded provider supports; {remedy}"
            )
    for name, prop in props.items():
        where = (*path, name)
        value = values.get(name)
        if value is None:
            if prop.required:
                yield CheckFailure(format_path(where), "is required and missing; add it")
            continue
        member = prop.member(name, case)
        yield from _value(prop, value, case, _member(shape, member), where)


def _member(shape: Shape | None, member: str | None) -> Shape | None:
    if shape is None or member is None or shape.type_name != "structure":
        return None
    return shape.members.get(member)


def _value(prop: Prop, value: Any, case: Case, shape: Shape | None, where: Path) -> Iterator[CheckFailure]:
    if value is UNKNOWN:
        return
    wanted = _PYTHON_TYPES[prop.kind]
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        said = "a value that is not shown" if prop.secret else shown(value)
        yield CheckFailure(format_path(where), f"is {said}, expected {_TYPE_NAMES.get(prop.kind, prop.kind)}")
        return
    if prop.choices and value not in prop.choices:
        yield CheckFailure(format_path(where), f"is {shown(value)}; use one of {', '.join(prop.choices)}")
    match prop.kind:
        case "object":
            yield from failures(prop.fields or {}, value, case, shape, where)
        case "list" | "set" if prop.item is not None:
            element = shape.member if shape is not None and shape.type_name == "list" else None
            for index, item in enumerate(value):
                yield from _value(prop.item, item, case, element, (*where, index))
        case "map" if prop.item is not None:
            for key, item in value.items():
                yield from _value(prop.item, item, case, None, (*where, key))
        case "text_boolean":
            if str(value).lower() not in ("true", "false"):
                yield CheckFailure(format_path(where), f'is {shown(value)}; use "true" or "false"')
        case "policy" | "json":
            yield from _document(prop, value, where)
        case "string" | "integer" | "number" if shape is not None and not prop.secret:
            yield from _scalar(value, shape, where)


def _document(prop: Prop, text: str, where: Path) -> Iterator[CheckFailure]:
    try:
        canonical_policy(text) if prop.kind == "policy" else canonical_json(text)
    except ValueError as error:
        yield CheckFailure(format_path(where), f"is not {_TYPE_NAMES[prop.kind]}: {error}")


def _scalar(value: str | int | float, shape: Shape, where: Path) -> Iterator[CheckFailure]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if isinstance(value, str):
        choices = getattr(shape, "enum", [])
        if choices and value not in choices:
            yield CheckFailure(format_path(where), f"is {shown(value)}; use one of {', '.join(choices)}")
        elif (low is not None and len(value) < low) or (high is not None and len(value) > high):
            yield CheckFailure(
                format_path(where), f"is {len(value)} characters long; the API takes {_range(low, high)} characters"
            )
        elif (pattern := _compiled(shape.metadata.get("pattern", ""))) and not pattern.fullmatch(value):
            yield CheckFailure(format_path(where), f"is {shown(value)}; the API takes what matches {pattern.pattern}")
    elif (low is not None and value < low) or (high is not None and value > high):
        yield CheckFailure(format_path(where), f"is {value}; the API takes {_range(low, high)}")


def _range(low: Any, high: Any) -> str:
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern of an API model, or None when it uses syntax that Python lacks. They are written to match the whole value."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None
