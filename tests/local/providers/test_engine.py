"""The providers under the real engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.engine

RANDOM = """
    import pulumi
    import pulumi_random as random

    config = pulumi.Config()
    password = random.RandomPassword(
        "password",
        length=config.get_int("length") or 16,
        keepers={"a": config.get("keeper") or "1", "b": config.get("other") or "1"},
        opts=pulumi.ResourceOptions(ignore_changes=["keepers.b"]),
    )
    name = random.RandomString("name", length=6, special=False)
    random.RandomId("id", byte_length=4, keepers={"of": name.result})
    pulumi.export("password", password.result)
    pulumi.export("name", name.result)
"""


def _names(result: Any, op: str) -> set[str]:
    return {step.name for step in result.changed_steps if step.op == op}


def test_random_values_are_made_kept_replaced_and_forgotten(engine_factory: Any) -> None:
    engine = engine_factory(RANDOM)
    previewed = engine.preview()
    previewed.check()
    assert _names(previewed, "create") >= {"password", "name", "id"}
    engine.up().check()
    name = engine.outputs()["name"]
    assert len(name) == 6
    again = engine.up()
    again.check()
    assert again.changed_steps == ()
    assert engine.outputs()["name"] == name
    engine.destroy().check()
    assert [one for one in engine.resources() if "random" in one["type"]] == []


def test_a_keeper_replaces_only_its_own_value_and_an_ignored_one_does_nothing(engine_factory: Any) -> None:
    engine = engine_factory(RANDOM)
    engine.up().check()
    engine.config["trial:other"] = "2"
    ignored = engine.preview()
    ignored.check()
    assert ignored.changed_steps == ()
    engine.config["trial:keeper"] = "2"
    changed = engine.preview()
    changed.check()
    assert {step.name for step in changed.changed_steps} == {"password"}
    assert {path for step in changed.changed_steps for path in step.replaces} == {"keepers.a"}


def test_a_secret_is_encrypted_in_the_state_and_hidden_in_the_output(engine_factory: Any) -> None:
    engine = engine_factory(RANDOM)
    result = engine.up()
    result.check()
    password = engine.export(show_secrets=True)["deployment"]["resources"][0]["outputs"]["password"]["plaintext"]
    secret = json.loads(password)
    assert len(secret) == 16
    state = "".join(path.read_text() for path in engine.home.backend.rglob("*.json"))
    assert secret not in state
    assert engine.outputs()["name"] in state
    assert secret not in result.stdout + result.stderr


def test_inputs_that_are_refused_are_told_by_key(engine_factory: Any) -> None:
    engine = engine_factory(RANDOM, config={"length": "-1"})
    result = engine.preview()
    assert not result.ok
    assert any("-1 is no length: write a whole number of at least 1" in text for text in result.errors)
    assert not any("Traceback" in text for text in result.errors)
