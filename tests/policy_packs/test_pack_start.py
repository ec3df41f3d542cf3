"""How the engine's launcher starts a pack: without the SDK, and with a remedy where it can't."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pulumi.runtime.proto import analyzer_pb2 as of_the_sdk

from ringfence.review.analyzer_protocol import analyzer_pb2

ROOT = Path(__file__).parents[2]
PACKS = ROOT / "policy-packs"
START = "start/bin/python"
# What the launcher, pulumi-analyzer-policy-python, calls the interpreter with.
CALL = ("-u", "-m", "pulumi.policy", "127.0.0.1:1", ".")


def started(interpreter: Path, folder: Path, *call: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([interpreter, *call], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("module", ["ringfence.review.analyzer_service", "ringfence.review.pack_rules"])
def test_a_pack_imports_neither_the_sdk_nor_the_grpc_library(module):
    words = f"import sys, {module}; print(sorted({{'pulumi', 'grpc'}} & set(sys.modules)), 'ringfence' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_the_messages_are_those_of_the_sdk():
    assert Path(analyzer_pb2.__file__).samefile(of_the_sdk.__file__)
    request = analyzer_pb2.AnalyzeRequest(urn="urn:pulumi:a::b::c:d:E::f", type="c:d:E")
    assert of_the_sdk.AnalyzeRequest.FromString(request.SerializeToString()).urn == "urn:pulumi:a::b::c:d:E::f"


@pytest.mark.parametrize("pack", ["permission-creep", "sandbox-guardrails"])
def test_every_pack_starts_this_way(pack):
    options = yaml.safe_load((PACKS / pack / "PulumiPolicy.yaml").read_text())["runtime"]["options"]
    assert (PACKS / pack / options["virtualenv"] / "bin/python").samefile(PACKS / START)


def test_the_pack_that_the_launcher_names_is_run_in_the_project_s_environment(tmp_path):
    (tmp_path / "__main__.py").write_text(
        "import sys; print(sys.prefix, sys.flags.safe_path, sys.stdout.write_through)"
    )
    done = started(PACKS / START, tmp_path, *CALL)
    assert done.stdout.split() == [str(ROOT / ".venv"), "True", "True"], done.stderr


@pytest.mark.parametrize("more", [("-m", "this"), ("-u", "-m", "pulumi.policy", "--help"), ("-c", "print('own')")])
def test_any_other_call_is_the_project_s_interpreter_s(tmp_path, more):
    own, plain = (started(python, tmp_path, *more) for python in (PACKS / START, ROOT / ".venv/bin/python"))
    assert plain.stdout
    assert (own.returncode, own.stdout) == (plain.returncode, plain.stdout)


def test_a_missing_environment_is_told_with_a_remedy(tmp_path):
    interpreter = tmp_path / "policy-packs" / START
    interpreter.parent.mkdir(parents=True)
    shutil.copy(PACKS / START, interpreter)
    done = started(interpreter, tmp_path, *CALL)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/.venv/bin/python is missing. Remedy: run `make setup` in {tmp_path}." in done.stderr
