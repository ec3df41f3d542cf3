"""The OCI bundle of one sandbox: what gVisor is told to run, on what files, with what limits. Holds nothing secret.

Everything secret (environment, credentials) goes through the process's standard input; see `launch`. Trust zone: control
side; what is written here is what keeps the sandbox in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.runner.executor import CREDENTIALS_FOLDER

UID = GID = 1000
HOSTNAME = "sandbox"
# As the pod's /tmp (components.sandbox) and one credential file per tool.
TMP_MIB, CREDENTIALS_KIB = 64, 256
OPEN_FILES = 1024
# The one id that an ordinary user may map: their own, which `nest` made 1000.
_ITSELF = {"containerID": 0, "hostID": UID, "size": 1}


@dataclass(frozen=True, slots=True)
class ReadOnlyMount:
    """A host folder that the sandbox sees read-only. Both paths are absolute; `destination` exists in the root."""

    source: Path
    destination: str


@dataclass(frozen=True, slots=True)
class Root:
    """What the sandbox's processes find: a folder as read-only root, more read-only folders in it, and the interpreter
    (path inside) that unpacks the environment and credentials before it becomes the command."""

    folder: Path
    interpreter: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[ReadOnlyMount, ...] = ()


def image_root(report: Callable[[str], None]) -> Root:
    """The runtime image's files and command; unpacked into the per-user cache on first use."""
    # Imported here: a root of one's own needs none of the image's builder.
    from ringfence.image import COMMAND, ENVIRONMENT, rootfs

    return Root(rootfs(report=report), COMMAND[0], COMMAND, tuple(ENVIRONMENT.items()))


def _tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "noexec", *options],
    }


def _mounts(root: Root) -> list[dict[str, Any]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "nodev", "noexec", "ro"]},
        *(
            {
                "destination": mount.destination,
                "type": "bind",
                "source": str(mount.source),
                "options": ["rbind", "ro", "nosuid", "nodev"],
            }
            for mount in root.mounts
        ),
        _tmpfs("/tmp", f"size={TMP_MIB}m", "mode=1777"),  # noqa: S108 - inside the sandbox
        _tmpfs(CREDENTIALS_FOLDER, f"size={CREDENTIALS_KIB}k", "mode=0700", f"uid={UID}", f"gid={GID}"),
    ]


def configuration(root: Root, arguments: Sequence[str], network_namespace: str, cgroup: str | None) -> dict[str, Any]:
    """config.json as the OCI runtime specification 1.1 has it. network_namespace: path of the sandbox's own; cgroup: path of
    a control group that is there, with its limits; None in a user namespace, where gVisor gets one more of its own."""
    nothing: list[str] = []
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "ociVersion": "1.1.0",
        "hostname": HOSTNAME,
        "root": {"path": str(root.folder), "readonly": True},
        "mounts": _mounts(root),
        "process": {
            "terminal": False,
            "user": {"uid": UID, "gid": GID, "umask": 0o077},
            "args": list(arguments),
            "cwd": "/",
            "env": nothing,
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(kinds, nothing),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": OPEN_FILES, "hard": OPEN_FILES},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ],
        },
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "mount", "ipc", "uts")),
                {"type": "network", "path": network_namespace},
                *([] if cgroup else [{"type": "user"}]),
            ],
            **({"cgroupsPath": cgroup} if cgroup else {"uidMappings": [_ITSELF], "gidMappings": [_ITSELF]}),
        },
    }
