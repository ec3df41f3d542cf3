"""The lockfile as it is in another revision of the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.review import lockfile
from ringfence.review.lockfile import Lockfile


def at_revision(path: Path, ref: str) -> Lockfile | None:
    """The lockfile at `ref`, None when that revision has none. Raises InputError for a revision that doesn't exist."""
    if not ref or ref.startswith("-"):
        raise InputError([Problem("--base", ref, "is no revision", "name a branch, tag or commit")])
    folder = path.resolve().parent
    commit = _git(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if commit.returncode:
        remedy = "fetch it first, e.g. git fetch origin main, or name another"
        raise InputError([Problem("--base", ref, "is no revision of this repository", remedy)])
    name = f"{commit.stdout.strip()}:./{path.name}"
    if _git(folder, "cat-file", "-e", name).returncode:
        return None
    shown = _git(folder, "show", name)
    if shown.returncode:
        raise RingfenceError(f"git can't show {path.name} at {ref}: {shown.stderr.strip()}")
    return lockfile.parse(shown.stdout, path)


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 (git as the user has it)
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    except FileNotFoundError as error:
        raise RingfenceError("git is not on PATH: install it, or leave --base out") from error
