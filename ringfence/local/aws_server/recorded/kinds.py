"""The declarative resource table: what a kind says about itself, and the create, describe, list, update and delete
operations that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.local.aws_server.recorded.store import PASS, Context, Handler, Key, Record, now
from ringfence.local.aws_server.wire import ApiError

Table = dict[str, Handler]
# The live tags of what an ARN names; None when it names nothing of the kind.
TagsOf = Callable[[Context, str], "MutableMapping[str, str] | None"]


def _nothing(_context: Context, _record: Record | None) -> None:
    """The check that a kind without rules of its own makes."""


def _nobody(_context: Context, _arn: str) -> None:
    """Where moto keeps tags of nothing beyond what it serves."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One recorded resource type.

    identity: request member → attribute, for the members that name a resource in describe, update and delete;
    key: attributes that make it unique (default: those of `identity`); arn: attribute with its ARN;
    answer: output member that holds the resource, "" when the output is the resource itself;
    listing: output member of the list; listed: the one attribute that is listed, "" for the whole resource;
    filters: list's request member → attribute that must be equal; omit: request members that aren't kept;
    build: completes a new resource's attributes (ids, ARN, defaults); tags: request member with the tags;
    stamps: attributes for the time of creation and of change; clock: what they are set to;
    check_*: raise when a rule of the service forbids it; after_delete: removes what goes with it;
    view: attributes that depend on other records; missing, exists: error codes.
    """

    service: str
    name: str
    identity: Mapping[str, str]
    build: Callable[[Context, dict[str, Any]], dict[str, Any]]
    key: tuple[str, ...] = ()
    arn: str = ""
    create: str = ""
    describe: str = ""
    list: str = ""
    update: str = ""
    delete: str = ""
    answer: str = ""
    listing: str = ""
    listed: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    omit: frozenset[str] = frozenset()
    tags: str = "tags"
    stamps: tuple[str, str] = ("", "")
    clock: Callable[[], Any] = now
    missing: str = "ResourceNotFoundException"
    exists: str = "ResourceInUseException"
    check_create: Callable[[Context, Record | None], None] = _nothing
    check_list: Callable[[Context, Record | None], None] = _nothing
    check_update: Callable[[Context, Record | None], None] = _nothing
    check_delete: Callable[[Context, Record | None], None] = _nothing
    after_delete: Callable[[Context, Record], None] = _nothing
    view: Callable[[Context, Record], dict[str, Any]] | None = None

    def key_of(self, attributes: Mapping[str, Any]) -> Key:
        """The identity of a resource with these attributes."""
        return tuple(str(attributes.get(name, "")) for name in self.key or tuple(self.identity.values()))

    def find(self, context: Context) -> tuple[Key, Record]:
        """The resource that a request names; raises the kind's `missing` error."""
        wanted = {
            attribute: context.params[name] for name, attribute in self.identity.items() if context.params.get(name)
        }
        if wanted:
            for key, record in context.records(self.name, self.service).items():
                if all(record.attributes.get(name) == value for name, value in wanted.items()):
                    return key, record
        shown = ", ".join(f"{name} {value}" for name, value in wanted.items()) or "no identifier given"
        raise ApiError(self.missing, f"No {self.name} found for {shown}.")

    def show(self, context: Context, record: Record) -> dict[str, Any]:
        """A resource as its readers see it."""
        shown = dict(record.attributes)
        if self.tags:
            shown[self.tags] = tag_form(shown.get(self.tags), record.tags)
        return shown | (self.view(context, record) if self.view else {})

    def reply(self, context: Context, record: Record) -> dict[str, Any]:
        """The output that carries one resource."""
        shown = self.show(context, record)
        return {**shown, self.answer: shown} if self.answer else shown

    def add(self, context: Context, attributes: dict[str, Any], tags: Mapping[str, str]) -> Record:
        """Keeps a new resource; raises the kind's `exists` error when one with its key is there."""
        records = context.records(self.name, self.service)
        created, changed = self.stamps
        moment = self.clock()
        attributes = {**attributes, **{stamp: moment for stamp in (created, changed) if stamp}}
        key = self.key_of(attributes)
        if key in records:
            raise ApiError(self.exists, f"The {self.name} already exists: {', '.join(key)}.")
        record = records[key] = Record(attributes, dict(tags))
        return record


def tag_form(given: Any, tags: Mapping[str, str]) -> Any:
    """Tags as the service shows them: a list of pairs where the request gave a list, else a map."""
    return [{"Key": key, "Value": value} for key, value in tags.items()] if isinstance(given, list) else dict(tags)


def tag_map(given: Any) -> dict[str, str]:
    """Tags as a map, from a map or a list of Key and Value."""
    if isinstance(given, list):
        return {pair["Key"]: pair.get("Value", "") for pair in given}
    return dict(given or {})


def operations(kind: Kind) -> Table:
    """Handlers of the operations that a kind names."""
    table: Table = {}
    for operation, maker in (
        (kind.create, _create),
        (kind.describe, _describe),
        (kind.list, _list),
        (kind.update, _update),
        (kind.delete, _delete),
    ):
        if operation:
            table[operation] = maker(kind)
    return table


def _create(kind: Kind) -> Handler:
    def create(context: Context) -> dict[str, Any]:
        kind.check_create(context, None)
        kept = {name: value for name, value in context.params.items() if name not in kind.omit}
        record = kind.add(context, kind.build(context, kept), tag_map(context.params.get(kind.tags)))
        return kind.reply(context, record)

    return create


def _describe(kind: Kind) -> Handler:
    def describe(context: Context) -> dict[str, Any]:
        return kind.reply(context, kind.find(context)[1])

    return describe


def _list(kind: Kind) -> Handler:
    def list_(context: Context) -> dict[str, Any]:
        kind.check_list(context, None)
        wanted = {attribute: context.params[name] for name, attribute in kind.filters.items() if name in context.params}
        found = [
            record
            for record in context.records(kind.name, kind.service).values()
            if all(record.attributes.get(name) == value for name, value in wanted.items())
        ]
        shown = [kind.show(context, record) for record in found]
        return {kind.listing: [item[kind.listed] for item in shown] if kind.listed else shown}

    return list_


def _update(kind: Kind) -> Handler:
    def update(context: Context) -> dict[str, Any]:
        _, record = kind.find(context)
        kind.check_update(context, record)
        change(kind, record, context.params)
        return kind.reply(context, record)

    return update


def change(kind: Kind, record: Record, params: Mapping[str, Any]) -> None:
    """Takes over the members of an update, but for those that name the resource or aren't kept."""
    fixed = kind.omit | set(kind.identity) | {kind.tags}
    record.attributes.update({name: value for name, value in params.items() if name not in fixed})
    if kind.stamps[1]:
        record.attributes[kind.stamps[1]] = kind.clock()


def _delete(kind: Kind) -> Handler:
    def delete(context: Context) -> dict[str, Any]:
        key, record = kind.find(context)
        kind.check_delete(context, record)
        reply = kind.reply(context, record)
        del context.records(kind.name, kind.service)[key]
        kind.after_delete(context, record)
        return reply

    return delete


def tagging(kinds: tuple[Kind, ...], arn: str, tags: str, keys: str, kept: TagsOf = _nobody) -> Table:
    """TagResource, UntagResource and ListTagsForResource for recorded ARNs; others are left to moto.

    arn, tags, keys: the request members; `tags` is also the output member of the list. kept: the live tags of what moto
    keeps without serving these operations for it.
    """

    def find(context: Context) -> MutableMapping[str, str] | None:
        for kind in kinds:
            for record in context.records(kind.name, kind.service).values():
                if kind.arn and record.attributes.get(kind.arn) == context.params[arn]:
                    return record.tags
        return kept(context, context.params[arn])

    def tag(context: Context) -> Mapping[str, Any] | object:
        held = find(context)
        if held is None:
            return PASS
        held.update(tag_map(context.params[tags]))
        return {}

    def untag(context: Context) -> Mapping[str, Any] | object:
        held = find(context)
        if held is None:
            return PASS
        for key in context.params[keys]:
            held.pop(key, None)
        return {}

    def listing(context: Context) -> Mapping[str, Any] | object:
        held = find(context)
        if held is None:
            return PASS
        members = context.call.operation.output_shape.members
        form: Any = [] if members[tags].type_name == "list" else None
        return {tags: tag_form(form, held)}

    return {"TagResource": tag, "UntagResource": untag, "ListTagsForResource": listing}
