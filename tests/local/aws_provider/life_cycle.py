"""The life of one resource in the embedded provider, from its check to its deletion, and the rows that tests run it with."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringfence.local.providers.aws.backend import AwsBackend
from ringfence.local.providers.base import UNKNOWN

Values = dict[str, Any]
_numbers = itertools.count()


@dataclass
class Made:
    """A resource that the provider created."""

    type: str
    urn: str
    id: str
    inputs: Values
    outputs: Values

    def __getitem__(self, name: str) -> Any:
        return self.id if name == "id" else self.outputs[name]


@dataclass
class World:
    """Creates resources as the engine would, and deletes them in reverse."""

    backend: AwsBackend
    client: Callable[[str], Any]
    made: list[Made] = field(default_factory=list)

    def name(self, prefix: str = "t") -> str:
        """A name that no other test uses."""
        return f"{prefix}-{next(_numbers)}"

    def check(self, type_: str, urn: str, olds: Values, news: Values) -> Values:
        """Checked inputs; fails on any refusal."""
        inputs, failures = self.backend.check(type_, urn, olds, news, b"0123456789abcdef")
        assert failures == []
        return inputs

    def make(self, type_: str, **properties: Any) -> Made:
        """Check and create."""
        urn = f"urn:pulumi:local::ringfence::{type_}::{self.name()}"
        inputs = self.check(type_, urn, {}, properties)
        id_, outputs = self.backend.create(type_, urn, inputs, False)
        made = Made(type_, urn, id_, inputs, outputs)
        self.made.append(made)
        return made

    def read(self, made: Made) -> Any:
        """Refresh `made` from the live thing; None when it is gone."""
        found = self.backend.read(made.type, made.urn, made.id, made.inputs, made.outputs)
        if found is not None:
            made.outputs = found.outputs
        return found

    def changes(self, made: Made, news: Values | None = None) -> tuple[str, ...]:
        """Paths that differ between what is known and `news`, or what was declared."""
        return self.diff(made, made.inputs if news is None else news).changed

    def diff(self, made: Made, news: Values) -> Any:
        """The backend's diff."""
        return self.backend.diff(made.type, made.urn, made.id, made.inputs, made.outputs, news)

    def update(self, made: Made, news: Values, preview: bool = False) -> None:
        """Update in place."""
        arguments = (made.type, made.urn, made.id, made.inputs, made.outputs, news, preview)
        outputs = self.backend.update(*arguments)
        if not preview:
            made.inputs, made.outputs = news, outputs

    def delete(self, made: Made) -> None:
        """Delete."""
        self.backend.delete(made.type, made.urn, made.id, made.inputs, made.outputs)
        if made in self.made:
            self.made.remove(made)

    def clear(self) -> None:
        """Delete everything that is left."""
        for made in reversed(self.made.copy()):
            self.delete(made)


@dataclass(frozen=True)
class Case:
    """One type's row. inputs: what is declared, from a world to make prerequisites in; update and replace: changes to it;
    drift: what somebody does with boto3, given the world and the resource, and `drifted`: a path that must then differ.
    mended: whether an update brings the drift back. importable: whether the id alone is enough to read it all.
    """

    type: str
    inputs: Callable[[World], Values]
    update: Values | Callable[[World], Values] | None = None
    replace: Values | None = None
    drift: Callable[[World, Made], Any] | None = None
    drifted: str = ""
    mended: bool = True
    importable: bool = True
    outlives: bool = False

    def __str__(self) -> str:
        return self.type.rpartition(":")[2]


def live(world: World, case: Case) -> None:
    """Takes one row through its whole life."""
    declared = case.inputs(world)
    _refuses_an_unknown_property(world, case, declared)
    _previews_every_property_unknown(world, case, declared)
    made = world.make(case.type, **declared)
    assert made.id
    _unchanged(world, made, "just created")
    found = world.read(made)
    _unchanged(world, made, "just created, then read")
    assert {name: found.inputs.get(name) for name in made.inputs} == made.inputs, (
        "what was read isn't what was declared"
    )
    if case.importable:
        imported = world.backend.read(case.type, made.urn, made.id, {}, {})
        found = world.backend.diff(case.type, made.urn, made.id, {}, imported.outputs, made.inputs)
        assert found.replaces == (), f"imported: {imported}"
    _updates(world, case, made)
    _drifts(world, case, made)
    world.delete(made)
    if not case.outlives:
        assert world.read(made) is None, "deleted"
    world.backend.delete(case.type, made.urn, made.id, made.inputs, made.outputs)


def _unchanged(world: World, made: Made, when: str) -> None:
    changed = world.changes(made)
    assert changed == (), f"{when}: {[(path, made.outputs.get(path.split('.')[0].split('[')[0])) for path in changed]}"


def _refuses_an_unknown_property(world: World, case: Case, declared: Values) -> None:
    _, failures = world.backend.check(case.type, "urn:x::x", {}, declared | {"nonsense": 1}, b"0123")
    assert [failure.property for failure in failures] == ["nonsense"]


def _previews_every_property_unknown(world: World, case: Case, declared: Values) -> None:
    urn = f"urn:pulumi:local::ringfence::{case.type}::{world.name()}"
    for name in declared:
        inputs = world.check(case.type, urn, {}, declared | {name: UNKNOWN})
        id_, outputs = world.backend.create(case.type, urn, inputs, True)
        assert id_ == ""
        assert outputs[name] is UNKNOWN


def _updates(world: World, case: Case, made: Made) -> None:
    if case.update is not None:
        wanted = case.update(world) if callable(case.update) else case.update
        news = world.check(case.type, made.urn, made.inputs, made.inputs | wanted)
        news = {name: value for name, value in news.items() if value is not None}
        found = world.diff(made, news)
        assert found.changed
        assert found.replaces == ()
        world.update(made, news, preview=True)
        assert world.changes(made, news), "a preview changed something"
        world.update(made, news)
        _unchanged(world, made, "just updated")
        world.read(made)
        _unchanged(world, made, "just updated, then read")
    if case.replace is not None:
        news = world.check(case.type, made.urn, made.inputs, made.inputs | case.replace)
        assert world.diff(made, news).replaces
    for name in made.inputs:
        assert world.changes(made, made.inputs | {name: UNKNOWN}), f"{name} unknown is no change"


def _drifts(world: World, case: Case, made: Made) -> None:
    if case.drift is None:
        return
    case.drift(world, made)
    found = world.read(made)
    if found is None:
        assert case.drifted == "gone"
        return
    assert case.drifted in world.changes(made)
    if case.mended:
        world.update(made, made.inputs)
        world.read(made)
        _unchanged(world, made, "the drift wasn't mended")
