"""How a resource type's properties are declared, and what follows from the declaration: checking of declared values,
comparison with the live ones, and conversion to and from the API's members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ringfence.local.providers.aws.documents import canonical_json, canonical_policy
from ringfence.local.providers.base import UNKNOWN, contains_unknown
from ringfence.local.providers.paths import Path

Kind = Literal[
    "string", "integer", "number", "boolean", "text_boolean", "policy", "json", "map", "list", "set", "object"
]
Case = Literal["pascal", "camel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prop:
    """One property of a resource type.

    api: the API's member; "" derives it from the property's name, None keeps it out of the API's object.
    replace: a change can't be made in place. computed: when absent, the live value is accepted whatever it is.
    default: what the API does when the property is absent. write_only: the API never returns it, so the state keeps the
    declared value. item: of a list or set; fields: of an object. secret: never shown. pairs: the API takes a map as a list
    of objects with these two members, for the key and for the value.
    """

    kind: Kind
    api: str | None = ""
    required: bool = False
    replace: bool = False
    computed: bool = False
    default: Any = None
    write_only: bool = False
    secret: bool = False
    choices: tuple[str, ...] = ()
    item: Prop | None = None
    fields: Mapping[str, Prop] | None = None
    pairs: tuple[str, str] | None = None

    def member(self, name: str, case: Case) -> str | None:
        """The API's member for the property `name`, or None."""
        if self.api is None or self.api:
            return self.api
        return name if case == "camel" else name[0].upper() + name[1:]


Props = Mapping[str, Prop]


def string(**options: Any) -> Prop:
    """A text."""
    return Prop(kind="string", **options)


def integer(**options: Any) -> Prop:
    """A whole number."""
    return Prop(kind="integer", **options)


def number(**options: Any) -> Prop:
    """A number."""
    return Prop(kind="number", **options)


def boolean(**options: Any) -> Prop:
    """True or false."""
    return Prop(kind="boolean", **options)


def text_boolean(**options: Any) -> Prop:
    """A boolean that the official provider also takes as the text "true" or "false"."""
    return Prop(kind="text_boolean", **options)


def policy(**options: Any) -> Prop:
    """An IAM policy document as JSON text, compared by what IAM reads in it."""
    return Prop(kind="policy", **options)


def json_text(**options: Any) -> Prop:
    """A JSON text, compared by value."""
    return Prop(kind="json", **options)


def mapping(**options: Any) -> Prop:
    """Texts by name."""
    return Prop(kind="map", item=string(), **options)


def strings(**options: Any) -> Prop:
    """Texts in order."""
    return Prop(kind="list", item=string(), **options)


def string_set(**options: Any) -> Prop:
    """Texts without order."""
    return Prop(kind="set", item=string(), **options)


def record(fields: Props, **options: Any) -> Prop:
    """A nested object."""
    return Prop(kind="object", fields=fields, **options)


def records(fields: Props, **options: Any) -> Prop:
    """Nested objects in order."""
    return Prop(kind="list", item=Prop(kind="object", fields=fields), **options)


def record_set(fields: Props, **options: Any) -> Prop:
    """Nested objects without order."""
    return Prop(kind="set", item=Prop(kind="object", fields=fields), **options)


def tags() -> Prop:
    """The `tags` of a resource; how they travel is the resource's `Tagging`."""
    return Prop(kind="map", item=string(), api=None)


def absent(value: Any) -> bool:
    """Whether the official provider treats `value` like a property that isn't there."""
    return value is None or value == "" or value == [] or value == {}


def with_defaults(props: Props, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` plus the default of every property that has one and is absent."""
    filled = {name: value for name, value in values.items() if value is not None}
    for name, prop in props.items():
        if prop.default is not None and name not in filled:
            filled[name] = prop.default
    return filled


def with_unknowns(props: Props, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, and UNKNOWN for every absent property, nested ones included, that the API fills in."""
    filled = dict(values)
    for name, prop in props.items():
        if prop.computed and name not in filled:
            filled[name] = UNKNOWN
        elif prop.kind == "object" and isinstance(filled.get(name), dict):
            filled[name] = with_unknowns(prop.fields or {}, filled[name])
    return filled


def known_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` less what is UNKNOWN or holds something UNKNOWN."""
    known = {name: known_part(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in known.items() if not contains_unknown(value)}


def completed(props: Props, declared: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """`declared`, and from `live` everything else; inside declared objects, what the API fills in."""
    whole = {**live, **declared}
    for name, prop in props.items():
        if prop.kind == "object" and isinstance(declared.get(name), dict) and isinstance(live.get(name), dict):
            fields = prop.fields or {}
            shown = {key: item for key, item in live[name].items() if key in declared[name] or fields[key].computed}
            whole[name] = completed(fields, declared[name], shown)
    return whole


def canonical(prop: Prop, value: Any) -> Any:
    """One spelling for all values of `prop` that mean the same."""
    if value is None:
        value = prop.default
    if value is UNKNOWN:
        return value
    match prop.kind:
        case "policy" | "json" if not absent(value) and not contains_unknown(value):
            try:
                return canonical_policy(value) if prop.kind == "policy" else canonical_json(value)
            except ValueError:
                return value
        case "text_boolean" if value is not None:
            return str(value).lower() == "true"
        case "object":
            fields = prop.fields or {}
            given = value or {}
            spelled = {name: canonical(field, given.get(name)) for name, field in fields.items()}
            return {name: item for name, item in spelled.items() if not absent(item)}
        case "list" if prop.item is not None:
            return [canonical(prop.item, item) for item in value or []]
        case "set" if prop.item is not None:
            items = [canonical(prop.item, item) for item in value or []]
            return sorted(items, key=repr)
    return None if absent(value) else value


def differences(
    props: Props, old: Mapping[str, Any], new: Mapping[str, Any], path: Path = ()
) -> Iterator[tuple[Path, bool]]:
    """(property path, whether it needs a replacement) for each difference of the declared `new` from the live `old`."""
    for name, prop in props.items():
        yield from _difference(prop, old.get(name), new.get(name), (*path, name))


def _difference(prop: Prop, old: Any, new: Any, path: Path) -> Iterator[tuple[Path, bool]]:
    if new is None and prop.computed:
        return
    if new is UNKNOWN:
        yield path, prop.replace
        return
    old = prop.default if old is None else old
    new = prop.default if new is None else new
    match prop.kind:
        case "object":
            for found, replace in differences(prop.fields or {}, old or {}, new or {}, path):
                yield found, replace or prop.replace
        case "map":
            old, new = old or {}, new or {}
            for key in sorted({*old, *new}):
                if old.get(key) != new.get(key):
                    yield (*path, key), prop.replace
        case "list" if prop.item and prop.item.kind == "object" and len(old or []) == len(new or []):
            for index, (was, will) in enumerate(zip(old or [], new or [], strict=True)):
                for found, replace in _difference(prop.item, was, will, (*path, index)):
                    yield found, replace or prop.replace
        case _:
            if canonical(prop, old) != canonical(prop, new):
                yield path, prop.replace


def same(prop: Prop, old: Any, new: Any) -> bool:
    """Whether the live `old` is what the declared `new` asks for."""
    return next(_difference(prop, old, new, ()), None) is None


def to_api(props: Props, values: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """The API's members for the declared `values`; what is absent stays absent."""
    members: dict[str, Any] = {}
    for name, prop in props.items():
        member = prop.member(name, case)
        value = values.get(name)
        if member is not None and value is not None:
            members[member] = _to_api(prop, value, case)
    return members


def _to_api(prop: Prop, value: Any, case: Case) -> Any:
    if value is UNKNOWN:
        return value
    if prop.kind == "object":
        return to_api(prop.fields or {}, value, case)
    if prop.kind in ("list", "set") and prop.item is not None:
        return [_to_api(prop.item, item, case) for item in value]
    if prop.kind == "text_boolean":
        return str(value).lower() == "true"
    if prop.kind == "map" and prop.pairs:
        return [dict(zip(prop.pairs, pair, strict=True)) for pair in sorted(value.items())]
    return value


def from_api(props: Props, members: Mapping[str, Any], case: Case) -> dict[str, Any]:
    """The properties that the API's object shows."""
    values: dict[str, Any] = {}
    for name, prop in props.items():
        member = prop.member(name, case)
        if member is not None and members.get(member) is not None and not prop.write_only:
            values[name] = _from_api(prop, members[member], case)
    return values


def _from_api(prop: Prop, value: Any, case: Case) -> Any:
    match prop.kind:
        case "object":
            return from_api(prop.fields or {}, value, case)
        case "list" | "set" if prop.item is not None:
            return [_from_api(prop.item, item, case) for item in value]
        case "map" if prop.pairs and isinstance(value, list):
            key, content = prop.pairs
            return {pair[key]: pair[content] for pair in value}
        case "policy" | "json":
            return canonical_json(value) if isinstance(value, dict | list) else value
        case "integer" if isinstance(value, str | float):
            return int(value)
        case "string" if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    return value
