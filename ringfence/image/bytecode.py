"""Compiles the image's modules ahead of time, with the image's own interpreter: its root is read-only, and compiling at
every start would cost seconds inside a sandbox."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ringfence.errors import RingfenceError
from ringfence.image.lock import MACHINES
from ringfence.image.tree import Node, Tree, file, write

# Unchecked: nothing changes below a read-only root, and a checked file would be compared with its source at each import.
# Source paths are cut to what they are in the image, so that the building machine's don't show.
_SCRIPT = """
import compileall, py_compile, sys
done = compileall.compile_dir(
    sys.argv[1], maxlevels=50, force=True, quiet=2, stripdir=sys.argv[2], prependdir="/",
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
"""
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}


def host_platform() -> str:
    """The platform that this machine runs. Raises RingfenceError when the image isn't made for it."""
    for name, machine in MACHINES.items():
        if sys.platform == "linux" and machine == platform.machine():
            return name
    raise RingfenceError(
        f"the runtime image can't be built on {sys.platform} {platform.machine()}\n"
        f"    remedy: build it on Linux, on {' or '.join(MACHINES.values())}"
    )


def compiled(interpreter: Mapping[str, Node], modules: Mapping[str, Node]) -> Tree:
    """The `__pycache__` files of `modules`. interpreter: a base layer for this machine; bytecode is the same on each."""
    machine = platform.machine()
    with tempfile.TemporaryDirectory(prefix="ringfence-image-") as scratch:
        base, target = Path(scratch, "base"), Path(scratch, "target")
        base.mkdir()
        target.mkdir()
        write(interpreter, base)
        write({path: node for path, node in modules.items() if path.endswith(".py")}, target)
        libraries = base / "usr" / "lib" / f"{machine}-linux-gnu"
        command = [
            libraries / _LOADERS[machine], "--library-path", libraries, base / "usr" / "bin" / "python3.11",
            "-s", "-S", "-P", "-X", "utf8", "-c", _SCRIPT, target, target,
        ]  # fmt: skip
        words = [str(part) for part in command]
        # Nothing of the caller's environment; a fixed seed, since the order of sets is part of compiled code.
        environment = {"PYTHONHASHSEED": "0"}
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        made = {str(path.relative_to(target)): file(path.read_bytes()) for path in sorted(target.rglob("*.pyc"))}
    if done.returncode or not made:
        raise RingfenceError(f"the image's own interpreter failed:\n{done.stderr.strip()[-1000:]}")
    return made
