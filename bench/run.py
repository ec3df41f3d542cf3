"""`make bench`: every benchmark, each in a process of its own, one after the other; `make bench ARGS=name` runs one."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NOT_BENCHMARKS = {"run", "report", "policies", "z3_formulas"}


def main() -> int:
    """Run the benchmarks named in the arguments, or all. Ends with 2 for an unknown name, else returns how many failed."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    parser = argparse.ArgumentParser(
        prog='make bench ARGS="NAME ..."',
        description="Runs benchmarks one after the other, prints what they measure and writes it to bench/RESULTS.md.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(known)} (default: all of them)")
    wanted = parser.parse_args().names or known
    if unknown := sorted(set(wanted) - set(known)):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(known)}")
    failed = 0
    for index, name in enumerate(wanted, 1):
        print(f"[{index}/{len(wanted)}] {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=FOLDER.parent, check=False)
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
