"""`ringfence doctor`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ringfence.local import doctor
from ringfence.local.toolchain.recipes import PARTS

PROGRAMS = {program for part in PARTS for program in part.programs}


def run(*words, **environ):
    command = [sys.executable, "-m", "ringfence.cli", "doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ) | environ)


def test_an_empty_cache_is_reported_with_what_is_missing_and_exit_code_1(tmp_path):
    answer = run("--json", RINGFENCE_CACHE=str(tmp_path / "empty"), PATH="/usr/bin:/bin")
    assert answer.returncode == 1
    missing = {check["name"]: check["remedy"] for check in json.loads(answer.stdout) if not check["ok"]}
    assert set(missing) >= PROGRAMS
    assert all(missing.values())
    assert not (tmp_path / "empty").exists()


def test_what_only_sandboxes_need_is_shown_but_not_missing(tmp_path):
    answer = run("--json", RINGFENCE_CACHE=str(tmp_path / "empty"), PATH="/usr/bin:/bin")
    runsc = next(check for check in json.loads(answer.stdout) if check["name"] == "runsc")
    assert (runsc["ok"], runsc["source"]) == (True, "not there yet")
    assert "ringfence run" in runsc["detail"]


def test_the_table_names_each_part_its_version_and_where_it_came_from(tools):
    answer = run()
    assert answer.returncode == 0, answer.stdout
    for name in PROGRAMS:
        line = next(line for line in answer.stdout.splitlines() if line.split()[1:2] == [name])
        assert tools[name].version in line
        assert tools[name].source.value in line
    assert "everything is there" in answer.stdout


def test_the_python_environment_and_the_providers_are_among_the_parts(tools):
    names = {check.name for check in doctor.examine()}
    assert {"python", "uv", "go", "package moto", "provider aws", "provider kubernetes", "provider random"} <= names


def test_a_python_outside_the_supported_versions_is_missing(monkeypatch):
    monkeypatch.setattr(doctor.bootstrap, "PYTHONS", ((3, 1), (3, 2)))
    check = next(check for check in doctor.examine() if check.name == "python")
    assert not check.ok
    assert "make PYTHON=" in check.remedy


@pytest.mark.parametrize("ok", [True, False])
def test_a_remedy_is_shown_under_its_part(ok):
    check = doctor.Check("thing", ok, "1" if ok else "", "here", remedy="" if ok else "do it")
    text = doctor.table([check])
    assert ("remedy: do it" in text) is not ok
    assert ("MISSING" in text) is not ok
