"""`ringfence iam`: compare policy documents by meaning, and find escalation paths."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import click

from ringfence.errors import InputError, Problem, RingfenceError
from ringfence.iam.batch import compare_lines, decision_mapping, escalation_lines
from ringfence.iam.containment import Decision, Outcome, contains
from ringfence.iam.document import KINDS, Document, parse

# Exit codes of a comparison of two files.
CONTAINED, FAILED, WIDENED = 0, 1, 2
_SHOWN_DEADLINE_S = 5.0
_SHOWN_MEMORY_MB = 192


@click.group()
def iam() -> None:
    """Compare policy documents by meaning and find escalation paths. Works offline."""


@iam.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--jsonl", is_flag=True, help='Read {"id", "baseline", "candidate"} lines from standard input or one file.'
)
@click.option("--kind", type=click.Choice(KINDS), help="What the two documents are; inferred when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
@click.option("--deadline", type=click.FloatRange(0.01, 600), default=_SHOWN_DEADLINE_S, show_default=True,
              help="Seconds per comparison; a later one is undecided.")  # fmt: skip
@click.option("--memory", type=click.IntRange(16, 8192), default=_SHOWN_MEMORY_MB, show_default=True,
              help="Megabytes per comparison; a larger one is undecided.")  # fmt: skip
def compare(
    files: tuple[Path, ...],
    jsonl: bool,
    kind: str | None,
    as_json: bool,
    deadline: float,
    memory: int,
) -> None:
    """Is everything that CANDIDATE grants already granted by BASELINE?

    \b
    ringfence iam compare BASELINE CANDIDATE   two files; exit code 0 contained, 2 widened or undecided, 1 error
    ringfence iam compare --jsonl              one comparison per line of standard input
    """
    if jsonl:
        _stream(files, lambda source: compare_lines(source, deadline_s=deadline, memory_mb=memory))
        return
    if len(files) != 2:
        raise click.UsageError("give BASELINE and CANDIDATE, or --jsonl")
    try:
        baseline, candidate = _read_both(files, kind)
        decision = contains(baseline, candidate, deadline_s=deadline, memory_mb=memory)
    except RingfenceError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(FAILED) from None
    if as_json:
        click.echo(json.dumps(decision_mapping(decision), indent=2))
    else:
        click.echo(describe(decision))
    raise SystemExit(CONTAINED if decision.contained else WIDENED)


@iam.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--jsonl", is_flag=True, required=True, help='Read {"id", "policies"} lines from standard input or one file.'
)
def escalations(files: tuple[Path, ...], jsonl: bool) -> None:
    """Which privilege-escalation paths do the policies of each line complete?"""
    _stream(files, escalation_lines)


def describe(decision: Decision) -> str:
    """The decision for a terminal."""
    lines = [f"{decision.outcome.value}: {decision.reason}" if decision.reason else decision.outcome.value]
    if decision.witness is not None:
        request, at = decision.witness.request, decision.witness.statement
        if request.principal is not None:
            lines.append(f"  principal  {request.principal.type} {request.principal.value}".rstrip())
        lines += [f"  action     {request.action}", f"  resource   {request.resource}"]
        lines += [f"  context    {key} = {', '.join(values)}" for key, values in sorted(request.context.items())]
        lines.append(f"  statement  {at.sid or at.index} of the candidate")
        lost = decision.witness.lost_deny
        if lost is not None:
            lines.append(f"  denied by  {lost.sid or lost.index} of the baseline")
    if decision.outcome is Outcome.UNDECIDED:
        lines.append("  An undecided comparison counts as widened.")
    lines.append(f"  catalogue  {decision.catalogue_version}")
    return "\n".join(lines)


def _read_both(files: tuple[Path, ...], kind: str | None) -> tuple[Document, Document]:
    found: list[Document] = []
    problems: list[Problem] = []
    for path in files:
        try:
            found.append(parse(path.read_bytes(), kind, where=str(path), empty=True))  # type: ignore[arg-type]
        except OSError as error:
            problems.append(Problem(str(path), "", f"can't be read: {error.strerror}", "name a readable file"))
        except InputError as error:
            problems += error.problems
    if not problems and len({each.kind for each in found if each.statements}) == 2 and kind is None:
        message = f"{found[0].kind} and {found[1].kind} policies can't be compared"
        problems.append(Problem(str(files[1]), "", message, "compare documents of one kind, or say which with --kind"))
    if problems:
        raise InputError(problems)
    return found[0], found[1]


def _stream(files: tuple[Path, ...], answers: Callable[[IO[bytes]], Iterator[str]]) -> None:
    """Print the answers for standard input or the one file given, each as soon as it is known."""
    if len(files) > 1:
        raise click.UsageError("--jsonl reads one file, or standard input when none is given")
    source: IO[bytes]
    try:
        source = files[0].open("rb") if files and str(files[0]) != "-" else sys.stdin.buffer
    except OSError as error:
        raise InputError(
            [Problem(str(files[0]), "", f"can't be read: {error.strerror}", "name a readable file")]
        ) from None
    with source:
        for line in answers(source):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
