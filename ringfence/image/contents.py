"""What goes into each layer of the image, out of Debian packages and wheels, and what is left out.

No shell, no package manager, no set-uid program: whoever breaks out of the agent finds an interpreter and nothing else.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from ringfence.errors import RingfenceError
from ringfence.image.lock import DebianPackage
from ringfence.image.tree import FOLDER, Node, Tree, checked, file, link, members

PACKAGES = "usr/local/lib/python3.11/dist-packages"
UID = GID = 1000
# Of a Debian package: manuals, translations, character sets, the parts of Python that no agent needs.
_LEFT_OUT = re.compile(
    r"usr/share/(?:man|locale|lintian|bug|info|applications|pixmaps|binfmts|base-files|perl5)/|usr/share/doc/(?!.*/copyright$)"
    r"|usr/lib/[^/]*/gconv/|usr/lib/python3[.]11/(?:test|idlelib|tkinter|ensurepip|lib2to3|pydoc_data|turtledemo|distutils)/"
    r"|usr/bin/(?!python)|usr/sbin/|etc/(?!ssl|os-release|debian_version|python|ld.so)|var/|home|root|media|mnt|opt|srv"
    r"|usr/games|usr/src|usr/include|boot|tmp|run|proc|sys|dev"
)
# boto3 brings a model of every AWS service; these are the ones that the built-in tools call, with what all of them need.
AWS_SERVICES = ("dynamodb", "s3", "ses", "sts")
_SERVICE_MODEL = re.compile(r"(?:botocore|boto3)/data/([^/]+)/")
_WHEEL_LEFT_OUT = re.compile(r"(?:^|/)(?:tests?|testing)/|^boto3/examples/|[.](?:pyi|c|h|pxd)$")


def debian_layer(packages: Iterable[DebianPackage], files: Iterable[Path]) -> Tree:
    """The base layer: the packages' files, one list of certificate authorities, users, mount points."""
    tree: Tree = {}
    for package, path in zip(packages, files, strict=True):
        tree.update(_package(package, path.read_bytes()))
    tree.update(_surroundings())
    authorities = sorted(
        name for name in tree if name.startswith("usr/share/ca-certificates/") and name.endswith(".crt")
    )
    # What ca-certificates' own script does after installation.
    tree["etc/ssl/certs/ca-certificates.crt"] = file(
        b"".join(_line_ended(tree[name].data or b"") for name in authorities)
    )
    for name in authorities:
        del tree[name]
    return tree


def _line_ended(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def _package(package: DebianPackage, data: bytes) -> Tree:
    parts = dict(_archive(data))
    name = next((name for name in parts if name.startswith("data.tar")), None)
    control = next((name for name in parts if name.startswith("control.tar")), None)
    if name is None or control is None or not name.endswith((".xz", ".gz")):
        raise RingfenceError(f"Debian package {package.name}: not of a form known here ({', '.join(parts)})")
    with tarfile.open(fileobj=io.BytesIO(parts[name])) as archive:
        found = {_merged(path): node for path, node in members(archive).items()}
    tree = {path: node for path, node in found.items() if not _is_folder(node) and not _LEFT_OUT.match(path)}
    with tarfile.open(fileobj=io.BytesIO(parts[control])) as archive:
        # Where scanners look for what a distroless image holds.
        tree[f"var/lib/dpkg/status.d/{package.name}"] = members(archive)["control"]
    return tree


def _is_folder(node: Node) -> bool:
    """Whether the node is a folder."""
    return node.data is None and node.link is None


def _merged(path: str) -> str:
    """`/lib` and the like are links into `/usr` on Debian today; packages still name them."""
    return f"usr/{path}" if path.split("/", 1)[0] in ("bin", "sbin", "lib", "lib64") and "/" in path else path


def _archive(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of an `ar` archive (deb(5))."""
    if not data.startswith(b"!<arch>\n"):
        raise RingfenceError("a Debian package is not an ar archive")
    offset = 8
    while offset + 60 <= len(data):
        header = data[offset : offset + 60]
        size = int(header[48:58])
        yield header[:16].decode().strip().rstrip("/"), data[offset + 60 : offset + 60 + size]
        offset += 60 + size + size % 2


def _surroundings() -> Tree:
    tree: Tree = dict.fromkeys(("proc", "sys", "dev", "home", "var/run/ringfence/credentials", "run", "etc"), FOLDER)
    tree |= {name: link(f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")}
    tree |= {"usr/bin": FOLDER, "usr/sbin": FOLDER, "usr/lib64": FOLDER, "tmp": Node(0o1777)}
    tree["usr/bin/python3"] = link("python3.11")
    tree["etc/passwd"] = file(
        f"root:x:0:0:root:/nonexistent:/nonexistent\nagent:x:{UID}:{GID}:agent:/tmp:/nonexistent\n"
    )
    tree["etc/group"] = file(f"root:x:0:\nagent:x:{GID}:\n")
    tree["etc/nsswitch.conf"] = file("passwd: files\ngroup: files\nhosts: files dns\n")
    return tree


def wheel_layer(wheels: Iterable[Path]) -> Tree:
    """The Python packages, unpacked. Raises RingfenceError for a wheel that would write outside of its folder."""
    tree: Tree = {}
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                target = _wheel_path(info.filename, path.name)
                if target is not None:
                    tree[f"{PACKAGES}/{target}"] = file(archive.read(info))
    return tree


def _wheel_path(name: str, wheel: str) -> str | None:
    """Where a wheel's file goes below dist-packages; None for what is left out (packaging.python.org, binary format)."""
    try:
        name = checked(name)
    except ValueError as error:
        raise RingfenceError(f"{wheel}: {error}") from None
    first, _, rest = name.partition("/")
    if first.endswith(".data"):
        scheme, _, name = rest.partition("/")
        if scheme not in ("purelib", "platlib"):
            return None
    model = _SERVICE_MODEL.match(name)
    if _WHEEL_LEFT_OUT.search(name) or (model and model[1] not in AWS_SERVICES):
        return None
    return name


def runtime_layer(source: Path) -> Tree:
    """The agent runtime's own modules."""
    package = source / "agent_runtime"
    return {
        f"{PACKAGES}/agent_runtime/{PurePosixPath(path.relative_to(package))}": file(path.read_bytes())
        for path in sorted(package.rglob("*.py"))
    }
