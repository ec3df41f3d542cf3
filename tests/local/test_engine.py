"""The engine wrapper, on the real engine."""

from __future__ import annotations

import contextlib
import shutil
import sys

import psutil
import pytest

from ringfence.errors import RingfenceError
from ringfence.local.results import EngineError
from ringfence.local.supervise import MARK

pytestmark = pytest.mark.engine

PROGRAM = """
    import pulumi

    class Thing(pulumi.ComponentResource):
        def __init__(self, name):
            super().__init__("trial:index:Thing", name)
            self.register_outputs({})

    for name in pulumi.Config().require("names").split(","):
        Thing(name)
    pulumi.export("open", "plain")
    pulumi.export("hidden", pulumi.Output.secret("s3cr3t-value"))
"""


def test_a_stack_is_previewed_made_and_destroyed_with_the_real_engine(engine_factory):
    engine = engine_factory(PROGRAM, config={"names": "one,two"})
    preview = engine.preview(json=True).check()
    assert preview.changes == {"create": 3}
    assert {step["op"] for step in preview.json["steps"]} == {"create"}
    assert engine.resources() == []

    up = engine.up().check()
    assert sorted(step.name for step in up.changed_steps) == ["one", "trial-local", "two"]
    assert len(engine.resources()) == 3
    assert engine.outputs() == {"open": "plain", "hidden": "[secret]"}
    assert engine.preview().check().changes == {"same": 3}

    assert engine.destroy().check().changes == {"delete": 3}
    assert engine.resources() == []
    assert engine.destroy().check().changes == {}


def test_a_secret_output_is_not_in_the_state_in_plain_text(engine_factory):
    engine = engine_factory(PROGRAM, config={"names": "one"})
    engine.up().check()
    assert "s3cr3t-value" not in engine.state_file.read_text(encoding="utf-8")
    assert "s3cr3t-value" in str(engine.export(show_secrets=True))


def test_the_projects_own_configuration_file_is_not_written(engine_factory):
    text = "config:\n  trial:names: one\n"
    engine = engine_factory(PROGRAM, files={"Pulumi.local.yaml": text})
    engine.up().check()
    engine.preview().check()
    assert engine.source_config.read_text(encoding="utf-8") == text
    assert "encryptionsalt" in engine.config_file.read_text(encoding="utf-8")


def test_a_salt_of_another_machine_in_the_projects_configuration_is_ignored(engine_factory):
    salt = "encryptionsalt: v1:AAAAAAAAAAA=:v1:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n"
    engine = engine_factory(PROGRAM, files={"Pulumi.local.yaml": salt + "config:\n  trial:names: one\n"})
    engine.up().check()
    assert engine.preview().check().changes == {"same": 2}


def test_the_configuration_copy_can_be_lost_without_losing_the_stack(engine_factory):
    engine = engine_factory(PROGRAM, config={"names": "one"})
    engine.up().check()
    engine.config_file.unlink()
    assert engine.preview().check().changes == {"same": 2}


def test_a_removed_backend_is_made_anew(engine_factory):
    engine = engine_factory(PROGRAM, config={"names": "one"})
    engine.up().check()
    shutil.rmtree(engine.home.backend)
    assert engine.up().check().changes == {"create": 2}


def test_operations_left_pending_by_a_killed_engine_are_cleared_before_up(engine_factory):
    engine = engine_factory(PROGRAM, config={"names": "one"})
    engine.up().check()
    exported = engine.export()
    pending = exported["deployment"]["resources"][1] | {"urn": "urn:pulumi:local::trial::trial:index:Thing::lost"}
    exported["deployment"]["pending_operations"] = [{"type": "creating", "resource": pending}]
    engine.import_(exported)
    engine.up().check()
    assert not engine.export()["deployment"].get("pending_operations")
    assert len(engine.resources()) == 2


def test_a_state_whose_note_a_killed_engine_cut_short_is_read_all_the_same(engine_factory):
    engine = engine_factory(PROGRAM, config={"names": "one"})
    engine.up().check()
    note = engine.state_file.with_name(engine.state_file.name + ".attrs")
    assert note.stat().st_size
    note.write_text("")
    assert engine.preview().check().changes == {"same": 2}


def test_a_failing_program_is_reported_with_its_own_words(engine_factory):
    engine = engine_factory("raise RuntimeError('the kettle is dry')")
    result = engine.preview()
    assert not result.ok
    with pytest.raises(EngineError, match="the kettle is dry"):
        result.check()


def test_the_callers_accounts_and_backends_do_not_reach_the_engine(engine_factory, monkeypatch):
    for name in (
        "AWS_PROFILE",
        "AWS_SESSION_TOKEN",
        "PULUMI_ACCESS_TOKEN",
        "KUBECONFIG",
        "PULUMI_IGNORE_AMBIENT_PLUGINS",
    ):
        monkeypatch.setenv(name, "callers-own")
    engine = engine_factory("import os, pulumi\npulumi.export('environment', dict(os.environ))")
    engine.up().check()
    seen = engine.outputs()["environment"]
    assert "callers-own" not in seen.values()
    assert seen["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert seen["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"


PACK = """
from ringfence.review.analyzer_service import Pack, Policy, serve

serve(Pack("trial-pack", (Policy(
    "no-short", "d", "high", lambda type_: type_.startswith("random:"),
    lambda resource, config: ["too short"] if resource.props["length"] < 12 else []),)))
"""
PASSWORDS = """
    import pulumi, pulumi_random as random

    length = pulumi.Config().require_int("length")
    for number in range(4):
        random.RandomPassword(f"password-{number}", length=length)
"""


def test_a_mandatory_policy_fails_the_preview_and_the_stopped_program_leaves_no_trace(engine_factory, tmp_path):
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text(f"runtime: {{name: python, options: {{virtualenv: {sys.prefix}}}}}\n")
    (pack / "__main__.py").write_text(PACK)
    refused = engine_factory(PASSWORDS, config={"length": 8}).preview(policy_packs=[pack])
    assert not refused.ok
    assert {(violation.policy, violation.level) for violation in refused.violations} == {("no-short", "mandatory")}
    assert "too short" in refused.violations[0].message
    assert "KeyboardInterrupt" not in refused.stdout
    allowed = engine_factory(PASSWORDS, config={"length": 16}).preview(policy_packs=[pack]).check()
    assert allowed.violations == ()


def test_a_program_that_the_engine_stops_prints_no_traceback(engine_factory):
    engine = engine_factory(
        """
        import asyncio, pulumi, pulumi_random as random

        async def never():
            await asyncio.sleep(600)

        first = random.RandomPassword("first", length=20)
        random.RandomPassword("second", length=first.result.apply(lambda value: -len(value)))
        pulumi.export("never", pulumi.Output.from_input(never()))
        """
    )
    result = engine.up()
    assert not result.ok
    assert "second" in "".join(result.errors)
    assert "KeyboardInterrupt" not in result.stdout
    assert "Traceback" not in result.stdout


def test_an_engine_that_takes_too_long_is_killed_with_everything_it_started(engine_factory):
    engine = engine_factory("import time\ntime.sleep(600)")
    engine.init()
    with pytest.raises(RingfenceError, match="did not end within 8 s"):
        engine.preview(timeout_s=8)
    mark = f"{engine.home.root}:"
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK, "").startswith(mark) and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process.cmdline())
    assert left == []
