"""What a resolved tool is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Source(StrEnum):
    """Where a tool came from."""

    PATH = "PATH"
    DOWNLOAD = "official download"
    BUILD = "built from Go modules"
    PYPI = "PyPI"


@dataclass(frozen=True, slots=True)
class Tool:
    """One program that is ready to run.

    name: the program's file name; version: as the program prints it (``v3.220.0``); path: absolute;
    detail: one line for `ringfence doctor`, such as the module or the address it came from.
    """

    name: str
    version: str
    path: Path
    source: Source
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Tools:
    """The resolved toolchain, by program name."""

    by_name: Mapping[str, Tool] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tool:
        return self.by_name[name]

    def path(self, name: str) -> Path:
        """Absolute path of the program `name`. Raises KeyError when it was not asked for."""
        return self.by_name[name].path

    def search_path(self) -> list[str]:
        """Folders of all tools, each once, in a stable order, for PATH."""
        return list(dict.fromkeys(str(tool.path.parent) for tool in self.by_name.values()))
