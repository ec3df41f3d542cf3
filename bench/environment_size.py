"""Preview and up time of the environment for 5, 50 and 200 tools, on the real engine and the embedded target.

    python -m bench.environment_size [--sizes 5 50 200]

With other sizes than these, the section is only printed.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bench.report import machine, write_section
from ringfence.local import services
from ringfence.local.console import Clock
from ringfence.local.lifecycle import ACCOUNT, Embedded

PROJECT = Path(__file__).parents[1]
SIZES = (5, 50, 200)
# What may grow how much from 50 to 200 tools, four times as many (issue: below 5×).
BOUND = 5.0
MEASURED = {"preview": "a preview", "up": "a first up", "again": "an up without changes"}
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
        embedded = Embedded(PROJECT, home=folder / "home", config=config, clock=Clock())
        services.start(embedded.home, embedded.engine().tools, ACCOUNT, lambda line: None)
        preview = functools.partial(embedded.preview, [], packs=[], refresh=False, as_json=False)
        try:
            times: dict[str, float] = {}
            for what, run in (("preview", preview), ("up", embedded.up), ("again", embedded.up)):
                began = time.monotonic()
                run().check()
                times[what] = time.monotonic() - began
            times["resources"] = len(embedded.engine().resources())
            return times
        finally:
            services.stop(embedded.home, lambda line: None)


def report(rows: dict[int, dict[str, float]]) -> tuple[list[str], bool]:
    """The section's lines, and whether growth between the two largest sizes stayed below the bound, which is scaled to how
    many times as many tools the larger has."""
    lines = [
        machine(),
        "",
        "| tools | resources | preview s | first up s | up without changes s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for size, row in rows.items():
        figures = f"{row['preview']:.1f} | {row['up']:.1f} | {row['again']:.1f}"
        lines.append(f"| {size} | {row['resources']:.0f} | {figures} |")
    fewer, more = sorted(rows)[-2:]
    bound = BOUND * (more / fewer) / (SIZES[-1] / SIZES[-2])
    growth = {what: rows[more][what] / rows[fewer][what] for what in MEASURED}
    lines += ["", f"From {fewer} to {more} tools (bound {bound:g}×):", ""]
    lines += [
        f"- {'met' if ratio < bound else 'MISSED'}: {MEASURED[what]} takes {ratio:.2f}× as long"
        for what, ratio in growth.items()
    ]
    return lines, all(ratio < bound for ratio in growth.values())


def main() -> int:
    """Measure every size, one after the other, and write the section. Returns 1 when the bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of tools, two at least")
    sizes = tuple(sorted(set(parser.parse_args().sizes)))
    if len(sizes) < 2 or sizes[0] < 1:
        parser.error("two different numbers of tools are needed to see growth")
    lines, met = report({size: measure(size) for size in sizes})
    if sizes == SIZES:
        write_section(TITLE, lines)
    else:
        print("\n".join(lines))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
