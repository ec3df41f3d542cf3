"""What goes into each layer of the image, out of Debian packages and wheels, and what is left out.

No shell, no package manager, no set-uid program: whoever breaks out of the agent finds an interpreter and nothing else.
"""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Iterator
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
# boto3 brings a model of every AWS service, and an image needs a few.
_SERVICE_MODEL = re.compile(r"(?:botocore|boto3)/data/([^/]+)/")
# Prices, escalation paths: what modules read beside themselves. The embedded target's own files are none of these.
_DATA = ("*.json", "*.yaml")
# kubernetes/aio: the Kubernetes client once more, for asyncio, of the same size; nothing here uses it.
_WHEEL_LEFT_OUT = re.compile(r"(?:^|/)(?:tests?|testing)/|^boto3/examples/|^kubernetes/aio/|[.](?:pyi|c|h|pxd)$")


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
    tree["etc/passwd"] = file(_users("agent", UID))
    tree["etc/group"] = file(f"root:x:0:\nagent:x:{GID}:\n")
    tree["etc/nsswitch.conf"] = file("passwd: files\ngroup: files\nhosts: files dns\n")
    return tree


def wheel_layer(wheels: Iterable[Path], services: Collection[str]) -> Tree:
    """The Python packages, unpacked. services: AWS services whose models stay. Raises RingfenceError for a wheel that would
    write outside of its folder."""
    tree: Tree = {}
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                target = _wheel_path(info.filename, path.name, services)
                if target is not None:
                    tree[f"{PACKAGES}/{target}"] = file(archive.read(info))
    return tree


def _wheel_path(name: str, wheel: str, services: Collection[str]) -> str | None:
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
    if _WHEEL_LEFT_OUT.search(name) or (model and model[1] not in services):
        return None
    return name


def runtime_layer(source: Path) -> Tree:
    """The agent runtime's own modules."""
    package = source / "agent_runtime"
    return {
        f"{PACKAGES}/agent_runtime/{PurePosixPath(path.relative_to(package))}": file(path.read_bytes())
        for path in sorted(package.rglob("*.py"))
    }


def control_layer(source: Path, user: int) -> Tree:
    """The control side's own modules, what they read, its user and its mount points. source: folder beside the library."""
    package = source.parent / "ringfence"
    found = {
        f"{PACKAGES}/ringfence/{PurePosixPath(path.relative_to(package))}": file(path.read_bytes())
        for pattern in ("*.py", *_DATA)
        for path in sorted(package.rglob(pattern))
        if path.relative_to(package).parts[0] != "local" or path.suffix == ".py"
    }
    version = project_version(source.parent)
    about = f"{PACKAGES}/ringfence-{version}.dist-info"
    found[f"{about}/METADATA"] = file(
        f"Metadata-Version: 2.4\nName: ringfence\nVersion: {version}\nLicense-File: LICENSE\n"
    )
    found[f"{about}/licenses/LICENSE"] = file((source.parent / "LICENSE").read_bytes())
    found["etc/passwd"] = file(_users("ringfence", user))
    found["etc/group"] = file(f"root:x:0:\nringfence:x:{user}:\n")
    # Where the project's files, the certificate and the volume come.
    return found | dict.fromkeys(("etc/ringfence", "etc/ringfence-tls", "var/lib/ringfence"), FOLDER)


def _users(name: str, user: int) -> str:
    return f"root:x:0:0:root:/nonexistent:/nonexistent\n{name}:x:{user}:{user}:{name}:/tmp:/nonexistent\n"


def project_version(folder: Path) -> str:
    """The version in the folder's pyproject.toml."""
    match = re.search(r'^version = "([^"]+)"', (folder / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else "0"
