"""Setting up Python: the stamp, interrupted and repeated runs, mirrors. The real uv, on a project without dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ringfence.local import bootstrap

PROJECT = """
[project]
name = "probe"
version = "1"
requires-python = ">=3.11"
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# A build backend of the project's own, so that nothing is fetched.
BACKEND = """
import pathlib, zipfile
def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "probe-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as wheel:
        wheel.writestr("probe.pth", str(pathlib.Path.cwd()))
        wheel.writestr("probe-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: probe\\nVersion: 1\\n")
        wheel.writestr("probe-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("probe-1.dist-info/RECORD", "")
    return name
def build_wheel(*args, **kwargs):
    raise NotImplementedError
"""


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "backend.py").write_text(BACKEND)
    (root / "requirements.lock").write_text("")
    return root


@pytest.fixture
def environ():
    """The caller's environment: uv comes from the user's cache, since fetching it for each test would be slow."""
    return dict(os.environ)


def stamp(project: Path) -> Path:
    return project / ".venv" / "ringfence-stamp"


def test_an_environment_is_made_once_and_then_left_alone(project, environ, capsys):
    bootstrap.make_venv(project, environ)
    assert "Python environment ready" in capsys.readouterr().err
    answer = subprocess.run(
        [project / ".venv" / "bin" / "python", "-c", "import backend"], cwd="/", capture_output=True, check=False
    )
    assert answer.returncode == 0
    written = stamp(project).stat().st_mtime_ns
    bootstrap.make_venv(project, environ)
    assert capsys.readouterr().err == ""
    assert stamp(project).stat().st_mtime_ns == written


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_file_sets_up_again(project, environ, changed):
    bootstrap.make_venv(project, environ)
    before = stamp(project).read_text()
    (project / changed).write_text((project / changed).read_text() + "\n# changed\n")
    _, version = bootstrap.python_for_venv()
    assert not bootstrap.is_current(project, version)
    bootstrap.make_venv(project, environ)
    assert stamp(project).read_text() != before
    assert bootstrap.is_current(project, version)


def test_an_environment_of_an_interrupted_set_up_does_not_count_as_finished(project, environ):
    bootstrap.make_venv(project, environ)
    (project / "requirements.lock").write_text("no-such-package-of-ringfence==1 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(bootstrap.SetupError, match="uv pip sync"):
        bootstrap.make_venv(project, environ | {"UV_OFFLINE": "1"})
    assert not stamp(project).exists()
    (project / "requirements.lock").write_text("")
    bootstrap.make_venv(project, environ)
    assert stamp(project).exists()


def test_a_requirement_without_a_hash_is_refused(project, environ, capfd):
    (project / "requirements.lock").write_text("click==8.2.0\n")
    with pytest.raises(bootstrap.SetupError, match="uv pip sync"):
        bootstrap.make_venv(project, environ | {"UV_OFFLINE": "1"})
    assert "--require-hashes" in capfd.readouterr().err
    assert not stamp(project).exists()


def test_an_environment_whose_python_is_gone_is_made_anew(project, environ):
    bootstrap.make_venv(project, environ)
    (project / ".venv" / "bin" / "python").unlink()
    bootstrap.make_venv(project, environ)
    assert (project / ".venv" / "bin" / "python").exists()


def test_two_set_ups_at_once_make_one_environment(project, environ, capfd):
    threads = [threading.Thread(target=bootstrap.make_venv, args=(project, environ)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err.count("Python environment ready") == 1


def test_pips_mirrors_reach_uv():
    settings = {
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://a.example/simple https://b.example/simple",
        "PIP_FIND_LINKS": "/wheels /more",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    seen = bootstrap.uv_environment(settings)
    assert seen["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert seen["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    assert seen["UV_FIND_LINKS"] == "/wheels,/more"


def test_uvs_own_settings_win_over_pips():
    settings = {
        "PIP_INDEX_URL": "https://pip.example",
        "UV_DEFAULT_INDEX": "https://uv.example",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    assert bootstrap.uv_environment(settings)["UV_DEFAULT_INDEX"] == "https://uv.example"


def test_mirrors_in_pips_configuration_file_are_read_and_variables_win(tmp_path):
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://file.example/simple\ntrusted-host = file.example\n")
    environ = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(config)}
    assert bootstrap.uv_environment(environ)["UV_DEFAULT_INDEX"] == "https://file.example/simple"
    assert bootstrap.uv_environment(environ)["UV_INSECURE_HOST"] == "file.example"
    assert bootstrap.uv_environment(environ | {"PIP_INDEX_URL": "https://x"})["UV_DEFAULT_INDEX"] == "https://x"
    config.write_text("not a configuration")
    with pytest.raises(bootstrap.SetupError, match=r"pip\.conf"):
        bootstrap.uv_environment(environ)


def test_the_callers_environment_is_not_set_up_by_mistake():
    seen = bootstrap.uv_environment({"VIRTUAL_ENV": "/elsewhere", "PYTHONPATH": "/x", "PIP_CONFIG_FILE": "/dev/null"})
    assert "VIRTUAL_ENV" not in seen
    assert "PYTHONPATH" not in seen


def test_without_uv_and_pip_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(bootstrap.SetupError, match="remedy: install uv"):
        bootstrap.find_uv(tmp_path / "cache")
    assert not list((tmp_path / "cache" / "tools").iterdir())


def test_uv_is_fetched_with_pip_into_the_cache_when_path_has_none(tmp_path, monkeypatch):
    calls = []

    def pip(command, target):
        calls.append(command)
        program = target / "bin" / "uv"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho uv 0.13.9\n")
        program.chmod(0o755)
        return ""

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    monkeypatch.setattr(bootstrap, "_pip", pip)
    first = bootstrap.find_uv(tmp_path)
    assert first == bootstrap.find_uv(tmp_path)
    assert Path(first[0]).is_relative_to(tmp_path)
    assert len(calls) == 1


def test_the_cache_is_where_the_environment_says():
    assert bootstrap.cache_root({"RINGFENCE_CACHE": "/c"}) == Path("/c")
    assert bootstrap.cache_root({"XDG_CACHE_HOME": "/x"}) == Path("/x/ringfence")
    assert bootstrap.cache_root({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache" / "ringfence"
    assert bootstrap.cache_root({}) == Path.home() / ".cache" / "ringfence"


def test_bootstrap_needs_nothing_but_the_standard_library():
    script = Path(bootstrap.__file__)
    answer = subprocess.run(
        [sys.executable, "-IS", "-c", f"import runpy; runpy.run_path({str(script)!r})"], check=False
    )
    assert answer.returncode == 0
