"""The embedded target's home folder, `.ringfence/`: state backend, passphrase, ports, logs.

Everything the embedded target keeps lies below one folder of the working tree, so that removing it forgets everything.
The folder is made with mode 0700: it holds the stack's state, the passphrase that encrypts secrets in it, and the
credentials of the embedded API server.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock

from ringfence.errors import RingfenceError

# 32 random bytes: as strong as the key that Pulumi derives from the passphrase (AES-256).
PASSPHRASE_BYTES = 32
# The services that get a port of their own.
PORT_NAMES = ("aws", "etcd-client", "etcd-peer", "kube-apiserver", "kube-controller-manager")


def write_atomic(path: Path, text: str, mode: int = 0o600) -> None:
    """Writes `text` to `path` so that a reader, or a crash, sees either the old or the new content in full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_json(path: Path) -> dict:
    """The JSON object in `path`; empty when the file is missing or was cut short by a crash."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: otherwise a port whose last connections are in TIME_WAIT would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _free_ports(count: int, taken: set[int]) -> Iterator[int]:
    """`count` free ports that differ from each other and from `taken`."""
    # All sockets stay open until every port is chosen; closing one early would let the system hand it out again.
    with contextlib.ExitStack() as stack:
        found = 0
        while found < count:
            probe = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port not in taken:
                found += 1
                yield port


@dataclass(frozen=True, slots=True)
class Home:
    """Paths and small files of one embedded target. `root` is absolute."""

    root: Path

    @classmethod
    def of(cls, root: Path | str) -> Home:
        """The home at `root`, made when missing (mode 0700)."""
        home = cls(Path(root).resolve())
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return home

    @property
    def backend(self) -> Path:
        """Pulumi's file backend."""
        return self.root / "backend"

    @property
    def pulumi_home(self) -> Path:
        """PULUMI_HOME: the engine's own credentials and workspace files."""
        return self.root / "pulumi-home"

    @property
    def config(self) -> Path:
        """Stack configurations as given to the engine, with this machine's encryption salt."""
        return self.root / "config"

    @property
    def plugins(self) -> Path:
        """Generated `pulumi-resource-*` wrappers of the embedded providers."""
        return self.root / "plugins"

    @property
    def run(self) -> Path:
        """Pid files of supervised children."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """Log files of supervised children."""
        return self.root / "logs"

    @property
    def aws(self) -> Path:
        """What the AWS server keeps."""
        return self.root / "aws"

    @property
    def kubernetes(self) -> Path:
        """What etcd and kube-apiserver keep: data, certificates, tokens."""
        return self.root / "kubernetes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig of the embedded API server."""
        return self.root / "kubeconfig"

    @property
    def last_up(self) -> Path:
        """What the last successful `up` saw, and that of each stack: incarnation of the services, time, resource count."""
        return self.root / "last-up.json"

    @property
    def unrecorded(self) -> Path:
        """There while a run makes or deletes what no state says yet, and after one that was killed."""
        return self.root / "unrecorded.json"

    @property
    def passphrase_file(self) -> Path:
        """Where the passphrase lies; see `passphrase`."""
        return self.root / "passphrase"

    def lock(self, name: str) -> filelock.FileLock:
        """A lock among processes on this home. Not held yet: use `with` or `acquire`."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return filelock.FileLock(self.root / f"{name}.lock", mode=0o600)

    def passphrase(self) -> Path:
        """The file with the passphrase that encrypts secrets in the state; made on first use, mode 0600.

        Raises RingfenceError when the file is readable by others: its secrets can't be trusted any more.
        """
        path = self.passphrase_file
        with self.lock("passphrase"):
            if not path.exists():
                write_atomic(path, secrets.token_urlsafe(PASSPHRASE_BYTES) + "\n")
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise RingfenceError(
                f"{path} has mode {mode:04o}: others can read the passphrase.\n    remedy: chmod 600 {path}"
            )
        return path

    def kept_ports(self) -> dict[str, int]:
        """The ports as kept, without asking who listens; chosen on first use."""
        return self.ports(lambda name, port: True)

    def ports(self, mine: Callable[[str, int], bool] = lambda name, port: False) -> dict[str, int]:
        """One port of 127.0.0.1 per service, chosen once and kept.

        A kept port is chosen again only when somebody else listens on it; `mine(service, port)` says that the listener
        is this home's own service.
        """
        path = self.root / "ports.json"
        with self.lock("ports"):
            kept: Mapping[str, object] = read_json(path)
            ports = {
                name: port
                for name in PORT_NAMES
                if isinstance(port := kept.get(name), int) and (mine(name, port) or port_is_free(port))
            }
            missing = [name for name in PORT_NAMES if name not in ports]
            if missing:
                ports |= zip(missing, _free_ports(len(missing), set(ports.values())), strict=True)
                write_atomic(path, json.dumps(ports, indent=2, sort_keys=True) + "\n")
        return {name: ports[name] for name in PORT_NAMES}
