"""Sections of bench/RESULTS.md: each benchmark replaces its own and leaves the others."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_TITLE = "# Results\n\nWritten by the benchmarks; each section says on which machine.\n"


def machine() -> str:
    """The machine and date of a run, in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = named.group(1) if named else model
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"{today}, {model}, {os.cpu_count()} cores{load}, Python {platform.python_version()}"


def write_section(title: str, lines: Sequence[str], results: Path = RESULTS) -> None:
    """Replace the section `title` of the results, or add it at the end, and print it. lines: Markdown, machine included."""
    body = f"## {title}\n\n" + "\n".join(lines).strip() + "\n"
    text = results.read_text(encoding="utf-8") if results.exists() else _TITLE
    section = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found = section.search(text)
    if found:
        after = text[found.end() :]
        text = text[: found.start()] + body + ("\n" + after if after else "")
    else:
        text = text.rstrip("\n") + "\n\n" + body
    results.write_text(text, encoding="utf-8")
    print(body)
