"""Preview and up time of the environment for 5, 50 and 200 tools, on the real engine and the embedded target."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import yaml

from bench.report import machine, write_section
from ringfence.local import services
from ringfence.local.console import Clock
from ringfence.local.lifecycle import Embedded
from ringfence.local.stack import Engine

PROJECT = Path(__file__).parents[1]
SIZES = (5, 50, 200)
TITLE = "Environment: preview and up by number of tools"


def catalog(folder: Path, tools: int) -> Path:
    """A catalog of `tools` tools, each with two grants and a domain of its own."""
    (folder / "tools").mkdir(parents=True)
    names = [f"tool-{index:03}" for index in range(tools)]
    for index, name in enumerate(names):
        declared = {
            "name": name,
            "description": f"Reads one prefix and one table, number {index}.",
            "owner": "bench@example.com",
            "justification": "Declared by the benchmark to measure growth.",
            "reviewDate": "2099-01-01",
            "grants": [
                {
                    "actions": ["s3:GetObject"],
                    "resources": [f"arn:${{partition}}:s3:::bench-${{account}}/{name}/*"],
                    "reason": "Read.",
                },
                {
                    "actions": ["dynamodb:GetItem", "dynamodb:Query"],
                    "resources": [f"arn:${{partition}}:dynamodb:${{region}}:${{account}}:table/{name}"],
                    "reason": "Look up.",
                },
            ],
            "egress": {"domains": [f"{name}.example.com"], "port": 15001 + index},
        }
        (folder / "tools" / f"{name}.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    roles = {
        "capabilities": [{"name": "everything", "description": "All tools.", "tools": names}],
        "roles": [{"name": "user", "description": "Uses all.", "groups": ["users"], "capabilities": ["everything"]}],
    }
    (folder / "roles.yaml").write_text(yaml.safe_dump(roles), encoding="utf-8")
    return folder


def measure(tools: int) -> dict[str, float]:
    """Seconds of a first preview, a first up and an up without changes; and the number of resources."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = {"ringfence:catalogPath": str(catalog(folder / "catalog", tools))}
        embedded = Embedded(PROJECT, home=folder / "home", clock=Clock())
        resolved = embedded.engine().tools
        services.start(embedded.home, resolved, "123456789012", lambda line: None)
        try:
            engine = Engine(PROJECT, embedded.home, resolved, stack="local", config=config)
            times: dict[str, float] = {}
            for what, run in (("preview", engine.preview), ("up", engine.up), ("again", engine.up)):
                began = time.monotonic()
                run().check()
                times[what] = time.monotonic() - began
            times["resources"] = len(engine.resources())
            return times
        finally:
            services.stop(embedded.home, lambda line: None)


def main() -> None:
    """Measure every size, one after the other, and write the section."""
    rows = {size: measure(size) for size in SIZES}
    lines = [
        machine(),
        "",
        "| tools | resources | preview s | first up s | up without changes s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for size, row in rows.items():
        figures = f"{row['preview']:.1f} | {row['up']:.1f} | {row['again']:.1f}"
        lines.append(f"| {size} | {row['resources']:.0f} | {figures} |")
    growth = {what: rows[200][what] / rows[50][what] for what in ("preview", "up", "again")}
    lines += [
        "",
        "Growth from 50 to 200 tools: " + ", ".join(f"{what} {ratio:.2f}×" for what, ratio in growth.items()) + ".",
    ]
    write_section(TITLE, lines)


if __name__ == "__main__":
    main()
