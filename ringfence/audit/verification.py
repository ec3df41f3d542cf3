"""Reads a trail back and says whether anything was edited, deleted, reordered, inserted or cut off.

Someone who can write both the trail and its head file can make up a whole new trail; what was handed out before (record
ids, copies in the account's locked bucket) then no longer fits. Trust zone: operator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.audit.trail import CHAIN, GENESIS, MAX_RECORD_BYTES, digest, head_file
from ringfence.errors import Problem, RingfenceError

# A broken chain gives a problem for each record; nobody reads more.
MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Verification:
    """records: whole ones; head: hash of the last; torn_bytes: of an unfinished record at the end, which never counted;
    problems: empty when the chain is sound."""

    records: int
    head: str
    torn_bytes: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the chain is sound from its first record to its head."""
        return not self.problems


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(1-based number, line) of the trail; the last one lacks its line end when it is torn. Raises RingfenceError when
    it can't be read."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_RECORD_BYTES + 1):
                number += 1
                yield number, line
    except OSError as error:
        raise RingfenceError(f"{path} can't be read: {error.strerror}\n    remedy: check the path") from None


def _examined(where: str, number: int, line: bytes, expected: int, previous: str) -> tuple[list[Problem], str]:
    """What is wrong with one record, and the hash that the next one must name."""
    remedy = "compare with the copy in the account's audit bucket"
    try:
        record: Any = json.loads(line)
        chain = record[CHAIN]
        own, sequence, names = str(chain["hash"]), chain["sequence"], chain["previous"]
        computed = digest(record)
    except (ValueError, KeyError, TypeError, RecursionError):
        return [Problem(where, "", "is not a record of a trail", remedy, number)], previous
    found = []
    if computed != own:
        found.append(Problem(where, "hash", "does not fit the record: it was edited", remedy, number))
    if sequence != expected:
        found.append(
            Problem(
                where, "sequence", f"is {sequence}, expected {expected}: records are missing or moved", remedy, number
            )
        )
    if names != previous:
        found.append(Problem(where, "previous", "names another record than the one before", remedy, number))
    return found, own


def verify(path: Path) -> Verification:
    """Checks every record of the trail at `path`. Raises RingfenceError when it can't be read."""
    where = str(path)
    found: list[Problem] = []
    previous, count, torn = GENESIS, 0, 0
    noted = _noted(path, found)
    seen_head = noted is None or noted[0] == 0
    for number, line in lines(path):
        if not line.endswith(b"\n"):
            torn = len(line)
            break
        problems, previous = _examined(where, number, line, count + 1, previous)
        found += problems[: MAX_PROBLEMS - len(found)]
        count += 1
        if noted == (count, previous):
            seen_head = True
    if noted and not seen_head:
        message = f"names record {noted[0]} with a hash that the trail's {count} records don't have: it was cut off or replaced"
        found.append(Problem(str(head_file(path)), "", message, "compare with the copy in the account's audit bucket"))
    return Verification(count, previous, torn, tuple(found))


def _noted(path: Path, found: list[Problem]) -> tuple[int, str] | None:
    head = head_file(path)
    try:
        said = json.loads(head.read_text(encoding="ascii"))
        return int(said["sequence"]), str(said["hash"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        # A trail always has a head once it has a record.
        if path.exists() and path.stat().st_size:
            found.append(
                Problem(str(head), "", f"can't be read: {error}", "without it, records cut off the end are not missed")
            )
        return None
