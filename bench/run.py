"""`make bench`: every benchmark, each in a process of its own, one after the other; `make bench ARGS=name` runs one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NOT_BENCHMARKS = {"run", "report", "policies", "z3_formulas"}


def main() -> int:
    """Run the benchmarks named in the arguments, or all. Returns 2 for an unknown name, else the number that failed."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    wanted = sys.argv[1:] or known
    if unknown := sorted(set(wanted) - set(known)):
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = 0
    for index, name in enumerate(wanted, 1):
        print(f"[{index}/{len(wanted)}] {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=FOLDER.parent, check=False)
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
