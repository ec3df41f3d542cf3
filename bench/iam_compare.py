"""How long comparing two policy documents takes: `ringfence.iam`, PolicyGlass and a z3 encoding, on the same inputs.

    python -m bench.iam_compare [--policies 300] [--others 40]

Inputs: policies that AWS manages, as moto ships them; each against itself rendered anew, against itself with one action
less, one more, one ARN widened, one condition removed. Each tool runs in a process of its own and is measured in CPU
time, so that other load on the machine doesn't count. Ringfence forgets everything it knows about documents before each
comparison (the action catalogue stays loaded). Bounds: median 2 ms, 99th percentile 50 ms; 20 times the median speed of
the two others; the worst case of 76 patterns within 1 s and 256 MB.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.policies import entries, statements
from bench.report import machine, write_section

ROOT = Path(__file__).resolve().parents[1]
Pair = tuple[dict[str, Any], dict[str, Any]]
TIMEOUT_S = 5.0
MEDIAN_MS, P99_MS, RATIO, WORST_S, WORST_MB = 2.0, 50.0, 20.0, 1.0, 256


def variants(document: dict[str, Any], chance: random.Random) -> Iterator[dict[str, Any]]:
    """The document itself in another order, and changed in one place each."""
    kept = copy.deepcopy(statements(document))

    def changed(index: int, **others: Any) -> dict[str, Any]:
        statement = {key: value for key, value in (kept[index] | others).items() if value is not None}
        return document | {"Statement": [*kept[:index], statement, *kept[index + 1 :]]}

    yield document | {"Statement": kept[::-1]}
    allows = [index for index, statement in enumerate(kept) if statement["Effect"] == "Allow" and "Action" in statement]
    if not allows:
        return
    index = chance.choice(allows)
    actions = entries(kept[index]["Action"])
    if len(actions) > 1:
        yield changed(index, Action=actions[1:])
    yield changed(index, Action=[*actions, "iam:PutUserPolicy"])
    if "Condition" in kept[index]:
        yield changed(index, Condition=None)
    if kept[index].get("Resource", "*") != "*":
        first, *rest = entries(kept[index]["Resource"])
        yield changed(index, Resource=[first[:-1].rstrip("*") + "*", *rest])


def managed_pairs(count: int) -> list[Pair]:
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    policies = {name: each["Document"] for name, each in json.loads(aws_managed_policies_data).items()}
    chance = random.Random(2026)
    names = chance.sample(sorted(policies), min(count, len(policies)))
    return [(policies[name], variant) for name in names for variant in variants(policies[name], chance)]


# The tools: each takes a pair and says whether the second document is contained in the first


def ringfence_tool() -> Callable[[Pair], str]:
    from ringfence.iam import cells, conditions, evaluate, patterns, principals, readings, rows
    from ringfence.iam.catalogue import catalogue
    from ringfence.iam.containment import contains
    from ringfence.iam.document import parse

    data = catalogue()
    warm = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    contains(parse(warm), parse(warm | {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}))

    def compare(pair: Pair) -> str:
        for module in (cells, conditions, evaluate, patterns, readings, rows):
            for value in vars(module).values():
                if hasattr(value, "cache_clear") and value is not catalogue:
                    value.cache_clear()
        data.forget()
        cells.forget()
        principals.forget()
        old, new = parse(pair[0]), parse(pair[1])
        started = time.process_time()
        outcome = contains(old, new, deadline_s=60).outcome.value
        TIMES.append(time.process_time() - started)
        return outcome

    return compare


def policyglass_tool() -> Callable[[Pair], str]:
    # PolicyGlass 0.8 is written for pydantic 1, which pydantic 2 carries along.
    import pydantic.v1

    sys.modules["pydantic"] = pydantic.v1
    from policyglass import Policy, policy_shards_effect

    def parsed(document: dict[str, Any]) -> Any:
        return Policy(**{"Version": document.get("Version", "2008-10-17"), "Statement": statements(document)})

    def compare(pair: Pair) -> str:
        old, new = parsed(pair[0]), parsed(pair[1])
        started = time.process_time()
        try:
            granted = policy_shards_effect(old.policy_shards)
            left = policy_shards_effect(new.policy_shards)
            for shard in granted:
                left = [each for one in left for each in one.difference(shard)]
                if time.process_time() - started > TIMEOUT_S:
                    return "timeout"
            return "widened" if left else "contained"
        finally:
            TIMES.append(time.process_time() - started)

    return compare


def z3_tool() -> Callable[[Pair], str]:
    from bench.z3_formulas import Formulas

    formulas = Formulas()

    def compare(pair: Pair) -> str:
        started = time.process_time()
        try:
            return formulas.compare(*pair, timeout_s=TIMEOUT_S)
        finally:
            TIMES.append(time.process_time() - started)

    return compare


TOOLS: dict[str, Callable[[], Callable[[Pair], str]]] = {
    "ringfence": ringfence_tool,
    "PolicyGlass": policyglass_tool,
    "z3": z3_tool,
}
TIMES: list[float] = []


def child(tool: str) -> None:
    """Compare the pairs on standard input; print the seconds and answer of each."""
    pairs = json.load(sys.stdin)
    compare = TOOLS[tool]()
    answers = []
    for pair in pairs:
        try:
            answers.append(compare((pair[0], pair[1])))
        except Exception as error:
            # A tool that fails on a document is shown as failing there, not as slow.
            answers.append(f"error {type(error).__name__}")
        del TIMES[len(answers) :]
        TIMES.extend([0.0] * (len(answers) - len(TIMES)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"seconds": TIMES, "answers": answers, "peak_mb": peak}, sys.stdout)


def measure(tool: str, pairs: list[Pair]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.iam_compare", "--child", tool]
    done = subprocess.run(command, input=json.dumps(pairs), capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def worst_case() -> list[Pair]:
    """One statement with 76 patterns `arn:aws:ssm:*::document/X-*`, against variants of itself."""

    def policy(*listed: str) -> dict[str, Any]:
        return {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "ssm:*", "Resource": list(listed)}],
        }

    listed = [f"arn:aws:ssm:*::document/AWS-{number}Document" for number in range(100, 176)]
    stars = [each + "*" for each in listed]
    longer = [each + "?*" for each in listed]
    return [
        (policy(*stars), policy(*reversed(stars))),
        (policy(*stars[:-1]), policy(*stars)),
        (policy(*stars), policy(*longer)),
        (policy(*longer), policy(*stars)),
        (policy(*longer, *listed), policy(*stars)),
        (policy("*"), policy(*stars)),
    ]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def row(name: str, measured: dict[str, Any]) -> str:
    times = [1000 * seconds for seconds in measured["seconds"]]
    counts = {answer: measured["answers"].count(answer) for answer in sorted(set(measured["answers"]))}
    said = ", ".join(f"{count} {answer}" for answer, count in counts.items())
    cells = (
        name,
        len(times),
        f"{statistics.median(times):.2f}",
        f"{percentile(times, 0.99):.2f}",
        f"{max(times):.1f}",
        said,
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--policies", type=int, default=300)
    arguments.add_argument("--others", type=int, default=40, help="policies that all three tools compare")
    arguments.add_argument("--child", choices=list(TOOLS), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        child(options.child)
        return 0
    everything = measure("ringfence", managed_pairs(options.policies))
    shared = managed_pairs(options.others)
    same = {tool: measure(tool, shared) for tool in TOOLS}
    worst = measure("ringfence", worst_case())
    times = [1000 * seconds for seconds in everything["seconds"]]
    medians = {tool: statistics.median(result["seconds"]) for tool, result in same.items()}
    ratios = {tool: medians[tool] / medians["ringfence"] for tool in TOOLS if tool != "ringfence"}
    slowest = max(worst["seconds"])
    bounds = {
        f"median {statistics.median(times):.2f} ms (bound {MEDIAN_MS:g})": statistics.median(times) <= MEDIAN_MS,
        f"99th percentile {percentile(times, 0.99):.1f} ms (bound {P99_MS:g})": percentile(times, 0.99) <= P99_MS,
        f"76 patterns: {slowest:.2f} s (bound {WORST_S:g})": slowest < WORST_S,
        f"76 patterns: {worst['peak_mb']:.0f} MB, the whole process (bound {WORST_MB})": worst["peak_mb"] < WORST_MB,
    } | {
        f"{ratio:.0f} times the median speed of {tool} (bound {RATIO:g})": ratio >= RATIO
        for tool, ratio in ratios.items()
    }
    head = ["| tool | comparisons | median ms | p99 ms | max ms | answers |", "|---|---|---|---|---|---|"]
    lines = [
        machine(),
        "",
        f"CPU time per comparison of {options.policies} managed policies, documents parsed, nothing cached in between:",
        "",
        *head,
        row("ringfence", everything),
        "",
        f"The same {len(shared)} comparisons by each tool, of {options.others} policies (limit {TIMEOUT_S:g} s each):",
        "",
        *head,
        *(row(tool, result) for tool, result in same.items()),
        "",
        *(f"- {'met' if met else 'MISSED'}: {said}" for said, met in bounds.items()),
    ]
    write_section("Comparing policy documents", lines)
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
