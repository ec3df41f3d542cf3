"""What `ringfence env` gives a shell: the variables, and a pulumi that leaves the project's configuration file alone."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml

from ringfence.local import shell, target
from ringfence.local.stack import Engine
from ringfence.local.state import Home
from ringfence.local.toolchain import Source, Tool, Tools

# Like the engine: rewrites the configuration file in its own form, with a salt; `config` also sets a value.
PULUMI = """#!/bin/sh
config="$TRIAL_CONFIG"
{ echo 'config:'; echo '  trial:a: "1"'
  [ "$1" = config ] && echo '  trial:b: "2"'
  [ "$1 $2" = "config --secret" ] && printf '  trial:c:\\n    secure: v1:abc\\n'
  echo 'encryptionsalt: v1:salt'; } > "$config"
exit 7
"""


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """An engine whose program is a stand-in; returns (engine, configuration file, run)."""
    pulumi = tmp_path / "real" / "pulumi"
    pulumi.parent.mkdir()
    pulumi.write_text(PULUMI)
    pulumi.chmod(0o755)
    project = tmp_path / "project"
    project.mkdir()
    (project / "Pulumi.yaml").write_text("name: trial\nruntime: python\n")
    config = project / "Pulumi.local.yaml"
    config.write_text("# mine\nconfig:\n  trial:a: 1\n")
    tools = Tools({"pulumi": Tool("pulumi", "v0", pulumi, Source.PATH)})
    engine = Engine(project, tmp_path / "home", tools)
    monkeypatch.setattr(Engine, "init", lambda self: None)
    shell.exports(engine)

    def run(*words):
        environ = {"PATH": os.environ["PATH"], "TRIAL_CONFIG": str(config)}
        return subprocess.run([engine.home.root / "bin" / "pulumi", *words], env=environ, check=False).returncode

    return engine, config, run


@pytest.mark.parametrize("words", [("preview", "-s", "local"), ("up",), ("destroy", "--yes")])
def test_a_command_that_only_reads_the_configuration_leaves_its_file_as_it_was(trial, words):
    _, config, run = trial
    before = config.read_bytes()
    assert run(*words) == 7
    assert config.read_bytes() == before


def test_a_command_that_changes_the_configuration_does_so_without_the_salt(trial):
    _, config, run = trial
    run("config", "set", "b", "2")
    assert yaml.safe_load(config.read_text()) == {"config": {"trial:a": "1", "trial:b": "2"}}


def test_a_configuration_with_secrets_of_its_own_keeps_the_salt_that_they_need(trial):
    _, config, run = trial
    run("config", "--secret", "c")
    assert "encryptionsalt" in config.read_text()
    before = config.read_bytes()
    run("preview")
    assert config.read_bytes() == before


def test_a_salt_that_was_committed_on_another_machine_is_taken_out_first(trial):
    _, config, run = trial
    config.write_text(config.read_text() + "encryptionsalt: v1:foreign\n")
    run("preview")
    assert "encryptionsalt" not in config.read_text()


def test_a_project_without_a_configuration_file_is_fine(trial):
    _, config, run = trial
    config.unlink()
    assert run("preview") == 7
    assert not config.exists()


def test_the_wrapper_comes_before_the_tools_on_path(trial):
    engine, _, _ = trial
    folders = shell.folders(engine)
    assert folders[0] == str(engine.home.root / "bin")
    assert str(engine.tools.path("pulumi").parent) in folders


def test_nothing_of_the_callers_accounts_is_left_and_proxies_do_not_stand_in_between(tmp_path):
    base = {
        "AWS_PROFILE": "prod",
        "KUBECONFIG": "/prod",
        "PULUMI_ACCESS_TOKEN": "t",
        "http_proxy": "http://p",
        "NO_PROXY": "corp",
    }
    seen = target.environment(Home.of(tmp_path), Tools(), base)
    assert "AWS_PROFILE" not in seen
    assert "PULUMI_ACCESS_TOKEN" not in seen
    assert seen["KUBECONFIG"] == str(tmp_path / "kubeconfig")
    assert seen["NO_PROXY"] == "corp,127.0.0.1,localhost"
    assert seen["AWS_CONFIG_FILE"] == os.devnull


def test_provider_wrappers_are_programs_that_do_not_read_modules_from_the_current_folder(tmp_path):
    home = Home.of(tmp_path / "home")
    target.write_plugins(home)
    (tmp_path / "grpc.py").write_text("raise SystemExit('taken from the current folder')")
    for name in target.PROVIDERS:
        wrapper = home.plugins / f"pulumi-resource-{name}"
        assert os.access(wrapper, os.X_OK)
        process = subprocess.Popen([wrapper, "127.0.0.1:1"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline().strip().isdigit()
        finally:
            process.kill()
            process.wait()
