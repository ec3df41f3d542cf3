"""Makes `.venv` from requirements.lock. Standard library alone: it runs before anything is installed.

    python3 ringfence/local/bootstrap.py

A stamp in `.venv` records what it was made from, so that a second run takes a fraction of a second.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV_REQUIREMENTS = Path(__file__).resolve().parent / "toolchain" / "uv" / "requirements.txt"
# As requires-python in pyproject.toml: lowest included, highest excluded.
PYTHONS = ((3, 11), (3, 14))
# The oldest uv whose `pip sync --require-hashes` and `venv --clear` are as used here.
OLDEST_UV = (0, 8, 0)
# How often a run that waits, or works, says so, in seconds.
WAIT_S = 5.0
# pip's settings, and uv's variables for them: uv doesn't read pip's. The separator is that of uv's lists.
PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}


class SetupError(Exception):
    """The set-up can't go on; the message says what to do."""


def say(text: str, started: float) -> None:
    """Prints one line of progress."""
    print(f"[set-up {time.monotonic() - started:5.1f}s] {text}", file=sys.stderr, flush=True)


# Mirrors


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """pip's settings from its configuration files and PIP_* variables; the variables win, as with pip."""
    home = Path(environ.get("HOME", "~")).expanduser()
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config_home / "pip" / "pip.conf"]
    if chosen := environ.get("PIP_CONFIG_FILE"):
        files = [] if chosen == os.devnull else [*files, Path(chosen)]
    parser = configparser.RawConfigParser()
    settings: dict[str, str] = {}
    for file in files:
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise SetupError(f"{file} is not a pip configuration: {error}") from None
    for section in ("global", "install"):
        if parser.has_section(section):
            settings |= dict(parser.items(section))
    names = {*PIP_TO_UV, "no-index"}
    for name in names:
        # pip calls the time limit PIP_DEFAULT_TIMEOUT too.
        for variable in (f"PIP_{name.upper().replace('-', '_')}", f"PIP_DEFAULT_{name.upper().replace('-', '_')}"):
            if value := environ.get(variable):
                settings[name] = value
    return {name: value for name, value in settings.items() if name in names}


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with pip's mirrors as uv's variables where uv's own are not set."""
    result = dict(environ)
    # Environments and Pythons are chosen here, not by the caller's activated one.
    for name in ("VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "PYTHONHOME", "PYTHONPATH"):
        result.pop(name, None)
    for name, value in pip_settings(environ).items():
        if name in PIP_TO_UV:
            variable, separator = PIP_TO_UV[name]
            result.setdefault(variable, separator.join(value.split()))
    return result


def index_options(environ: Mapping[str, str]) -> list[str]:
    """Options of `uv pip` that have no variable."""
    no_index = pip_settings(environ).get("no-index", "")
    return ["--no-index"] if no_index.lower() in ("1", "true", "yes", "on") else []


# uv


def _uv_version(command: list[str]) -> tuple[int, ...]:
    try:
        answer = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.match(r"uv (\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else ()


def _cached_uv(cache: Path) -> Path:
    digest = hashlib.sha256(UV_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return cache / "tools" / f"uv-{digest}" / "bin" / "uv"


def known_uv(cache: Path) -> tuple[str, tuple[int, ...]] | None:
    """(program, version) of the uv on PATH, else of one fetched before; None when there is none."""
    on_path = shutil.which("uv")
    if on_path and (version := _uv_version([on_path])) >= OLDEST_UV:
        return on_path, version
    program = _cached_uv(cache)
    if program.exists() and (version := _uv_version([str(program)])):
        return str(program), version
    return None


def find_uv(cache: Path, started: float | None = None) -> list[str]:
    """The command that runs uv: from PATH, else from the cache, else fetched into the cache with pip.

    Raises SetupError when there is none and none can be fetched.
    """
    started = time.monotonic() if started is None else started
    if known := known_uv(cache):
        return [known[0]]
    program = _cached_uv(cache)
    folder = program.parents[1]
    say("fetching uv with pip", started)
    folder.parent.mkdir(parents=True, exist_ok=True)
    attempts = []
    with tempfile.TemporaryDirectory(prefix=".tmp-uv-", dir=folder.parent) as scratch:
        target = Path(scratch) / "files"
        attempts.append(_pip([sys.executable, "-m", "pip"], target))
        if attempts[-1]:
            # Debian's Python has no pip until a virtual environment brings its own.
            venv = Path(scratch) / "venv"
            attempts.append(_run([sys.executable, "-m", "venv", str(venv)]))
            if not attempts[-1]:
                attempts.append(_pip([str(venv / "bin" / "python"), "-m", "pip"], target))
        if attempts[-1]:
            raise SetupError(
                "uv is not on PATH and could not be fetched:\n"
                + "\n".join(filter(None, attempts))
                + "\n    remedy: install uv (https://docs.astral.sh/uv/), or Python's pip or venv module, and run this again"
            )
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(target, folder)
    if not _uv_version([str(program)]):
        raise SetupError(f"{program} does not run on this machine\n    remedy: install uv for it and put it on PATH")
    return [str(program)]


def _pip(command: list[str], target: Path) -> str:
    shutil.rmtree(target, ignore_errors=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    return _run([*command, "install", *options, "--target", str(target), "--requirement", str(UV_REQUIREMENTS)])


def _run(command: list[str], environ: Mapping[str, str] | None = None) -> str:
    """Runs `command`; empty when it worked, else what it said."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environ
        )
    except OSError as error:
        return f"{command[0]}: {error}"
    return (
        "" if answer.returncode == 0 else (answer.stderr or answer.stdout or f"exit code {answer.returncode}").strip()
    )


# The environment


def python_for_venv() -> tuple[str, str]:
    """(executable, version) of the Python that `.venv` is made with: this one when it fits, else one on PATH.

    Raises SetupError when none fits.
    """
    lowest, highest = PYTHONS
    if lowest <= sys.version_info[:2] < highest:
        return getattr(sys, "_base_executable", sys.executable), ".".join(map(str, sys.version_info[:3]))
    for minor in range(highest[1] - 1, lowest[1] - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            answer = subprocess.run(
                [found, "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))"],
                capture_output=True,
                text=True,
                check=False,
            )
            if answer.returncode == 0:
                return found, answer.stdout.strip()
    raise SetupError(
        f"Python {sys.version.split()[0]} does not fit, and no Python 3.{lowest[1]} to 3.{highest[1] - 1} is on PATH\n"
        "    remedy: install one, or run `make PYTHON=/path/to/python3`"
    )


def stamp_of(root: Path, version: str) -> str:
    """What `.venv` depends on, as one digest: the lock, the project file, the folder and the Python version."""
    digest = hashlib.sha256()
    for part in ((root / "requirements.lock").read_bytes(), (root / "pyproject.toml").read_bytes()):
        digest.update(hashlib.sha256(part).digest())
    digest.update(f"{root}\n{version}".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(root: Path, started: float) -> Iterator[None]:
    (root / ".ringfence").mkdir(mode=0o700, exist_ok=True)
    with (root / ".ringfence" / "set-up.lock").open("w") as file:
        said = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - said > WAIT_S:
                    said = time.monotonic()
                    say("another set-up is running in this folder: waiting", started)
                time.sleep(0.1)
        yield


def cache_root(environ: Mapping[str, str]) -> Path:
    """The per-user cache: $RINGFENCE_CACHE, else $XDG_CACHE_HOME/ringfence, else ~/.cache/ringfence."""
    if chosen := environ.get("RINGFENCE_CACHE"):
        return Path(chosen).expanduser().resolve()
    # The XDG specification says that a relative path is to be ignored.
    base = environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ringfence"


def is_current(root: Path, version: str) -> bool:
    """Whether `.venv` was finished from what is there now."""
    try:
        recorded = (root / ".venv" / "ringfence-stamp").read_text(encoding="utf-8")
    except OSError:
        return False
    return recorded.strip() == stamp_of(root, version) and (root / ".venv" / "bin" / "python").exists()


def _fits(venv: Path, version: str) -> bool:
    """Whether `venv` has a Python of that version that is still there."""
    try:
        configuration = (venv / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False
    return f"version_info = {version}" in configuration and (venv / "bin" / "python").exists()


def make_venv(root: Path, environ: Mapping[str, str]) -> None:
    """Makes or mends `.venv` below `root`. Raises SetupError."""
    started = time.monotonic()
    executable, version = python_for_venv()
    if is_current(root, version):
        return
    with _locked(root, started):
        if is_current(root, version):
            return
        venv = root / ".venv"
        uv = find_uv(cache_root(environ), started)
        # From here until the stamp is written the environment counts as unfinished.
        (venv / "ringfence-stamp").unlink(missing_ok=True)
        quiet = uv_environment(environ)
        options = index_options(environ)
        if not _fits(venv, version):
            say(f"making .venv with Python {version}", started)
            _step(
                [*uv, "venv", "--quiet", "--clear", "--no-project", "--python", executable, str(venv)], quiet, started
            )
        python = str(venv / "bin" / "python")
        say("installing the packages of requirements.lock", started)
        sync = [*uv, "pip", "sync", "--quiet", "--require-hashes", *options, "--python", python]
        _step([*sync, str(root / "requirements.lock")], quiet, started)
        editable = [*uv, "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", *options, "--python", python]
        _step([*editable, "--editable", str(root)], quiet, started)
        stamp = venv / "ringfence-stamp.tmp"
        stamp.write_text(stamp_of(root, version) + "\n", encoding="utf-8")
        os.replace(stamp, venv / "ringfence-stamp")
        say("Python environment ready", started)


def _step(command: list[str], environ: Mapping[str, str], started: float) -> None:
    """Runs one step; says every few seconds that it still runs. Raises SetupError."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=dict(environ))
    except OSError as error:
        raise SetupError(f"{command[0]}: {error}") from None
    try:
        while True:
            try:
                code = process.wait(WAIT_S)
                break
            except subprocess.TimeoutExpired:
                say("still at it", started)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code:
        raise SetupError(
            f"`uv {' '.join(command[1:3])}` failed with exit code {code} after {time.monotonic() - started:.0f}s\n"
            "    remedy: check the network, or let PIP_INDEX_URL name a reachable mirror; then run this again"
        )


def main() -> int:
    """Entry point. Exit codes: 0 ready, 1 failed, 130 interrupted."""
    try:
        make_venv(ROOT, os.environ)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
