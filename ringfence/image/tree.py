"""A file tree in memory, and the one way of writing it down: same tree, same bytes.

Owners, times and order never come from the machine that builds: everything belongs to root, dates from EPOCH, and is
sorted by path.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# 2026-01-01, for every file: ZIP files can't hold dates before 1980, and 0 confuses some tools.
EPOCH = 1_767_225_600


@dataclass(frozen=True, slots=True)
class Node:
    """A folder (no data, no link), a file (data) or a symbolic link (link: its target). mode: permission bits."""

    mode: int
    data: bytes | None = None
    link: str | None = None


Tree = dict[str, Node]
FOLDER = Node(0o755)


def file(data: bytes | str, mode: int = 0o644) -> Node:
    """A file."""
    return Node(mode, data.encode() if isinstance(data, str) else data)


def link(target: str) -> Node:
    """A symbolic link."""
    return Node(0o777, link=target)


def checked(path: str) -> str:
    """A member's path without `./` and `/` in front. Raises ValueError when it leads out of the tree."""
    pure = PurePosixPath(path.lstrip("/"))
    if ".." in pure.parts:
        raise ValueError(f"path {path!r} leads out of the tree")
    return str(pure)


def complete(tree: Mapping[str, Node]) -> Iterator[tuple[str, Node]]:
    """Every node with the folders above it, sorted, parents first."""
    every: Tree = {}
    for path, node in tree.items():
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                every.setdefault(str(parent), FOLDER)
        every[path] = node
    return iter(sorted(every.items()))


def to_tar(tree: Mapping[str, Node]) -> bytes:
    """The tree as an uncompressed tar archive. Not compressed, since compressors differ from machine to machine, and with
    them the digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, node in complete(tree):
            info = tarfile.TarInfo(path)
            info.mtime = EPOCH
            info.mode = node.mode
            if node.link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, node.link
                archive.addfile(info)
            elif node.data is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(node.data)
                archive.addfile(info, io.BytesIO(node.data))
    return buffer.getvalue()


def from_tar(data: bytes) -> Tree:
    """The tree in an archive that `to_tar` wrote."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return members(archive)


def members(archive: tarfile.TarFile) -> Tree:
    """Folders, files and links of an archive. Hard links become files. Raises ValueError for devices and for paths that
    lead out of the tree; set-uid and set-gid bits are dropped."""
    tree: Tree = {}
    for info in archive:
        path = checked(info.name)
        mode = info.mode & 0o1777
        if path == ".":
            continue
        if info.isdir():
            tree[path] = Node(mode)
        elif info.issym():
            tree[path] = link(info.linkname)
        elif info.islnk():
            tree[path] = tree[checked(info.linkname)]
        elif info.isfile():
            content = archive.extractfile(info)
            tree[path] = Node(mode, content.read() if content else b"")
        else:
            raise ValueError(f"{info.name!r} is neither file, folder nor link")
    return tree


def write(tree: Mapping[str, Node], folder: Path) -> None:
    """Writes the tree below a folder that exists, belonging to whoever runs this. Links are made, never followed."""
    for path, node in complete(tree):
        target = folder / path
        if node.link is not None:
            os.symlink(node.link, target)
        elif node.data is None:
            target.mkdir(exist_ok=True)
            target.chmod(node.mode | 0o700)
        else:
            target.write_bytes(node.data)
            target.chmod(node.mode)
            os.utime(target, (EPOCH, EPOCH))
