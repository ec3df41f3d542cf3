"""What the packs add to the time of a preview of 500 roles on the real engine. Bound: 20% for permission-creep.

    python -m bench.pack_overhead [--roles 500] [--rounds 8]

Every role has a trust policy and an inline policy that the lockfile approves. The resources are made by a provider that
only gives back what it is given, so that the preview is as fast as it can be and the share of the pack as large. Rounds
take the variants in turns, each beginning with another one, so that load on the machine meets all alike; the medians are
compared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

import yaml

from bench.report import machine, write_section
from ringfence.catalog.model import Catalog
from ringfence.local import target, toolchain
from ringfence.local.stack import Engine
from ringfence.local.state import Home
from ringfence.names import Names
from ringfence.review import lockfile, updating
from ringfence.review.sources import preview_of, surface_of

ROOT = Path(__file__).resolve().parents[1]
NAMES = Names("shop", "bench", "123456789012", "us-east-1")
BOUND = 0.20
PROGRAM = """
import json
import pulumi_aws as aws

def doc(*statements):
    return json.dumps({{"Version": "2012-10-17", "Statement": list(statements)}})

trust = doc({{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {{"AWS": "arn:aws:iam::123456789012:role/broker"}}}})
for n in range({roles}):
    role = aws.iam.Role(f"r{{n}}", name=f"shop-bench-tool-{{n}}", assume_role_policy=trust)
    aws.iam.RolePolicy(f"p{{n}}", name="grants", role=role.name, policy=doc(
        {{"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"arn:aws:s3:::data-{{n}}/*"}},
        {{"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::data-{{n}}",
          "Condition": {{"StringLike": {{"s3:prefix": ["in/*"]}}}}}}))
"""
EMPTY_PACK = """
from ringfence.review.analyzer_service import Pack, Policy, serve
serve(Pack("empty", (Policy("nothing", "Looks at nothing.", "high", lambda type_: False, lambda resource, config: ()),)))
"""
# The empty pack shows what starting a pack and asking it about every resource costs whatever the rules do.
VARIANTS: dict[str, tuple[str, ...]] = {
    "no pack": (),
    "an empty pack": ("empty",),
    "permission-creep": ("permission-creep",),
    "both packs": ("permission-creep", "sandbox-guardrails"),
}


def stack(folder: Path, roles: int) -> Engine:
    """An engine on the program."""
    project = folder / "project"
    plugins = folder / "plugins"
    project.mkdir()
    plugins.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
    (project / "Pulumi.yaml").write_text(yaml.safe_dump({"name": "bench", "runtime": runtime}), encoding="utf-8")
    (project / "__main__.py").write_text(PROGRAM.format(roles=roles), encoding="utf-8")
    provider = plugins / "pulumi-resource-aws"
    echo = ROOT / "tests/policy_packs/echo_provider.py"
    provider.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P {shlex.quote(str(echo))} "$@"\n', encoding="utf-8"
    )
    provider.chmod(0o755)
    tools = toolchain.resolve()
    home = Home.of(folder / "home")
    path = os.pathsep.join([str(plugins), target.environment(home, tools)["PATH"]])
    return Engine(project, home, tools, extra_env={"PATH": path})


def approve(engine: Engine, folder: Path) -> Path:
    """A pack configuration with a lockfile that approves the whole program."""
    surface = surface_of("preview", preview_of(engine.preview(json=True).check().stdout, "preview"))
    approval = updating.Approval("bench@example.com", datetime.date(2026, 11, 1), "bench@example.com", "a benchmark")
    content = updating.updated(NAMES, Catalog((), (), ()), surface.facts.values(), None, approval)
    lock = folder / "grants.lock.json"
    lock.write_text(lockfile.render(content), encoding="utf-8")
    config = folder / "config.json"
    policies = ("grants-match-lockfile", "stack-matches-lockfile")
    config.write_text(json.dumps({name: {"lockfile": str(lock)} for name in policies}), encoding="utf-8")
    return config


def empty_pack(folder: Path) -> Path:
    """A pack with one rule that does nothing."""
    pack = folder / "empty-pack"
    pack.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": str(ROOT / "policy-packs/start")}}
    (pack / "PulumiPolicy.yaml").write_text(yaml.safe_dump({"runtime": runtime, "version": "0.1.0"}), encoding="utf-8")
    (pack / "__main__.py").write_text(EMPTY_PACK, encoding="utf-8")
    return pack


def processor_time() -> float:
    """Seconds that finished child processes and their children have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(roles: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds on the clock and of processor time of each round by variant. Raises when a preview fails: an approved
    program must pass."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        engine = stack(folder, roles)
        folders = {pack: ROOT / "policy-packs" / pack for pack in ("permission-creep", "sandbox-guardrails")}
        folders["empty"] = empty_pack(folder)
        nothing = folder / "none.json"
        nothing.write_text("{}", encoding="utf-8")
        configs = {"permission-creep": approve(engine, folder), "sandbox-guardrails": nothing, "empty": nothing}
        times: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
        order = list(VARIANTS)
        for done in range(rounds):
            for variant in order[done % len(order) :] + order[: done % len(order)]:
                packs = VARIANTS[variant]
                args = [part for pack in packs for part in ("--policy-pack-config", str(configs[pack]))]
                before = processor_time()
                result = engine.preview(policy_packs=[folders[pack] for pack in packs], args=args)
                times[variant].append((result.check().elapsed_s, processor_time() - before))
        return times


def main() -> None:
    """Measures, prints, and exits with 1 when the bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--roles", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    times = measure(options.roles, options.rounds)
    base, base_cpu = (statistics.median(column) for column in zip(*times["no pack"], strict=True))
    lines = [
        machine(),
        "",
        f"A preview of {options.roles} roles with an inline policy each on the real engine, {options.rounds} rounds:",
        "",
        "| packs | median s | fastest s | slowest s | added | processor s | added |",
        "|---|---|---|---|---|---|---|",
    ]
    shares = {}
    for variant, taken in times.items():
        clock, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
        shares[variant] = clock / base - 1
        lines.append(
            f"| {variant} | {clock:.2f} | {min(taken)[0]:.2f} | {max(taken)[0]:.2f} | {shares[variant]:+.1%} "
            f"| {cpu:.2f} | {cpu / base_cpu - 1:+.1%} |"
        )
    met = shares["permission-creep"] < BOUND
    lines += [
        "",
        f"- {'met' if met else 'MISSED'}: permission-creep adds {shares['permission-creep']:+.1%} (bound {BOUND:.0%})",
    ]
    write_section("What the packs add to a preview", lines)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
