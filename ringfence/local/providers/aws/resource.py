"""What a supported resource type is: its properties, the API operations behind it, and the generic life cycle.

A type is a subclass of `Resource` that fills in class attributes; it overrides a step where its API is irregular.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from ringfence.local.providers.aws.cloud import Cloud
from ringfence.local.providers.aws.schema import Case, Props, from_api, to_api, with_defaults, with_unknowns
from ringfence.local.providers.base import UNKNOWN, CheckFailure, ProviderError

Values = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """How the tags of a type travel.

    create: member of the creating request, None when they are set afterwards; style: a list of key and value, or a map.
    read: member of the described object, None when `listing` = (operation, parameter, response member) has to be asked.
    tag and untag: operations; parameter: names the resource in them; resource: the state entry that names it.
    """

    create: str | None = "Tags"
    style: str = "list"
    key: str = "Key"
    value: str = "Value"
    read: str | None = "Tags"
    listing: tuple[str, str, str] | None = None
    tag: str = "tag_resource"
    untag: str = "untag_resource"
    parameter: str = "ResourceArn"
    tags_parameter: str = "Tags"
    keys_parameter: str = "TagKeys"
    resource: str = "arn"
    many: bool = False

    def encode(self, tags: Mapping[str, str]) -> Any:
        """`tags` as the API takes them."""
        if self.style == "map":
            return dict(tags)
        return [{self.key: name, self.value: value} for name, value in sorted(tags.items())]

    def decode(self, given: Any) -> dict[str, str]:
        """Tags as the API returned them, less those that AWS itself sets."""
        pairs = given.items() if isinstance(given, dict) else ((tag[self.key], tag[self.value]) for tag in given or [])
        return {name: value for name, value in pairs if not name.startswith("aws:")}


@dataclass(frozen=True, slots=True)
class AutoName:
    """A name made when none is declared: the resource's own name and seven random hexadecimal digits, cut to `limit`."""

    property: str = "name"
    limit: int = 64


def dig(value: Any, path: str) -> Any:
    """The value at a dotted path; numbers index lists. None when it isn't there."""
    for step in path.split(".") if path else []:
        if isinstance(value, list):
            value = value[int(step)] if len(value) > int(step) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def is_gone(error: Exception) -> bool:
    """Whether an API error says that the thing isn't there. EC2, IAM, S3 and the JSON services each spell it differently."""
    response = getattr(error, "response", None)
    code = str(dig(response, "Error.Code") or "")
    return code == "404" or any(mark in code for mark in ("NotFound", "NoSuch", "NonExistent"))


def _plain(value: Any) -> Any:
    """An API value as Pulumi takes it: times become text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | list | dict) else str(value)


class Resource:
    """One resource type.

    pulumi_type: its token. service: boto3's name. case: how API members are spelled. props: what can be declared.
    outputs: what else is known of it, by dotted path in the API's object ("" when it is told otherwise).
    known: outputs that follow from the account, the region and the inputs, as format strings.
    id_path: where the API's object shows the id, else `id_property`.
    create_member and read_member: where the object is in a response. keys: parameters that name the thing in every other
    call, by state entry ("id" is the id itself); list_keys: those of them that take a list.
    ready: (path of the status, statuses that mean ready, statuses that mean failed).
    """

    pulumi_type: ClassVar[str]
    service: ClassVar[str]
    case: ClassVar[Case] = "pascal"
    props: ClassVar[Props]
    outputs: ClassVar[Mapping[str, str]] = {}
    known: ClassVar[Mapping[str, str]] = {}
    auto_name: ClassVar[AutoName | None] = None
    id_property: ClassVar[str] = "name"
    id_path: ClassVar[str] = ""
    create_operation: ClassVar[str] = ""
    create_member: ClassVar[str] = ""
    read_operation: ClassVar[str] = ""
    read_member: ClassVar[str] = ""
    update_operation: ClassVar[str] = ""
    delete_operation: ClassVar[str] = ""
    keys: ClassVar[Mapping[str, str]] = {}
    list_keys: ClassVar[Collection[str]] = ()
    tagging: ClassVar[Tagging | None] = None
    ready: ClassVar[tuple[str, Collection[str], Collection[str]] | None] = None
    read_after_create: ClassVar[bool] = False
    delete_before_replace: ClassVar[bool] = False
    secret_outputs: ClassVar[frozenset[str]] = frozenset()

    # What follows from the inputs alone.

    def problems(self, inputs: Values) -> list[CheckFailure]:
        """What is wrong with inputs that pass one by one. Values may be UNKNOWN."""
        return []

    def normalise(self, inputs: Values) -> Values:
        """Declared inputs, brought into the form that everything else works on."""
        return inputs

    def compared(self, inputs: Values) -> Values:
        """Declared inputs as they are held against the live state: with a default that holds only there."""
        return inputs

    def expected(self, cloud: Cloud, inputs: Values) -> Values:
        """What can be said before creation: defaults, and outputs that follow from the inputs. The rest is UNKNOWN."""
        state = with_defaults(self.props, inputs)
        for name in (*self.outputs, *self.known):
            state.setdefault(name, UNKNOWN)
        state = with_unknowns(self.props, state)
        state |= self.derived(cloud, "", state)
        if self.tagging:
            state["tagsAll"] = inputs.get("tags", {})
        return state

    def derived(self, cloud: Cloud, id_: str, state: Values) -> Values:
        """The outputs in `known` that can be told from `state`; `id_` is "" before creation."""
        texts = cloud.facts | {name: value for name, value in state.items() if isinstance(value, str)}
        if id_:
            texts["id"] = id_
        found: Values = {}
        for name, template in self.known.items():
            if state.get(name) in (None, UNKNOWN):
                with suppress(KeyError):
                    found[name] = template.format_map(texts)
        return found

    def request(self, inputs: Values) -> Values:
        """The parameters of the creating call, tags apart. May hold UNKNOWN at preview."""
        return self.encode(self.props, inputs)

    def encode(self, props: Props, values: Values) -> Values:
        """Values of nested properties as the API takes them, defaults included."""
        return to_api(props, with_defaults(props, values), self.case)

    def decode(self, props: Props, members: Values) -> Values:
        """Nested properties that the API shows."""
        return from_api(props, members, self.case)

    # The life cycle.

    def parameters(self, cloud: Cloud, id_: str, state: Values) -> Values:
        """The parameters that name the thing."""
        found = {name: id_ if source == "id" else state[source] for name, source in self.keys.items()}
        return {name: [value] if name in self.list_keys else value for name, value in found.items()}

    def create(self, cloud: Cloud, inputs: Values) -> tuple[str, Values]:
        """Make the thing; its id and the API's object."""
        parameters = self.request(inputs)
        if self.tagging and self.tagging.create and inputs.get("tags"):
            parameters |= self.create_tags(inputs["tags"])
        response = cloud.call(self.service, self.create_operation, **parameters)
        described = dig(response, self.create_member) or {}
        return self.identify(inputs, described), described

    def create_tags(self, tags: Mapping[str, str]) -> Values:
        """The part of the creating request that sets tags."""
        assert self.tagging and self.tagging.create  # noqa: S101 - callers asked
        return {self.tagging.create: self.tagging.encode(tags)}

    def identify(self, inputs: Values, described: Values) -> str:
        """The id of a thing just made."""
        return str(dig(described, self.id_path)) if self.id_path else str(inputs[self.id_property])

    def complete(self, cloud: Cloud, id_: str, state: Values) -> None:
        """Calls that follow the creating one. A failure here leaves a thing that exists but isn't as declared."""

    def read(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        """The live thing as properties and outputs, None when it is gone. `state` is what was known, maybe empty."""
        described = self.find(cloud, id_, state)
        if described is None:
            return None
        live = self.state_of(described)
        live |= self.derived(cloud, id_, live)
        if self.tagging:
            live["tags"] = self.read_tags(cloud, id_, live, described)
            live["tagsAll"] = live["tags"]
        return live

    def find(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        """The API's object, None when the API says that there is none. Any other error is raised: it tells nothing."""
        from botocore.exceptions import ClientError

        try:
            return self.describe(cloud, id_, state)
        except ClientError as error:
            if is_gone(error):
                return None
            raise

    def describe(self, cloud: Cloud, id_: str, state: Values) -> Values | None:
        """The API's object, None when there is none. Errors that mean "not there" may be raised too."""
        known = {self.id_property: id_, **state} if not self.id_path else state
        return dig(
            cloud.call(self.service, self.read_operation, **self.parameters(cloud, id_, known)), self.read_member
        )

    def state_of(self, described: Values) -> Values:
        """Properties and outputs that the API's object shows."""
        state = from_api(self.props, described, self.case)
        for name, path in self.outputs.items():
            value = dig(described, path) if path else None
            if value is not None:
                state[name] = _plain(value)
        return state

    def read_tags(self, cloud: Cloud, id_: str, state: Values, described: Values) -> dict[str, str]:
        """The live tags."""
        tagging = self.tagging
        assert tagging  # noqa: S101 - callers asked
        if tagging.listing:
            operation, parameter, member = tagging.listing
            target = id_ if tagging.resource == "id" else state[tagging.resource]
            return tagging.decode(dig(cloud.call(self.service, operation, **{parameter: target}), member))
        return tagging.decode(dig(described, tagging.read or ""))

    def update(self, cloud: Cloud, id_: str, old: Values, new: Values, changed: frozenset[str]) -> Values | None:
        """Change the properties named in `changed` (top-level names, tags apart); outputs that changed with them.

        old: the state; new: the inputs with their defaults.
        """
        if self.update_operation:
            parameters = self.parameters(cloud, id_, old) | to_api(self.update_props(changed), new, self.case)
            cloud.call(self.service, self.update_operation, **parameters)
        return None

    def renewed(self, inputs: Values, changed: frozenset[str]) -> frozenset[str]:
        """Outputs that are not known before an update that changes the properties named in `changed`, tags among them."""
        return frozenset()

    def update_props(self, changed: frozenset[str]) -> Props:
        """What the generic update sends: every property that can be changed in place."""
        return {name: prop for name, prop in self.props.items() if not prop.replace}

    def update_tags(
        self, cloud: Cloud, id_: str, state: Values, old: Mapping[str, str], new: Mapping[str, str]
    ) -> None:
        """Bring the tags from `old` to `new`."""
        tagging = self.tagging
        assert tagging  # noqa: S101 - callers asked
        target = id_ if tagging.resource == "id" else state[tagging.resource]
        target = [target] if tagging.many else target
        removed = sorted(set(old) - set(new))
        added = {name: value for name, value in new.items() if old.get(name) != value}
        if removed:
            keys = (
                removed if tagging.keys_parameter != tagging.tags_parameter else [{tagging.key: key} for key in removed]
            )
            cloud.call(self.service, tagging.untag, **{tagging.parameter: target, tagging.keys_parameter: keys})
        if added:
            parameters = {tagging.parameter: target, tagging.tags_parameter: tagging.encode(added)}
            cloud.call(self.service, tagging.tag, **parameters)

    def delete(self, cloud: Cloud, id_: str, state: Values) -> None:
        """Delete the thing. Errors that mean "not there" may be raised: they count as success."""
        cloud.call(self.service, self.delete_operation, **self.parameters(cloud, id_, state))

    def wait(self, cloud: Cloud, id_: str, state: Values, described: Values, limit: float = 600) -> Values:
        """The API's object once its status means ready. Raises ProviderError on failure, or after `limit` seconds."""
        if self.ready is None:
            return described
        path, fine, failed = self.ready
        deadline, pause = time.monotonic() + limit, 0.05
        while (status := dig(described, path)) not in fine:
            if status in failed or time.monotonic() > deadline:
                wanted = " or ".join(sorted(fine))
                raise ProviderError(f"{self.pulumi_type} {id_} is {status}, expected {wanted}")
            time.sleep(pause)
            pause = min(pause * 2, 5)
            described = self.describe(cloud, id_, state) or {}
        return described
